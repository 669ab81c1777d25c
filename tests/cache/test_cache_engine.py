"""GlobalCacheEngine and CacheEngine: plans, events, bad input, eviction for a plan, expiry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flexkv.cache.cache_engine import CacheEngine, GlobalCacheEngine
from flexkv.cache.radixtree import EntryMeta, InsertStatus, RadixTree
from flexkv.cache.reservation import ReservationState
from flexkv.cache.span import BlockSpan, get_span, put_span
from flexkv.cache.transfer_pattern import load_graph, store_graph
from flexkv.common.block import SequenceMeta
from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.common.events import AllCleared, BlocksRemoved, BlocksStored, KVEvent
from flexkv.common.storage import DeviceType
from flexkv.common.transfer import TransferType
from flexkv.errors import ConfigError
from flexkv.tasks.requests import RequestReader

TPB = 4
MODEL = ModelConfig(num_layers=1, num_kv_heads=1, head_size=8)


class Collector(list[KVEvent]):
    def publish(self, event: KVEvent) -> None:
        self.append(event)


def engine(num_blocks: int = 16, collector: Collector | None = None) -> GlobalCacheEngine:
    config = CacheConfig(tokens_per_block=TPB, num_cpu_blocks=num_blocks, evict_ratio=0.0)
    return GlobalCacheEngine(config, MODEL, collector=collector)


def tokens(num_blocks: int, first: int = 0) -> np.ndarray:
    return np.arange(first, first + num_blocks * TPB)


def sequence(num_blocks: int, first: int = 0) -> SequenceMeta:
    return SequenceMeta(tokens(num_blocks, first), TPB)


def slots_of(blocks: list[int]) -> np.ndarray:
    return np.concatenate([np.arange(TPB) + block * TPB for block in blocks]) if blocks else np.empty(0, dtype=np.int64)


def store(cache: GlobalCacheEngine, num_blocks: int, first: int = 0, **meta: int) -> np.ndarray:
    put = cache.prepare_put(sequence(num_blocks, first), meta=EntryMeta(**meta))
    put.commit()
    return put.slots


def mask(text: str) -> np.ndarray:
    return np.array([letter == "1" for letter in text])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("11111111", (0, 2)),
        ("00001111", (1, 2)),
        ("00111111", (1, 2)),
        ("00000000", (2, 2)),
        ("11110000", (0, 1)),
        ("11101111", (0, 0)),
        ("111111110000", (0, 2)),
        ("000111111110", (1, 2)),
    ],
)
def test_a_get_covers_whole_blocks_of_the_first_stretch_of_trues(text: str, expected: tuple[int, int]) -> None:
    assert get_span(mask(text), len(text), TPB) == BlockSpan(*expected)


def test_a_partial_tail_belongs_to_no_span() -> None:
    assert get_span(None, 11, TPB) == put_span(None, 11, TPB) == BlockSpan(0, 2)
    assert get_span(mask(""), 0, TPB) == BlockSpan(0, 0)


def test_the_mask_of_a_put_starts_at_block_0() -> None:
    assert put_span(mask("111111100"), 9, TPB) == BlockSpan(0, 1)
    assert put_span(mask("0000"), 4, TPB) == BlockSpan(0, 0)
    with pytest.raises(ValueError, match="token_mask is False up to token 2"):
        put_span(mask("0011"), 4, TPB)


def test_get_and_put_build_graphs_over_the_masked_blocks() -> None:
    cache = engine()
    graph, put_mask, put = cache.put(tokens(3), None, slots_of([7, 5, 9]))
    (op,) = graph
    assert op.transfer_type is TransferType.D2H
    assert op.src_block_ids.tolist() == [7, 5, 9]
    assert op.dst_block_ids.tolist() == put.slots.tolist()
    assert put_mask.all()
    put.commit()

    on_gpu = np.arange(4 * TPB) < TPB + 1  # one block and a token: the load starts with block 2
    wanted = ~on_gpu
    graph, get_mask, get = cache.get(tokens(4), wanted, np.concatenate([[9001] * 3, slots_of([20, 21])]))
    (op,) = graph
    assert op.transfer_type is TransferType.H2D
    assert op.src_block_ids.tolist() == put.slots[2:].tolist()
    assert op.dst_block_ids.tolist() == [20]
    assert np.flatnonzero(get_mask).tolist() == list(range(2 * TPB, 3 * TPB))
    get.commit()
    cache.check_invariants()


def test_an_empty_plan_has_an_empty_graph() -> None:
    cache = engine()
    graph, get_mask, get = cache.get(tokens(2), None, slots_of([1, 2]))
    assert graph.num_ops == 0
    assert not get_mask.any()
    get.commit()
    assert cache.num_live_reservations == 0


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"token_ids": np.zeros((2, 4), dtype=np.int64)}, "token_ids"),
        ({"token_ids": np.zeros(8)}, "token_ids"),
        ({"token_ids": [-1] * 8}, "token_ids"),
        ({"token_mask": np.ones(7, dtype=bool)}, "token_mask"),
        ({"token_mask": np.ones(8, dtype=np.int64)}, "token_mask"),
        ({"slot_mapping": slots_of([1])}, "slot_mapping"),
        ({"slot_mapping": slots_of([1, 2])[::-1]}, "slot_mapping"),
        ({"slot_mapping": slots_of([1, 2]).astype(np.int32)}, "slot_mapping"),
        ({"slot_mapping": slots_of([1, 2]) - 5}, "slot_mapping"),
        ({"layer_num": 3}, "layer_num"),
        ({"namespace": "ab"}, "namespace"),
        ({"block_hashes": [b"x", b"yy"]}, "hash"),
    ],
)
@pytest.mark.parametrize("verb", ["get", "put"])
def test_bad_input_names_the_argument_and_changes_nothing(verb: str, arguments: dict[str, object], name: str) -> None:
    cache = engine()
    good: dict[str, object] = {"token_ids": tokens(2), "token_mask": None, "slot_mapping": slots_of([1, 2])}
    with pytest.raises(ValueError, match=name):
        getattr(cache, verb)(**(good | arguments))
    cache.check_invariants()
    assert cache.num_live_reservations == 0
    assert cache.cpu_cache_engine.mempool.num_used_blocks == 0


def test_match_all_reports_the_cpu_tier_and_no_other() -> None:
    cache = engine()
    store(cache, 3)
    cpu, ssd, remote = cache.match_all(sequence(5))
    assert (cpu.num_visible, cpu.num_ready) == (3, 3)
    assert ssd is None
    assert remote is None
    assert cache.match(sequence(5))[0].num_ready == 3


def test_a_put_skips_blocks_that_another_put_is_writing() -> None:
    cache = engine()
    first = cache.prepare_put(sequence(3))
    second = cache.prepare_put(sequence(5))
    assert (second.span.start, second.num_blocks) == (3, 2)
    second.commit()
    get = cache.prepare_get(sequence(5))
    assert (get.num_blocks, get.num_visible) == (0, 5), "the child's bytes are here, its parents' are not"
    get.abort()
    first.commit()
    assert cache.prepare_get(sequence(5)).num_blocks == 5


def test_an_aborted_parent_takes_its_committed_children_with_it() -> None:
    cache = engine()
    first = cache.prepare_put(sequence(3))
    second = cache.prepare_put(sequence(5))
    second.commit()
    first.abort()
    assert cache.match(sequence(5))[0].num_visible == 0
    assert cache.cpu_cache_engine.mempool.num_used_blocks == 0
    cache.check_invariants()


def test_a_plan_shrinks_when_slots_are_pinned() -> None:
    cache = engine(num_blocks=6)
    store(cache, 4)
    get = cache.prepare_get(sequence(4))
    put = cache.prepare_put(sequence(5, first=1000))
    assert (put.num_blocks, put.num_skipped) == (2, 3)
    put.commit()
    get.commit()
    cache.check_invariants()


def test_eviction_for_a_put_never_takes_the_parent_of_what_is_stored() -> None:
    cache = engine(num_blocks=4)
    store(cache, 3)
    put = cache.prepare_put(sequence(8))
    assert put.span == BlockSpan(3, 4), "the parents stay, so only one slot is left"
    put.commit()
    assert cache.prepare_get(sequence(8)).num_blocks == 4


def test_eviction_takes_no_more_than_asked_but_for_the_part_that_is_kept_free() -> None:
    for ratio, kept in ((0.0, 98), (0.1, 88)):
        tier = CacheEngine(DeviceType.CPU, 100, TPB, ratio)
        chain = sequence(100)
        tier.insert(chain, tier.take(100))
        tier.publish(chain, tier.match(chain).slots(), 0)
        assert len(tier.take(0)) == 0
        assert tier.index.num_blocks == 100, "nothing was asked for"
        assert len(tier.take(2)) == 2
        assert tier.index.num_blocks == kept
        assert tier.mempool.num_free_blocks == int(ratio * 100)
        tier.check_invariants()


def test_the_part_that_is_kept_free_comes_to_be_in_bounded_steps_and_may_be_used_up() -> None:
    tier = CacheEngine(DeviceType.CPU, 1000, TPB, 0.5)
    chain = sequence(1000)
    tier.insert(chain, tier.take(1000))
    tier.publish(chain, tier.match(chain).slots(), 0)
    assert len(tier.take(1)) == 1
    assert tier.num_evicted == 257
    assert len(tier.take(1)) == 1
    assert (tier.num_evicted, tier.mempool.num_free_blocks) == (502, 500)
    deepest = tier.match(chain).deepest_visible
    tier.pin(deepest)
    assert len(tier.take(600)) == 500, "what is kept free serves when nothing can be evicted"
    tier.unpin(deepest)
    tier.check_invariants()


def test_expired_blocks_are_no_match_and_give_way_to_a_new_store() -> None:
    cache = engine()
    store(cache, 3, expiry_s=10)
    assert cache.prepare_get(sequence(3), now_s=9).num_blocks == 3
    assert cache.prepare_get(sequence(3), now_s=10).num_blocks == 0
    put = cache.prepare_put(sequence(3), now_s=10)
    assert put.num_blocks == 3
    put.commit()
    assert cache.prepare_get(sequence(3), now_s=99).num_blocks == 3


@pytest.mark.parametrize("num_new_blocks", [0, 1])
def test_a_second_store_lengthens_the_life_of_what_is_held(num_new_blocks: int) -> None:
    cache = engine(num_blocks=4)
    store(cache, 3, expiry_s=10)
    store(cache, 1, first=1000)
    store(cache, 3 + num_new_blocks, expiry_s=3600, priority=1)
    get = cache.prepare_get(sequence(3), now_s=3599)
    assert get.num_blocks == 3
    get.abort()
    store(cache, 1, first=2000)  # evicts: what has a priority stays
    assert cache.match(sequence(3))[0].num_ready == 3
    cache.check_invariants()


def test_a_stale_insert_conflicts_and_the_caller_keeps_its_slots() -> None:
    tier = CacheEngine(DeviceType.CPU, 8, TPB)
    mine, theirs = tier.take(2), tier.take(2)
    assert tier.insert(sequence(2), theirs) == InsertStatus.INSERTED
    assert tier.insert(sequence(2), mine) == InsertStatus.CONFLICT
    assert tier.num_reserved == 2
    tier.recycle(mine)
    tier.check_invariants()
    assert tier.mempool.num_used_blocks == 2


def test_what_was_sealed_cannot_be_ended_twice() -> None:
    cache = engine()
    for first, second in (("commit", "abort"), ("abort", "commit"), ("commit", "commit"), ("abort", "abort")):
        put = cache.prepare_put(sequence(2))
        getattr(put, first)()
        with pytest.raises(RuntimeError, match="cannot become"):
            getattr(put, second)()
        cache.check_invariants()


@pytest.mark.parametrize("spoil", ["doom", "quarantine"])
def test_a_spoiled_store_is_invisible_at_once_and_freed_when_aborted(spoil: str) -> None:
    cache = engine()
    put = cache.prepare_put(sequence(4))
    getattr(put, spoil)()
    tier = cache.cpu_cache_engine
    assert tier.index.num_blocks == 0
    assert tier.mempool.num_free_blocks == 12, "an op may still write its slots"
    assert cache.num_quarantined_blocks == (4 if spoil == "quarantine" else 0)
    with pytest.raises(RuntimeError, match="cannot become COMMITTED"):
        put.commit()
    cache.check_invariants()
    put.abort()
    assert put.state is ReservationState.ABORTED
    assert tier.mempool.num_free_blocks == 16
    cache.check_invariants()


def test_a_quarantined_store_survives_a_reset_of_everything_around_it() -> None:
    cache = engine()
    first = cache.prepare_put(sequence(2))
    second = cache.prepare_put(sequence(4))
    first.quarantine()
    cache.reset()
    first.abort()
    cache.check_invariants()
    assert cache.cpu_cache_engine.mempool.num_free_blocks == 12, "the second one's ops still run below the first one"
    second.commit()
    assert cache.cpu_cache_engine.mempool.num_free_blocks == 16
    cache.check_invariants()


def test_events_tell_what_was_stored_removed_and_cleared() -> None:
    events = Collector()
    cache = engine(num_blocks=4, collector=events)
    store(cache, 3)
    (stored,) = events
    assert isinstance(stored, BlocksStored)
    assert (stored.tier, stored.parent_key, stored.tokens_per_block) == (DeviceType.CPU, None, TPB)
    assert np.array_equal(stored.keys, sequence(3).block_hashes)
    events.clear()

    store(cache, 4, first=1000)
    removed, stored = events
    assert isinstance(removed, BlocksRemoved)
    assert {key.tobytes() for key in removed.keys} == {key.tobytes() for key in sequence(3).block_hashes}
    events.clear()

    cache.reset()
    assert events == [AllCleared(tier=DeviceType.CPU)]


def test_a_store_that_continues_names_its_parent() -> None:
    events = Collector()
    cache = engine(collector=events)
    store(cache, 2)
    store(cache, 5)
    last = events[-1]
    assert isinstance(last, BlocksStored)
    assert last.parent_key == sequence(2).block_hashes[-1].tobytes()
    assert len(last.keys) == 3


def test_a_store_that_lost_its_last_blocks_announces_the_leading_ones() -> None:
    events = Collector()
    cache = engine(collector=events)
    keys = sequence(6).block_hashes
    put = cache.prepare_put(sequence(6))
    cache.cpu_cache_engine.drop(keys[4], int(put.slots[4]))
    put.commit()
    (stored,) = events
    assert isinstance(stored, BlocksStored)
    assert np.array_equal(stored.keys, keys[:4])
    events.clear()
    cache.cpu_cache_engine.drop(keys[0], int(put.slots[0]))
    (removed,) = events
    assert isinstance(removed, BlocksRemoved)
    assert {key.tobytes() for key in removed.keys} == {key.tobytes() for key in keys[:4]}
    cache.check_invariants()


def test_a_store_that_lost_all_its_blocks_announces_nothing() -> None:
    events = Collector()
    cache = engine(collector=events)
    put = cache.prepare_put(sequence(3))
    cache.cpu_cache_engine.drop(sequence(3).block_hashes[0], int(put.slots[0]))
    put.commit()
    assert events == []
    cache.check_invariants()


def test_a_block_whose_second_store_fails_is_announced_as_removed() -> None:
    events = Collector()
    cache = engine(collector=events)
    put = cache.prepare_put(sequence(2))
    put.commit()
    get = cache.prepare_get(sequence(2))
    cache.cpu_cache_engine.drop(sequence(2).block_hashes[0], int(put.slots[0]))
    second = cache.prepare_put(sequence(2))
    get.commit()  # the doomed blocks go while the same keys are visible, unready
    events.clear()
    second.abort()
    (removed,) = events
    assert isinstance(removed, BlocksRemoved)
    assert {key.tobytes() for key in removed.keys} == {key.tobytes() for key in sequence(2).block_hashes}


def test_a_block_that_came_back_is_not_announced_as_removed() -> None:
    events = Collector()
    cache = engine(collector=events)
    put = cache.prepare_put(sequence(2))
    put.commit()
    get = cache.prepare_get(sequence(2))
    cache.cpu_cache_engine.drop(sequence(2).block_hashes[0], int(put.slots[0]))
    store(cache, 2)  # the same keys, in other slots, while the old ones are doomed and pinned
    events.clear()
    get.commit()
    assert events == []
    cache.check_invariants()


def test_a_store_that_was_doomed_is_never_announced() -> None:
    events = Collector()
    cache = engine(collector=events)
    put = cache.prepare_put(sequence(2))
    cache.reset()
    put.commit()
    assert [type(event) for event in events] == [AllCleared]


def test_graphs_refuse_parts_of_unequal_length() -> None:
    ids = np.arange(3)
    for build in (load_graph, store_graph):
        with pytest.raises(ValueError, match="equally many"):
            build([ids], [ids[:2]])
    (op,) = load_graph([ids, ids + 10], [ids + 20, ids + 30], after_step=4)
    assert op.src_block_ids.tolist() == [0, 1, 2, 10, 11, 12]
    assert op.after_step == 4


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ((0, TPB, 0.0), "num_blocks"),
        ((-4, TPB, 0.0), "num_blocks"),
        ((2.5, TPB, 0.0), "num_blocks"),
        ((True, TPB, 0.0), "num_blocks"),
        ((8, 3, 0.0), "tokens_per_block"),
        ((8, 0, 0.0), "tokens_per_block"),
        ((8, TPB, 1.0), "evict_ratio"),
        ((8, TPB, 0.0, "best"), "eviction_policy"),
    ],
)
def test_a_cache_engine_that_cannot_work_is_refused(arguments: tuple[object, ...], key: str) -> None:
    with pytest.raises(ConfigError, match=key) as caught:
        CacheEngine(DeviceType.CPU, *arguments)
    assert caught.value.key == key


def test_the_global_engine_needs_a_size() -> None:
    with pytest.raises(ConfigError, match="num_cpu_blocks"):
        GlobalCacheEngine(CacheConfig(cpu_cache_bytes=1 << 20), MODEL)


def test_the_index_refuses_what_does_not_fit() -> None:
    index = RadixTree(4)
    chain = sequence(3)
    with pytest.raises(ValueError, match="slot"):
        index.insert(chain.block_hashes, 0, np.array([0, 1]), EntryMeta())
    with pytest.raises(ValueError, match="slot"):
        index.insert(chain.block_hashes, 0, np.array([0, 1, 4]), EntryMeta())
    with pytest.raises(ValueError, match="dtype"):
        index.insert(chain.block_hashes, 0, np.array([0.0, 1.0, 2.0]), EntryMeta())
    assert index.num_blocks == 0
    index.check_invariants()


def test_get_and_put_use_the_keys_of_the_configuration(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"0123456789abcdef")
    secret.chmod(0o600)
    roots = set()
    for settings in ({}, {"fingerprint": "ab"}, {"fingerprint": "ab", "key_file": str(secret)}):
        config = CacheConfig(tokens_per_block=TPB, num_cpu_blocks=16, **settings)  # type: ignore[arg-type]
        cache = GlobalCacheEngine(config, MODEL)
        _, _, plan = cache.put(tokens(2), slot_mapping=slots_of([0, 1]), namespace=["a"])
        plan.commit()
        wanted = RequestReader(config, lambda: 0).sequence(tokens(2), ["a"])
        assert cache.prepare_get(wanted).num_blocks == 2, "the task engine finds it"
        roots.add(plan.sequence.root)
    assert len(roots) == 3


def test_without_all_slots_available_nothing_is_evicted_until_no_more_will_come() -> None:
    tier = CacheEngine(DeviceType.CPU, 8, TPB, 0.0, available=4)
    slots = tier.take(4)
    assert tier.insert(sequence(4), slots) == InsertStatus.INSERTED
    tier.publish(sequence(4), slots, 0)
    assert len(tier.take(2)) == 0
    tier.stop_growing()
    assert len(tier.take(2)) == 2
    assert tier.num_evicted == 2
    tier.check_invariants()
