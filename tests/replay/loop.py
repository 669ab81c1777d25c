"""The engine's loop: plan a step, run it on every rank, take its output. One step ahead if scheduling is asynchronous.

With executor "uni" a rank runs a step as soon as it is planned. With "mp" it runs beside the scheduler: how many more
steps are planned before it does is what was recorded, or, if the ranks are to be late, as many as there can be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Protocol

from tests.replay.inputs import Inputs
from tests.replay.recording import Recording
from tests.replay.scheduler import Plan, Scheduler

MAX_STEPS = 20_000


class Rank(Protocol):
    """One worker."""

    def run(self, plan: Plan, order: list[str]) -> None: ...
    def finish(self, plan: Plan) -> None: ...
    def drop(self) -> None: ...


class Loop:
    """Runs a recording's workload to its end.

    Args:
        ranks: of the engine; none where only the scheduler's calls are of interest.
        is_late: run each step as late as an executor "mp" may.
    """

    def __init__(
        self, recording: Recording, scheduler: Scheduler, ranks: Sequence[Rank], *, is_late: bool = False
    ) -> None:
        self._recording, self._scheduler, self._ranks = recording, scheduler, ranks
        self._is_late = is_late
        self._inputs = Inputs(recording, scheduler)
        self._in_flight: deque[Plan] = deque()  # planned, output not taken
        self._to_run: list[deque[Plan]] = [deque() for _ in ranks]

    @property
    def num_steps(self) -> int:
        return self._inputs.num_built

    def run(self) -> None:
        depth = 2 if self._recording.asynchronous else 1
        while self._scheduler.has_requests or self._in_flight or self._inputs.are_left:
            if self._inputs.give(is_at_rest=not self._in_flight):
                self._drop()
            assert self.num_steps < MAX_STEPS, "the requests do not end"
            if not self._plan_next(depth) and self._in_flight:
                self._take_oldest()

    def _drop(self) -> None:
        """Steps in flight have no tokens, or those of requests that have ended."""
        for index, waiting in enumerate(self._to_run):
            while waiting:
                self._run(index, waiting.popleft())
            self._ranks[index].drop()

    def _plan_next(self, depth: int) -> bool:
        """Plan a step if there is something to do; whether the next one is to be planned before an output is taken."""
        if not self._scheduler.has_requests:
            return False
        plan = self._scheduler.schedule()
        self._inputs.count(built=1)
        self._in_flight.append(plan)
        for waiting in self._to_run:
            waiting.append(plan)
        self._run_ranks(plan)
        return len(self._in_flight) < depth and (bool(plan.parts) or self._scheduler.has_requests)

    def _run_ranks(self, newest: Plan) -> None:
        """Run what is due on each rank, now that `newest` was planned."""
        for index, waiting in enumerate(self._to_run):
            while waiting and newest.notice.step - waiting[0].notice.step >= self._lag(index, waiting[0]):
                self._run(index, waiting.popleft())

    def _lag(self, rank: int, plan: Plan) -> int:
        if self._is_late:
            return 2
        step = min(plan.notice.step, len(self._recording.workers[rank % len(self._recording.workers)]))
        return self._recording.order_of(rank, step)[1]

    def _run(self, index: int, plan: Plan) -> None:
        self._ranks[index].run(plan, self._order(plan))

    def _order(self, plan: Plan) -> list[str]:
        """Return the recorded calls of such a step: with layers or without. Loads that it needs start before it."""
        orders = self._recording.orders
        order = next(order for order in orders if ("s0" in order) is bool(plan.parts))
        if plan.is_sync:
            order = [call for call in order if call != "S"]
            order.insert(order.index("B") + 1, "S")
        return order

    def _take_oldest(self) -> None:
        plan = self._in_flight.popleft()
        for index, waiting in enumerate(self._to_run):
            while waiting and waiting[0].notice.step <= plan.notice.step:
                self._run(index, waiting.popleft())
            self._ranks[index].finish(plan)
        self._inputs.give(is_at_rest=False)
        output = self._connector_output(plan)
        self._scheduler.take_output(plan, output)
        self._inputs.count(taken=output is not None)

    def _connector_output(self, plan: Plan) -> SimpleNamespace | None:
        """As vLLM's executors make it of what the workers answer, which is nothing but the step's name."""
        is_uni = self._recording.executor == "uni"
        if is_uni and not plan.parts and not (plan.notice.outstanding or plan.notice.is_timed):
            return None
        invalid = set(plan.notice.failed_block_ids)
        return SimpleNamespace(
            finished_sending=set() if is_uni else None,
            finished_recving=set() if is_uni else None,
            invalid_block_ids=invalid,
        )
