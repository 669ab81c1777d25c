"""Spans of blocks, and how token masks and slot mappings map to them. Pure functions.

GET: the span starts at the first block boundary at or after the first True of the mask (tokens before it are on the
GPU, or are the engine's to compute) and ends with the last whole block of that first stretch of Trues.
PUT: the mask starts at block 0: its leading stretch of Trues is what may be written, in whole blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flexkv.common.block import BoolArray, IdArray, as_id_vector, as_slot_mapping

__all__ = ["BlockSpan", "blocks_of_mapping", "get_span", "put_span"]


@dataclass(frozen=True, slots=True)
class BlockSpan:
    """Blocks [start, end) of a sequence."""

    start: int
    end: int

    @property
    def num_blocks(self) -> int:
        """Length in blocks."""
        return self.end - self.start

    def token_mask(self, num_tokens: int, tokens_per_block: int) -> BoolArray:
        """Return a mask over the sequence's tokens, True on the span. Shape: (num_tokens,)."""
        mask = np.zeros(num_tokens, dtype=np.bool_)
        mask[self.start * tokens_per_block : self.end * tokens_per_block] = True
        return mask


def _first_stretch(mask: BoolArray) -> tuple[int, int]:
    """Return [begin, end) of the first stretch of Trues; empty at the end when there is none."""
    if len(mask) == 0 or not mask[begin := int(mask.argmax())]:
        return len(mask), len(mask)
    rest = mask[begin:]
    length = int(rest.argmin())
    return begin, begin + (len(rest) if rest[length] else length)


def get_span(mask: BoolArray | None, num_tokens: int, tokens_per_block: int) -> BlockSpan:
    """Return the blocks a GET may load; None means that nothing is on the GPU."""
    begin, end = (0, num_tokens) if mask is None else _first_stretch(mask)
    first = -(-begin // tokens_per_block)
    return BlockSpan(first, max(first, end // tokens_per_block))


def put_span(mask: BoolArray | None, num_tokens: int, tokens_per_block: int) -> BlockSpan:
    """Return the blocks a PUT may write; None means all tokens.

    Raises ValueError when the mask starts after token 0.
    """
    begin, end = (0, num_tokens) if mask is None else _first_stretch(mask)
    if begin == end:
        return BlockSpan(0, 0)
    if begin:
        raise ValueError(f"token_mask is False up to token {begin}; the mask of a put must start at block 0")
    return BlockSpan(0, end // tokens_per_block)


def blocks_of_mapping(
    slot_mapping: object, mask: BoolArray | None, num_tokens: int, span: BlockSpan, tokens_per_block: int
) -> IdArray:
    """Return the GPU block ids of `span`, from a mapping given before the match.

    The mapping has one slot per True of `mask`, or per token.
    Only the slots of the span's tokens need to form whole blocks. Shape: (span.num_blocks,).
    Raises ValueError naming slot_mapping.
    """
    slots = as_id_vector(slot_mapping, "slot_mapping")
    num_masked = num_tokens if mask is None else int(mask.sum())
    if len(slots) not in (num_masked, num_tokens):
        raise ValueError(f"slot_mapping has {len(slots)} slots; it needs {num_masked}, one for each masked token")
    begin, end = span.start * tokens_per_block, span.end * tokens_per_block
    if mask is not None and len(slots) == num_masked:  # the span lies inside the first stretch of Trues
        skipped = int(mask.argmax()) if num_masked else 0
        begin, end = begin - skipped, end - skipped
    if span.num_blocks == 0:
        return np.empty(0, dtype=np.int64)
    return as_slot_mapping(slots[begin:end], end - begin, tokens_per_block)
