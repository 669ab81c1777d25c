"""Gate: the one mutex of a task engine, and where callers of wait() sleep outside of it.

Whoever enters drains completions first, and on leaving wakes the sleepers if anything ended. A sleeper also wakes when
the transfer engine has completions (its event fd is readable). So no completion is slept through, whoever drains it.
Work that nobody waits for (TaskFlow.work) is done by those who enter, a piece at a time with the mutex free in between;
not by those who enter `briefly`: an engine's scheduler waits for them.
Each sleeper has an eventfd of its own. Thread safety: all methods, any thread. Not for a forked child: there the mutex
may be held by a thread that was not copied, so that whoever enters gets a ServerError instead.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable

from flexkv.common.process import OwnProcess
from flexkv.tasks.flow import TaskFlow

__all__ = ["Gate"]

_ASK_SLICE_S = 0.01
_MAX_PAUSE_S = 3600.0  # poll(2) takes milliseconds as an int


class _Sleeper:
    """One thread that waits."""

    def __init__(self, completions_fd: int) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self.fd, select.POLLIN)
        self._poll.register(completions_fd, select.POLLIN)

    def pause(self, timeout_s: float) -> None:
        """Block until there may be something new, or the time is up."""
        ready = self._poll.poll(timeout_s * 1e3)
        if any(fd == self.fd for fd, _ in ready):
            os.eventfd_read(self.fd)


class _Entry:
    """What `with gate.entered():` runs; one for all, since it holds nothing. Half the time of a generator's."""

    __slots__ = ("_enter", "_leave")

    def __init__(self, enter: Callable[[], None], leave: Callable[[], None]) -> None:
        self._enter = enter
        self._leave = leave

    def __enter__(self) -> None:
        self._enter()

    def __exit__(self, *_: object) -> None:
        self._leave()


class Gate:
    """Guards a TaskFlow and all below it.

    Args:
        completions_fd: readable while the transfer engine has completions.

    Attributes:
        closed: set once nothing more can complete.
    """

    def __init__(self, flow: TaskFlow, completions_fd: int) -> None:
        self._lock = threading.Lock()
        self._process = OwnProcess()
        self.closed = threading.Event()
        self._flow = flow
        self._completions_fd = completions_fd
        self._sleepers: set[_Sleeper] = set()
        self._entry = _Entry(self._enter_and_work, self._leave_and_work)
        self._brief_entry = _Entry(self.enter, self.leave)

    @property
    def in_forked_child(self) -> bool:
        """True in a child of the process that made this."""
        return self._process.is_forked_child

    @property
    def lock(self) -> threading.Lock:
        """The mutex, for what needs no completions; `entered` takes it too. Raises ServerError in a forked child."""
        self._process.check()
        return self._lock

    def entered(self) -> _Entry:
        """Hold the mutex for a `with`, with completions drained and no work due; wake sleepers if anything ended."""
        return self._entry

    def entered_briefly(self) -> _Entry:
        """Do the same, but leave work that is due to others."""
        return self._brief_entry

    def _enter_and_work(self) -> None:
        """Take the mutex, drain, and do what is due. `leave` must follow; when this raises it was left already."""
        self.enter()
        while self._flow.is_work_due and not self.closed.is_set():
            try:
                self._flow.work()
            finally:
                self.leave()
            os.sched_yield()
            self.enter()

    def _leave_and_work(self) -> None:
        self.leave()
        if self._flow.is_work_due and not self.closed.is_set():
            self._enter_and_work()
            self.leave()

    def enter(self) -> None:
        """Take the mutex and drain. `leave` must follow; when this raises it was left already."""
        self.lock.acquire()
        entered = False
        try:
            if not self.closed.is_set():
                self._flow.drain()
            entered = True
        finally:
            if not entered:
                self.leave()

    def leave(self) -> None:
        """Wake sleepers if anything ended, and give the mutex back."""
        try:
            if self._flow.take_changed():
                self._wake()
        finally:
            self._lock.release()

    def wait_until(self, is_done: Callable[[], bool], deadline_s: float) -> bool:
        """Sleep outside the mutex until `is_done` (called under it) or the deadline; return what it said last."""
        with self.entered():
            if is_done() or time.monotonic() >= deadline_s:
                return is_done()
            sleeper = _Sleeper(self._completions_fd)
            self._sleepers.add(sleeper)
        done = False
        try:
            while not done and not self.closed.is_set() and (remaining_s := deadline_s - time.monotonic()) > 0:
                sleeper.pause(min(remaining_s, _MAX_PAUSE_S))
                with self.entered():
                    done = is_done()
        finally:
            with self.lock:
                self._sleepers.discard(sleeper)
                os.close(sleeper.fd)
        return done

    def ask_until(self, is_done: Callable[[], bool], deadline_s: float) -> bool:
        """Ask from time to time, without the mutex, for what makes no completion; False at the deadline or once closed.

        Raises what `is_done` raises.
        """
        while not is_done():
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0 or self.closed.wait(min(remaining_s, _ASK_SLICE_S)):
                return False
        return True

    def close(self) -> None:
        """Let all sleepers look a last time. REQUIRES: the mutex is held."""
        self.closed.set()
        self._wake()

    @property
    def num_sleepers(self) -> int:
        """Callers that wait at this moment."""
        with self.lock:
            return len(self._sleepers)

    def _wake(self) -> None:
        for sleeper in self._sleepers:
            os.eventfd_write(sleeper.fd, 1)
