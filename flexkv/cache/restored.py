"""RestoredBlocks: what a restart knows of the blocks that a tier's slots still hold; columns, one row per block.

A value: it does not change once it was given away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flexkv.cache.mempool import Slots
from flexkv.common.hash_utils import Keys

__all__ = ["RestoredBlocks"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RestoredBlocks:
    """Rows in order of last use, the oldest first; columns are C-contiguous and of one length.

    `keys`, `parents`: shape (n, 16); the parent of a chain's first block is all zero. `expiry_s`: on the clock that the
    tier is asked with; 0xffffffff means never. What the rows say need not make sense: `RadixTree.restore` leaves out
    what has no place.
    """

    slots: Slots
    keys: Keys
    parents: Keys
    expiry_s: npt.NDArray[np.uint32]
    tenants: npt.NDArray[np.uint16]
    groups: npt.NDArray[np.uint8]
    priorities: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.slots)

    def at(self, rows: npt.NDArray[np.int64]) -> RestoredBlocks:
        """Return these rows, in this order."""
        return RestoredBlocks(
            slots=self.slots[rows],
            keys=self.keys[rows],
            parents=self.parents[rows],
            expiry_s=self.expiry_s[rows],
            tenants=self.tenants[rows],
            groups=self.groups[rows],
            priorities=self.priorities[rows],
        )
