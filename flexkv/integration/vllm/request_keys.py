"""The block keys of one vLLM request, and what isolates them. No vLLM import: requests are read by their attributes.

Keys come from the engine's own content hashes (`request.block_hashes`), which cover LoRA names, multimodal inputs,
prompt embeddings and the salt. Where these cannot be used (a hash that is not cryptographic or changes per process),
keys come from the tokens, the salt goes into the namespace, and a request with content that tokens do not cover is
not cached. Adapters are told apart by their files in both cases: a name may be given to other weights later. Each
block is hashed once for its load and its stores: keys grow with the request. A streaming session may take tokens
back; then its keys are made anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flexkv.common import hash_utils
from flexkv.common.block import SequenceMeta
from flexkv.common.hash_utils import KEY_BYTES, Keys

if TYPE_CHECKING:
    from vllm.v1.request import Request

__all__ = ["Adapters", "BlockContents", "RequestKeys", "request_namespace"]

BlockContents = Sequence[bytes] | Keys
"""What blocks have: the engine's hashes of them, or their keys."""
_NO_KEYS: Keys = np.empty((0, KEY_BYTES), dtype=np.uint8)


class Adapters:
    """The identities of the LoRA adapters that requests have named, as their files were when first seen.

    Files may be replaced while the engine still serves the weights it has read: an adapter keeps its identity until it
    is loaded again under another number, or in place.
    """

    def __init__(self) -> None:
        self._identities: dict[tuple[int, str], str] = {}

    def identity(self, lora: Any) -> str:
        """Return what names the adapter's weights. Raises ConfigError when its files cannot be read."""
        key = (int(lora.lora_int_id), str(lora.lora_path))
        if key not in self._identities or getattr(lora, "load_inplace", False):
            self._identities[key] = hash_utils.weights_identity(lora.lora_path)
        return self._identities[key]


def request_namespace(request: Request, use_engine_hashes: bool, adapters: Adapters) -> list[str] | None:
    """Return what keeps the request's blocks apart from others of the model, or None if it must not be cached.

    Raises:
        ConfigError: the files of its LoRA adapter cannot be read.
    """
    namespace: list[str] = []
    lora = getattr(request, "lora_request", None)
    if lora is not None:
        namespace += ["lora", adapters.identity(lora)]
    if use_engine_hashes:
        return namespace
    if getattr(request, "mm_features", None) or getattr(request, "prompt_embeds", None) is not None:
        return None
    salt = getattr(request, "cache_salt", None)
    if salt is not None:
        namespace += ["salt", salt]
    return namespace


class RequestKeys:
    """Keys of a request's whole blocks, as far as its tokens are confirmed and cover its content.

    Belongs to the scheduler's thread, but for `sequence`. With the engine's hashes keys are made as late as they are
    needed, by whoever needs them; from tokens at once, by the scheduler's thread: tokens may be taken back later.

    Invariant: `_known` is a prefix of some content the request had, and its keys.
    """

    __slots__ = ("_known", "_last_token", "_namespace", "_root", "_tokens_per_block", "_use_engine_hashes")

    def __init__(
        self, root: bytes, tokens_per_block: int, use_engine_hashes: bool, namespace: Sequence[str] = ()
    ) -> None:
        self._root = root
        self._namespace = namespace
        self._tokens_per_block = tokens_per_block
        self._use_engine_hashes = use_engine_hashes
        self._known: tuple[BlockContents, Keys] = ((), _NO_KEYS)  # replaced as a whole: two threads do
        self._last_token = -1  # the one that the last key was made from

    def count(self, request: Request) -> int:
        """Return the number of whole blocks that can have keys now."""
        return len(request.block_hashes) if self._use_engine_hashes else len(self._hash_tokens(request))

    def key(self, request: Request, block: int) -> bytes:
        """Return the key of one block. REQUIRES: `count` returned more."""
        if not self._use_engine_hashes:
            return bytes(self._hash_tokens(request)[block])
        return hash_utils.mix_one(request.block_hashes[block], self._root)

    def contents(self, request: Request, num_blocks: int) -> BlockContents:
        """Return what the first blocks have now, as `sequence` takes it; never changes. REQUIRES: `count` blocks."""
        return request.block_hashes[:num_blocks] if self._use_engine_hashes else self._hash_tokens(request)[:num_blocks]

    def sequence(self, contents: BlockContents) -> SequenceMeta:
        """Return the blocks that `contents` returned, with their keys. O(blocks not seen before). Any thread."""
        hashes, known = self._known
        num_known = min(len(known), len(contents))
        if isinstance(contents, np.ndarray):
            known = contents
        elif num_known and hashes[num_known - 1] != contents[num_known - 1]:
            known = _NO_KEYS  # tokens were taken back; a hash covers all blocks before its own
        sequence = SequenceMeta(
            None,
            self._tokens_per_block,
            self._namespace,
            block_hashes=contents,
            root=self._root,
            num_tokens=len(contents) * self._tokens_per_block,
            prefix_keys=known,
        )
        if self._use_engine_hashes and len(known) < len(contents):
            self._known = (contents, sequence.block_hashes)
        return sequence

    def _hash_tokens(self, request: Request) -> Keys:
        """Return the keys of the request's whole blocks. O(new blocks)."""
        keys = self._known[1]
        num_blocks = request.num_tokens // self._tokens_per_block
        end = len(keys) * self._tokens_per_block
        if end and (num_blocks < len(keys) or request.all_token_ids[end - 1] != self._last_token):
            keys, end = _NO_KEYS, 0
        if num_blocks > len(keys) and not getattr(request, "mm_features", None):  # tokens do not cover added images
            tokens = np.array(request.all_token_ids[end:], dtype=np.int64)
            parent = keys[-1].tobytes() if end else self._root
            new = hash_utils.hash_blocks(tokens, self._tokens_per_block, parent)
            keys = np.concatenate([keys, new])
            self._last_token = request.all_token_ids[num_blocks * self._tokens_per_block - 1]
        self._known = ((), keys)
        return keys
