"""WaitRoom: where callers of wait() sleep, outside the task engine's mutex.

A sleeper wakes when the transfer engine has completions (its event fd is readable), or when another thread has drained
them already and something ended (`wake`). So no completion is slept through, whoever drains it. Each sleeper has an
eventfd of its own. Thread safety: `enter`, `leave` and `wake` are called under the owner's mutex, `Sleeper.sleep`
outside of it.
"""

from __future__ import annotations

import os
import select

__all__ = ["Sleeper", "WaitRoom"]


class Sleeper:
    """One thread that waits."""

    def __init__(self, completions_fd: int) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self.fd, select.POLLIN)
        self._poll.register(completions_fd, select.POLLIN)

    def sleep(self, timeout_s: float) -> None:
        """Block until there may be something new, or the time is up."""
        ready = self._poll.poll(max(0.0, timeout_s) * 1e3)
        if any(fd == self.fd for fd, _ in ready):
            os.eventfd_read(self.fd)


class WaitRoom:
    """The sleepers of one task engine. `completions_fd` is readable while the transfer engine has completions."""

    def __init__(self, completions_fd: int) -> None:
        self._completions_fd = completions_fd
        self._sleepers: set[Sleeper] = set()

    def enter(self) -> Sleeper:
        """Return a sleeper that every later `wake` reaches."""
        sleeper = Sleeper(self._completions_fd)
        self._sleepers.add(sleeper)
        return sleeper

    def leave(self, sleeper: Sleeper) -> None:
        """Take a sleeper out; it must not sleep any more."""
        self._sleepers.discard(sleeper)
        os.close(sleeper.fd)

    def wake(self) -> None:
        """Let all sleepers look again."""
        for sleeper in self._sleepers:
            os.eventfd_write(sleeper.fd, 1)
