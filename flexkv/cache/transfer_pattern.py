"""Transfer patterns: from the blocks a plan covers to the graph of ops that moves them.

Pure: builds values, moves nothing. With the host tier alone there are two:   load   host slots --H2D--> GPU blocks
                                          store  GPU blocks --D2H--> host slots
A batch is one op over the blocks of all its parts: one command to each rank, and runs merge across parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flexkv.cache.mempool import Slots
from flexkv.common.block import IdArray
from flexkv.common.transfer import TransferOp, TransferOpGraph, TransferType

__all__ = ["load_graph", "store_graph"]


def load_graph(slots: Sequence[Slots], gpu_block_ids: Sequence[IdArray], after_step: int = 0) -> TransferOpGraph:
    """Return the graph that brings host `slots` to the GPU, part by part; empty when there is nothing to move.

    Raises ValueError when a part has unequal numbers of slots and blocks.
    """
    return _one_op(TransferType.H2D, slots, gpu_block_ids, after_step)


def store_graph(slots: Sequence[Slots], gpu_block_ids: Sequence[IdArray], after_step: int = 0) -> TransferOpGraph:
    """Return the graph that brings GPU blocks to host `slots`; like `load_graph`."""
    return _one_op(TransferType.D2H, gpu_block_ids, slots, after_step)


def _one_op(route: TransferType, src: Sequence[IdArray], dst: Sequence[IdArray], after_step: int) -> TransferOpGraph:
    graph = TransferOpGraph()
    for src_ids, dst_ids in zip(src, dst, strict=True):
        if len(src_ids) != len(dst_ids):
            raise ValueError(f"src has {len(src_ids)} ids and dst has {len(dst_ids)}; they must have equally many")
    if sum(len(ids) for ids in src):
        op = TransferOp(
            transfer_type=route, src_block_ids=_joined(src), dst_block_ids=_joined(dst), after_step=after_step
        )
        graph.add_transfer_op(op)
    return graph


def _joined(parts: Sequence[IdArray]) -> IdArray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
