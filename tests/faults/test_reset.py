"""Reset while copies are held at the gate: no wrong byte, doomed blocks go with the last pin, tasks end as due."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from flexkv.common.request import KVResponseStatus as Status
from tests.rig import Rig, eventually, slots_of, tokens
from tests.task_bench import Bench

NUM_SLOTS = 12


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig(num_cpu_blocks=NUM_SLOTS)
    yield rig
    rig.close()


def doomed(rig: Rig) -> int:
    rig.manager.check_invariants()
    cache = rig.manager._engine._tier.cache
    assert cache is not None
    return cache.cpu_cache_engine.index.num_doomed


def start_reset(rig: Rig) -> threading.Thread:
    """Reset in a thread; returns once the blocks are gone and the reset waits for the copies."""
    thread = threading.Thread(target=rig.manager.reset)
    thread.start()
    assert eventually(lambda: rig.manager._engine._gate.num_sleepers == 1)
    return thread


def test_a_load_in_flight_runs_on_over_a_reset_with_its_own_bytes(rig: Rig) -> None:
    expected = rig.gpu.read([1, 2, 3])
    assert rig.store(tokens(3), [1, 2, 3]) is Status.SUCCESS
    rig.gpu.poison()
    rig.client.hold(True)
    load = rig.manager.get_async(tokens(3), slots_of([11, 12, 13]))
    thread = start_reset(rig)
    assert doomed(rig) == 3
    assert not rig.manager.get_match(tokens(3))[1].any(), "invisible at once"
    taken, mask = rig.manager.put_match(tokens(NUM_SLOTS, first=5000))
    assert mask.sum() == (NUM_SLOTS - 3) * 4, "the load still reads its slots"
    rig.manager.cancel(taken)
    again, mask = rig.manager.put_match(tokens(3))
    assert mask.all(), "the same blocks can be stored anew beside the doomed ones"
    rig.manager.cancel(again)
    assert thread.is_alive()
    rig.client.hold(False)
    assert rig.manager.wait(load)[load].status is Status.SUCCESS
    thread.join(20)
    assert not thread.is_alive()
    assert np.array_equal(rig.gpu.read([11, 12, 13]), expected)
    assert rig.gpu.untouched([11, 12, 13])
    assert doomed(rig) == 0
    assert rig.manager.stats().slots_used == 0
    rig.check_nothing_is_held()


def test_a_doomed_block_is_freed_when_the_last_of_several_loads_lets_go() -> None:
    bench = Bench()
    bench.store(3)
    loads = [bench.load(3), bench.load(3)]
    object.__setattr__(bench.engine.cache_config, "transfer_timeout_s", 0.001)
    bench.engine.reset()
    cache = bench.engine._tier.cache
    assert cache is not None
    for graph_id, left in zip(bench.graph_ids, (3, 0), strict=True):
        assert cache.cpu_cache_engine.index.num_doomed == 3
        bench.transfer.finish(graph_id)
        bench.engine.try_wait(loads)
        assert cache.cpu_cache_engine.index.num_doomed == left
        assert bench.engine.stats().slots_used == left
        bench.engine.check_invariants()
    assert [bench.status(load) for load in loads] == [Status.SUCCESS] * 2
    bench.check_nothing_is_held()


def test_a_store_at_the_gate_is_called_back_by_a_reset(rig: Rig) -> None:
    rig.client.hold(True)
    store = rig.manager.put_async(tokens(3), slots_of([1, 2, 3]))
    rig.manager.reset()
    assert rig.manager.wait(store)[store].status is Status.CANCELLED
    rig.client.hold(False)
    assert not rig.manager.get_match(tokens(3))[1].any()
    assert rig.manager.stats().slots_used == 0
    rig.check_nothing_is_held()
    expected = rig.gpu.read([7, 8, 9])
    assert rig.store(tokens(3), [7, 8, 9]) is Status.SUCCESS, "the same blocks, computed anew"
    rig.gpu.poison()
    assert rig.load(tokens(3), [1, 2, 3]) is Status.SUCCESS
    assert np.array_equal(rig.gpu.read([1, 2, 3]), expected)


@pytest.mark.parametrize("ends", [("finish",), ("fail", "release"), ("time_out", "release"), ("acknowledge_cancel",)])
def test_a_store_that_a_reset_cannot_call_back_is_never_seen_however_it_ends(ends: tuple[str, ...]) -> None:
    bench = Bench(transfer_timeout_s=0.001)
    store = bench.put(3)
    (graph_id,) = bench.graph_ids
    bench.engine.reset()
    again, mask = bench.engine.put_match(tokens(3))
    assert mask.all()
    assert bench.engine.stats().slots_used == 6, "beside the slots that the old store may write"
    for end in ends:
        getattr(bench.transfer, end)(graph_id)
    expected = {"finish": Status.SUCCESS, "acknowledge_cancel": Status.CANCELLED}.get(ends[0], Status.FAILED)
    assert bench.status(store) is expected
    assert not bench.engine.get_match(tokens(3))[1].any()
    assert bench.engine.stats().slots_used == 3
    bench.engine.cancel(again)
    assert bench.engine.stats().slots_used == 0
    bench.check_nothing_is_held()
