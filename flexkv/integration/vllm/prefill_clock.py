"""PrefillClock: how fast this engine computes prompts, measured from the scheduler's side (D11).

A step counts when nearly all of its tokens are prompt: at least MIN_TOKENS more than it has requests. Its time is from
when it was planned, or from when the step before it came back if that was later (steps overlap under asynchronous
scheduling). Thread safety: none; the scheduler's thread.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

__all__ = ["MIN_TOKENS", "PrefillClock"]

MIN_TOKENS = 256
MAX_STEPS = 16
"""Steps in flight that are kept; more are never."""


class PrefillClock:
    """Takes the time of steps.

    Args:
        note: takes (tokens, seconds) of a step that counts.
        clock: seconds, monotonic.
    """

    def __init__(self, note: Callable[[int, float], None], clock: Callable[[], float] = time.perf_counter) -> None:
        self._note = note
        self._clock = clock
        self._planned: deque[tuple[float, int]] = deque(maxlen=MAX_STEPS)
        self._came_back_s = 0.0

    def planned(self, num_tokens: int, num_requests: int) -> None:
        """A step was planned; one without tokens is none."""
        if num_tokens:
            counts = num_tokens - num_requests >= MIN_TOKENS
            self._planned.append((self._clock(), num_tokens if counts else 0))

    def came_back(self) -> None:
        """The oldest step that was planned has been computed."""
        if not self._planned:
            return
        planned_s, num_tokens = self._planned.popleft()
        now_s = self._clock()
        begin_s = max(planned_s, self._came_back_s)
        self._came_back_s = now_s
        if num_tokens and now_s > begin_s:
            self._note(num_tokens, now_s - begin_s)
