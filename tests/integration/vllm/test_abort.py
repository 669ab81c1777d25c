"""A request is aborted in each of its states, over a real task engine: vLLM hears once, every slot and pin is free.

States, as request_state.py draws them: looked up, loading, running, storing, finished and waiting for its stores,
preempted. Copies end when the test says so.
"""

from __future__ import annotations

import pytest

from flexkv.common.request import KVResponseStatus as Status
from tests.task_bench import Bench

NUM_SLOTS = 16


@pytest.fixture
def bench():
    bench = Bench(max_quarantined_fraction=1.0)
    yield bench
    bench.engine.shutdown()
    bench.transfer.close()


@pytest.fixture
def manager(bench):
    return bench.engine


@pytest.fixture
def aborted(bench, scheduler, make_request):
    """What every state ends with: let the copies end, and see that nothing is left."""

    def check(*, used):
        for _ in range(3):
            for graph_id in list(bench.transfer.waiting):
                if graph_id in bench.transfer.cancelled:
                    bench.transfer.acknowledge_cancel(graph_id)
                else:
                    bench.transfer.finish(graph_id)
            scheduler.step()
        assert not scheduler.held
        assert not scheduler.loading
        assert not scheduler.notice.outstanding
        assert len(scheduler.connector._requests) == 0
        bench.check_nothing_is_held()
        stats = bench.engine.stats()
        assert (stats.slots_used, stats.slots_quarantined, stats.tasks_running) == (used, 0, 0)
        assert bench.engine.poll() == {}
        _, mask = bench.engine.put_match(range(9000, 9000 + 4 * NUM_SLOTS))
        assert mask.all(), "every slot can be had"

    return check


@pytest.fixture
def stored(bench, scheduler, make_request):
    """Five blocks that a prompt of 22 tokens can load."""
    request = make_request("warm", 20)
    scheduler.admit(request)
    scheduler.step()
    scheduler.finish(request)
    bench.transfer.finish(*bench.graph_ids)
    scheduler.step()
    assert bench.engine.stats().slots_used == 5


def loading(scheduler, make_request):
    request = make_request("a", 22)
    assert scheduler.admit(request) == 20
    scheduler.step()
    return request


def storing(scheduler, make_request):
    request = make_request("a", 18, seed=3)
    assert scheduler.admit(request) == 0
    scheduler.step()
    return request


def test_looked_up(stored, connector, scheduler, make_request, aborted):
    request = make_request("a", 22)
    assert connector.get_num_new_matched_tokens(request, 0) == (20, True)
    assert not scheduler.finish(request)
    assert not scheduler.finish(request), "twice"
    aborted(used=5)


def test_looked_up_and_allocated_but_not_launched(stored, scheduler, make_request, aborted):
    request = make_request("a", 22)
    assert scheduler.admit(request) == 20
    assert scheduler.finish(request), "its load is launched with the step"
    aborted(used=5)


@pytest.mark.parametrize("end", ["finish", "fail", "time_out"])
def test_loading(stored, bench, scheduler, make_request, aborted, end):
    request = loading(scheduler, make_request)
    assert scheduler.finish(request)
    (graph_id,) = bench.graph_ids
    if end != "finish":
        getattr(bench.transfer, end)(graph_id)
        scheduler.step()
        assert scheduler.held == {"a"}, "a rank may still write its blocks"
        assert bench.engine.stats().slots_quarantined == 5
        bench.transfer.release(graph_id)
    aborted(used=5)


def test_running_after_its_load(stored, bench, scheduler, make_request, aborted):
    request = loading(scheduler, make_request)
    bench.transfer.finish(*bench.graph_ids)
    scheduler.compute_rest(request)
    assert not scheduler.finish(request), "nothing of it is in flight"
    aborted(used=5)


@pytest.mark.parametrize("end", ["finish", "fail", "time_out"])
def test_storing_and_then_waiting_for_the_store(bench, scheduler, make_request, aborted, end):
    request = storing(scheduler, make_request)
    assert scheduler.finish(request), "its store reads the blocks"
    assert scheduler.held == {"a"}
    (graph_id,) = bench.graph_ids
    getattr(bench.transfer, end)(graph_id)
    if end != "finish":
        scheduler.step()
        assert bench.engine.stats().slots_quarantined == 4
        bench.transfer.release(graph_id)
    aborted(used=4 if end == "finish" else 0)


def test_running_with_its_store_done(bench, scheduler, make_request, aborted):
    request = storing(scheduler, make_request)
    bench.transfer.finish(*bench.graph_ids)
    scheduler.step()
    assert not scheduler.finish(request)
    aborted(used=4)


@pytest.mark.parametrize("is_early", [False, True])
def test_preempted_while_storing(bench, scheduler, make_request, aborted, is_early):
    request = storing(scheduler, make_request)
    scheduler.preempt(request)
    if is_early:  # before the step that tells of its preemption has been sent out
        scheduler.finish(request)
    scheduler.step()
    assert bench.transfer.cancelled == bench.graph_ids, "doomed before its blocks are overwritten"
    if not is_early:
        scheduler.finish(request)
    aborted(used=0)


def test_preempted_after_its_load(stored, bench, scheduler, make_request, aborted):
    request = loading(scheduler, make_request)
    bench.transfer.finish(*bench.graph_ids)
    scheduler.compute_rest(request)
    scheduler.preempt(request)
    scheduler.step()
    assert not scheduler.finish(request)
    aborted(used=5)


def test_a_preempted_store_whose_copy_was_done_already_is_not_committed(bench, scheduler, make_request, aborted):
    request = storing(scheduler, make_request)
    scheduler.preempt(request)
    scheduler.step()
    bench.transfer.finish(*bench.graph_ids)
    scheduler.finish(request)
    task_id, mask = bench.engine.get_match(sequence=bench.engine.sequence(block_hashes=request.block_hashes))
    assert not mask.any()
    assert bench.status(task_id) is Status.SUCCESS
    aborted(used=0)
