"""The numbered behaviours that every implementation of a seam must show (contracts, section 5).

1-5 and 8 are shown here for the control plane, 6 over a transfer double; 6 and 7 over real memory are in tests/transfer
and in tests/test_kvmanager.py, 8 with a real dead worker in tests/test_kvmanager_processes.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from flexkv.cache.cache_engine import CacheEngine, GlobalCacheEngine
from flexkv.cache.eviction import policy_names
from flexkv.cache.mempool import Mempool
from flexkv.cache.radixtree import EntryMeta, InsertStatus, RadixTree
from flexkv.common.block import SequenceMeta
from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.common.request import KVResponseStatus as Status
from flexkv.common.storage import DeviceType
from flexkv.errors import CapacityError, ConfigError
from flexkv.kvtask import KVTaskEngine
from tests.doubles import RankDouble, StorageDouble, TransferDouble

TPB = 4
MODEL = ModelConfig(num_layers=1, num_kv_heads=1, head_size=8)


def ids(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def chain(num_blocks: int, first: int = 0) -> SequenceMeta:
    return SequenceMeta(np.arange(first, first + num_blocks * TPB), TPB)


# --- 1. sizes


@pytest.mark.parametrize("tokens_per_block", [0, -4, 3, 12, 2.0, True])
def test_1_a_block_size_that_is_no_power_of_two_is_a_config_error(tokens_per_block: int) -> None:
    with pytest.raises(ConfigError, match="tokens_per_block"):
        CacheConfig(tokens_per_block=tokens_per_block)
    if tokens_per_block is not True:
        with pytest.raises(ConfigError, match="tokens_per_block"):
            CacheEngine(DeviceType.CPU, 8, tokens_per_block)


@pytest.mark.parametrize("num_blocks", [0, -1, 1.5])
def test_1_a_pool_size_that_is_not_positive_is_a_config_error(num_blocks: int) -> None:
    with pytest.raises(ConfigError, match="num_cpu_blocks"):
        CacheConfig(num_cpu_blocks=num_blocks)
    for build in (Mempool, RadixTree, lambda size: CacheEngine(DeviceType.CPU, size, TPB)):
        with pytest.raises(ConfigError, match="num_blocks"):
            build(num_blocks)


@pytest.mark.parametrize("tokens_per_block", [1, 2, 16, 1024])
def test_1_every_power_of_two_is_a_block_size(tokens_per_block: int) -> None:
    assert CacheEngine(DeviceType.CPU, 1, tokens_per_block).tokens_per_block == tokens_per_block


# --- 2. slot pool


def test_2_counts_are_exact_and_a_reset_restores_all() -> None:
    pool = Mempool(100)
    first, second = pool.allocate_blocks(30), pool.allocate_blocks(70)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(100))
    assert (pool.num_free_blocks, pool.num_used_blocks) == (0, 100)
    with pytest.raises(CapacityError):
        pool.allocate_blocks(1)
    pool.recycle_blocks(first)
    assert (pool.num_free_blocks, pool.num_used_blocks) == (30, 70)
    pool.reset()
    assert (pool.num_free_blocks, pool.num_used_blocks) == (100, 0)
    pool.check_invariants()


@pytest.mark.parametrize(
    "slots",
    [ids(5), ids(0, 0), ids(0, 9), ids(-1), ids(0, 100), ids(0).astype(np.int32), ids(0) * 1.0, ids(0).reshape(1, 1)],
)
def test_2_double_free_out_of_range_and_wrong_dtype_change_nothing(slots: np.ndarray) -> None:
    pool = Mempool(10)
    pool.allocate_blocks(3)
    with pytest.raises(ValueError, match="slot"):
        pool.recycle_blocks(slots)
    assert pool.num_used_blocks == 3
    pool.check_invariants()


# --- 3. match


def stored(num_blocks: int, size: int = 32) -> CacheEngine:
    tier = CacheEngine(DeviceType.CPU, size, TPB, 0.0)
    tier.insert(chain(num_blocks), tier.take(num_blocks))
    tier.publish(chain(num_blocks), tier.match(chain(num_blocks)).slots(), 0)
    return tier


def test_3_full_partial_and_divergent_matches() -> None:
    tier = stored(4)
    assert tier.match(chain(4)).num_ready == 4
    assert tier.match(chain(2)).num_ready == 2
    assert tier.match(chain(9)).num_ready == 4
    changed = np.arange(4 * TPB)
    changed[2 * TPB] = 999
    assert tier.match(SequenceMeta(changed, TPB)).num_ready == 2
    changed[0] = 999
    assert tier.match(SequenceMeta(changed, TPB)).num_ready == 0
    assert tier.match(chain(4, first=1)).num_ready == 0


def test_3_a_partial_tail_block_is_ignored() -> None:
    tier = stored(2)
    assert tier.match(SequenceMeta(np.arange(2 * TPB + 3), TPB)).num_visible == 2
    assert tier.match(SequenceMeta(np.arange(TPB - 1), TPB)).num_visible == 0


def test_3_ready_is_a_contiguous_prefix() -> None:
    tier = CacheEngine(DeviceType.CPU, 8, TPB)
    slots = tier.take(4)
    tier.insert(chain(4), slots)
    for ready, expected in ((3, 0), (0, 1), (2, 1), (1, 4)):
        tier.index.mark_ready(slots[ready : ready + 1])
        assert tier.match(chain(4)).num_ready == expected
    assert tier.match(chain(4)).num_visible == 4


def test_3_a_stale_insert_conflicts_and_the_caller_keeps_its_slots() -> None:
    tier = stored(3)
    slots = tier.take(2)
    assert tier.insert(chain(4), slots, 2) == InsertStatus.CONFLICT
    orphan = chain(6, first=500)
    assert tier.insert(orphan, slots, 4) == InsertStatus.PARENT_GONE
    assert tier.num_reserved == 2
    tier.recycle(slots)
    tier.check_invariants()
    assert tier.mempool.num_used_blocks == 3


# --- 4. eviction


def test_4_pinned_and_unready_blocks_are_never_evicted() -> None:
    tier = stored(3, size=8)
    pinned = tier.match(chain(3)).slots()
    tier.pin(int(pinned[1]))
    unready = tier.take(2)
    tier.insert(chain(2, first=900), unready)
    assert tier.index.evict(8).tolist() == [pinned[2]], "the pinned block's child goes, it and its parent stay"
    assert tier.index.num_blocks == 4


def test_4_lru_evicts_the_least_recently_used_leaf_first_and_then_its_parents() -> None:
    assert "lru" in policy_names()
    tier = CacheEngine(DeviceType.CPU, 8, TPB, 0.0, "lru")
    slots: dict[int, list[int]] = {}
    for first in (0, 1000, 2000):
        slots[first] = tier.take(2).tolist()
        tier.insert(chain(2, first), ids(*slots[first]))
        tier.publish(chain(2, first), ids(*slots[first]), 0)
    used = slots[0][1]
    tier.pin(used)
    tier.unpin(used)
    order = [*slots[1000][::-1], *slots[2000][::-1], *slots[0][::-1]]
    assert [int(tier.index.evict(1)[0]) for _ in order] == order


def test_4_lower_priority_is_evicted_first() -> None:
    tier = CacheEngine(DeviceType.CPU, 8, TPB)
    for first, priority in ((0, 7), (1000, 0), (2000, 3)):
        slots = tier.take(1)
        tier.insert(chain(1, first), slots, meta=EntryMeta(priority=priority))
        tier.publish(chain(1, first), slots, 0)
    order = [int(tier.index.evict(1)[0]) for _ in range(3)]
    assert order == [1, 2, 0]


def test_4_the_cost_of_an_eviction_does_not_grow_with_the_number_of_blocks() -> None:
    def seconds_per_block(num_blocks: int) -> float:
        index, best = RadixTree(num_blocks), 1e9
        for first in range(0, num_blocks, 1000):  # many leaves: chains of 10 blocks
            for start in range(first, first + 1000, 10):
                keys = chain(10, first=start * 1000).block_hashes
                slots = np.arange(start, start + 10)
                index.insert(keys, 0, slots, EntryMeta())
                index.mark_ready(slots)
        for _ in range(5):
            begin = time.perf_counter()
            assert len(index.evict(200)) == 200
            best = min(best, (time.perf_counter() - begin) / 200)
        return best

    assert seconds_per_block(50_000) < 20 * seconds_per_block(2_000), "linear would be a factor of 25 and grow"


# --- 5. plans


def cache() -> GlobalCacheEngine:
    engine = GlobalCacheEngine(CacheConfig(tokens_per_block=TPB, num_cpu_blocks=8, evict_ratio=0.0), MODEL)
    put = engine.prepare_put(chain(3))
    put.commit()
    return engine


@pytest.mark.parametrize("first", ["commit", "abort"])
@pytest.mark.parametrize("second", ["commit", "abort"])
@pytest.mark.parametrize("kind", ["get", "put"])
def test_5_a_plan_is_committed_or_aborted_once(kind: str, first: str, second: str) -> None:
    engine = cache()
    plan = engine.prepare_get(chain(3)) if kind == "get" else engine.prepare_put(chain(5))
    getattr(plan, first)()
    with pytest.raises(RuntimeError):
        getattr(plan, second)()
    engine.check_invariants()


@pytest.mark.parametrize("kind", ["get", "put"])
def test_5_abort_restores_pool_and_index_exactly(kind: str) -> None:
    engine = cache()
    tier = engine.cpu_cache_engine

    def state() -> tuple[object, ...]:
        match = tier.match(chain(8))
        index = tier.index
        return (
            match.slots().tolist(),
            match.num_ready,
            tier.mempool.num_free_blocks,
            (index.num_blocks, index.num_doomed, index.num_unready, index.num_pinned, index.num_evictable),
        )

    before = state()
    plan = engine.prepare_get(chain(3)) if kind == "get" else engine.prepare_put(chain(7))
    assert plan.num_blocks > 0
    assert state() != before
    plan.abort()
    assert state() == before
    engine.check_invariants()


@pytest.fixture
def transfer() -> Iterator[TransferDouble]:
    transfer = TransferDouble([RankDouble(tokens_per_block=TPB)])
    yield transfer
    transfer.close()


def engine_over(transfer: TransferDouble) -> KVTaskEngine:
    config = CacheConfig(tokens_per_block=TPB, num_cpu_blocks=16, evict_ratio=0.0, transfer_timeout_s=0.05)
    engine = KVTaskEngine(MODEL, config, transfer=transfer, storage=StorageDouble(16))
    engine.start()
    assert engine.is_ready()
    return engine


def launched_put(engine: KVTaskEngine, num_blocks: int) -> int:
    task_id, mask = engine.put_match(np.arange(num_blocks * TPB))
    assert mask.all()
    engine.launch(task_id, block_ids=[np.arange(num_blocks)])
    return task_id


def test_5_cancel_leaves_running_tasks_alone(transfer: TransferDouble) -> None:
    engine = engine_over(transfer)
    task_id = launched_put(engine, 2)
    engine.cancel(task_id)
    assert transfer.cancelled == []
    transfer.finish(*transfer.waiting)
    assert engine.wait(task_id)[task_id].status is Status.SUCCESS
    assert engine.get_match(np.arange(2 * TPB))[1].all()


# --- 6. failure


def test_6_a_failed_op_fails_its_task_and_its_slots_wait_for_the_release(transfer: TransferDouble) -> None:
    engine = engine_over(transfer)
    task_id = launched_put(engine, 12)
    (graph_id,) = transfer.waiting
    transfer.fail(graph_id)
    assert engine.wait(task_id)[task_id].status is Status.FAILED
    _, mask = engine.put_match(np.arange(16 * TPB))
    assert not mask.any(), "12 of 16 slots are in quarantine: over the budget"
    transfer.release(graph_id)
    _, mask = engine.put_match(np.arange(16 * TPB))
    assert mask.all()
    engine.check_invariants()


# --- 8. no call hangs


def test_8_every_call_returns_while_the_other_side_is_silent(transfer: TransferDouble) -> None:
    engine = engine_over(transfer)
    transfer.drains = False
    task_id = launched_put(engine, 2)
    begin = time.monotonic()
    assert engine.wait(task_id, timeout=0)[task_id].status is Status.TIMEOUT
    assert engine.wait(task_id, timeout=0.05)[task_id].status is Status.TIMEOUT
    assert not engine.wait_any(0.05)
    assert engine.try_wait(task_id) == {}
    engine.reset()
    engine.shutdown(0.05)
    assert engine.wait(task_id, timeout=5)[task_id].status is Status.FAILED
    assert time.monotonic() - begin < 5
    engine.check_invariants()
