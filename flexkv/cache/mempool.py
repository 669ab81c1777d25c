"""Mempool: which slots of a tier are free; the Python face of the native SlotPool (csrc/cache/slot_pool.h).

A slot is in exactly one state: free, used, or quarantined (an op that may still touch it has not been heard of).
Invariant: free + used + quarantined == available <= capacity. Slots come as few runs of adjacent slots, since long
copies are fast. Not for bytes: those are the StorageEngine's. Thread safety: none; the owner holds a lock.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from flexkv import _core
from flexkv.common.checks import as_config_int
from flexkv.errors import CapacityError, ConfigError

__all__ = ["Mempool", "Slots", "as_slots"]

Slots = npt.NDArray[np.int64]
"""Slot ids of one tier. Shape: (n,)."""


def as_slots(slots: Slots | Sequence[int], name: str = "slots") -> Slots:
    """Return `slots` as a contiguous int64 vector. Raises ValueError naming `name` for another dtype or shape."""
    array = np.asarray(slots)
    if array.size == 0 and array.ndim == 1:
        return np.empty(0, dtype=np.int64)
    if array.dtype != np.int64 or array.ndim != 1:
        raise ValueError(f"{name} has dtype {array.dtype} and shape {array.shape}; it must be a 1-D int64 vector")
    return np.ascontiguousarray(array)


class Mempool:
    """Hands out and takes back slots.

    Args:
        num_blocks: capacity, one slot per block.
        available: slots that may be handed out already; all when None. `set_available` raises it.

    Raises:
        ConfigError: when a size is not positive.
    """

    def __init__(self, num_blocks: int, available: int | None = None) -> None:
        num_blocks = as_config_int("num_blocks", num_blocks)
        first = num_blocks if available is None else available
        try:
            self._pool = _core.SlotPool(num_blocks, first)
        except ValueError as error:
            raise ConfigError(
                f"num_blocks={num_blocks} available={first}: {error}", key="num_blocks", value=num_blocks
            ) from error

    def allocate_blocks(self, num_blocks: int) -> Slots:
        """Hand out `num_blocks` slots. Raises CapacityError when fewer are free; nothing changed then."""
        if num_blocks < 0:
            raise ValueError(f"num_blocks is {num_blocks}; it must not be negative")
        if num_blocks > self.num_free_blocks:
            raise CapacityError(f"asked for {num_blocks} slots, {self.num_free_blocks} are free; evict first")
        slots: Slots = self._pool.allocate(num_blocks)
        return slots

    def adopt_blocks(self, slots: Slots | Sequence[int]) -> None:
        """Take these very slots, which hold the blocks that a restart found.

        Raises ValueError when one is out of range, named twice or not free; nothing changed then.
        """
        self._pool.adopt(as_slots(slots))

    def recycle_blocks(self, slots: Slots | Sequence[int]) -> None:
        """Take used slots back.

        Raises ValueError when one is out of range, named twice or not used; nothing changed then.
        """
        self._pool.free(as_slots(slots))

    def quarantine_blocks(self, slots: Slots) -> None:
        """Set used slots apart until `release_blocks`. Raises ValueError like `recycle_blocks`."""
        self._pool.quarantine(as_slots(slots))

    def release_blocks(self, slots: Slots) -> None:
        """Make quarantined slots free. Raises ValueError like `recycle_blocks`."""
        self._pool.release(as_slots(slots))

    def set_available(self, available: int) -> None:
        """Let slots below `available` be handed out. Raises ValueError when that would shrink or pass the capacity."""
        self._pool.set_available(available)

    def reset(self) -> None:
        """Make all available slots free, whoever holds them."""
        self._pool.reset()

    @property
    def num_total_blocks(self) -> int:
        """Capacity."""
        return int(self._pool.capacity)

    @property
    def num_available_blocks(self) -> int:
        """Slots that may be handed out; free, used or quarantined."""
        return int(self._pool.available)

    @property
    def num_free_blocks(self) -> int:
        """Slots nobody holds."""
        return int(self._pool.num_free)

    @property
    def num_used_blocks(self) -> int:
        """Slots handed out."""
        return int(self._pool.num_used)

    @property
    def num_quarantined_blocks(self) -> int:
        """Slots set apart."""
        return int(self._pool.num_quarantined)

    def mean_free_run(self) -> float:
        """Mean length of a run of free slots. O(capacity / 64)."""
        return float(self._pool.mean_free_run())

    def check_invariants(self) -> None:
        """Raise when a count is wrong. O(capacity)."""
        self._pool.check_invariants()
