"""A small scheduler that plans steps as vLLM 0.32's does, and calls the connector where vLLM's does.

Same queues, same block pool, same budget: given the answers that were recorded, it makes exactly the calls that were
recorded, block ids included (tests/integration/vllm/test_replay.py). With other answers it goes on as vLLM would.
Left out: what the recorded engines do not have (speculation, encoders, several groups, priorities, failed loads).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Protocol

from tests.replay.blocks import BlockPool
from tests.replay.recording import Recording
from tests.replay.request import Request, Status


class Connector(Protocol):
    """What the scheduler asks: the live scheduler role, or a script."""

    def new(self, request: Request) -> None: ...
    def ask(self, request: Request, num_computed_tokens: int) -> tuple[int | None, bool]: ...
    def alloc(self, request: Request, num_external_tokens: int) -> None: ...
    def build(self, output: Any) -> Any: ...
    def output(self, output: Any, step: int | None) -> None: ...
    def finish(self, request: Request, blocks: list[int], reason: str) -> bool: ...
    def pending(self) -> bool: ...
    def drop(self) -> None: ...


@dataclass(frozen=True)
class Part:
    """What a step does of one request: tokens [start, start + num_tokens), in the first blocks of its table."""

    request: Request
    start: int
    num_tokens: int
    table: tuple[int, ...]
    answers: bool


@dataclass
class Plan:
    """A step."""

    notice: Any
    parts: list[Part]
    is_sync: bool

    @property
    def num_tokens(self) -> int:
        return sum(part.num_tokens for part in self.parts)


@dataclass
class _Draft:
    """A step while it is being planned."""

    budget: int
    scheduled: dict[int, int] = field(default_factory=dict)
    new: list[Request] = field(default_factory=list)
    running: list[tuple[Request, list[int]]] = field(default_factory=list)
    resumed: list[Request] = field(default_factory=list)
    preempted: bool = False
    is_sync: bool = False


class Scheduler:
    """Plans steps and takes their outputs.

    Args:
        recording: gives the sizes.
        defers_frees: whether blocks of a step in flight are handed out only after it; vLLM does with asynchronous
            scheduling, and without it fences are all that keeps a load from blocks that a step still uses.
    """

    def __init__(self, recording: Recording, connector: Connector, *, defers_frees: bool) -> None:
        self._recording = recording
        self._connector = connector
        self._defers_frees = defers_frees
        self._size = recording.tokens_per_block
        self.pool = BlockPool(recording.num_blocks)
        self.requests: dict[int, Request] = {}
        self._waiting: deque[Request] = deque()
        self._holding: deque[Request] = deque()  # waiting, and have blocks
        self._running: list[Request] = []
        self._prefilling: set[Request] = set()
        self._received: set[int] = set()
        self._preempted: set[int] = set()
        self._finished: set[int] = set()
        self._num_planned = self._num_taken = 0  # of the steps with tokens
        self._deferred: deque[tuple[int, list[int]]] = deque()
        self.num_preemptions = 0

    # ---- what comes from outside

    def add(self, request: Request) -> None:
        self._waiting.append(request)
        self.requests[request.number] = request
        self._connector.new(request)

    def abort(self, number: int) -> None:
        request = self.requests.get(number)
        if request is None or request.is_finished:
            return
        self._leave_queues(request)
        is_loading = request.status is Status.LOADING and number not in self._received
        self._received.discard(number)
        self._finish(request, "ABORTED", holds=is_loading)

    def drop(self) -> None:
        """Forget the prefix cache. REQUIRES: is_idle."""
        self.pool.drop()
        self._connector.drop()

    @property
    def has_requests(self) -> bool:
        """Whether there is anything to do, steps without tokens included."""
        return bool(self.requests or self._finished)

    @property
    def is_idle(self) -> bool:
        """Whether no request is there, and no block in use."""
        return not self.has_requests and not self._deferred

    # ---- a step is planned

    def schedule(self) -> Plan:
        draft = _Draft(self._recording.max_tokens_a_step)
        self._schedule_running(draft)
        if not draft.preempted:
            self._schedule_waiting(draft)
        notice = self._connector.build(self._output_of(draft))
        if draft.scheduled:
            self._num_planned += 1
        parts = [self._advance(self.requests[number], count) for number, count in draft.scheduled.items()]
        self._finished, self._preempted = set(), set()
        return Plan(notice, parts, draft.is_sync)

    def _schedule_running(self, draft: _Draft) -> None:
        index = 0
        while index < len(self._running) and draft.budget > 0:
            request = self._running[index]
            end = request.num_prompt_tokens + request.max_tokens
            if request.num_awaited and request.num_computed_tokens + 2 - request.num_awaited >= end:
                index += 1  # the step in flight brings its last token
                continue
            count = request.num_tokens + request.num_awaited - request.num_computed_tokens
            count = min(count, draft.budget, self._recording.max_model_len - 1 - request.num_computed_tokens)
            if count == 0:
                index += 1
                continue
            blocks = self._allocate_running(draft, request, count)
            if blocks is None:
                break
            draft.running.append((request, blocks))
            draft.scheduled[request.number] = count
            draft.budget -= count
            index += 1

    def _allocate_running(self, draft: _Draft, request: Request, count: int) -> list[int] | None:
        """Return new blocks; preempt the last ones that run until there are enough, unless some come free soon."""
        while (blocks := self._allocate(request, count)) is None:
            if self._connector.pending():
                break
            victim = self._running[-1]
            if self._is_in_flight(victim):
                break
            self._running.pop()
            self._preempt(victim)
            draft.preempted = True
            if victim is request:
                break
        return blocks

    def _schedule_waiting(self, draft: _Draft) -> None:
        skipped: dict[bool, list[Request]] = {True: [], False: []}  # by whether they have blocks
        while draft.budget > 0:
            queue = self._holding or self._waiting
            if not queue or len(self._running) >= self._recording.max_requests:
                break
            request = queue[0]
            if not self._is_schedulable(request):
                queue.popleft()
                skipped[request.holds_blocks].append(request)
                continue
            verdict = self._admit(draft, request)
            if verdict == "no room":
                break
            queue.popleft()
            if verdict == "later":
                skipped[request.holds_blocks].append(request)
        self._holding.extendleft(reversed(skipped[True]))
        self._waiting.extendleft(reversed(skipped[False]))

    def _is_schedulable(self, request: Request) -> bool:
        if request.status is Status.LOADING:
            if request.number not in self._received:
                return False
            self._received.remove(request.number)
            self._cache(request, request.num_computed_tokens)
            if request.num_computed_tokens == request.num_tokens:
                request.num_computed_tokens -= 1
            request.status = Status.PREEMPTED if request.was_preempted else Status.WAITING
        return not request.num_stale

    def _admit(self, draft: _Draft, request: Request) -> str:
        """Schedule a request that waits, or begin its load; says what became of it."""
        hits: list[int] = []
        external, is_async = 0, False
        computed = request.num_computed_tokens
        if computed == 0:
            hits = self.pool.hit(request.block_hashes[: (request.num_tokens - 1) // self._size])
            local = len(hits) * self._size
            answer, is_async = self._connector.ask(request, local)
            if answer is None:
                return "later"
            external = answer
            assert local + external < request.num_tokens + is_async, "a load of the whole prompt must be asynchronous"
            computed = local + external
        count = 0 if is_async else min(request.num_tokens - computed, draft.budget)
        reserved = sum(self._num_missing(other) for other in self._prefilling) if is_async else 0
        if (
            self._allocate(request, count, hits, external, must_fit=True, reserved=reserved, caches=not is_async)
            is None
        ):
            return "no room"
        self._connector.alloc(request, external)
        request.num_computed_tokens = computed
        if is_async:
            request.status = Status.LOADING
            self._prefilling.add(request)
            return "later"
        (draft.new if request.status is Status.WAITING else draft.resumed).append(request)
        draft.is_sync |= external > 0
        draft.scheduled[request.number] = count
        draft.budget -= count
        request.status = Status.RUNNING
        self._running.append(request)
        if computed + count < request.num_tokens:
            self._prefilling.add(request)
        return "runs"

    def _output_of(self, draft: _Draft) -> SimpleNamespace:
        cached = [*draft.running, *((request, request.table) for request in draft.resumed)]
        return SimpleNamespace(
            scheduled_new_reqs=[
                SimpleNamespace(
                    req_id=request.request_id,
                    block_ids=(list(request.table),),
                    num_computed_tokens=request.num_computed_tokens,
                )
                for request in draft.new
            ],
            scheduled_cached_reqs=SimpleNamespace(
                req_ids=[request.request_id for request, _ in cached],
                new_block_ids=[(list(blocks),) if blocks else None for _, blocks in cached],
                num_computed_tokens=[request.num_computed_tokens for request, _ in cached],
                resumed_req_ids={request.request_id for request in draft.resumed},
            ),
            num_scheduled_tokens={str(number): count for number, count in draft.scheduled.items()},
            total_num_scheduled_tokens=sum(draft.scheduled.values()),
            preempted_req_ids={str(number) for number in self._preempted},
            finished_req_ids={str(number) for number in self._finished},
            has_sync_kv_loads=draft.is_sync,
        )

    def _advance(self, request: Request, count: int) -> Part:
        start = request.num_computed_tokens
        request.num_computed_tokens += count
        request.num_in_flight += count
        request.last_step = self._num_planned
        request.in_prompt = request.num_computed_tokens < request.num_tokens + request.num_awaited
        if not request.in_prompt:
            self._prefilling.discard(request)
            request.num_awaited += self._recording.asynchronous
        num_blocks = -(-request.num_computed_tokens // self._size)
        return Part(request, start, count, tuple(request.table[:num_blocks]), not request.in_prompt)

    # ---- a step came back

    def take_output(self, plan: Plan, output: Any) -> None:
        """Append what was answered, end who has all; `output`: of the connector, None where vLLM drops it."""
        if plan.parts:
            self._num_taken += 1
            self._return_deferred()
        for part in plan.parts:
            self._take_part(part)
        if output is None:
            return
        named = plan.notice.step if plan.notice.outstanding or plan.notice.is_timed else None
        assert not output.invalid_block_ids, "a load failed"
        self._connector.output(output, named)
        for name in output.finished_recving or ():
            request = self.requests[int(name)]
            if request.status is Status.LOADING:
                self._received.add(request.number)
            else:
                assert request.is_finished
                self._release(request)
        for name in output.finished_sending or ():
            assert self.requests[int(name)].is_finished
            self._release(self.requests[int(name)])

    def _take_part(self, part: Part) -> None:
        request = part.request
        if self.requests.get(request.number) is not request:
            return
        request.num_in_flight -= part.num_tokens
        is_stale = request.num_stale > 0
        if is_stale:
            request.num_stale -= part.num_tokens
        if request.is_finished or not part.answers:
            return
        status = request.status
        request.num_answered += 1
        reason = None
        if request.num_answered == request.num_to_answer:
            reason = "LENGTH_CAPPED" if request.num_answered == request.max_tokens else "STOPPED"
        if self._recording.asynchronous:
            request.num_awaited -= not is_stale
            if status is Status.RUNNING:
                self._cache(request, request.num_computed_tokens - request.num_awaited)
        if reason is not None:
            self._leave_queues(request)
            self._finish(request, reason)

    def _finish(self, request: Request, reason: str, *, holds: bool = False) -> None:
        request.status = Status.FINISHED
        self._prefilling.discard(request)
        blocks = request.table[: -(-request.num_computed_tokens // self._size)]
        holds |= self._connector.finish(request, blocks, reason)
        self._finished.add(request.number)
        if not holds:
            self._release(request)

    def _leave_queues(self, request: Request) -> None:
        for queue in (self._running, self._waiting, self._holding):
            if request in queue:
                queue.remove(request)

    def _release(self, request: Request) -> None:
        self._free(request)
        del self.requests[request.number]

    # ---- blocks

    def _preempt(self, request: Request) -> None:
        self.num_preemptions += 1
        self._free(request)
        self._prefilling.discard(request)
        request.status = Status.PREEMPTED
        request.was_preempted = True
        request.num_computed_tokens = request.num_awaited = 0
        request.num_stale = request.num_in_flight
        self._waiting.appendleft(request)
        self._preempted.add(request.number)

    def _allocate(
        self,
        request: Request,
        count: int,
        hits: list[int] | None = None,
        external: int = 0,
        *,
        must_fit: bool = False,
        reserved: int = 0,
        caches: bool = True,
    ) -> list[int] | None:
        """Give the request blocks for what is computed after this step; returns the new ones, None for lack of room."""
        hits = hits or []
        computed = request.num_computed_tokens + len(hits) * self._size + external
        room = self.pool.num_free - self.pool.num_idle(hits)
        held = len(request.table) + len(hits)
        end = min(computed + count, self._recording.max_model_len)
        if must_fit and max(self._num_blocks(request.num_tokens) - held, 0) > room:
            return None
        missing = max(self._num_blocks(end) - held, 0)
        if missing > room - reserved:
            return None
        self.pool.touch(hits)
        new = self.pool.take(missing)
        request.num_cached_blocks = max(request.num_cached_blocks, len(hits))
        request.table += [*hits, *new]
        if caches:
            self._cache(request, min(computed + count, request.num_tokens))
        return new

    def _cache(self, request: Request, num_tokens: int) -> None:
        end = num_tokens // self._size
        hashes = request.block_hashes
        for index in range(request.num_cached_blocks, end):
            self.pool.cache(request.table[index], hashes[index])
        request.num_cached_blocks = max(request.num_cached_blocks, end)

    def _num_blocks(self, num_tokens: int) -> int:
        return -(-min(num_tokens, self._recording.max_model_len) // self._size)

    def _num_missing(self, request: Request) -> int:
        return max(self._num_blocks(request.num_tokens) - len(request.table), 0)

    def _is_in_flight(self, request: Request) -> bool:
        return self._defers_frees and request.last_step > self._num_taken

    def _free(self, request: Request) -> None:
        table, request.table, request.num_cached_blocks = request.table, [], 0
        if self._is_in_flight(request):
            self._deferred.append((self._num_planned, table))
        else:
            self.pool.free(table)

    def _return_deferred(self) -> None:
        while self._deferred and self._deferred[0][0] <= self._num_taken:
            self.pool.free(self._deferred.popleft()[1])
