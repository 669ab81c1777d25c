"""A scheduler role that answers what was recorded, and asserts that it is asked what was recorded."""

from __future__ import annotations

from typing import Any

from flexkv.integration.vllm.scheduler_role import StepNotice
from tests.replay.loop import Loop
from tests.replay.recording import Call, Recording
from tests.replay.request import Request
from tests.replay.scheduler import Scheduler


class ScriptedConnector:
    """tests.replay.scheduler.Connector."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._count = 0  # calls made
        self._step = 0

    def _next(self, name: str, fields: list[Any], num_answers: int = 0) -> Call:
        """Return the recorded answers to the next call, which must be this one."""
        call = ["nothing"] if self.is_over else self._recording.calls[self._count]
        self._count += 1
        recorded = call[: len(call) - num_answers]
        assert recorded == [name, *fields], f"call {self._count}: recorded {recorded}, made {[name, *fields]}"
        return call[len(call) - num_answers :]

    def check_end(self) -> None:
        assert self.is_over, f"only {self._count} of {len(self._recording.calls)} recorded calls were made"

    @property
    def is_over(self) -> bool:
        """Whether all recorded calls were made."""
        return self._count >= len(self._recording.calls)

    def new(self, request: Request) -> None:
        self._next("new", [request.number])

    def ask(self, request: Request, num_computed_tokens: int) -> tuple[int | None, bool]:
        answer, is_async = self._next("ask", [request.number, num_computed_tokens, request.num_tokens], 2)
        return answer, is_async

    def alloc(self, request: Request, num_external_tokens: int) -> None:
        self._next("alloc", [request.number, request.table, num_external_tokens])

    def build(self, output: Any) -> StepNotice:
        new = [[int(new.req_id), new.block_ids[0], new.num_computed_tokens] for new in output.scheduled_new_reqs]
        cached = output.scheduled_cached_reqs
        rows = [
            [int(name), blocks and blocks[0], computed, int(name in cached.resumed_req_ids)]
            for name, blocks, computed in zip(
                cached.req_ids, cached.new_block_ids, cached.num_computed_tokens, strict=True
            )
        ]
        scheduled = [[int(name), count] for name, count in output.num_scheduled_tokens.items()]
        preempted = sorted(int(name) for name in output.preempted_req_ids)
        finished = sorted(int(name) for name in output.finished_req_ids)
        self._step += 1
        self._next("build", [self._step, new, rows, scheduled, preempted, finished, int(output.has_sync_kv_loads)])
        named = any(worker[self._step - 1][2] for worker in self._recording.workers)
        return StepNotice(self._step, named)

    def output(self, output: Any, step: int | None) -> None:
        if self.is_over:
            return  # the recorded engine was shut down with this step, which has no tokens, in flight
        fields = [
            _numbers(output.finished_sending),
            _numbers(output.finished_recving),
            sorted(output.invalid_block_ids),
        ]
        sending, receiving = self._next("output", [*fields, step], 2)
        output.finished_sending = [str(number) for number in sending or ()]  # in this order their blocks were freed
        output.finished_recving = [str(number) for number in receiving or ()]

    def finish(self, request: Request, blocks: list[int], reason: str) -> bool:
        (holds,) = self._next("finish", [request.number, blocks, request.num_computed_tokens, reason], 1)
        return bool(holds)

    def pending(self) -> bool:
        (answer,) = self._next("pending", [], 1)
        return bool(answer)

    def drop(self) -> None:
        self._next("drop", [])


def _numbers(names: set[str] | None) -> list[int] | None:
    return None if names is None else sorted(int(name) for name in names)


def check_conforms(recording: Recording) -> None:
    """Assert that our scheduler, given the recorded answers, makes the recorded calls: all of them, in their order."""
    connector = ScriptedConnector(recording)
    Loop(recording, Scheduler(recording, connector, defers_frees=recording.asynchronous), []).run()
    connector.check_end()
