"""TierMove and the cache engine with an SSD tier: what is staged and offloaded, who waits for it, how a move ends."""

from __future__ import annotations

import numpy as np
import pytest

from flexkv.cache.cache_engine import CacheEngine, Found, GlobalCacheEngine
from flexkv.cache.radixtree import EntryMeta
from flexkv.cache.span import BlockSpan
from flexkv.cache.tier_move import Arrivals, TierMove
from flexkv.cache.transfer_pattern import chunks_of, join_graph, load_graph, offload_graph, stage_graph
from flexkv.common.block import SequenceMeta
from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.common.events import BlocksStored, KVEvent
from flexkv.common.storage import DeviceType
from flexkv.common.transfer import OpId, TransferType

TPB = 4
FAR, FARTHER = 1 << 40, 1 << 41  # ids of ops that are in no graph of this process
MODEL = ModelConfig(num_layers=1, num_kv_heads=1, head_size=8)


class Collector(list[KVEvent]):
    def publish(self, event: KVEvent) -> None:
        self.append(event)


def sequence(num_blocks: int, first: int = 0) -> SequenceMeta:
    return SequenceMeta(np.arange(first, first + num_blocks * TPB), TPB)


def tiers(num_cpu: int = 16, num_ssd: int = 16, collector: Collector | None = None) -> GlobalCacheEngine:
    config = CacheConfig(tokens_per_block=TPB, num_cpu_blocks=num_cpu, evict_ratio=0.0)
    cache = GlobalCacheEngine(config, MODEL)
    cache.attach_ssd(CacheEngine(DeviceType.SSD, num_ssd, TPB, 0.0, collector=collector))
    return cache


def ssd_of(cache: GlobalCacheEngine) -> CacheEngine:
    assert cache.ssd_cache_engine is not None
    return cache.ssd_cache_engine


def store(cache: GlobalCacheEngine, num_blocks: int, first: int = 0, **meta: int) -> None:
    cache.prepare_put(sequence(num_blocks, first), meta=EntryMeta(**meta)).commit()


def keep_on_ssd(cache: GlobalCacheEngine, num_blocks: int, first: int = 0, **meta: int) -> None:
    """Blocks that only the SSD tier has."""
    store(cache, num_blocks, first)
    move = try_offload(cache, num_blocks, first=first, **meta)
    assert move is not None
    move.commit(move.num_blocks)
    forget_on_cpu(cache, num_blocks, first)


def forget_on_cpu(cache: GlobalCacheEngine, num_blocks: int, first: int = 0, start: int = 0) -> None:
    keys = sequence(num_blocks, first).block_hashes
    slot = cache.cpu_cache_engine.index.find(keys[start].tobytes())
    assert slot is not None
    cache.cpu_cache_engine.drop(keys[start], slot)


def levels(cache: GlobalCacheEngine) -> tuple[int, ...]:
    """All that an abort has to restore."""
    cache.check_invariants()
    return tuple(
        number
        for tier in (cache.cpu_cache_engine, ssd_of(cache))
        for number in (
            tier.mempool.num_free_blocks,
            tier.mempool.num_quarantined_blocks,
            tier.index.num_blocks,
            tier.index.num_doomed,
            tier.index.num_unready,
            tier.index.num_pinned,
            tier.num_reserved,
        )
    )


def found(
    cache: GlobalCacheEngine, num_blocks: int, first: int = 0, end_block: int | None = None, now_s: int = 0
) -> Found:
    both = cache.find(sequence(num_blocks, first), end_block, now_s=now_s)
    assert both is not None
    return both


def num_to_stage(cache: GlobalCacheEngine, num_blocks: int, start_block: int = 0, **where: int) -> tuple[int, int]:
    return cache.num_to_stage(found(cache, num_blocks, **where), start_block)


def num_to_offload(cache: GlobalCacheEngine, num_blocks: int) -> int:
    return cache.num_to_offload(found(cache, num_blocks))


def try_stage(
    cache: GlobalCacheEngine, num_blocks: int, max_blocks: int = 99, first: int = 0, **where: int
) -> TierMove | None:
    return cache.prepare_stage(sequence(num_blocks, first), found(cache, num_blocks, first, **where), max_blocks)


def try_offload(
    cache: GlobalCacheEngine, num_blocks: int, max_blocks: int = 99, first: int = 0, **meta: int
) -> TierMove | None:
    both = found(cache, num_blocks, first)
    return cache.prepare_offload(sequence(num_blocks, first), both, max_blocks, EntryMeta(**meta))


def stage(cache: GlobalCacheEngine, num_blocks: int, max_blocks: int = 99) -> TierMove:
    move = try_stage(cache, num_blocks, max_blocks)
    assert move is not None
    return move


def offload(cache: GlobalCacheEngine, num_blocks: int, max_blocks: int = 99, **meta: int) -> TierMove:
    move = try_offload(cache, num_blocks, max_blocks, **meta)
    assert move is not None
    return move


def expect(cache: GlobalCacheEngine, move: TierMove, op_id: int = 7) -> None:
    cache.arrivals.expect(move.target.slots, OpId(op_id))


# --- without an SSD tier


def test_without_an_ssd_tier_there_is_nothing_to_stage_or_offload() -> None:
    cache = GlobalCacheEngine(CacheConfig(tokens_per_block=TPB, num_cpu_blocks=8), MODEL)
    store(cache, 3)
    assert cache.find(sequence(3)) is None
    assert cache.ssd_slot(sequence(3), 3) == -1
    assert cache.match_all(sequence(3))[1] is None


def test_a_tier_is_attached_once() -> None:
    cache = tiers()
    with pytest.raises(AssertionError, match="once"):
        cache.attach_ssd(ssd_of(cache))


# --- offloading


def test_what_a_store_brought_is_offloaded_and_stays_in_the_cpu_tier() -> None:
    cache = tiers()
    store(cache, 5)
    assert num_to_offload(cache, 5) == 5
    move = offload(cache, 5, priority=3)
    assert (move.span, move.num_blocks) == (BlockSpan(0, 5), 5)
    cpu, ssd, _ = cache.match_all(sequence(5))
    assert ssd is not None
    assert (cpu.num_ready, ssd.num_visible, ssd.num_ready) == (5, 5, 0)
    assert num_to_offload(cache, 5) == 0, "it is on its way"
    move.commit(5)
    assert ssd_of(cache).match(sequence(5)).num_ready == 5
    assert ssd_of(cache).meta_of(int(move.target.slots[0])).priority == 3
    assert cache.num_live_reservations == 0
    cache.check_invariants()


def test_only_what_the_ssd_tier_lacks_is_offloaded_and_names_its_parents() -> None:
    cache = tiers()
    keep_on_ssd(cache, 2)
    store(cache, 5)
    move = offload(cache, 5)
    assert move.span == BlockSpan(2, 5)
    keys = sequence(5).block_hashes
    assert np.array_equal(move.keys, keys[2:5])
    assert np.array_equal(move.parents, keys[1:4])
    move.abort()
    first = offload(tiers_with_store(3), 3)
    assert not first.parents[0].any(), "nothing comes before the first block of a chain"
    assert np.array_equal(first.parents[1:], sequence(3).block_hashes[:2])


def tiers_with_store(num_blocks: int) -> GlobalCacheEngine:
    cache = tiers()
    store(cache, num_blocks)
    return cache


def test_blocks_whose_bytes_are_not_there_are_not_offloaded() -> None:
    cache = tiers()
    store(cache, 2)
    put = cache.prepare_put(sequence(5))
    assert num_to_offload(cache, 5) == 2
    assert offload(cache, 5).span == BlockSpan(0, 2)
    put.commit()
    assert num_to_offload(cache, 5) == 3


def test_blocks_that_wait_for_their_write_are_not_evicted() -> None:
    cache = tiers(num_cpu=4)
    store(cache, 3)
    move = offload(cache, 3)
    put = cache.prepare_put(sequence(4, first=1000))
    assert (put.num_blocks, put.num_skipped) == (1, 3)
    put.commit()
    assert cache.cpu_cache_engine.match(sequence(3)).num_ready == 3
    move.commit(3)
    assert cache.prepare_put(sequence(4, first=2000)).num_blocks == 4
    assert cache.cpu_cache_engine.match(sequence(3)).num_ready == 0
    assert ssd_of(cache).match(sequence(3)).num_ready == 3


def test_a_move_is_of_the_first_blocks_when_fewer_are_wanted_or_slots_are_short() -> None:
    cache = tiers(num_ssd=4)
    store(cache, 6)
    assert offload(cache, 6, max_blocks=2).span == BlockSpan(0, 2)
    assert offload(cache, 6).span == BlockSpan(2, 4), "the SSD tier has four slots, and those are in use"
    before = levels(cache)
    assert try_offload(cache, 6) is None
    assert levels(cache) == before


def test_an_offload_evicts_old_blocks_but_never_what_is_read_or_comes_before_it() -> None:
    cache = tiers(num_ssd=4)
    keep_on_ssd(cache, 2)
    keep_on_ssd(cache, 2, first=1000)
    read = stage(cache, 2)
    store(cache, 4, first=1000)
    move = try_offload(cache, 4, first=1000)
    assert move is None, "its parents and what is being read fill the tier"
    read.commit(2)
    move = try_offload(cache, 4, first=1000)
    assert move is not None
    assert move.span == BlockSpan(2, 4)
    assert ssd_of(cache).match(sequence(2)).num_visible == 0
    move.commit(2)
    cache.check_invariants()


# --- staging


def test_the_ssd_tier_is_staged_beyond_the_cpu_tier() -> None:
    cache = tiers()
    keep_on_ssd(cache, 6, priority=5)
    store(cache, 2)
    assert num_to_stage(cache, 6) == (4, 4)
    assert num_to_stage(cache, 6, end_block=3) == (1, 1)
    assert num_to_stage(cache, 6, 5) == (4, 1), "those before have to be read too"
    assert num_to_stage(cache, 6, 6) == (0, 0), "nothing of it is asked for"
    move = stage(cache, 6)
    assert move.span == BlockSpan(2, 6)
    ssd_slots = ssd_of(cache).match(sequence(6)).slots_range(2, 6)
    assert move.source.slots.tolist() == ssd_slots.tolist()
    assert num_to_stage(cache, 6) == (0, 0), "they are on their way"
    assert try_stage(cache, 6) is None
    move.commit(4)
    assert cache.cpu_cache_engine.match(sequence(6)).num_ready == 6
    assert cache.cpu_cache_engine.meta_of(int(move.target.slots[-1])).priority == 5, "what it carries comes along"
    assert ssd_of(cache).match(sequence(6)).num_ready == 6, "the copy on SSD stays"
    assert cache.num_live_reservations == 0


@pytest.mark.parametrize(("end_block", "max_blocks", "span"), [(5, 99, (0, 5)), (None, 3, (0, 3)), (2, 5, (0, 2))])
def test_a_stage_reads_no_more_than_asked(end_block: int | None, max_blocks: int, span: tuple[int, int]) -> None:
    cache = tiers()
    keep_on_ssd(cache, 6)
    both = cache.find(sequence(6), end_block)
    assert both is not None
    move = cache.prepare_stage(sequence(6), both, max_blocks)
    assert move is not None
    assert move.span == BlockSpan(*span)


def test_blocks_that_are_still_being_written_to_ssd_or_have_expired_are_not_staged() -> None:
    cache = tiers()
    store(cache, 4)
    move = offload(cache, 4)
    forget_on_cpu(cache, 4)
    assert num_to_stage(cache, 4) == (0, 0)
    assert try_stage(cache, 4) is None
    move.commit(4)
    assert num_to_stage(cache, 4) == (4, 4)
    keep_on_ssd(cache, 2, first=1000, expiry_s=10)
    assert num_to_stage(cache, 2, first=1000, now_s=9) == (2, 2)
    assert num_to_stage(cache, 2, first=1000, now_s=10) == (0, 0)
    assert try_stage(cache, 2, first=1000, now_s=10) is None


def test_a_stage_shrinks_when_host_slots_are_short_and_is_none_without_any() -> None:
    cache = tiers(num_cpu=6)
    keep_on_ssd(cache, 5)
    store(cache, 4, first=1000)
    get = cache.prepare_get(sequence(4, 1000))
    move = stage(cache, 5)
    assert move.span == BlockSpan(0, 2)
    before = levels(cache)
    assert try_stage(cache, 5) is None
    assert levels(cache) == before
    move.commit(2)
    get.commit()
    assert stage(cache, 5).span == BlockSpan(2, 5)


def test_use_makes_blocks_the_newest_of_the_ssd_tier_and_raises_what_they_carry() -> None:
    cache = tiers(num_ssd=4)
    keep_on_ssd(cache, 2, expiry_s=10)
    keep_on_ssd(cache, 2, first=1000)
    slot = cache.ssd_slot(sequence(2), 2)
    assert slot == int(ssd_of(cache).match(sequence(2)).slots_range(1, 2)[0])
    assert cache.ssd_slot(sequence(3), 3) == cache.ssd_slot(sequence(3), 0) == -1
    cache.use_ssd(slot, EntryMeta(expiry_s=20, priority=3))
    for held in ssd_of(cache).match(sequence(2), 19).slots_range(0, 2):
        assert ssd_of(cache).meta_of(int(held)) == EntryMeta(expiry_s=20, priority=3)
    cache.use_ssd(slot)
    keep_on_ssd(cache, 2, first=2000)
    assert ssd_of(cache).match(sequence(2)).num_ready == 2
    assert ssd_of(cache).match(sequence(2, 1000)).num_ready == 0


# --- joined loads


def test_a_get_counts_on_what_is_arriving_and_says_how_much_that_is() -> None:
    cache = tiers()
    keep_on_ssd(cache, 6)
    store(cache, 2)
    move = stage(cache, 6)
    assert cache.prepare_get(sequence(6)).span == BlockSpan(0, 2), "nobody said that they will come"
    expect(cache, move)
    get = cache.prepare_get(sequence(6))
    assert (get.span, get.num_ready, get.num_arriving) == (BlockSpan(0, 6), 2, 4)
    assert cache.arrivals.ops(get.slots).tolist() == [-1, -1, 7, 7, 7, 7]
    assert cache.prepare_get(sequence(6), may_wait=False).span == BlockSpan(0, 2)
    later = cache.prepare_get(sequence(6), 4)
    assert (later.span, later.num_arriving) == (BlockSpan(4, 6), 2)
    assert cache.prepare_get(sequence(6), 0, 3).num_arriving == 1


def test_a_get_reaches_over_what_is_arriving_to_what_is_ready_behind_it() -> None:
    cache = tiers()
    keep_on_ssd(cache, 2)
    move = stage(cache, 2)
    expect(cache, move)
    store(cache, 4)  # its last two blocks hang on those that are arriving
    get = cache.prepare_get(sequence(4))
    assert (get.span, get.num_ready, get.num_arriving) == (BlockSpan(0, 4), 0, 4)
    assert cache.arrivals.ops(get.slots).tolist() == [7, 7, -1, -1]


def test_a_get_ends_before_a_block_that_is_neither_ready_nor_arriving() -> None:
    cache = tiers()
    keep_on_ssd(cache, 2)
    expect(cache, stage(cache, 2))
    put = cache.prepare_put(sequence(4))
    assert put.span == BlockSpan(2, 4)
    assert not put.is_prefix_ready
    assert cache.prepare_get(sequence(4)).span == BlockSpan(0, 2)
    put.commit()
    assert cache.prepare_get(sequence(4)).span == BlockSpan(0, 4)


def test_arrivals_are_counted_until_they_are_cleared() -> None:
    arrivals = Arrivals(8)
    arrivals.expect(np.array([1, 3]), OpId(5))
    arrivals.expect(np.array([4]), OpId(6))
    assert arrivals.num_slots == 3
    assert arrivals.ops(np.array([3, 0, 4])).tolist() == [5, -1, 6]
    arrivals.clear(np.array([1, 3, 4]))
    assert arrivals.num_slots == 0
    assert (arrivals.ops(np.arange(8)) == -1).all()


# --- ends


@pytest.mark.parametrize("kind", ["stage", "offload"])
@pytest.mark.parametrize("quarantined", [False, True])
def test_an_abort_restores_pools_and_indexes_exactly(kind: str, quarantined: bool) -> None:
    cache = tiers()
    keep_on_ssd(cache, 5)
    store(cache, 3 if kind == "stage" else 8)
    before = levels(cache)
    move = stage(cache, 5) if kind == "stage" else offload(cache, 8)
    assert levels(cache) != before
    if quarantined:
        move.quarantine()
        assert move.is_quarantined
        target = cache.cpu_cache_engine if kind == "stage" else ssd_of(cache)
        assert target.mempool.num_quarantined_blocks == move.num_blocks
        assert target.match(sequence(8)).num_visible == move.span.start, "nobody sees what may be written still"
        with pytest.raises(RuntimeError, match="cannot become COMMITTED"):
            move.commit(move.num_blocks)
        with pytest.raises(RuntimeError, match="cannot become QUARANTINED"):
            move.quarantine()
    move.abort()
    assert levels(cache) == before
    assert cache.num_live_reservations == 0


@pytest.mark.parametrize("num_good", [0, 1, 3])
def test_a_commit_may_be_of_the_first_blocks_only(num_good: int) -> None:
    cache = tiers()
    keep_on_ssd(cache, 4)
    move = stage(cache, 4)
    expect(cache, move)
    get = cache.prepare_get(sequence(4))
    cache.arrivals.clear(move.target.slots)
    move.commit(num_good)
    cpu = cache.cpu_cache_engine
    assert cpu.match(sequence(4)).num_ready == cpu.match(sequence(4)).num_visible == num_good
    assert cpu.index.num_doomed == 4 - num_good, "the one who waits still holds them"
    get.abort()
    assert cpu.mempool.num_used_blocks == num_good
    assert ssd_of(cache).match(sequence(4)).num_ready == 4
    assert cache.num_live_reservations == 0
    cache.check_invariants()


def test_a_partial_commit_takes_what_was_stored_behind_it_along() -> None:
    cache = tiers()
    keep_on_ssd(cache, 2)
    move = stage(cache, 2)
    store(cache, 4)
    move.commit(1)
    assert cache.cpu_cache_engine.match(sequence(4)).num_visible == 1
    assert cache.cpu_cache_engine.mempool.num_used_blocks == 1
    cache.check_invariants()


def test_a_bad_block_goes_with_all_that_follow_it_while_it_is_being_read() -> None:
    cache = tiers()
    keep_on_ssd(cache, 4)
    move = stage(cache, 4)
    ssd = ssd_of(cache)
    ssd.drop(move.keys[1], int(move.source.slots[1]))
    assert ssd.match(sequence(4)).num_visible == 1
    assert ssd.mempool.num_free_blocks == 12, "its slots are still being read"
    ssd.drop(move.keys[1], int(move.source.slots[1]))
    move.commit(1)
    assert ssd.mempool.num_free_blocks == 15
    cache.check_invariants()


def test_a_drop_of_a_slot_that_holds_another_block_by_now_changes_nothing() -> None:
    cache = tiers()
    keep_on_ssd(cache, 2)
    ssd = ssd_of(cache)
    slot = int(ssd.match(sequence(2)).slots_range(0, 1)[0])
    ssd.drop(sequence(2, 1000).block_hashes[0], slot)
    ssd.drop(sequence(2).block_hashes[0], slot + 1)
    assert ssd.match(sequence(2)).num_ready == 2


def test_a_write_under_a_dropped_parent_is_never_seen() -> None:
    cache = tiers()
    keep_on_ssd(cache, 2)
    store(cache, 4)
    write = offload(cache, 4)
    ssd = ssd_of(cache)
    ssd.drop(sequence(4).block_hashes[1], int(ssd.match(sequence(4)).slots_range(1, 2)[0]))
    write.commit(2)
    assert ssd.match(sequence(4)).num_visible == 1
    assert ssd.mempool.num_used_blocks == 1
    cache.check_invariants()


def test_a_reset_empties_both_tiers_and_moves_in_flight_are_never_seen() -> None:
    cache = tiers()
    keep_on_ssd(cache, 3)
    store(cache, 4, first=1000)
    read, write = stage(cache, 3), try_offload(cache, 4, 4, first=1000)
    assert write is not None
    cache.reset()
    assert cache.cpu_cache_engine.index.num_blocks == ssd_of(cache).index.num_blocks == 0
    assert cache.cpu_cache_engine.index.num_doomed == 7
    read.commit(3)
    write.commit(4)
    assert levels(cache) == (16, 0, 0, 0, 0, 0, 0) * 2
    assert not cache.holds(sequence(3).block_hashes[0].tobytes())


def test_a_key_is_held_whichever_tier_has_it() -> None:
    cache = tiers()
    keep_on_ssd(cache, 1)
    store(cache, 1, first=1000)
    assert cache.holds(sequence(1).block_hashes[0].tobytes())
    assert cache.holds(sequence(1, 1000).block_hashes[0].tobytes())
    assert not cache.holds(sequence(1, 2000).block_hashes[0].tobytes())


def test_events_of_the_ssd_tier_name_it_once_the_bytes_are_there() -> None:
    events = Collector()
    cache = tiers(num_ssd=3, collector=events)
    store(cache, 3)
    move = offload(cache, 3)
    assert events == []
    move.commit(2)
    (stored,) = events
    assert isinstance(stored, BlocksStored)
    assert stored.tier is DeviceType.SSD
    assert np.array_equal(stored.keys, sequence(3).block_hashes[:2])


# --- graphs


def test_a_stage_reads_in_chunks_that_are_checked_by_key() -> None:
    cache = tiers(num_cpu=32, num_ssd=32)
    keep_on_ssd(cache, 20)
    move = stage(cache, 20)
    graph = stage_graph(move)
    assert [len(op.src_block_ids) for op in graph] == [8, 8, 4]
    start = 0
    for op in graph:
        end = start + len(op.src_block_ids)
        assert op.transfer_type is TransferType.DISK2H
        assert op.src_block_ids.tolist() == move.source.slots[start:end].tolist()
        assert op.dst_block_ids.tolist() == move.target.slots[start:end].tolist()
        assert op.disk is not None
        assert np.array_equal(op.disk.keys, sequence(20).block_hashes[start:end])
        assert op.disk.parents is None
        assert not op.predecessors
        start = end


def test_an_offload_writes_down_what_its_blocks_carry() -> None:
    cache = tiers()
    store(cache, 9)
    move = offload(cache, 9, tenant=3, priority=2, group=1)
    graph = offload_graph(move, 1234)
    assert [op.transfer_type for op in graph] == [TransferType.H2DISK] * 2
    first, second = graph
    for op, chunk in ((first, slice(0, 8)), (second, slice(8, 9))):
        assert op.src_block_ids.tolist() == move.source.slots[chunk].tolist()
        assert op.dst_block_ids.tolist() == move.target.slots[chunk].tolist()
        blocks = op.disk
        assert blocks is not None
        assert blocks.parents is not None
        assert np.array_equal(blocks.keys, move.keys[chunk])
        assert np.array_equal(blocks.parents, move.parents[chunk])
        assert blocks.parents.flags.c_contiguous
        assert (blocks.expiry_s, blocks.tenant, blocks.group, blocks.priority) == (1234, 3, 1, 2)


@pytest.mark.parametrize("num_blocks", [1, 7, 8, 9, 255, 256, 257, 5000])
def test_a_move_has_at_most_32_chunks_that_follow_each_other(num_blocks: int) -> None:
    chunks = chunks_of(num_blocks)
    assert len(chunks) <= 32
    assert [chunk.start for chunk in chunks] == [0, *(chunk.stop for chunk in chunks[:-1])]
    assert chunks[-1].stop == num_blocks


def test_a_load_has_an_op_for_what_is_there_and_one_for_each_op_it_waits_for() -> None:
    slots, blocks = np.arange(6), np.arange(6) + 100
    graph = load_graph(
        [slots[:2], slots[2:]], [blocks[:2], blocks[2:]], 5, np.array([-1, FAR, FAR, -1, FARTHER, FARTHER])
    )
    found = {frozenset(op.predecessors): (op.src_block_ids.tolist(), op.dst_block_ids.tolist()) for op in graph}
    assert found == {
        frozenset(): ([0, 3], [100, 103]),
        frozenset({FAR}): ([1, 2], [101, 102]),
        frozenset({FARTHER}): ([4, 5], [104, 105]),
    }
    assert {op.after_step for op in graph} == {5}
    (alone,) = load_graph([slots], [blocks], 0, np.full(6, -1))
    assert not alone.predecessors
    with pytest.raises(ValueError, match="src has 2 ids and dst has 3"):
        load_graph([slots[:2]], [blocks[:3]], 0, np.array([FAR, FAR]))


def test_a_join_waits_for_ops_and_moves_nothing() -> None:
    (op,) = join_graph([FAR, FARTHER])
    assert op.transfer_type is TransferType.VIRTUAL
    assert op.predecessors == {FAR, FARTHER}
    assert len(op.src_block_ids) == 0
