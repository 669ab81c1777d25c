"""How long bundles of an engine's work take, one after the other, and in windows of it. No GPU in here."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable

from benchmarks.gpu_rate import WAIT_S

LEAST_BUNDLES = 3
MAX_WINDOWS = 50


class Timeline:
    """Seconds of bundle after bundle, as they end. Thread safety: all members, any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken_s: list[float] = []
        self._error: BaseException | None = None

    def add(self, seconds: float) -> None:
        """The bundle that ran has ended; the next one runs."""
        with self._changed:
            self._taken_s.append(seconds)
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """No bundle will end any more."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def begin(self) -> int:
        """Return the number of the first bundle that begins after now."""
        with self._changed:
            return len(self._taken_s) + 1

    def wait(self, first: int, num: int) -> float:
        """Wait for `num` bundles from `first` on, and return the mean of their seconds. Raises what `fail` was told."""
        with self._changed:
            is_there = self._changed.wait_for(
                lambda: self._error is not None or len(self._taken_s) >= first + num, WAIT_S
            )
            self._raise_error()
            if not is_there:
                raise RuntimeError(f"the engine's work did not go on within {WAIT_S:.0f} s")
            return statistics.fmean(self._taken_s[first : first + num])

    def windows(self, first: int, measure: Callable[[], float]) -> list[float]:
        """Return what `measure` found in window after window, until enough bundles from `first` on have ended.

        What hardly lets the engine go on is measured for longer, not for ever. Raises what `fail` was told.
        """
        found = [measure()]
        while len(found) < MAX_WINDOWS and not self._has(first, LEAST_BUNDLES):
            found.append(measure())
        return found

    def _has(self, first: int, num: int) -> bool:
        with self._changed:
            self._raise_error()
            return len(self._taken_s) >= first + num

    def _raise_error(self) -> None:
        if self._error is not None:
            raise RuntimeError("the engine's work ended") from self._error

    def since(self, first: int) -> float:
        """Return the mean of the bundles from `first` on that have ended by now.

        Raises:
            RuntimeError: they are too few; what was measured beside them was too short.
        """
        with self._changed:
            self._raise_error()
            taken = self._taken_s[first:]
        if len(taken) < LEAST_BUNDLES:
            few = f"only {len(taken)} bundles of the engine's ended while it was measured"
            raise RuntimeError(f"{few}: what ran beside hardly lets it go on, or more --seconds are needed")
        return statistics.fmean(taken)
