"""GlobalCacheEngine: decides for all tiers what to load and what to store.

CacheEngine decides for one tier (flexkv/cache/tier.py).

Two phases (D9): `prepare_get` and `prepare_put` match, pin, reserve and return a reservation; its `commit` or `abort`
ends it, once, whatever happened between. Pure: no I/O, no threads, the clock is passed in. Thread safety: none; the
owner (one KVTaskEngine) holds a lock.

Every block that goes to or from the GPU passes through the CPU tier. `prepare_stage` plans what the SSD tier has beyond
it (D15), `prepare_offload` what it has beyond the SSD tier. A GET may count on blocks that are on their way to the CPU
tier already, whoever asked for them (`arrivals`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from flexkv.cache.mempool import Slots
from flexkv.cache.namespace_roots import NamespaceRoots
from flexkv.cache.radixtree import EntryMeta, InsertStatus, Match
from flexkv.cache.reservation import GetReservation, PutReservation, Reservation
from flexkv.cache.span import BlockSpan, blocks_of_mapping, get_span, put_span
from flexkv.cache.tier import CacheEngine
from flexkv.cache.tier_move import Arrivals, TierMove
from flexkv.cache.transfer_pattern import load_graph, store_graph
from flexkv.common.block import BoolArray, IdArray, SequenceMeta, as_mask
from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.common.events import EventCollector
from flexkv.common.hash_utils import Keys
from flexkv.common.storage import DeviceType
from flexkv.common.transfer import TransferOpGraph
from flexkv.errors import ConfigError

__all__ = ["CacheEngine", "Found", "GlobalCacheEngine"]

_DEFAULT_META = EntryMeta()


class Found(NamedTuple):
    """What two tiers have of a sequence; good until one of them changes."""

    cpu: Match
    ssd: Match


class GlobalCacheEngine:
    """The tiers of one model's cache.

    Args:
        num_cpu_blocks: capacity of the CPU tier; default: that of `cache_config`.
        available: CPU slots that may be handed out already; all when None.
        collector: takes KV events.

    Raises:
        ConfigError: naming the setting.
    """

    def __init__(
        self,
        cache_config: CacheConfig,
        model_config: ModelConfig,
        *,
        num_cpu_blocks: int | None = None,
        available: int | None = None,
        collector: EventCollector | None = None,
    ) -> None:
        self.cache_config = cache_config
        self.model_config = model_config
        self.tokens_per_block = cache_config.tokens_per_block
        capacity = cache_config.num_cpu_blocks if num_cpu_blocks is None else num_cpu_blocks
        if capacity is None:
            message = "num_cpu_blocks is not set, and no registration tells a block's bytes; set num_cpu_blocks"
            raise ConfigError(message, key="num_cpu_blocks", value=None)
        self.cpu_cache_engine = CacheEngine(
            DeviceType.CPU,
            capacity,
            cache_config.tokens_per_block,
            cache_config.evict_ratio,
            cache_config.eviction_policy,
            available=available,
            collector=collector,
        )
        self.arrivals = Arrivals(self.cpu_cache_engine.num_blocks)
        self.ssd_cache_engine: CacheEngine | None = None
        self.remote_cache_engine: CacheEngine | None = None

    def match_all(self, sequence_meta: SequenceMeta, now_s: int = 0) -> tuple[Match, Match | None, Match | None]:
        """Return the match of each tier, (cpu, ssd, remote); None for a tier that is not there. Pins nothing."""
        ssd = None if self.ssd_cache_engine is None else self.ssd_cache_engine.match(sequence_meta, now_s)
        remote = None if self.remote_cache_engine is None else self.remote_cache_engine.match(sequence_meta, now_s)
        return self.cpu_cache_engine.match(sequence_meta, now_s), ssd, remote

    def match(self, sequence_meta: SequenceMeta, now_s: int = 0) -> tuple[Match, Match | None, Match | None]:
        """The same as `match_all`."""
        return self.match_all(sequence_meta, now_s)

    def attach_ssd(self, tier: CacheEngine) -> None:
        """Have an SSD tier from now on; once."""
        assert self.ssd_cache_engine is None, "the SSD tier is attached once"
        self.ssd_cache_engine = tier

    def holds(self, key: bytes, *, with_ssd: bool = True) -> bool:
        """Return whether a tier has the block, its bytes there yet or not. O(1)."""
        ssd = self.ssd_cache_engine
        return self.cpu_cache_engine.holds(key) or (with_ssd and ssd is not None and ssd.holds(key))

    def find(
        self, sequence: SequenceMeta, num_blocks: int | None = None, *, now_s: int = 0, cpu: Match | None = None
    ) -> Found | None:
        """Match the first `num_blocks` blocks in the CPU and the SSD tier; None when there is no SSD tier.

        The default is all whole blocks. `cpu`: their match in the CPU tier, where that is known already.
        """
        if self.ssd_cache_engine is None:
            return None
        cpu = cpu or self.cpu_cache_engine.match(sequence, now_s, num_blocks)
        return Found(cpu, self.ssd_cache_engine.match(sequence, now_s, num_blocks))

    def prepare_get(
        self,
        sequence: SequenceMeta,
        start_block: int = 0,
        end_block: int | None = None,
        *,
        now_s: int = 0,
        may_wait: bool = True,
        match: Match | None = None,
    ) -> GetReservation:
        """Match and pin the blocks of [start_block, end_block) that are ready in the CPU tier, or arriving.

        The default end is the last whole block. `may_wait`: whether those that are arriving count. `match`: of these
        blocks in the CPU tier, where that is known already.
        """
        tier = self.cpu_cache_engine
        match = match or tier.match(sequence, now_s, end_block)
        num_ready, num_visible = int(match.num_ready), int(match.num_visible)
        end = num_ready
        if may_wait and self.arrivals.num_slots and num_visible > num_ready:
            end += self._count_arriving(match.slots_range(num_ready, num_visible))
        if end <= start_block:
            nothing: Slots = match.slots_range(0, 0)
            span = BlockSpan(start_block, start_block)
            return GetReservation(tier, sequence, span, nothing, num_visible, num_ready)
        span, slots = BlockSpan(start_block, end), match.slots_range(start_block, end)
        num_arriving = end - max(start_block, num_ready)
        return GetReservation(tier, sequence, span, slots, num_visible, num_ready, num_arriving)

    def _count_arriving(self, slots: Slots) -> int:
        """Return how many of the leading blocks are ready or arriving."""
        settled = np.flatnonzero(self.arrivals.ops(slots) < 0)
        num_ready = self.cpu_cache_engine.index.count_ready(slots[settled])
        return len(slots) if num_ready == len(settled) else int(settled[num_ready])

    @staticmethod
    def num_to_stage(found: Found, start_block: int = 0) -> tuple[int, int]:
        """Return how many blocks the SSD tier has ready beyond the CPU tier, and of these, how many are asked for.

        Those from `start_block` on are asked for; those before it that the CPU tier lacks have to be read too. (0, 0)
        when nothing that is asked for would come.
        """
        num_ready, held = int(found.ssd.num_ready), int(found.cpu.num_visible)
        if num_ready <= start_block:
            return 0, 0
        return max(0, num_ready - held), max(0, num_ready - max(held, start_block))

    def prepare_stage(self, sequence: SequenceMeta, found: Found, max_blocks: int) -> TierMove | None:
        """Reserve CPU slots for at most `max_blocks` of what `num_to_stage` counts; None when that is nothing.

        Fewer than there are when slots are short; the blocks left out are the last ones.
        """
        ssd, there = self.ssd_cache_engine, found.ssd
        num_ready, held = int(there.num_ready), int(found.cpu.num_visible)
        end = min(num_ready, held + max_blocks)
        if ssd is None or end <= held:
            return None
        meta = ssd.meta_of(int(there.slots_range(end - 1, end)[0]))  # no block of the move expires before its last one
        target = self._put_into(self.cpu_cache_engine, sequence, end, meta, found.cpu)
        if target.num_blocks == 0:
            target.commit()
            return None
        slots = there.slots_range(target.span.start, target.span.end)
        return TierMove(GetReservation(ssd, sequence, target.span, slots, num_ready, num_ready), target)

    @staticmethod
    def num_to_offload(found: Found) -> int:
        """Return how many of the blocks are ready in the CPU tier and not in the SSD tier."""
        return max(0, int(found.cpu.num_ready) - int(found.ssd.num_visible))

    def prepare_offload(
        self, sequence: SequenceMeta, found: Found, max_blocks: int, meta: EntryMeta = _DEFAULT_META
    ) -> TierMove | None:
        """Reserve SSD slots for at most `max_blocks` of the blocks that `num_to_offload` counts, the first ones.

        None when that is nothing. The blocks stay in the CPU tier until they are written (D10).
        """
        ssd = self.ssd_cache_engine
        num_ready, held = int(found.cpu.num_ready), int(found.ssd.num_visible)
        end = min(num_ready, held + max_blocks)
        if ssd is None or end <= held:
            return None
        target = self._put_into(ssd, sequence, end, meta, found.ssd)
        if target.num_blocks == 0:
            target.commit()
            return None
        slots = found.cpu.slots_range(target.span.start, target.span.end)
        source = GetReservation(self.cpu_cache_engine, sequence, target.span, slots, num_ready, num_ready)
        return TierMove(source, target)

    def ssd_slot(self, sequence: SequenceMeta, num_blocks: int) -> int:
        """Return the SSD slot of the last of so many blocks, or -1 when it is not there. O(1)."""
        if self.ssd_cache_engine is None or num_blocks == 0:
            return -1
        slot = self.ssd_cache_engine.index.find(sequence.block_hashes[num_blocks - 1].tobytes())
        return -1 if slot is None else slot

    def use_ssd(self, slot: int, meta: EntryMeta | None = None) -> None:
        """Count a block of the SSD tier as used, with its ancestors: what is loaded from the CPU tier stays there, too.

        They live and are kept at least as `meta` says.
        """
        ssd = self.ssd_cache_engine
        assert ssd is not None
        ssd.pin(slot)
        if meta is not None:
            ssd.raise_meta(slot, meta)
        ssd.unpin(slot)

    def prepare_put(
        self, sequence: SequenceMeta, num_blocks: int | None = None, meta: EntryMeta = _DEFAULT_META, *, now_s: int = 0
    ) -> PutReservation:
        """Reserve slots for those of the first `num_blocks` blocks that are not held, and insert them unready.

        Shrinks when slots are short: the blocks left out are always the last ones.
        """
        total = sequence.num_blocks if num_blocks is None else min(num_blocks, sequence.num_blocks)
        tier = self.cpu_cache_engine
        return self._put_into(tier, sequence, total, meta, tier.match(sequence, now_s, total))

    @staticmethod
    def _put_into(
        tier: CacheEngine, sequence: SequenceMeta, total: int, meta: EntryMeta, match: Match
    ) -> PutReservation:
        """`match` is of the sequence in that tier, of at most `total` blocks."""
        held = int(match.num_visible)
        parent = int(match.deepest_visible)
        if held:
            tier.pin(parent)  # neither the eviction for the missing blocks nor anything else may take it
        try:
            if held:
                tier.raise_meta(parent, meta)
            missing = total - held
            slots = _take_and_insert(tier, sequence, match, missing, meta) if missing else match.slots_range(0, 0)
            span = BlockSpan(held, held + len(slots))
            is_prefix_ready = int(match.num_ready) == held
            return PutReservation(
                tier, sequence, span, slots, meta, missing - len(slots), is_prefix_ready=is_prefix_ready
            )
        finally:
            if held:
                tier.unpin(parent)

    def get(
        self,
        token_ids: object,
        token_mask: object = None,
        slot_mapping: object = (),
        layer_num: int = -1,
        *,
        namespace: Sequence[str] | None = None,
        block_hashes: Sequence[bytes] | Keys | None = None,
        after_step: int = 0,
        now_s: int = 0,
    ) -> tuple[TransferOpGraph, BoolArray, GetReservation]:
        """Plan a load: match, pin and build the graph. The caller moves the bytes and ends the reservation.

        `slot_mapping` has one GPU slot for each True of `token_mask` (each token when that is None); `layer_num` is -1,
        since loading layer by layer is not there yet.

        Returns: the graph, the mask of the tokens it loads, the reservation.

        Raises:
            ValueError: naming the argument; nothing was pinned.
        """
        sequence, mask = self._arguments(token_ids, token_mask, layer_num, namespace, block_hashes)
        span = self._clipped(get_span(mask, sequence.num_tokens, self.tokens_per_block), sequence)
        blocks = blocks_of_mapping(slot_mapping, mask, sequence.num_tokens, span, self.tokens_per_block)
        reservation = self.prepare_get(sequence, span.start, span.end, now_s=now_s)
        graph = load_graph([reservation.slots], [self._blocks_for(reservation, span, blocks)], after_step)
        return graph, self._mask_of(reservation), reservation

    def put(
        self,
        token_ids: object,
        token_mask: object = None,
        slot_mapping: object = (),
        layer_num: int = -1,
        *,
        namespace: Sequence[str] | None = None,
        block_hashes: Sequence[bytes] | Keys | None = None,
        after_step: int = 0,
        now_s: int = 0,
    ) -> tuple[TransferOpGraph, BoolArray, PutReservation]:
        """Plan a store: match, reserve, insert unready and build the graph. Like `get`; the mask starts at block 0."""
        sequence, mask = self._arguments(token_ids, token_mask, layer_num, namespace, block_hashes)
        span = self._clipped(put_span(mask, sequence.num_tokens, self.tokens_per_block), sequence)
        blocks = blocks_of_mapping(slot_mapping, mask, sequence.num_tokens, span, self.tokens_per_block)
        reservation = self.prepare_put(sequence, span.end, now_s=now_s)
        graph = store_graph([reservation.slots], [self._blocks_for(reservation, span, blocks)], after_step)
        return graph, self._mask_of(reservation), reservation

    @cached_property
    def _roots(self) -> NamespaceRoots:
        """Made at the first use, since it reads a file: sequences of a task engine bring their root along."""
        return NamespaceRoots(self.cache_config)

    def _arguments(
        self,
        token_ids: object,
        token_mask: object,
        layer_num: int,
        namespace: Sequence[str] | None,
        hashes: Sequence[bytes] | Keys | None,
    ) -> tuple[SequenceMeta, BoolArray | None]:
        if layer_num != -1:
            raise ValueError(f"layer_num is {layer_num!r}; only -1, all layers at once, is available")
        root = self._roots.root_of(namespace)
        sequence = SequenceMeta(token_ids, self.tokens_per_block, namespace, block_hashes=hashes, root=root)
        sequence.gen_hashes()
        return sequence, None if token_mask is None else as_mask(token_mask, sequence.num_tokens)

    @staticmethod
    def _clipped(span: BlockSpan, sequence: SequenceMeta) -> BlockSpan:
        return BlockSpan(min(span.start, sequence.num_blocks), min(span.end, sequence.num_blocks))

    @staticmethod
    def _blocks_for(reservation: Reservation, span: BlockSpan, blocks: IdArray) -> IdArray:
        return blocks[reservation.span.start - span.start : reservation.span.end - span.start]

    def _mask_of(self, reservation: Reservation) -> BoolArray:
        return reservation.span.token_mask(reservation.sequence.num_tokens, self.tokens_per_block)

    @property
    def num_quarantined_blocks(self) -> int:
        """Host blocks of plans that failed and whose ops have not been heard of (loads and stores)."""
        return self.cpu_cache_engine.ledger.num_quarantined_blocks

    @property
    def num_live_reservations(self) -> int:
        """Reservations that have not ended, of all tiers."""
        return sum(len(tier.ledger.live) for tier in self._tiers())

    def _tiers(self) -> list[CacheEngine]:
        ssd = self.ssd_cache_engine
        return [self.cpu_cache_engine] if ssd is None else [self.cpu_cache_engine, ssd]

    def reset(self) -> None:
        """Drop every block of every tier. Reservations stay valid; what they write is never seen."""
        for tier in self._tiers():
            tier.reset()

    def check_invariants(self) -> None:
        """Raise when counts differ, or a block is pinned by no live reservation. O(capacity)."""
        for tier in self._tiers():
            tier.check_invariants()


def _take_and_insert(tier: CacheEngine, sequence: SequenceMeta, match: Match, missing: int, meta: EntryMeta) -> Slots:
    """Return the slots of the blocks that were inserted behind those that match. Fewer than `missing` when short."""
    held = int(match.num_visible)
    tier.drop_expired(match)
    slots = tier.take(missing)
    if len(slots) == 0:
        return slots
    status: InsertStatus | None = None
    try:
        status = tier.insert(sequence, slots, held, meta, num_blocks=held + len(slots))
    finally:
        if status != InsertStatus.INSERTED:
            tier.recycle(slots)
    return slots if status == InsertStatus.INSERTED else slots[:0]
