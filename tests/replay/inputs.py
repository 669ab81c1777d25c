"""What came to the recorded engine from outside: requests, aborts, and resets of its own prefix cache, and when."""

from __future__ import annotations

from dataclasses import dataclass

from tests.replay.recording import Recording
from tests.replay.request import Request
from tests.replay.scheduler import Scheduler


@dataclass(frozen=True)
class Input:
    """Comes when as many steps were built and outputs taken since the input before.

    `to_idle`: the engine had nothing to do any more. Where steps take their own time that is waited for: what came to
    an idle engine is to find there what was stored before.
    """

    kind: str  # new, abort, drop
    number: int
    num_built: int
    num_taken: int
    to_idle: bool


def inputs_of(recording: Recording) -> list[Input]:
    """Return the inputs in their order."""
    found: list[Input] = []
    num_built = num_taken = 0  # since the last input
    unfinished: set[int] = set()
    held: set[int] = set()
    for name, *fields in recording.calls:
        to_idle = not unfinished and not held
        num_inputs = len(found)
        if name == "build":
            num_built += 1
        elif name == "output":
            num_taken += 1
            held -= {*(fields[4] or ()), *(fields[5] or ())}
        elif name == "new":
            found.append(Input("new", fields[0], num_built, num_taken, to_idle))
            unfinished.add(fields[0])
        elif name == "drop":
            assert to_idle, "the prefix cache can be dropped only at rest"
            found.append(Input("drop", -1, num_built, num_taken, True))
        elif name == "finish":
            unfinished.discard(fields[0])
            if fields[3] == "ABORTED":
                found.append(Input("abort", fields[0], num_built, num_taken, False))
            if fields[4]:
                held.add(fields[0])
        if len(found) > num_inputs:
            num_built = num_taken = 0
    return found


class Inputs:
    """Hands the inputs to a scheduler when they are due."""

    def __init__(self, recording: Recording, scheduler: Scheduler) -> None:
        self._recording, self._scheduler = recording, scheduler
        self._left = inputs_of(recording)
        self._num_built = self._num_taken = 0  # since the last input
        self.num_built = 0

    def count(self, *, built: int = 0, taken: int = 0) -> None:
        """A step was built, or an output taken by the connector."""
        self.num_built += built
        self._num_built += built
        self._num_taken += taken

    @property
    def are_left(self) -> bool:
        return bool(self._left)

    def give(self, *, is_at_rest: bool) -> bool:
        """Give what is due; returns whether the device's memory may be overwritten: the prefix cache was dropped.

        Args:
            is_at_rest: no step is in flight. With nothing to do either the engine gets the next input at once: it may
                have needed fewer steps than the one that was recorded.
        """
        dropped = False
        while self._left:
            head = self._left[0]
            has_come = self._num_built >= head.num_built and self._num_taken >= head.num_taken
            is_idle = self._scheduler.is_idle
            if (head.to_idle and not is_idle) or not (has_come or (is_idle and is_at_rest)):
                break
            self._left.pop(0)
            self._num_built = self._num_taken = 0
            dropped |= head.kind == "drop"
            self._give(head)
        return dropped

    def _give(self, given: Input) -> None:
        if given.kind == "new":
            record = self._recording.requests[given.number]
            self._scheduler.add(Request(given.number, record, self._recording.tokens_per_block))
        elif given.kind == "abort":
            self._scheduler.abort(given.number)
        else:
            self._scheduler.drop()
