"""OwnProcess: what must not be used in a forked child knows that it is in one.

A child has copies of its parent's locks, as they were: one that a thread held stays held for good there. Immutable, any
thread.
"""

from __future__ import annotations

import os

from flexkv.errors import ServerError

__all__ = ["OwnProcess"]


class OwnProcess:
    """The process that made this."""

    __slots__ = ("_pid",)

    def __init__(self) -> None:
        self._pid = os.getpid()

    @property
    def is_forked_child(self) -> bool:
        """True in a child of the process that made this."""
        return os.getpid() != self._pid

    def check(self) -> None:
        """Raise ServerError in a forked child."""
        if self.is_forked_child:
            raise ServerError(f"this cache belongs to process {self._pid}; a forked child must make and start its own")
