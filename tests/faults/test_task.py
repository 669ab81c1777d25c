"""Cancelling and dooming a task in each of its states, gets and puts: every slot and pin is accounted for at the end.

The states are those of TaskStatus; where a state has more than one meaning (running, or running with an answer that is
known but slots that are not free) it has more than one row. READY lasts only while a graph is submitted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from flexkv.common.request import KVResponseStatus as Status
from flexkv.kvtask import TaskStatus
from tests.task_bench import NUM_BLOCKS, TPB, Bench, tokens

NUM_STORED, NUM_NEW = 3, 5
NEW_FIRST = 500


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench(max_quarantined_fraction=1.0)
    bench.store(NUM_STORED)
    yield bench
    bench.engine.shutdown()
    bench.transfer.close()


class Subject:
    """The task that is cancelled, and what was done to it."""

    def __init__(self, bench: Bench, kind: str) -> None:
        self.bench, self.kind = bench, kind
        if kind == "get":
            self.task_id, mask = bench.engine.get_match(tokens(NUM_STORED))
        else:
            self.task_id, mask = bench.engine.put_match(tokens(NUM_NEW, NEW_FIRST))
        assert mask.all()
        self.num_blocks = NUM_STORED if kind == "get" else NUM_NEW

    @property
    def graph_id(self) -> int:
        return next(iter((*self.bench.transfer.waiting, *self.bench.transfer.decided)))

    @property
    def state(self) -> TaskStatus | None:
        task = self.bench.engine._tasks.find(self.task_id)
        return None if task is None else task.status

    def launch(self) -> None:
        self.bench.engine.launch(self.task_id, block_ids=[np.arange(self.num_blocks)])

    def run(self, *ends: str) -> None:
        self.launch()
        for end in ends:
            getattr(self.bench.transfer, end)(self.graph_id)
        self.bench.engine.try_wait(self.task_id)  # drains

    def release(self) -> None:
        """The copy goes on to its end, as far as it has not."""
        for graph_id in list(self.bench.transfer.waiting):
            self.bench.transfer.finish(graph_id)
        for graph_id in list(self.bench.transfer.decided):
            self.bench.transfer.release(graph_id)

    def check_slots(self, held_new: int) -> None:
        """`held_new`: slots of a store that nobody else may have. The rest can be taken, and is given back."""
        self.bench.engine.check_invariants()
        pinned = NUM_STORED if self.kind == "get" and self.num_held else 0  # what is not pinned can be evicted
        task_id, mask = self.bench.engine.put_match(tokens(NUM_BLOCKS, 9000))
        assert mask.sum() // TPB == NUM_BLOCKS - pinned - held_new
        self.bench.engine.cancel(task_id)
        self.bench.engine.check_invariants()

    @property
    def num_held(self) -> int:
        cache = self.bench.engine._tier.cache
        assert cache is not None
        return cache.num_live_reservations


def in_submission(subject: Subject, act: Callable[[], None]) -> None:
    """The graph is being submitted: its task is READY, and the verb of another thread waits for the mutex."""
    threads: list[threading.Thread] = []
    submit = subject.bench.transfer.submit_transfer_graph

    def submit_under_a_verb(graph, timeout_s):  # type: ignore[no-untyped-def]
        assert subject.state is TaskStatus.READY
        threads.append(threading.Thread(target=act))
        threads[0].start()
        submit(graph, timeout_s)

    subject.bench.transfer.submit_transfer_graph = submit_under_a_verb  # type: ignore[method-assign]
    subject.launch()
    threads[0].join(20)
    assert not threads[0].is_alive()


RUNNING: dict[str, tuple[str, ...]] = {
    "running": (),
    "timed out, its copy still runs": ("time_out",),
    "failed, other copies still run": ("fail",),
    "done, not released": ("done_late",),
}
ENDED: dict[str, tuple[str, ...]] = {
    "completed": ("finish",),
    "failed": ("fail", "release"),
    "timed out and released": ("time_out", "release"),
}
VERBS = ["cancel", "doom"]
KINDS = ["get", "put"]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("times", [1, 2])
def test_an_unready_task_is_cancelled_and_holds_nothing(bench: Bench, kind: str, verb: str, times: int) -> None:
    subject = Subject(bench, kind)
    assert subject.state is TaskStatus.UNREADY
    for _ in range(times):
        getattr(bench.engine, verb)(subject.task_id)
    assert subject.state is TaskStatus.CANCELLED
    subject.launch()  # passed over
    assert bench.graph_ids == []
    assert bench.status(subject.task_id) is Status.CANCELLED
    assert bench.status(subject.task_id) is Status.NOTFOUND
    subject.check_slots(held_new=0)
    bench.check_nothing_is_held()


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_task_that_is_being_submitted_is_hit_before_or_after_never_between(
    bench: Bench, kind: str, verb: str
) -> None:
    subject = Subject(bench, kind)
    in_submission(subject, lambda: getattr(bench.engine, verb)(subject.task_id))
    assert subject.state is TaskStatus.RUNNING
    subject.release()
    doomed = verb == "doom" and kind == "put"
    assert bench.status(subject.task_id) is (Status.CANCELLED if doomed else Status.SUCCESS)
    bench.check_nothing_is_held()


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("state", RUNNING)
def test_a_running_task_keeps_its_slots_until_its_copy_has_ended(
    bench: Bench, kind: str, verb: str, times: int, state: str
) -> None:
    subject = Subject(bench, kind)
    subject.run(*RUNNING[state])
    for _ in range(times):
        getattr(bench.engine, verb)(subject.task_id)
    doomed = verb == "doom" and kind == "put" and state == "running"
    done = state == "done, not released"
    if not done:  # then the blocks are committed, and may be evicted
        subject.check_slots(held_new=NUM_NEW if kind == "put" else 0)
        assert subject.num_held == 1
    assert (subject.graph_id in bench.transfer.cancelled) is doomed
    subject.release()
    expected = Status.CANCELLED if doomed else Status.SUCCESS if state == "running" or done else Status.FAILED
    assert bench.status(subject.task_id) is expected
    found = bench.engine.get_match(tokens(NUM_NEW, NEW_FIRST))
    assert found[1].any() == (kind == "put" and expected is Status.SUCCESS), "committed only when it succeeded"
    bench.engine.cancel(found[0])
    assert bench.engine.stats().slots_quarantined == 0
    subject.check_slots(held_new=0)
    bench.check_nothing_is_held()


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", ENDED)
def test_a_task_that_has_ended_is_passed_over(bench: Bench, kind: str, verb: str, state: str) -> None:
    subject = Subject(bench, kind)
    subject.run(*ENDED[state])
    used = bench.engine.stats().slots_used
    for _ in range(2):
        getattr(bench.engine, verb)(subject.task_id)
    assert bench.status(subject.task_id) is (Status.SUCCESS if state == "completed" else Status.FAILED)
    getattr(bench.engine, verb)(subject.task_id)  # its record is gone
    assert bench.status(subject.task_id) is Status.NOTFOUND
    assert bench.engine.stats().slots_used == used
    subject.check_slots(held_new=0)
    bench.check_nothing_is_held()
