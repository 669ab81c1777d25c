"""The engine's own device blocks, as vLLM hands them out: which block a request gets is which one vLLM would give it.

Free blocks stand in a queue. One with contents that may be hit again goes to its end when it is freed, one without to
its front; a block keeps its contents until it is handed out. Block 0 is never handed out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence


class BlockPool:
    """Blocks with reference counts, and the prefix cache over them."""

    def __init__(self, num_blocks: int) -> None:
        self._num_blocks = num_blocks
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, num_blocks))
        self._references = [0] * num_blocks
        self._hash_of: dict[int, bytes] = {}
        self._blocks_of: dict[bytes, list[int]] = {}

    @property
    def num_free(self) -> int:
        return len(self._free)

    def num_idle(self, blocks: Iterable[int]) -> int:
        """Return how many of the blocks are in the queue: to hit them takes them out of it."""
        return sum(self._references[block] == 0 for block in blocks)

    def take(self, count: int) -> list[int]:
        """Hand out free blocks; their contents are forgotten."""
        taken = [self._free.popitem(last=False)[0] for _ in range(count)]
        for block in taken:
            self._references[block] = 1
            content = self._hash_of.pop(block, None)
            if content is not None:
                self._blocks_of[content].remove(block)
        return taken

    def touch(self, blocks: Iterable[int]) -> None:
        """One more request has these."""
        for block in blocks:
            if self._references[block] == 0:
                del self._free[block]
            self._references[block] += 1

    def free(self, table: Sequence[int]) -> None:
        """A request lets its blocks go; the last one is to be handed out first."""
        first: list[int] = []
        for block in reversed(table):
            self._references[block] -= 1
            assert self._references[block] >= 0, "a block was freed twice"
            if self._references[block]:
                continue
            if block in self._hash_of:
                self._free[block] = None
            else:
                first.append(block)
        for block in reversed(first):
            self._free[block] = None
            self._free.move_to_end(block, last=False)

    def cache(self, block: int, content: bytes) -> None:
        """The block will have these contents once the step that is being planned has run, or a load has ended."""
        if block not in self._hash_of:
            self._hash_of[block] = content
            self._blocks_of.setdefault(content, []).append(block)

    def hit(self, contents: Iterable[bytes]) -> list[int]:
        """Return the blocks that have the longest prefix of these contents."""
        blocks: list[int] = []
        for content in contents:
            if not self._blocks_of.get(content):
                break
            blocks.append(self._blocks_of[content][0])
        return blocks

    def drop(self) -> None:
        """Forget all contents. REQUIRES: no request has a block."""
        assert self.num_free == self._num_blocks - 1, "blocks are in use"
        self._hash_of.clear()
        self._blocks_of.clear()
