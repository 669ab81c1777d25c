"""The block keys of one vLLM request, and what isolates them. No vLLM import: requests are read by their attributes.

Keys come from the engine's own content hashes (`request.block_hashes`), which cover LoRA names, multimodal inputs,
prompt embeddings and the salt. Where these cannot be used (a hash that is not cryptographic or changes per process),
keys come from the tokens, the salt goes into the namespace, and a request with content that tokens do not cover is
not cached. Adapters are told apart by their files in both cases: a name may be given to other weights later. Each
block is hashed once: keys grow with the request. A streaming session may take tokens back; then its keys are made
anew.
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

__all__ = ["Adapters", "RequestKeys", "request_namespace"]


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

    Belongs to the scheduler's thread, but for `sequence`.

    Invariant: `_keys[i]` is the key of block i of the request as it stands, after `grow`.
    """

    __slots__ = ("_engine_hashes", "_keys", "_last_hash", "_namespace", "_root", "_tokens_per_block")

    def __init__(
        self, root: bytes, tokens_per_block: int, use_engine_hashes: bool, namespace: Sequence[str] = ()
    ) -> None:
        self._root = root
        self._namespace = namespace
        self._tokens_per_block = tokens_per_block
        self._engine_hashes = use_engine_hashes
        self._keys: Keys = np.empty((0, KEY_BYTES), dtype=np.uint8)
        self._last_hash: Any = None  # the engine hash, or the last token, that the last key was made from

    def grow(self, request: Request) -> int:
        """Take in new whole blocks; returns their number so far. O(new blocks)."""
        hashes: list[bytes] = request.block_hashes
        num_confirmed = len(hashes) if self._engine_hashes else request.num_tokens // self._tokens_per_block
        num_known = len(self._keys)
        if num_known and (num_confirmed < num_known or self._mark(request, num_known) != self._last_hash):
            self._keys, num_known = self._keys[:0], 0
        if num_confirmed == num_known:
            return num_known
        if not self._engine_hashes and getattr(request, "mm_features", None):
            return num_known  # a session that images were added to: its further tokens do not cover them
        if self._engine_hashes:
            new = hash_utils.mix(hashes, self._root, num_known)
        else:
            tokens = np.array(request.all_token_ids[num_known * self._tokens_per_block :], dtype=np.int64)
            parent = self._keys[-1].tobytes() if num_known else self._root
            new = hash_utils.hash_blocks(tokens, self._tokens_per_block, parent)
        self._keys = np.concatenate([self._keys, new]) if num_known else new
        self._last_hash = self._mark(request, num_confirmed)
        return num_confirmed

    def first(self, num_blocks: int) -> Keys:
        """Return the keys of the first blocks, which never change. REQUIRES: `grow` returned as many."""
        return self._keys[:num_blocks]

    def sequence(self, keys: Keys) -> SequenceMeta:
        """Return blocks that have `keys`, which `first` returned. Any thread."""
        return SequenceMeta(
            None,
            self._tokens_per_block,
            self._namespace,
            block_hashes=keys,
            root=self._root,
            num_tokens=len(keys) * self._tokens_per_block,
            prefix_keys=keys,
        )

    def _mark(self, request: Request, num_blocks: int) -> Any:
        if self._engine_hashes:
            return request.block_hashes[num_blocks - 1]
        return request.all_token_ids[num_blocks * self._tokens_per_block - 1]
