"""Transfer patterns: from the blocks a plan covers to the graph of ops that moves them.

Pure: builds values, moves nothing.
    load      host slots --H2D--> GPU blocks, after the ops that are still filling some of the slots
    store     GPU blocks --D2H--> host slots
    stage     SSD slots --DISK2H--> host slots, in chunks: what is behind the first need not wait for the last
    offload   host slots --H2DISK--> SSD slots, in chunks
    join      VIRTUAL, after ops of other graphs
A batch is one op over the blocks of all its parts: one command to each rank, and runs merge across parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from flexkv.cache.mempool import Slots
from flexkv.cache.tier_move import NOTHING, TierMove
from flexkv.common.block import IdArray
from flexkv.common.transfer import DiskBlocks, TransferOp, TransferOpGraph, TransferType

__all__ = ["MAX_CHUNKS", "MIN_CHUNK_BLOCKS", "join_graph", "load_graph", "offload_graph", "stage_graph", "store_graph"]

MIN_CHUNK_BLOCKS = 8
MAX_CHUNKS = 32
"""Ops of a move between tiers."""


def load_graph(
    slots: Sequence[Slots],
    gpu_block_ids: Sequence[IdArray],
    after_step: int = 0,
    waits: npt.NDArray[np.int64] | None = None,
    layer_ticket: int = 0,
) -> TransferOpGraph:
    """Return the graph that brings host `slots` to the GPU, part by part; empty when there is nothing to move.

    `waits`: for each block, over all parts, the op of another graph that is filling its slot, or -1; None: all are
    filled. There is one op for the filled ones, and one for each op that is waited for. `layer_ticket`: see TransferOp;
    blocks that are waited for do not go by layers.
    Raises ValueError when a part has unequal numbers of slots and blocks.
    """
    if waits is None or not (waits >= 0).any():
        return _one_op(TransferType.H2D, slots, gpu_block_ids, after_step, layer_ticket)
    _check_parts(slots, gpu_block_ids)
    graph = TransferOpGraph()
    src, dst = _joined(slots), _joined(gpu_block_ids)
    for external in np.unique(waits).tolist():
        mine = waits == external
        op = TransferOp(
            transfer_type=TransferType.H2D,
            src_block_ids=src[mine],
            dst_block_ids=dst[mine],
            after_step=after_step,
        )
        graph.add_transfer_op(op)
        if external != NOTHING:
            graph.add_external_dependency(op.op_id, external)
    return graph


def stage_graph(move: TierMove) -> TransferOpGraph:
    """Return the graph that reads a move's blocks from the SSD tier into the host's slots."""
    graph = TransferOpGraph()
    keys = move.keys
    for chunk in chunks_of(move.num_blocks):
        op = TransferOp(
            transfer_type=TransferType.DISK2H,
            src_block_ids=move.source.slots[chunk],
            dst_block_ids=move.target.slots[chunk],
            disk=DiskBlocks(keys=np.ascontiguousarray(keys[chunk])),
        )
        graph.add_transfer_op(op)
    return graph


def offload_graph(move: TierMove, expiry_s: int) -> TransferOpGraph:
    """Return the graph that writes a move's blocks from the host's slots to the SSD tier.

    `expiry_s`: of the blocks, in seconds since 1970; 2^32 - 1 means never.
    """
    graph = TransferOpGraph()
    keys, parents, meta = move.keys, move.parents, move.target.meta
    for chunk in chunks_of(move.num_blocks):
        blocks = DiskBlocks(
            keys=np.ascontiguousarray(keys[chunk]),
            parents=np.ascontiguousarray(parents[chunk]),
            expiry_s=expiry_s,
            tenant=meta.tenant,
            group=meta.group,
            priority=meta.priority,
        )
        op = TransferOp(
            transfer_type=TransferType.H2DISK,
            src_block_ids=move.source.slots[chunk],
            dst_block_ids=move.target.slots[chunk],
            disk=blocks,
        )
        graph.add_transfer_op(op)
    return graph


def join_graph(external_op_ids: Iterable[int]) -> TransferOpGraph:
    """Return a graph that is done when ops of other graphs are."""
    graph = TransferOpGraph()
    op = TransferOp(transfer_type=TransferType.VIRTUAL)
    graph.add_transfer_op(op)
    for external in external_op_ids:
        graph.add_external_dependency(op.op_id, external)
    return graph


def chunks_of(num_blocks: int) -> list[slice]:
    """Return the pieces in which a move of so many blocks is made."""
    size = max(MIN_CHUNK_BLOCKS, -(-num_blocks // MAX_CHUNKS))
    return [slice(start, min(start + size, num_blocks)) for start in range(0, num_blocks, size)]


def store_graph(slots: Sequence[Slots], gpu_block_ids: Sequence[IdArray], after_step: int = 0) -> TransferOpGraph:
    """Return the graph that brings GPU blocks to host `slots`; like `load_graph`."""
    return _one_op(TransferType.D2H, gpu_block_ids, slots, after_step)


def _one_op(
    route: TransferType, src: Sequence[IdArray], dst: Sequence[IdArray], after_step: int, layer_ticket: int = 0
) -> TransferOpGraph:
    graph = TransferOpGraph()
    _check_parts(src, dst)
    if sum(len(ids) for ids in src):
        op = TransferOp(
            transfer_type=route,
            src_block_ids=_joined(src),
            dst_block_ids=_joined(dst),
            after_step=after_step,
            layer_ticket=layer_ticket,
        )
        graph.add_transfer_op(op)
    return graph


def _check_parts(src: Sequence[IdArray], dst: Sequence[IdArray]) -> None:
    for src_ids, dst_ids in zip(src, dst, strict=True):
        if len(src_ids) != len(dst_ids):
            raise ValueError(f"src has {len(src_ids)} ids and dst has {len(dst_ids)}; they must have equally many")


def _joined(parts: Sequence[IdArray]) -> IdArray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
