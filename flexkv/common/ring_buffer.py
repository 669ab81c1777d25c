"""RingBuffer: the last N items, in a fixed ring: no growth, and what was overwritten is counted.

KVTPClient keeps in one the window of step tickets it has given to its copy agent, so that an op that waits for a step
can be explained. (The op descriptors themselves travel in frames on the agent's socket, csrc/transfer/protocol.h.)
Thread safety: none; the owner locks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from flexkv.common.checks import as_int

__all__ = ["RingBuffer"]

T = TypeVar("T")


class RingBuffer(Generic[T]):
    """At most `capacity` items, oldest first.

    Invariants: 0 <= len <= capacity; num_appended == len + num_overwritten + taken and cleared ones.
    """

    __slots__ = ("_first", "_items", "_length", "_num_overwritten")

    def __init__(self, capacity: int) -> None:
        self._items: list[T | None] = [None] * as_int("capacity", capacity, 1)
        self._first = 0
        self._length = 0
        self._num_overwritten = 0

    @property
    def capacity(self) -> int:
        """Items it can hold."""
        return len(self._items)

    @property
    def num_overwritten(self) -> int:
        """Items that newer ones have pushed out."""
        return self._num_overwritten

    @property
    def is_full(self) -> bool:
        """Whether the next append overwrites."""
        return self._length == len(self._items)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        for index in range(self._length):
            yield self[index]

    def __getitem__(self, index: int) -> T:
        """Return an item: 0 is the oldest, -1 the newest. Raises IndexError."""
        position = index + self._length if index < 0 else index
        if not 0 <= position < self._length:
            raise IndexError(f"index is {index}; the ring holds {self._length} items")
        return self._items[(self._first + position) % len(self._items)]  # type: ignore[return-value]  # held: not None

    def append(self, item: T) -> None:
        """Add the newest item; a full ring loses its oldest."""
        end = (self._first + self._length) % len(self._items)
        self._items[end] = item
        if self._length == len(self._items):
            self._first = (self._first + 1) % len(self._items)
            self._num_overwritten += 1
        else:
            self._length += 1

    def take(self) -> T:
        """Remove and return the oldest item. Raises IndexError when empty."""
        item = self[0]
        self._items[self._first] = None  # do not keep it alive
        self._first = (self._first + 1) % len(self._items)
        self._length -= 1
        return item

    def clear(self) -> None:
        """Remove all items."""
        while self._length:
            self.take()
