"""Workers: one for each kind of route. A worker names the transfer types it serves and checks the ids of an op.

The bytes are moved by native threads (csrc/transfer): a worker here decides nothing and touches none. A route without a
worker in the TransferEngine's `_worker_map` is refused when a graph is submitted. Thread safety: immutable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from flexkv import _core
from flexkv.common.transfer import TransferOp, TransferType

__all__ = ["CPUSSDDiskTransferWorker", "GPUCPUTransferWorker", "TransferWorker", "VirtualTransferWorker"]


@dataclass(frozen=True, slots=True)
class TransferWorker:
    """A kind of route of one native engine."""

    transfer_types: ClassVar[tuple[TransferType, ...]] = ()

    engine: _core.TransferEngine

    @classmethod
    def create_worker(cls, engine: _core.TransferEngine) -> TransferWorker:
        """Return the worker that serves this kind of route of `engine`."""
        return cls(engine)

    def check(self, op: TransferOp) -> None:
        """Raise ValueError, naming the argument, unless the route can carry `op`."""
        if op.transfer_type not in self.transfer_types:
            served = ", ".join(kind.name for kind in self.transfer_types)
            raise ValueError(f"transfer_type is {op.transfer_type.name}; this worker serves {served}")


class GPUCPUTransferWorker(TransferWorker):
    """H2D and D2H, by the copy agents in the GPU workers (D1).

    Device blocks and host slots are checked by the native engine against what was registered.
    """

    transfer_types: ClassVar[tuple[TransferType, ...]] = (TransferType.H2D, TransferType.D2H)


class CPUSSDDiskTransferWorker(TransferWorker):
    """DISK2H and H2DISK, by a thread for each directory of the SSD tier.

    Slots are checked by the native engine; what is read is checked against its checksum (D13).
    """

    transfer_types: ClassVar[tuple[TransferType, ...]] = (TransferType.DISK2H, TransferType.H2DISK)

    def check(self, op: TransferOp) -> None:
        """Raise ValueError when the op does not say which blocks it moves."""
        TransferWorker.check(self, op)
        if op.disk is None:
            raise ValueError(f"disk is None; a {op.transfer_type.name} op says which blocks it moves")
        if op.transfer_type is TransferType.H2DISK and op.disk.parents is None:
            raise ValueError("disk.parents is None; an H2DISK op names the block before each")


class VirtualTransferWorker(TransferWorker):
    """VIRTUAL: an op that moves nothing and joins others; done as soon as its predecessors are."""

    transfer_types: ClassVar[tuple[TransferType, ...]] = (TransferType.VIRTUAL,)

    def check(self, op: TransferOp) -> None:
        """Raise ValueError when the op names blocks."""
        TransferWorker.check(self, op)
        if len(op.src_block_ids):
            raise ValueError(f"src_block_ids has {len(op.src_block_ids)} ids; a VIRTUAL op moves nothing")
