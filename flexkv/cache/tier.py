"""CacheEngine: one tier's decisions, a prefix index over a pool of slots. Re-exported by flexkv.cache.cache_engine.

Pure: no I/O, no threads, and the clock is passed in. Owns no bytes. Thread safety: none; the owner holds a lock.

A slot is free, reserved (taken, not in the index), in the index (visible or doomed), or both doomed and quarantined.
Invariant: used + quarantined slots of the pool == visible + doomed blocks of the index + reserved slots.
"""

from __future__ import annotations

import numpy as np

from flexkv.cache.block_events import BlockEvents
from flexkv.cache.eviction import DEFAULT_POLICY
from flexkv.cache.ledger import Ledger
from flexkv.cache.mempool import Mempool, Slots, as_slots
from flexkv.cache.radixtree import EntryMeta, InsertStatus, Match, RadixTree
from flexkv.cache.restored import RestoredBlocks
from flexkv.common.block import SequenceMeta
from flexkv.common.checks import as_block_size
from flexkv.common.config import DEFAULT_EVICT_RATIO
from flexkv.common.events import EventCollector
from flexkv.common.hash_utils import Keys
from flexkv.common.storage import DeviceType
from flexkv.errors import ConfigError

__all__ = ["CacheEngine"]

MAX_EVICT_BATCH_BLOCKS = 256
_DEFAULT_META = EntryMeta()


class CacheEngine:
    """The blocks one tier holds, and the slots it has.

    Args:
        device_type: which tier; named in events.
        num_blocks: capacity in blocks.
        tokens_per_block: a power of two.
        evict_ratio: the part of the capacity that is kept free once it was full, so that freed slots have time to join
            into runs. In [0, 1). A call evicts at most 256 blocks more than it takes.
        policy: name of an eviction policy.
        available: slots that may be handed out already; all when None.
        collector: takes KV events of this tier.

    Raises:
        ConfigError: naming the argument.
    """

    def __init__(
        self,
        device_type: DeviceType,
        num_blocks: int,
        tokens_per_block: int,
        evict_ratio: float = DEFAULT_EVICT_RATIO,
        policy: str = DEFAULT_POLICY,
        *,
        available: int | None = None,
        collector: EventCollector | None = None,
    ) -> None:
        if not 0 <= evict_ratio < 1:
            raise ConfigError(
                f"evict_ratio is {evict_ratio!r}; it must be in [0, 1)", key="evict_ratio", value=evict_ratio
            )
        self.device_type = device_type
        self.tokens_per_block = as_block_size("tokens_per_block", tokens_per_block)
        self.mempool = Mempool(num_blocks, available)
        self.index = RadixTree(num_blocks, policy)
        self.ledger = Ledger()
        self.num_reserved = 0
        self.num_evicted = 0
        self._has_stopped_growing = False
        self._spare_blocks = int(evict_ratio * num_blocks)
        self._quarantined = np.zeros(num_blocks, dtype=np.bool_)
        self._events: BlockEvents | None = None
        if collector is not None:
            self._events = BlockEvents(collector, device_type, num_blocks, tokens_per_block, self.index.find)

    @property
    def num_blocks(self) -> int:
        """Capacity in blocks."""
        return self.mempool.num_total_blocks

    @property
    def is_growing(self) -> bool:
        """True while slots are still to become available."""
        return not self._has_stopped_growing and self.mempool.num_available_blocks < self.num_blocks

    def match(self, sequence: SequenceMeta, now_s: int = 0, num_blocks: int | None = None) -> Match:
        """Return the longest prefix of the sequence held here.

        Only its first `num_blocks` blocks are asked for when given.
        """
        return self.index.match(sequence.block_hashes[:num_blocks], now_s)

    def holds(self, key: bytes) -> bool:
        """Return whether the block is visible here, its bytes there yet or not. O(1)."""
        return self.index.find(key) is not None

    def take(self, num_blocks: int) -> Slots:
        """Reserve up to `num_blocks` slots, evicting when short; fewer come back when the rest is pinned or in use.

        While further slots are still to become available nothing is evicted: a cold start keeps what it has stored.
        """
        short = num_blocks + self._spare_blocks - self.mempool.num_free_blocks
        if num_blocks > 0 and short > 0 and not self.is_growing:
            victims = self.index.evict(min(short, num_blocks + MAX_EVICT_BATCH_BLOCKS))
            self.num_evicted += len(victims)
            self._free(victims)
        slots = self.mempool.allocate_blocks(min(num_blocks, self.mempool.num_free_blocks))
        self.num_reserved += len(slots)
        return slots

    def recycle(self, slots: Slots) -> None:
        """Give back reserved slots that were not inserted.

        Raises ValueError when one is not used; nothing changed then.
        """
        slots = as_slots(slots)
        self.mempool.recycle_blocks(slots)
        self.num_reserved -= len(slots)

    def insert(
        self,
        sequence: SequenceMeta,
        slots: Slots,
        start_block: int = 0,
        meta: EntryMeta = _DEFAULT_META,
        *,
        num_blocks: int | None = None,
    ) -> InsertStatus:
        """Put blocks [start_block, num_blocks) of the sequence into reserved `slots`, unready. All or nothing.

        CONFLICT and PARENT_GONE leave the slots reserved: the caller recycles them.
        """
        status = self.index.insert(sequence.block_hashes[:num_blocks], start_block, slots, meta)
        if status == InsertStatus.INSERTED:
            self.num_reserved -= len(slots)
        return status

    def publish(self, sequence: SequenceMeta, slots: Slots, start_block: int, meta: EntryMeta = _DEFAULT_META) -> None:
        """The bytes of inserted blocks are there: let them be loaded, and announce them.

        Doomed ones are passed over.
        """
        if len(slots) == 0:
            return
        self.index.mark_ready(slots)
        if self._events is not None:
            keys = sequence.block_hashes[: start_block + len(slots)]
            self._events.stored(keys, start_block, slots, sequence.namespace, meta.group, meta.tenant)

    def restore(self, found: RestoredBlocks, now_s: int = 0) -> int:
        """Take in the blocks that a restart found in this tier's slots, ready to be loaded; announce them.

        For a tier that holds nothing. Slots whose blocks are left out (RadixTree.restore says which) are free. One
        event for each leaf, a few microseconds each. Returns the number of blocks restored. O(n).
        Raises ValueError when a block is held or a slot taken, or a column is wrong; nothing changed then.
        """
        if self.mempool.num_used_blocks or self.mempool.num_quarantined_blocks:
            raise ValueError(f"{self.mempool.num_used_blocks} slots are in use; only an empty tier can be restored")
        if len(found) and int(found.slots.max()) >= self.mempool.num_available_blocks:
            raise ValueError(
                f"slot {int(found.slots.max())} is not available yet, only the first "
                f"{self.mempool.num_available_blocks} are; restore when all of them are"
            )
        rows = self.index.restore(found, now_s)
        self.mempool.adopt_blocks(found.slots[rows])
        if self._events is not None:
            self._events.restored(found.at(rows))
        return len(rows)

    def pin(self, slot: int) -> None:
        """Keep a block and its ancestors from eviction."""
        self.index.pin(slot)

    def meta_of(self, slot: int) -> EntryMeta:
        """Return what a block carries beside its key."""
        return self.index.meta_of(slot)

    def raise_meta(self, slot: int, meta: EntryMeta) -> None:
        """Let a pinned block and its ancestors have at least this priority and expiry."""
        self.index.raise_meta(slot, meta)

    def unpin(self, slot: int) -> None:
        """Take one pin off; slots of doomed blocks that nobody holds any more become free."""
        self._free(self.index.unpin(slot), doomed=True)

    def drop(self, key: Keys, slot: int) -> None:
        """Make the block `key` in `slot` and its descendants invisible, if it still is visible there."""
        if self.index.find(key.tobytes()) == slot:
            self._free(self.index.drop(slot))

    def drop_expired(self, match: Match) -> None:
        """Drop the first expired block behind a match, and so all behind it: a new one may take its place."""
        if match.first_expired >= 0:
            self._free(self.index.drop(match.first_expired))

    def quarantine(self, slots: Slots) -> None:
        """Set slots of doomed, pinned blocks apart: ops may still touch them. They become free with their last pin."""
        self.mempool.quarantine_blocks(slots)
        self._quarantined[slots] = True

    def reset(self) -> None:
        """Drop every block. Idempotent. Pinned ones are doomed: their slots come back with the last pin."""
        self._free(self.index.reset(), announce=False)
        if self._events is not None:
            self._events.cleared()

    def set_available(self, available: int) -> None:
        """Let slots below `available` be handed out; a smaller number than before changes nothing."""
        if available > self.mempool.num_available_blocks:
            self.mempool.set_available(min(available, self.num_blocks))

    def stop_growing(self) -> None:
        """Say that the rest of the slots may never become available: make do with those that are. Idempotent."""
        self._has_stopped_growing = True

    def _free(self, gone: Slots, *, doomed: bool = False, announce: bool = True) -> None:
        """Give the pool back slots that left the index, and announce what was announced before."""
        if len(gone) == 0:
            return
        apart = self._quarantined[gone]
        if apart.any():
            self._quarantined[gone] = False
            self.mempool.release_blocks(gone[apart])
            self.mempool.recycle_blocks(gone[~apart])
        else:
            self.mempool.recycle_blocks(gone)
        if self._events is None or not announce:
            return
        if doomed:
            self._events.doomed_gone(gone)
        else:
            self._events.removed(gone)

    def check_invariants(self) -> None:
        """Raise when a count is wrong, or a block is pinned by no live reservation. O(capacity)."""
        self.mempool.check_invariants()
        self.index.check_invariants()
        self.ledger.check_invariants(self.index)
        pool = self.mempool
        held = pool.num_used_blocks + pool.num_quarantined_blocks
        known = self.index.num_blocks + self.index.num_doomed + self.num_reserved
        assert held == known, f"{held} slots are held, {known} are accounted for"
        assert int(self._quarantined.sum()) == pool.num_quarantined_blocks, (
            "the quarantine marks differ from the pool's count"
        )
        assert self.num_reserved >= 0, f"num_reserved is {self.num_reserved}"
