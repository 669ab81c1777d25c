"""RadixTree: which blocks a tier holds; the Python face of the native PrefixIndex (csrc/cache/prefix_index.h).

The name is the design's; the structure is a keyed chain index, not a tree with token edges. A block's key covers its
whole prefix, so a table from key to slot already is the tree: no edge compares tokens, no node is split, and since a
block is present only if its parent is, the longest match is found by bisecting the chain. Parent and child links are
kept for eviction alone.

An entry's life: insert -> unready -> mark_ready -> ready -> evict -> gone;  drop at any time -> doomed (invisible) ->
last pin -> gone. Methods that return slots return those that are gone now: the caller gives them back to the Mempool.
Invariants 1-5 are drawn in the header. Thread safety: none; the owner holds a lock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flexkv import _core
from flexkv._core import InsertStatus, Match
from flexkv.cache.eviction import DEFAULT_POLICY, check_policy
from flexkv.cache.mempool import Slots, as_slots
from flexkv.cache.restored import RestoredBlocks
from flexkv.common.checks import as_config_int
from flexkv.common.hash_utils import Keys

__all__ = ["NEVER_S", "EntryMeta", "InsertStatus", "Match", "RadixTree"]

NEVER_S = 0xFFFFFFFF
"""Expiry of a block that never expires, in seconds on the caller's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryMeta:
    """What a block carries beside its key.

    `priority`: 0 goes first, 7 last. `expiry_s`: on the clock passed to `match`.
    """

    tenant: int = 0
    priority: int = 0
    group: int = 0
    expiry_s: int = NEVER_S


class RadixTree:
    """Index of the visible and doomed blocks of one tier.

    Args:
        num_blocks: capacity; slots are in [0, num_blocks).
        policy: name of an eviction policy.

    Raises:
        ConfigError: on a size that is not positive or an unknown policy.
    """

    def __init__(self, num_blocks: int, policy: str = DEFAULT_POLICY) -> None:
        self._index = _core.PrefixIndex(as_config_int("num_blocks", num_blocks), check_policy(policy))

    def match(self, keys: Keys, now_s: int) -> Match:
        """Return the longest visible, unexpired prefix of the chain `keys`. O(log n) probes; recency is not touched."""
        return self._index.match(keys, now_s)

    def insert(self, keys: Keys, start_block: int, slots: Slots, meta: EntryMeta) -> InsertStatus:
        """Insert keys[start_block:] in `slots` as unready children of keys[start_block - 1]. All or nothing.

        Returns CONFLICT (somebody inserted the first one already) or PARENT_GONE when the caller keeps its slots.
        Raises ValueError when the numbers differ, or a slot is out of range or in the index.
        """
        slots = as_slots(slots)
        return self._index.insert(keys, start_block, slots, meta.tenant, meta.priority, meta.group, meta.expiry_s)

    def restore(self, found: RestoredBlocks, now_s: int) -> npt.NDArray[np.int64]:
        """Fill an empty index with ready blocks, as if they had been used in the order of the rows. O(n).

        Parents live as long as their children, and the newest of several rows of one key as long as any of them. Left
        out are the other rows of a key, blocks whose chain of parents does not lead to a first block, and what is then
        expired. Returns which rows were restored, parents before children, in stretches in which each row is the parent
        of the next, one for each leaf. Other threads run meanwhile; the columns must not change.
        Raises ValueError when the index is not empty, columns differ in length, or a slot is out of range or named
        twice; nothing changed then.
        """
        rows: npt.NDArray[np.int64] = self._index.restore(
            found.slots,
            found.keys,
            found.parents,
            found.expiry_s,
            found.tenants,
            found.groups,
            found.priorities,
            now_s,
        )
        return rows

    def mark_ready(self, slots: Slots) -> None:
        """Note that the bytes are there. Doomed entries are passed over; ValueError on a slot without entry."""
        self._index.mark_ready(slots)

    def pin(self, slot: int) -> None:
        """Keep the block, and with it all its ancestors, from eviction and its slot from being freed."""
        self._index.pin(slot)

    def raise_meta(self, slot: int, meta: EntryMeta) -> None:
        """Raise priority and expiry of a pinned block and its ancestors to at least those of `meta`."""
        self._index.raise_meta(slot, meta.priority, meta.expiry_s)

    def unpin(self, slot: int) -> Slots:
        """Take one pin off and make the block the newest. Returns slots only where the entry was doomed."""
        gone: Slots = self._index.unpin(slot)
        return gone

    def drop(self, slot: int) -> Slots:
        """Make a visible block and its descendants invisible. Those pinned go with their last pin."""
        gone: Slots = self._index.drop(slot)
        return gone

    def evict(self, num_blocks: int) -> Slots:
        """Remove up to `num_blocks` victims in policy order, leaves first. O(1) each."""
        gone: Slots = self._index.evict(num_blocks)
        return gone

    def reset(self) -> Slots:
        """Drop everything. Those pinned go with their last pin."""
        gone: Slots = self._index.reset()
        return gone

    def find(self, key: bytes) -> int | None:
        """Return the slot of a visible block, or None."""
        slot = int(self._index.find(key))
        return None if slot < 0 else slot

    def keys_of(self, slots: Slots) -> Keys:
        """Return the keys of visible or doomed entries. Shape: (n, 16)."""
        keys: Keys = self._index.keys_of(slots)
        return keys

    def count_ready(self, slots: Slots) -> int:
        """Return how many of the leading slots hold blocks whose bytes are there."""
        return int(self._index.count_ready(as_slots(slots)))

    def meta_of(self, slot: int) -> EntryMeta:
        """Return what a visible or doomed block carries beside its key."""
        tenant, priority, group, expiry_s = self._index.meta_of(slot)
        return EntryMeta(tenant=tenant, priority=priority, group=group, expiry_s=expiry_s)

    def is_ready(self, slot: int) -> bool:
        """Return whether the bytes of the block are there."""
        return bool(self._index.is_ready(slot))

    def pins_of(self, slot: int) -> int:
        """Return how many pins the block itself has."""
        return int(self._index.pins_of(slot))

    @property
    def num_blocks(self) -> int:
        """Visible blocks."""
        return int(self._index.num_blocks)

    @property
    def num_doomed(self) -> int:
        """Invisible blocks whose slots are still held."""
        return int(self._index.num_doomed)

    @property
    def num_unready(self) -> int:
        """Visible blocks whose bytes are not there yet."""
        return int(self._index.num_unready)

    @property
    def num_pinned(self) -> int:
        """Entries with a pin of their own, visible or doomed."""
        return int(self._index.num_pinned)

    @property
    def num_evictable(self) -> int:
        """Leaves the policy holds now."""
        return int(self._index.num_evictable)

    @property
    def memory_bytes(self) -> int:
        """Memory of the index."""
        return int(self._index.memory_bytes)

    def check_invariants(self) -> None:
        """Raise when the structure is broken. O(capacity)."""
        self._index.check_invariants()
