"""Tokens, masks and slot mappings as the cache wants them, and SequenceMeta: a prompt as a chain of block keys.

Everything that comes from an engine enters through the `as_*` functions: one-dimensional, int64 or bool, in range,
else a ValueError that names the argument. Accepted are numpy arrays, torch tensors (torch is never imported) and
lists. SequenceMeta belongs to one thread at a time; its arrays are read-only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from flexkv.common import hash_utils
from flexkv.common.checks import as_int, is_int
from flexkv.common.hash_utils import KEY_BYTES, Keys

__all__ = [
    "BoolArray",
    "IdArray",
    "SequenceMeta",
    "as_id_vector",
    "as_mask",
    "as_slot_mapping",
    "as_token_array",
]

IdArray = npt.NDArray[np.int64]
"""Ids or tokens. Shape: (n,)."""
BoolArray = npt.NDArray[np.bool_]
"""A mask over tokens. Shape: (n,)."""

_TOKEN_LIMIT = 1 << 32


def _as_array(values: object, name: str) -> npt.NDArray[Any]:
    """Convert without changing the dtype; torch tensors come over on the host."""
    if isinstance(values, np.ndarray):
        return values
    if hasattr(values, "detach") and hasattr(values, "cpu"):  # a torch tensor, told without importing torch
        try:
            return np.asarray(values.detach().cpu().numpy())
        except (TypeError, RuntimeError) as error:
            raise ValueError(f"{name} is a tensor that numpy cannot hold: {error}") from error
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise ValueError(f"{name} is a {type(values).__name__}; give a numpy array, a torch tensor or a list")
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError, TypeError) as error:
        raise ValueError(f"{name} is not a flat list of integers: {error}") from error
    return array.astype(np.int64) if array.size == 0 and array.ndim == 1 else array


def _as_int64_vector(values: object, name: str, *, any_integer: bool) -> IdArray:
    array = _as_array(values, name)
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}; it must be one-dimensional")
    if array.dtype != np.int64:
        widen = any_integer or not isinstance(values, np.ndarray)
        if array.dtype.kind not in "iu" or not widen:
            raise ValueError(f"{name} has dtype {array.dtype}; it must be int64")
        if array.dtype == np.uint64 and array.size and int(array.max()) >= 1 << 63:
            raise ValueError(f"{name} holds {int(array.max())}, which is no int64")
        array = array.astype(np.int64)
    return np.ascontiguousarray(array)


def as_token_array(token_ids: object, name: str = "token_ids") -> IdArray:
    """Return token ids as a contiguous int64 vector; the caller's memory where it already is one. O(n).

    Raises:
        ValueError: not one-dimensional, not integers (bool is none), or a token out of [0, 2**32).
    """
    tokens = _as_int64_vector(token_ids, name, any_integer=True)
    outside = tokens.view(np.uint64) >= _TOKEN_LIMIT
    if outside.any():
        index = int(outside.argmax())
        raise ValueError(f"{name}[{index}] is {int(tokens[index])}; a token id must be in [0, 2**32)")
    return tokens


def as_id_vector(ids: object, name: str) -> IdArray:
    """Return block or slot ids as a contiguous int64 vector: an int64 array or tensor, or a list of int.

    Raises:
        ValueError: not one-dimensional, an array of another dtype, or a negative id.
    """
    vector = _as_int64_vector(ids, name, any_integer=False)
    if vector.size and int(vector.min()) < 0:
        index = int((vector < 0).argmax())
        raise ValueError(f"{name}[{index}] is {int(vector[index])}; ids are not negative")
    return vector


def as_mask(mask: object, length: int, name: str = "token_mask") -> BoolArray:
    """Return a bool vector of `length`; None means all True. May be the caller's own array: do not write to it.

    Raises:
        ValueError: not bool, not one-dimensional, or of another length.
    """
    if mask is None:
        return np.ones(length, dtype=np.bool_)
    array = _as_array(mask, name)
    if array.size == 0 and not isinstance(mask, np.ndarray):
        array = array.astype(np.bool_)
    if array.ndim != 1 or len(array) != length:
        raise ValueError(f"{name} has shape {array.shape}; it must be ({length},), one entry per token")
    if array.dtype != np.bool_:
        raise ValueError(f"{name} has dtype {array.dtype}; it must be bool")
    return array


def as_slot_mapping(
    slot_mapping: object, num_tokens: int, tokens_per_block: int, name: str = "slot_mapping"
) -> IdArray:
    """Return the GPU block ids of a slot mapping, which has one int64 slot per masked token. Shape: (num_blocks,).

    Raises:
        ValueError: another length than `num_tokens`, no whole number of blocks, or a block whose slots are not
            ``block * tokens_per_block + 0 .. tokens_per_block - 1``.
    """
    slots = as_id_vector(slot_mapping, name)
    if len(slots) != num_tokens:
        raise ValueError(f"{name} has {len(slots)} slots; it needs {num_tokens}, one for each masked token")
    if num_tokens % tokens_per_block:
        raise ValueError(f"{name} covers {num_tokens} tokens; it must cover whole blocks of {tokens_per_block}")
    rows = slots.reshape(-1, tokens_per_block)
    blocks = rows[:, 0] // tokens_per_block
    wrong = rows != blocks[:, None] * tokens_per_block + np.arange(tokens_per_block)
    if wrong.any():
        index = int(wrong.reshape(-1).argmax())
        expected = int(blocks[index // tokens_per_block]) * tokens_per_block + index % tokens_per_block
        raise ValueError(
            f"{name}[{index}] is {int(slots[index])} where {expected} is due: "
            f"the slots of a block must be block * {tokens_per_block} + 0 .. {tokens_per_block - 1}"
        )
    return np.ascontiguousarray(blocks)


class SequenceMeta:
    """A prompt as a chain of block keys. A partial tail block has no key and is ignored.

    Either `token_ids` are hashed, or `block_hashes`, the engine's own content hashes (one per whole block, in order),
    are mixed with the root; then `token_ids` may be None if `num_tokens` is given (or follows from the number of
    hashes).

    Args:
        token_ids: one-dimensional token ids, or None.
        tokens_per_block: a power of two.
        namespace: list of strings that isolates blocks; not looked at when `root` is given.
        block_hashes: engine hashes of one width, 1..39 bytes. Hashes beyond the whole blocks of the tokens are ignored.
        root: 16 bytes the chain starts from (`hash_utils.root_key`); default: an empty fingerprint and the namespace.
        num_tokens: number of tokens when only hashes are given.
        prefix_keys: keys of the first blocks if the caller already has them; only the rest is computed. Shape: (k, 16).
    """

    __slots__ = (
        "_hashes",
        "_keys",
        "_prefix_keys",
        "namespace",
        "num_blocks",
        "num_tokens",
        "root",
        "token_ids",
        "tokens_per_block",
    )

    def __init__(
        self,
        token_ids: object,
        tokens_per_block: int,
        namespace: Sequence[str] | None = None,
        *,
        block_hashes: Sequence[bytes] | Keys | None = None,
        root: bytes | None = None,
        num_tokens: int | None = None,
        prefix_keys: Keys | None = None,
    ) -> None:
        if not is_int(tokens_per_block) or tokens_per_block < 1 or tokens_per_block & (tokens_per_block - 1):
            raise ValueError(f"tokens_per_block is {tokens_per_block!r}; it must be a power of two")
        if token_ids is None and block_hashes is None:
            raise ValueError("token_ids is None; give token_ids or block_hashes")
        if root is not None and len(root) != KEY_BYTES:
            raise ValueError(f"root has {len(root)} bytes; it must have {KEY_BYTES}")
        self.tokens_per_block = int(tokens_per_block)
        self.namespace: tuple[str, ...] = tuple(namespace or ())
        self.root = hash_utils.root_key(b"", namespace, 0, tokens_per_block) if root is None else root
        self.token_ids = None if token_ids is None else as_token_array(token_ids)
        self._hashes = block_hashes
        self.num_tokens = self._count_tokens(num_tokens)
        self.num_blocks = self.num_tokens // tokens_per_block
        if block_hashes is not None:
            self.num_blocks = min(self.num_blocks, len(block_hashes))
        self._prefix_keys = self._check_prefix_keys(prefix_keys)
        self._keys: Keys | None = None

    def _count_tokens(self, num_tokens: int | None) -> int:
        if num_tokens is not None:
            num_tokens = as_int("num_tokens", num_tokens)
        if self.token_ids is not None:
            if num_tokens is not None and num_tokens != len(self.token_ids):
                raise ValueError(
                    f"num_tokens is {num_tokens}, but token_ids has {len(self.token_ids)}; leave num_tokens out"
                )
            return len(self.token_ids)
        if num_tokens is not None:
            return num_tokens
        return 0 if self._hashes is None else len(self._hashes) * self.tokens_per_block

    def _check_prefix_keys(self, prefix_keys: Keys | None) -> Keys | None:
        if prefix_keys is None or len(prefix_keys) == 0:
            return None
        if prefix_keys.ndim != 2 or prefix_keys.shape[1] != KEY_BYTES or prefix_keys.dtype != np.uint8:
            shape = f"shape {prefix_keys.shape} and dtype {prefix_keys.dtype}"
            raise ValueError(f"prefix_keys has {shape}; it must be uint8 of shape (n, {KEY_BYTES})")
        return prefix_keys[: self.num_blocks]

    @property
    def has_hashes(self) -> bool:
        """True once the keys have been computed."""
        return self._keys is not None

    @property
    def block_hashes(self) -> Keys:
        """Keys of the whole blocks, computed at the first use. Read-only. Shape: (num_blocks, 16)."""
        if self._keys is None:
            self.gen_hashes()
        assert self._keys is not None
        return self._keys

    def gen_hashes(self) -> None:
        """Compute the keys now. Idempotent. O(num_tokens), or O(num_blocks) with engine hashes.

        Raises:
            ValueError: engine hashes of unequal or impossible width.
        """
        if self._keys is not None:
            return
        num_known = 0 if self._prefix_keys is None else len(self._prefix_keys)
        if self._prefix_keys is not None and num_known == self.num_blocks:
            keys = self._prefix_keys
        elif self._hashes is not None:
            keys = hash_utils.mix(self._hashes[: self.num_blocks], self.root, num_known)
        else:
            assert self.token_ids is not None
            parent = self.root if self._prefix_keys is None else self._prefix_keys[-1].tobytes()
            keys = hash_utils.hash_blocks(
                self.token_ids[num_known * self.tokens_per_block :], self.tokens_per_block, parent
            )
        if self._prefix_keys is not None and num_known < self.num_blocks:
            keys = np.concatenate([self._prefix_keys, keys])
        keys.setflags(write=False)
        self._keys = keys

    def extend_block_hashes(self, block_hashes: Sequence[bytes] | Keys) -> None:
        """Append the engine hashes of the blocks that follow; keys that were computed are kept. O(num_blocks) bytes.

        Keys handed out before stay valid: they are a prefix of the new ones.

        Raises:
            ValueError: the sequence was made from tokens, or the hashes have an impossible width; nothing was changed.
        """
        if self._hashes is None or self.token_ids is not None:
            raise ValueError("block_hashes cannot be appended: the sequence was not made from block_hashes alone")
        known = self.block_hashes
        keys = np.concatenate([known, hash_utils.mix(block_hashes, self.root)])
        keys.setflags(write=False)
        self._hashes, self._prefix_keys, self._keys = (), None, keys
        self.num_blocks = len(keys)
        self.num_tokens = max(self.num_tokens, self.num_blocks * self.tokens_per_block)
