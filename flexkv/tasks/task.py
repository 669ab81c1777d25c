"""KVTask: one GET or PUT from match to commit, and KVTaskManager: creates, finds and expires task records.

Re-exported by flexkv.kvtask. Not for decisions or transfers: the KVTaskEngine makes those.
Thread safety: none; the KVTaskEngine's mutex guards them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple

import numpy as np

from flexkv.cache.reservation import Reservation
from flexkv.cache.span import BlockSpan
from flexkv.common.block import BoolArray
from flexkv.common.request import KVRequestType, KVResponse, KVResponseStatus, TaskId
from flexkv.common.transfer import GraphId

__all__ = ["KVTask", "KVTaskManager", "Launch", "Part", "TaskStatus"]

MAX_UNLAUNCHED_TASKS = 65536
MAX_LAUNCHED_RESULTS = 65536
UNLAUNCHED_LEASE_S = 600.0


class TaskStatus(Enum):
    """States of a task. CREATED is a synonym of UNREADY: matched, pins held, waiting for `launch`.

        UNREADY ---> READY ---> RUNNING ---> COMPLETED      launched, submitted, done
          |  |         |           |-------> FAILED         an op failed or timed out
          |  |         |           '-------> CANCELLED      doomed, or its waiting ops were cancelled
          |  |         '-------------------> FAILED         could not be submitted
          |  '-----------------------------> COMPLETED      nothing to move
          '--------------------------------> CANCELLED      cancel, reset, an expired lease, shutdown

    A GET stays RUNNING until no rank can write its GPU blocks any more, whatever became of it (D16).
    """

    UNREADY = "unready"
    CREATED = UNREADY
    READY = "ready"
    RUNNING = "running"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


_ENDED = frozenset({TaskStatus.COMPLETED, TaskStatus.CANCELLED, TaskStatus.FAILED})
_NEXT: dict[TaskStatus, frozenset[TaskStatus]] = {
    TaskStatus.UNREADY: frozenset({TaskStatus.READY, TaskStatus.COMPLETED, TaskStatus.CANCELLED}),
    TaskStatus.READY: frozenset({TaskStatus.RUNNING, TaskStatus.FAILED}),
    TaskStatus.RUNNING: _ENDED,
}
_RESPONSES = {
    TaskStatus.UNREADY: KVResponseStatus.UNREADY,
    TaskStatus.READY: KVResponseStatus.TIMEOUT,
    TaskStatus.RUNNING: KVResponseStatus.TIMEOUT,
    TaskStatus.COMPLETED: KVResponseStatus.SUCCESS,
    TaskStatus.CANCELLED: KVResponseStatus.CANCELLED,
    TaskStatus.FAILED: KVResponseStatus.FAILED,
}


class Part:
    """One request's part of a task: a task has one, a batch one for each task that was merged.

    Attributes:
        task_id: the task that the request was answered with.
        num_tokens: length of its sequence.
        num_asked: blocks that were asked for.
        span: the blocks it moves.
        reservation: what it holds of the cache; None when it was not asked, and once the reservation has ended.
        ended_before: it had ended when its task was merged into a batch.
    """

    __slots__ = ("ended_before", "num_asked", "num_tokens", "reservation", "span", "task_id")

    def __init__(
        self, task_id: TaskId, num_tokens: int, num_asked: int, span: BlockSpan, reservation: Reservation | None
    ) -> None:
        self.task_id = task_id
        self.num_tokens = num_tokens
        self.num_asked = num_asked
        self.span = span
        self.reservation = reservation
        self.ended_before = False

    def take_reservation(self) -> Reservation | None:
        """Return the reservation for the last time: who takes it ends it."""
        reservation, self.reservation = self.reservation, None
        return reservation


class Launch(NamedTuple):
    """How to run a graph: the engine step after which it may start, its bound, and the ticket of a load by layers."""

    after_step: int
    timeout_s: float
    layer_ticket: int = 0


class KVTask:
    """One GET, PUT or PREFETCH, or a batch of several of one kind.

    Attributes:
        parts: what it is made of, in the order of the GPU blocks given at its launch.
        outcome: how a running task will end once it is released; None while that is open.
        doomed: its blocks were taken away from the engine: never commit it.
        is_prefix_ready: of a PUT: the blocks it found had their bytes when it was planned.
        offloads: of a PUT: the moves to lower tiers that its end began.
    """

    __slots__ = (
        "created_s",
        "doomed",
        "graph_id",
        "is_prefix_ready",
        "launched",
        "offloads",
        "outcome",
        "parts",
        "status",
        "task_id",
        "timed_out",
        "tokens_per_block",
        "type",
    )

    def __init__(
        self,
        task_id: TaskId,
        request_type: KVRequestType,
        parts: Sequence[Part],
        tokens_per_block: int,
        created_s: float,
    ) -> None:
        self.task_id = task_id
        self.type = request_type
        self.parts = parts
        self.tokens_per_block = tokens_per_block
        self.created_s = created_s
        self.status = TaskStatus.UNREADY
        self.outcome: TaskStatus | None = None
        self.graph_id: GraphId | None = None
        self.launched = False
        self.doomed = False
        self.timed_out = False
        self.is_prefix_ready = False
        self.offloads: tuple[GraphId, ...] = ()

    @property
    def is_ended(self) -> bool:
        """True once nothing about the result can change."""
        return self.status in _ENDED

    @property
    def span(self) -> BlockSpan:
        """The blocks of a task that is no batch."""
        return self.parts[0].span

    @property
    def num_blocks(self) -> int:
        """Blocks the task moves, over all parts."""
        return sum(part.span.num_blocks for part in self.parts)

    @property
    def reservations(self) -> list[Reservation]:
        """Those of its parts that have not ended."""
        return [part.reservation for part in self.parts if part.reservation is not None]

    def become(self, status: TaskStatus) -> None:
        """Make one step of the drawing. Raises RuntimeError on another one."""
        if status not in _NEXT.get(self.status, frozenset()):
            raise RuntimeError(f"task {self.task_id} is {self.status.name} and cannot become {status.name}")
        self.status = status

    def mask(self) -> BoolArray:
        """Return which tokens the task moves; a batch has the masks of its parts one behind the other."""
        masks = [part.span.token_mask(part.num_tokens, self.tokens_per_block) for part in self.parts]
        return masks[0] if len(masks) == 1 else np.concatenate(masks)

    def response(self) -> KVResponse:
        """Return how the task stands.

        The mask of a success says what was moved; otherwise nothing was, or nothing is known.
        """
        mask: Callable[[], BoolArray] | None = None
        if self.status is TaskStatus.COMPLETED:
            mask = self.mask
        elif self.is_ended:
            mask = self._empty_mask
        return KVResponse(_RESPONSES[self.status], self.task_id, mask)

    def _empty_mask(self) -> BoolArray:
        return np.zeros(sum(part.num_tokens for part in self.parts), dtype=np.bool_)


class KVTaskManager:
    """The task records.

    A record goes when its result has been taken, when it became part of a batch, or when it expires. Results that
    nobody takes are bounded: those of tasks never launched by `max_finished_tasks`, those of launched ones by a number
    that a caller who waits or polls at all never comes near. `num_dropped` counts what went so.
    Invariant: a known task is in exactly one of: un-launched, running (in `graph_to_task`), finished. A finished task
    stays in `graph_to_task` until its graph is released.
    """

    def __init__(self, tokens_per_block: int, max_finished_tasks: int) -> None:
        self.graph_to_task: dict[GraphId, KVTask] = {}
        self.num_dropped = 0
        self._tokens_per_block = tokens_per_block
        self._max_finished = max_finished_tasks
        self._ids = itertools.count(1)
        self._unlaunched: dict[int, KVTask] = {}
        self._running: dict[int, KVTask] = {}
        self._finished: dict[int, KVTask] = {}
        self._unlaunched_results: dict[int, KVTask] = {}  # these two share out what is finished
        self._launched_results: dict[int, KVTask] = {}

    def create(
        self,
        request_type: KVRequestType,
        num_tokens: int,
        num_asked: int,
        span: BlockSpan,
        reservation: Reservation | None,
        now_s: float,
    ) -> KVTask:
        """Return a new un-launched task of one part."""
        task_id = TaskId(next(self._ids))
        return self._add(task_id, request_type, (Part(task_id, num_tokens, num_asked, span, reservation),), now_s)

    def merge(self, tasks: Sequence[KVTask], now_s: float) -> KVTask:
        """Return a batch that takes over the parts of un-launched or ended tasks; their records go."""
        parts = tuple(part for task in tasks for part in task.parts)
        batch = self._add(TaskId(next(self._ids)), tasks[0].type, parts, now_s)
        batch.launched = True
        for task in tasks:
            for part in task.parts:
                part.ended_before = task.is_ended
            self.forget(task)
        return batch

    def _add(self, task_id: TaskId, request_type: KVRequestType, parts: tuple[Part, ...], now_s: float) -> KVTask:
        task = self._unlaunched[task_id] = KVTask(task_id, request_type, parts, self._tokens_per_block, now_s)
        return task

    def find(self, task_id: int) -> KVTask | None:
        """Return the task, or None when there is no record of it."""
        return self._unlaunched.get(task_id) or self._running.get(task_id) or self._finished.get(task_id)

    def known(self, task_ids: Iterable[int]) -> list[KVTask]:
        """Return the tasks there are records of; other ids are passed over."""
        return [task for task in map(self.find, task_ids) if task is not None]

    def launchable(self, task_id: int) -> KVTask:
        """Return a task that was not launched. Raises ValueError naming task_ids."""
        task = self.find(task_id)
        if task is None:
            raise ValueError(f"task_ids has {task_id}, which is no task that is waiting for a launch")
        if task.launched:
            raise ValueError(f"task_ids has {task_id}, which was launched already")
        return task

    def answer(self, task_id: int, task: KVTask | None) -> KVResponse:
        """Return how the task stands that was found under this id; a result is taken by it."""
        if task is None:
            return KVResponse(KVResponseStatus.NOTFOUND, task_id)
        if task.is_ended:
            self.forget(task)
        return task.response()

    def start(self, task: KVTask, graph_id: GraphId) -> None:
        """Note that the graph of a READY task was submitted."""
        task.become(TaskStatus.RUNNING)
        task.graph_id = graph_id
        self._unlaunched.pop(task.task_id, None)
        self._running[task.task_id] = task
        self.graph_to_task[graph_id] = task

    def finish(self, task: KVTask, status: TaskStatus) -> None:
        """End a task; its result stays until it is taken, or is the oldest of too many."""
        task.become(status)
        self._unlaunched.pop(task.task_id, None)
        self._running.pop(task.task_id, None)
        self._finished[task.task_id] = task
        results, limit = self._unlaunched_results, self._max_finished
        if task.launched:
            results, limit = self._launched_results, MAX_LAUNCHED_RESULTS
        results[task.task_id] = task
        if len(results) > limit:
            self.forget(next(iter(results.values())))
            self.num_dropped += 1

    def release(self, graph_id: GraphId) -> None:
        """Note that nothing touches the graph's slots any more."""
        del self.graph_to_task[graph_id]

    def forget(self, task: KVTask) -> None:
        """Drop the record of a task that is not running. Idempotent."""
        self._unlaunched.pop(task.task_id, None)
        self._finished.pop(task.task_id, None)
        self._unlaunched_results.pop(task.task_id, None)
        self._launched_results.pop(task.task_id, None)

    def take_finished(self) -> list[KVTask]:
        """Return the finished tasks in the order they ended, and drop their records."""
        finished = list(self._finished.values())
        self._finished.clear()
        self._unlaunched_results.clear()
        self._launched_results.clear()
        return finished

    def expired(self, now_s: float) -> KVTask | None:
        """Return the oldest un-launched task when its lease is over or there are too many, else None. O(1)."""
        oldest = next(iter(self._unlaunched.values()), None)
        if oldest is None:
            return None
        too_many = len(self._unlaunched) > MAX_UNLAUNCHED_TASKS
        return oldest if too_many or now_s - oldest.created_s > UNLAUNCHED_LEASE_S else None

    def unlaunched(self) -> list[KVTask]:
        """Return the tasks that wait for a launch."""
        return list(self._unlaunched.values())

    def running(self) -> list[KVTask]:
        """Return the tasks in flight."""
        return list(self._running.values())

    @property
    def num_running(self) -> int:
        """Tasks in flight."""
        return len(self._running)

    @property
    def num_finished(self) -> int:
        """Results nobody has taken yet."""
        return len(self._finished)

    def reservations(self) -> Iterator[Reservation]:
        """Yield the reservations that have not ended, of all tasks known and of graphs not released."""
        seen = {
            id(task): task
            for task in (*self._unlaunched.values(), *self._running.values(), *self.graph_to_task.values())
        }
        for task in seen.values():
            yield from task.reservations
