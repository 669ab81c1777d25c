"""KVTaskEngine over a transfer double: answers of wait, miss reasons, leases, bounds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flexkv.common.metrics import MissReason, SkipReason
from flexkv.common.request import KVResponseStatus as Status
from flexkv.common.transfer import TransferType
from flexkv.errors import CapacityError, ConfigError
from flexkv.kvtask import KVTask, TaskStatus
from flexkv.tasks import task as task_module
from tests.doubles import RankDouble
from tests.task_bench import TPB, Bench, tokens


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.engine.shutdown()
    bench.transfer.close()


# --- how a task ends


def test_a_task_goes_from_unready_to_success_and_is_forgotten_after_its_wait(bench: Bench) -> None:
    task_id, mask = bench.engine.put_match(tokens(2))
    assert mask.all()
    assert bench.status(task_id) is Status.UNREADY
    assert bench.engine.try_wait(task_id) == {}
    bench.engine.launch(task_id, block_ids=[[5, 6]])
    assert bench.status(task_id) is Status.TIMEOUT
    assert bench.engine.num_running == 1
    bench.transfer.finish(*bench.graph_ids)
    for _ in range(2):
        assert bench.engine.try_wait([task_id, 999])[task_id].status is Status.SUCCESS
    response = bench.engine.wait([task_id, 999])
    assert response[task_id].return_mask is not None
    assert response[task_id].return_mask.all()
    assert response[999].status is Status.NOTFOUND
    assert bench.status(task_id) is Status.NOTFOUND
    bench.check_nothing_is_held()


def test_a_failed_load_stays_running_until_no_rank_can_write_its_blocks(bench: Bench) -> None:
    bench.store(3)
    task_id = bench.load(3)
    (graph_id,) = bench.graph_ids
    bench.transfer.fail(graph_id)
    assert bench.status(task_id) is Status.TIMEOUT
    assert bench.engine.stats().slots_quarantined == 3
    bench.transfer.release(graph_id)
    response = bench.engine.wait(task_id)[task_id]
    assert response.status is Status.FAILED
    assert response.return_mask is not None
    assert not response.return_mask.any()
    assert bench.engine.get_match(tokens(3))[1].all(), "the blocks themselves are fine"


def test_a_failed_store_ends_at_once_and_keeps_its_slots_until_release(bench: Bench) -> None:
    task_id = bench.put(3)
    (graph_id,) = bench.graph_ids
    bench.transfer.time_out(graph_id)
    assert bench.status(task_id) is Status.FAILED
    stats = bench.engine.stats()
    assert (stats.slots_quarantined, stats.timed_out_tasks, stats.failed_tasks) == (3, 1, 1)
    assert stats.skipped_blocks[SkipReason.FAILED] == 3
    assert bench.engine.put_match(tokens(3))[1].all(), "nobody waits for what failed"
    bench.transfer.release(graph_id)
    assert bench.engine.stats().slots_quarantined == 0


def test_a_doomed_store_is_cancelled_even_when_its_copy_was_done(bench: Bench) -> None:
    task_id = bench.put(2)
    (graph_id,) = bench.graph_ids
    bench.engine.doom(task_id)
    bench.engine.doom(task_id)
    assert bench.transfer.cancelled == [graph_id]
    assert not bench.engine.get_match(tokens(2))[1].any()
    bench.transfer.finish(graph_id)
    assert bench.status(task_id) is Status.CANCELLED
    assert bench.engine.stats().skipped_blocks[SkipReason.DOOMED] == 2
    bench.check_nothing_is_held()


def test_dooming_other_tasks_only_cancels_what_is_not_launched(bench: Bench) -> None:
    bench.store(2)
    running = bench.load(2)
    unlaunched, _ = bench.engine.put_match(tokens(1, 900))
    bench.engine.doom([running, unlaunched, 12345])
    assert bench.status(unlaunched) is Status.CANCELLED
    bench.transfer.finish(*bench.graph_ids)
    assert bench.status(running) is Status.SUCCESS


def test_cancel_leaves_running_tasks_alone(bench: Bench) -> None:
    task_id = bench.put(2)
    bench.engine.cancel([task_id, 77])
    assert bench.transfer.cancelled == []
    bench.transfer.finish(*bench.graph_ids)
    assert bench.status(task_id) is Status.SUCCESS


@pytest.mark.parametrize("error", [RuntimeError, OSError, ValueError])
def test_a_refused_graph_fails_its_task_and_releases_everything(bench: Bench, error: type[Exception]) -> None:
    bench.transfer.refusal = error("refused on purpose")
    task_id = bench.put(2)
    assert bench.status(task_id) is Status.FAILED
    bench.check_nothing_is_held()
    assert bench.engine.stats().slots_used == 0


def test_an_error_nobody_expects_is_passed_on_and_holds_nothing(bench: Bench) -> None:
    bench.transfer.refusal = MemoryError("no memory")
    task_id, _ = bench.engine.put_match(tokens(2))
    with pytest.raises(MemoryError):
        bench.engine.launch(task_id, block_ids=[[1, 2]])
    assert bench.status(task_id) is Status.FAILED
    bench.check_nothing_is_held()


def test_a_batch_with_a_part_that_was_cancelled_is_cancelled(bench: Bench) -> None:
    first, _ = bench.engine.put_match(tokens(2))
    second, _ = bench.engine.put_match(tokens(2, 500))
    bench.engine.cancel(first)
    (batch,) = bench.engine.launch([first, second], block_ids=[[1, 2], [3, 4]], as_batch=True)
    assert bench.status(batch) is Status.CANCELLED
    assert bench.graph_ids == []
    bench.check_nothing_is_held()


def test_a_batch_of_one_keeps_its_id_and_one_of_empty_plans_is_done_at_once(bench: Bench) -> None:
    task_id, _ = bench.engine.put_match(tokens(1))
    assert bench.engine.launch([task_id], block_ids=[[1]], as_batch=True) == [task_id]
    empty = [bench.engine.get_match(tokens(1, 100 * n))[0] for n in (5, 6)]
    (batch,) = bench.engine.launch(empty, [[], []], as_batch=True)
    assert bench.status(batch) is Status.SUCCESS
    assert bench.engine.launch([], []) == []


def test_poll_takes_results_in_the_order_tasks_ended(bench: Bench) -> None:
    first, second = bench.put(1), bench.put(1, 500)
    later, sooner = bench.graph_ids
    bench.transfer.finish(sooner)
    bench.transfer.finish(later)
    assert list(bench.engine.poll()) == [second, first]
    assert bench.engine.poll() == {}
    assert bench.status(first) is Status.NOTFOUND


def test_wait_any_returns_when_something_ended_or_nothing_runs(bench: Bench) -> None:
    assert not bench.engine.wait_any(5.0)
    bench.put(1)
    assert not bench.engine.wait_any(0.01)
    waiter = threading.Thread(target=bench.engine.wait_any, args=(20.0,))
    waiter.start()
    bench.transfer.finish(*bench.graph_ids)
    waiter.join(10)
    assert not waiter.is_alive()
    assert bench.engine.wait_any(5.0)


def test_a_waiter_is_woken_when_another_thread_drains_its_completion(bench: Bench) -> None:
    task_id = bench.put(1)
    answers: list[Status] = []
    waiter = threading.Thread(target=lambda: answers.append(bench.engine.wait(task_id, timeout=20)[task_id].status))
    waiter.start()
    bench.transfer.finish(*bench.graph_ids)
    for _ in range(50):
        bench.engine.try_wait(task_id)
    waiter.join(10)
    assert answers == [Status.SUCCESS]


def test_illegal_steps_of_a_task_raise() -> None:
    task = KVTask(1, task_module.KVRequestType.GET, (), TPB, 0.0)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="is UNREADY and cannot become RUNNING"):
        task.become(TaskStatus.RUNNING)
    task.become(TaskStatus.CANCELLED)
    for status in TaskStatus:
        with pytest.raises(RuntimeError, match="is CANCELLED and cannot become"):
            task.become(status)
    assert TaskStatus.CREATED is TaskStatus.UNREADY


# --- bounds


def test_a_task_that_is_never_launched_is_cancelled_when_its_lease_ends(bench: Bench) -> None:
    bench.store(2)
    task_id, _ = bench.engine.get_match(tokens(2))
    bench.clock_s += task_module.UNLAUNCHED_LEASE_S - 1
    assert bench.status(task_id) is Status.UNREADY
    bench.clock_s += 2
    assert bench.status(task_id) is Status.CANCELLED
    bench.check_nothing_is_held()


def test_there_is_a_bound_on_tasks_that_wait_for_a_launch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_module, "MAX_UNLAUNCHED_TASKS", 2)
    ids = [bench.engine.put_match(tokens(1, 100 * n))[0] for n in range(4)]
    assert [bench.status(task_id) for task_id in ids][:2] == [Status.CANCELLED] * 2
    assert bench.status(ids[3]) is Status.UNREADY


def test_results_nobody_takes_are_dropped_oldest_first() -> None:
    bench = Bench(max_finished_tasks=3)
    ids = [bench.engine.get_match(tokens(1, 100 * n))[0] for n in range(5)]
    assert [bench.status(task_id) for task_id in ids] == [Status.NOTFOUND] * 2 + [Status.SUCCESS] * 3
    assert bench.engine.stats().dropped_results == 2


def test_misses_never_push_out_the_results_of_launched_tasks() -> None:
    bench = Bench(max_finished_tasks=1)
    bench.store(1)
    loads = [bench.load(1) for _ in range(3)]
    for graph_id in bench.graph_ids:
        bench.transfer.finish(graph_id)
    for first in range(100, 500, 100):
        bench.engine.get_match(tokens(1, first))
    assert [bench.status(task_id) for task_id in loads] == [Status.SUCCESS] * 3
    assert bench.engine.stats().dropped_results == 3
    assert len(bench.engine.poll()) == 1


def test_there_is_a_bound_on_results_of_launched_tasks_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_module, "MAX_LAUNCHED_RESULTS", 2)
    bench.store(1)
    loads = [bench.load(1) for _ in range(4)]
    miss, _ = bench.engine.get_match(tokens(1, 100))
    for graph_id in bench.graph_ids:
        bench.transfer.finish(graph_id)
    assert bench.engine.stats().dropped_results == 2
    assert bench.engine.try_wait(loads[2]).keys() == {loads[2]}
    assert list(bench.engine.poll()) == [miss, *loads[2:]]
    assert [bench.status(task_id) for task_id in loads] == [Status.NOTFOUND] * 4
    bench.check_nothing_is_held()


def test_no_bound_is_too_long_for_the_native_engine(bench: Bench) -> None:
    task_id, _ = bench.engine.put_match(tokens(1))
    bench.engine.launch(task_id, block_ids=[[1]], timeout_s=3e6)
    assert list(bench.transfer.timeouts_s.values()) == [1e6]
    timer = threading.Timer(0.05, bench.transfer.finish, bench.graph_ids)
    timer.start()
    assert bench.engine.wait(task_id, timeout=3e6)[task_id].status is Status.SUCCESS
    timer.join()


def test_the_bound_of_a_transfer_can_be_given_and_has_a_default(bench: Bench) -> None:
    bench.put(1)
    task_id, _ = bench.engine.put_match(tokens(1, 500))
    bench.engine.launch(task_id, block_ids=[[1]], timeout_s=3.5, after_step=8)
    assert list(bench.transfer.timeouts_s.values()) == [20.0, 3.5]
    assert [op.after_step for graph in bench.transfer.waiting.values() for op in graph] == [0, 8]


def test_reset_waits_for_stores_it_cancelled(bench: Bench) -> None:
    bench.put(2)
    (graph_id,) = bench.graph_ids
    done = threading.Event()

    def reset() -> None:
        bench.engine.reset()
        done.set()

    thread = threading.Thread(target=reset)
    thread.start()
    assert not done.wait(0.05), "its op may still write"
    assert bench.transfer.cancelled == [graph_id]
    bench.transfer.acknowledge_cancel(graph_id)
    assert done.wait(10)
    thread.join()
    bench.check_nothing_is_held()


def test_shutdown_fails_what_the_transfer_engine_never_answers() -> None:
    bench = Bench()
    bench.store(2)
    load, store = bench.load(2), bench.put(1, 700)
    bench.transfer.drains = False
    bench.engine.shutdown()
    assert bench.status(load) is bench.status(store) is Status.FAILED
    bench.engine.check_invariants()
    bench.transfer.close()


# --- the tier


def test_the_pool_is_made_once_all_ranks_are_there() -> None:
    bench = Bench(ranks=())
    assert not bench.engine.is_ready()
    assert bench.storage.asked == []
    bench.transfer.register(RankDouble(slot_bytes=640))
    assert bench.engine.is_ready()
    assert bench.engine.is_ready()
    assert bench.storage.asked == [[640]]


def test_slots_are_handed_out_as_they_become_available() -> None:
    bench = Bench(available=0)
    assert not bench.engine.is_ready()
    _, mask = bench.engine.put_match(tokens(4))
    assert not mask.any()
    assert bench.engine.stats().skipped_blocks[SkipReason.NO_SLOTS] == 4
    bench.transfer.set_available(3)
    assert bench.engine.is_ready()
    _, mask = bench.engine.put_match(tokens(4))
    assert np.flatnonzero(mask).tolist() == list(range(3 * TPB))


def test_a_pool_that_cannot_be_had_is_reported_and_everything_is_a_miss() -> None:
    bench = Bench()
    bench.storage.error = CapacityError("no memory")
    assert not bench.engine.get_match(tokens(2))[1].any()
    with pytest.raises(ConfigError, match="no memory"):
        bench.engine.is_ready()
    assert bench.storage.asked == [[64]], "tried once"
    assert not bench.engine.put_match(tokens(2))[1].any()
    bench.engine.check_invariants()
    bench.engine.reset()


def test_misses_have_reasons() -> None:
    bench = Bench(ranks=())
    bench.engine.get_match(tokens(1))
    bench.transfer.register(RankDouble())
    bench.store(2)
    bench.put(3, 800)
    bench.engine.get_match(tokens(1, 4000))
    bench.engine.get_match(tokens(2, 800))
    bench.engine.get_match(np.arange(TPB - 1))
    bench.engine.get_match(tokens(2), np.zeros(2 * TPB, dtype=bool))
    bench.engine.get_match(tokens(3), np.arange(3 * TPB) >= 2 * TPB)
    bench.engine.get_match(tokens(3))
    misses = {reason: count for reason, count in bench.engine.stats().misses.items() if count}
    assert misses == {
        MissReason.NOT_READY: 1,
        MissReason.NO_MATCH: 1,
        MissReason.NOT_STORED_YET: 1,
        MissReason.TOO_SHORT: 1,
        MissReason.ON_GPU: 2,
    }
    stats = bench.engine.stats()
    assert (stats.get_requests, stats.hit_blocks) == (6, 0), "the one that found something was not launched"


def test_a_get_that_finds_something_counts_once_it_is_launched() -> None:
    bench = Bench()
    bench.store(2)

    def counted() -> tuple[int, int, int]:
        stats = bench.engine.stats()
        return stats.get_requests, stats.queried_blocks, stats.hit_blocks

    task_id, _ = bench.engine.get_match(tokens(3))
    assert counted() == (0, 0, 0)
    bench.engine.cancel(task_id)
    assert counted() == (0, 0, 0)
    task_id, _ = bench.engine.get_match(tokens(3))
    bench.engine.launch(task_id, block_ids=[np.array([0, 1])])
    assert counted() == (1, 3, 2)
    asked = [bench.engine.get_match(text)[0] for text in (tokens(2), tokens(3, 800), tokens(4))]
    assert counted() == (2, 6, 2), "an empty one counts at once"
    blocks = [np.array(ids, dtype=np.int64) for ids in ([2, 3], [], [4, 5])]
    bench.engine.launch(asked, block_ids=blocks, as_batch=True)
    assert counted() == (4, 12, 6)


def test_a_miss_that_is_asked_for_again_is_counted_once() -> None:
    bench = Bench(ranks=())
    unknown = bench.engine.sequence(tokens(2))
    bench.engine.get_span(unknown)
    bench.engine.get_span(unknown, is_repeat=True)
    assert bench.engine.stats().misses[MissReason.NOT_READY] == 1
    bench.transfer.register(RankDouble())
    key = bytes(unknown.block_hashes[0])
    bench.engine.get_span(unknown)
    bench.engine.get_span(unknown, is_repeat=True)
    for is_repeat in (False, True):
        assert bench.engine.misses(key, first_key=key, num_blocks=2, is_repeat=is_repeat)
    stats = bench.engine.stats()
    assert (stats.get_requests, stats.queried_blocks, stats.misses[MissReason.NO_MATCH]) == (3, 6, 2)
    bench.store(2)
    task_id, _ = bench.engine.get_span(unknown, is_repeat=True)
    bench.engine.launch(task_id, block_ids=[np.array([0, 1])])
    assert bench.engine.stats().hit_blocks == 2, "a hit counts whatever was before"


def test_a_miss_that_is_seen_at_its_first_key_is_counted_and_makes_no_task() -> None:
    bench = Bench(ranks=())
    held, unready, unknown = (bench.engine.sequence(tokens(3, seed)) for seed in (0, 800, 4000))
    keys = {name: [bytes(key) for key in sequence.block_hashes] for name, sequence in
            {"held": held, "unready": unready, "unknown": unknown}.items()}  # fmt: skip

    def misses(name: str, block: int = 0) -> bool:
        return bench.engine.misses(keys[name][block], first_key=keys[name][0], num_blocks=3 - block)

    assert not misses("held"), "not ready: to be planned, which says why"
    bench.transfer.register(RankDouble())
    bench.store(2)
    bench.put(3, 800)
    before = bench.engine.stats()
    assert [misses(name) for name in keys] == [False, False, True]
    assert [misses("held", block) for block in (1, 2)] == [False, True]
    assert misses("unknown", 1)
    stats = bench.engine.stats(settled=False)
    assert stats.get_requests - before.get_requests == 3
    assert stats.queried_blocks - before.queried_blocks == 3 + 1 + 2
    assert {reason: count for reason, count in stats.misses.items() if count} == {
        MissReason.NO_MATCH: 2,
        MissReason.ON_GPU: 1,
    }
    assert bench.engine.poll().keys() == set(), "a miss has no result to take"


def test_with_a_trace_no_request_is_answered_without_a_record(tmp_path: Path) -> None:
    bench = Bench(trace_path=str(tmp_path / "trace.jsonl"))
    bench.store(1)
    key = bytes(bench.engine.sequence(tokens(1, 4000)).block_hashes[0])
    assert not bench.engine.misses(key, first_key=key, num_blocks=1)
    bench.engine.shutdown()


def test_over_its_budget_of_quarantined_slots_the_tier_is_off() -> None:
    bench = Bench(max_quarantined_fraction=0.25)
    bench.store(2)
    bench.put(5, 500)
    graph_id = bench.graph_ids[-1]
    bench.transfer.fail(graph_id)
    assert not bench.engine.get_match(tokens(2))[1].any()
    assert not bench.engine.put_match(tokens(2, 900))[1].any()
    stats = bench.engine.stats()
    assert stats.misses[MissReason.QUARANTINE] == 1
    assert stats.skipped_blocks[SkipReason.QUARANTINE] == 2
    bench.transfer.release(graph_id)
    assert bench.engine.get_match(tokens(2))[1].all()


def test_blocks_expire_on_the_engines_clock(bench: Bench) -> None:
    bench.store(2, ttl_s=10)
    bench.clock_s += 9
    assert bench.engine.get_match(tokens(2))[1].all()
    bench.clock_s += 2
    assert not bench.engine.get_match(tokens(2))[1].any()
    assert bench.engine.put_match(tokens(2))[1].all()


def test_low_priority_goes_first(bench: Bench) -> None:
    bench.store(8, 0, priority=5)
    bench.store(8, 1000, priority=0)
    bench.store(8, 2000, priority=1, tenant="anna")
    assert bench.engine.get_match(tokens(8))[1].all()
    assert not bench.engine.get_match(tokens(8, 1000))[1].any()


def test_routes_are_counted(bench: Bench) -> None:
    bench.store(3)
    bench.load(2)
    bench.transfer.finish(*bench.graph_ids)
    routes = bench.engine.stats().routes
    assert (routes[TransferType.D2H].num_blocks, routes[TransferType.H2D].num_blocks) == (3, 2)
    assert routes[TransferType.D2H].bytes == 3 * 64


def test_prefetch_has_nothing_to_do_with_the_cpu_tier_alone(bench: Bench) -> None:
    task_id = bench.engine.prefetch_async(tokens(2))
    assert bench.status(task_id) is Status.SUCCESS
