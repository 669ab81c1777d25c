"""PrefillClock: how fast this engine computes prompts, measured from the scheduler's side (D11).

A step counts when nearly all of its tokens are prompt: at least MIN_TOKENS more than it has requests. Its time is from
when it was planned, or from when the output before its own was taken if that was later: steps overlap under
asynchronous scheduling and pipeline parallelism, and what one of them adds is what counts. An output that the scheduler
is late to take makes that step's sample longer, and the next one's shorter by no more than that.

Which step an output is of, vLLM (0.32) does not say, and the order does not tell. Outputs come in the order of the
steps, of which `max_concurrent_batches` may be in flight, and each step with tokens has one. With workers in processes
of their own a step without tokens has one too, with content or not, since vLLM merges what all ranks report
(KVOutputAggregator); with one worker in the scheduler's process it has one only if that reports something. It may well
come when the next prompt's first step has been planned. Taken for that step's, it would make the engine look faster
than it is, and the cost model would refuse loads that are worth it. So the workers' output names its step
(StepNotice.is_timed, FlexKVConnectorStats.step), and one that names none is no sample.

Thread safety: none; the scheduler's thread.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["MIN_TOKENS", "PrefillClock"]

MIN_TOKENS = 256
MAX_STEPS = 16
"""Steps whose output is waited for; more are never in flight."""


class _Step(NamedTuple):
    number: int
    planned_s: float
    num_tokens: int


class PrefillClock:
    """Takes the time of steps.

    Args:
        note: takes (tokens, seconds) of a step that counts.
        clock: seconds, monotonic.
    """

    def __init__(self, note: Callable[[int, float], None], clock: Callable[[], float] = time.perf_counter) -> None:
        self._note = note
        self._clock = clock
        self._planned: deque[_Step] = deque(maxlen=MAX_STEPS)
        self._came_back_s = 0.0

    def planned(self, step: int, num_tokens: int, num_requests: int) -> bool:
        """Return whether the step, numbered higher than those before, counts: then its output must name it."""
        counts = num_tokens - num_requests >= MIN_TOKENS
        if counts:
            self._planned.append(_Step(step, self._clock(), num_tokens))
        return counts

    def came_back(self, step: int | None) -> None:
        """An output was taken; `step`: the number of its step, if it names it. None before that step come any more."""
        now_s = self._clock()
        before_s, self._came_back_s = self._came_back_s, now_s
        while step is not None and self._planned and self._planned[0].number <= step:
            number, planned_s, num_tokens = self._planned.popleft()
            seconds = now_s - max(planned_s, before_s)
            if number == step and seconds > 0:
                self._note(num_tokens, seconds)
