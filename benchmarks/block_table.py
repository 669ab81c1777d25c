"""Where the tokens of a sequence lie in paged KV memory: arithmetic over numpy, without torch.

A layer's pages are [num_blocks, 2, block_size, ...]: K of a block, then its V. Seen as halves, [num_blocks * 2,
block_size, ...], each block has one of K and one of V; as rows, [num_blocks * 2 * block_size, ...], each token has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

K, V = 0, 1


@dataclass(frozen=True, slots=True, eq=False)
class BlockTable:
    """The blocks of one sequence, in its order; they may lie anywhere. `block_ids`: int64."""

    block_ids: npt.NDArray[np.int64]
    block_size: int

    @property
    def num_tokens(self) -> int:
        """How many tokens there is room for."""
        return len(self.block_ids) * self.block_size

    def whole_blocks(self, num_tokens: int) -> npt.NDArray[np.int64]:
        """Return the blocks that the first tokens fill."""
        return self.block_ids[: num_tokens // self.block_size]

    def rows(self, start: int, end: int, part: int) -> npt.NDArray[np.int64]:
        """Return the rows of K or V of tokens start to end. Raises ValueError when there is no room for them."""
        self._check(start, end)
        at = np.arange(start, end)
        halves = self.block_ids[at // self.block_size] * 2 + part
        return halves * self.block_size + at % self.block_size

    def halves(self, num_tokens: int, part: int) -> npt.NDArray[np.int64]:
        """Return the halves that hold K or V of the first tokens. Raises ValueError when there are not as many."""
        self._check(0, num_tokens)
        return self.block_ids[: -(-num_tokens // self.block_size)] * 2 + part

    def _check(self, start: int, end: int) -> None:
        if not 0 <= start <= end <= self.num_tokens:
            raise ValueError(f"tokens {start} to {end} are asked for; there is room for {self.num_tokens}")
