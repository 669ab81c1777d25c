"""Transfer ops and the graphs they form: a plan as a value. Nothing moves here.

A graph is a small DAG of ops over block-id vectors. An edge says that the successor may run only when the predecessor
is done; a predecessor may be an op of another graph that already brings the block (a joined load). Who schedules:
flexkv._core, and flexkv/transfer/scheduler.py as its reference. Numbers of the enums are those of the native core.
Ops and graphs belong to one thread at a time until they are submitted; ids are unique in a process, from any thread.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import NewType

from flexkv.common.block import IdArray, as_id_vector
from flexkv.common.checks import as_int
from flexkv.common.hash_utils import KEY_BYTES, Keys

__all__ = [
    "DiskBlocks",
    "GraphId",
    "NativeDiskBlocks",
    "NativeOp",
    "OpId",
    "TransferOp",
    "TransferOpGraph",
    "TransferType",
]

OpId = NewType("OpId", int)
GraphId = NewType("GraphId", int)
NativeDiskBlocks = tuple[Keys, Keys | None, int, int, int, int]
"""(keys, parents, expiry_s, tenant, group, priority)"""
NativeOp = tuple[int, int, IdArray, IdArray, int, list[int], NativeDiskBlocks | None, int]
"""What `_core.TransferEngine.submit` takes.

(op_id, type, src, dst, after_step, predecessors, disk blocks, layer ticket)
"""
_NEVER_S = 0xFFFFFFFF

_ids = itertools.count()  # ops and graphs; next() is atomic


class TransferType(IntEnum):
    """A route: what is read, and what is written. D is the device (GPU), H the host."""

    H2D = 0
    D2H = 1
    DISK2H = 2
    H2DISK = 3
    REMOTE2H = 4
    H2REMOTE = 5
    VIRTUAL = 6  # moves nothing; joins others


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DiskBlocks:
    """Which blocks a DISK2H or H2DISK op moves: a read is checked against it, a write is recorded with it.

    Attributes:
        keys: one per block. Shape: (n, 16).
        parents: of an H2DISK: the key before each; zeros where a chain begins. Shape: (n, 16). None of a DISK2H.
        expiry_s: of an H2DISK: when the blocks expire, in seconds since 1970; the default means never.
        tenant, group, priority: of an H2DISK.
    """

    keys: Keys
    parents: Keys | None = None
    expiry_s: int = _NEVER_S
    tenant: int = 0
    group: int = 0
    priority: int = 0

    def to_native(self) -> NativeDiskBlocks:
        """Return it as the native engine takes it. Arrays are shared, not copied."""
        return self.keys, self.parents, self.expiry_s, self.tenant, self.group, self.priority


class TransferOp:
    """One copy of blocks along one route.

    Args:
        op_id: unique in the process; None takes the next one.
        graph_id: the graph it belongs to; None until it is added to one.
        transfer_type: the route.
        src_block_ids, dst_block_ids: int64 vectors of equal length, of blocks (device) or slots (host, disk). Not
            copied.
        layer_id, layer_granularity: the layers it moves: `layer_granularity` of them from `layer_id` on; -1 means all.
        successors, predecessors: op ids, in addition to the edges the graph adds.
        after_step: the engine step after which it may run (0: at once).
        disk: of DISK2H and H2DISK: which blocks these are.
        layer_ticket: of an H2D: it goes layer by layer, and the worker asks for its progress with this; 0: it does not.

    Raises:
        ValueError: naming the argument.
    """

    __slots__ = (
        "after_step",
        "disk",
        "dst_block_ids",
        "graph_id",
        "layer_granularity",
        "layer_id",
        "layer_ticket",
        "op_id",
        "predecessors",
        "src_block_ids",
        "successors",
        "transfer_type",
    )

    def __init__(
        self,
        op_id: int | None = None,
        graph_id: int | None = None,
        transfer_type: TransferType = TransferType.VIRTUAL,
        src_block_ids: object = (),
        dst_block_ids: object = (),
        layer_id: int = 0,
        layer_granularity: int = -1,
        successors: Iterable[int] | None = None,
        predecessors: Iterable[int] | None = None,
        after_step: int = 0,
        disk: DiskBlocks | None = None,
        layer_ticket: int = 0,
    ) -> None:
        try:
            self.transfer_type = TransferType(transfer_type)
        except ValueError as error:
            routes = ", ".join(TransferType.__members__)
            raise ValueError(f"transfer_type is {transfer_type!r}; use one of {routes}") from error
        self.op_id = OpId(next(_ids) if op_id is None else as_int("op_id", op_id))
        self.graph_id = None if graph_id is None else GraphId(as_int("graph_id", graph_id))
        self.src_block_ids = as_id_vector(src_block_ids, "src_block_ids")
        self.dst_block_ids = as_id_vector(dst_block_ids, "dst_block_ids")
        if len(self.src_block_ids) != len(self.dst_block_ids):
            lengths = f"{len(self.src_block_ids)} and {len(self.dst_block_ids)}"
            raise ValueError(f"src_block_ids and dst_block_ids have {lengths} ids; they must have equally many")
        self.layer_id = as_int("layer_id", layer_id)
        self.layer_granularity = as_int("layer_granularity", layer_granularity, -1)
        if layer_granularity == 0:
            raise ValueError("layer_granularity is 0; use a number of layers, or -1 for all")
        self.after_step = as_int("after_step", after_step)
        self.layer_ticket = as_int("layer_ticket", layer_ticket)
        self.disk = disk
        if disk is not None and disk.keys.shape != (len(self.src_block_ids), KEY_BYTES):
            raise ValueError(f"disk.keys has shape {disk.keys.shape}; it needs one key for each of the block ids")
        self.successors: set[OpId] = {OpId(as_int("successors", op)) for op in successors or ()}
        self.predecessors: set[OpId] = {OpId(as_int("predecessors", op)) for op in predecessors or ()}

    def __repr__(self) -> str:
        return (
            f"TransferOp(op_id={self.op_id}, graph_id={self.graph_id}, {self.transfer_type.name}, "
            f"num_blocks={len(self.src_block_ids)}, predecessors={sorted(self.predecessors)})"
        )


class TransferOpGraph:
    """A DAG of ops. An op is ready when all predecessors are completed; it is handed out once.

    States of an op: waiting -> ready -> taken -> completed
    """

    def __init__(self, graph_id: int | None = None) -> None:
        self.graph_id = GraphId(next(_ids) if graph_id is None else as_int("graph_id", graph_id))
        self._ops: dict[OpId, TransferOp] = {}
        self._external: set[OpId] = set()  # ops of other graphs that ours wait for
        self._taken: set[OpId] = set()
        self._completed: set[OpId] = set()  # ours and external ones
        self._num_completed = 0

    @property
    def num_ops(self) -> int:
        """Number of ops of this graph."""
        return len(self._ops)

    @property
    def ops(self) -> Mapping[OpId, TransferOp]:
        """The ops by id, in the order they were added. A read-only view."""
        return MappingProxyType(self._ops)

    def __iter__(self) -> Iterator[TransferOp]:
        return iter(self._ops.values())

    def add_transfer_op(self, op: TransferOp) -> None:
        """Add an op; it must not belong to another graph. Edges it names may be added before or after it."""
        if op.op_id in self._ops:
            raise ValueError(f"op_id {op.op_id} is already in graph {self.graph_id}")
        if op.graph_id is not None and op.graph_id != self.graph_id:
            raise ValueError(f"op {op.op_id} has graph_id {op.graph_id}; it cannot be added to graph {self.graph_id}")
        op.graph_id = self.graph_id
        self._ops[op.op_id] = op
        for successor in op.successors & self._ops.keys():
            self._ops[successor].predecessors.add(op.op_id)
        for predecessor in op.predecessors & self._ops.keys():
            self._ops[predecessor].successors.add(op.op_id)
        for other in self._ops.values():
            if op.op_id in other.successors:
                op.predecessors.add(other.op_id)
            if op.op_id in other.predecessors:
                op.successors.add(other.op_id)

    def _op(self, op_id: int, name: str) -> TransferOp:
        op = self._ops.get(OpId(op_id))
        if op is None:
            raise ValueError(f"{name} is {op_id}, which is no op of graph {self.graph_id}")
        return op

    def add_dependency(self, successor_op_id: int, predecessor_op_id: int) -> None:
        """Let the successor run only after the predecessor; both are ops of this graph."""
        successor = self._op(successor_op_id, "successor_op_id")
        predecessor = self._op(predecessor_op_id, "predecessor_op_id")
        if successor is predecessor:
            raise ValueError(f"successor_op_id and predecessor_op_id are both {successor_op_id}")
        successor.predecessors.add(predecessor.op_id)
        predecessor.successors.add(successor.op_id)

    def add_external_dependency(self, op_id: int, external_op_id: int) -> None:
        """Let an op of this graph run only after an op of another graph."""
        op = self._op(op_id, "op_id")
        if external_op_id in self._ops:
            raise ValueError(f"external_op_id {external_op_id} is an op of graph {self.graph_id}; use add_dependency")
        external = OpId(as_int("external_op_id", external_op_id))
        op.predecessors.add(external)
        self._external.add(external)

    def take_ready_op_ids(self) -> list[OpId]:
        """Return the ops that can run now and have not been returned before, in the order they were added."""
        ready = [
            op.op_id for op in self._ops.values() if op.op_id not in self._taken and op.predecessors <= self._completed
        ]
        self._taken.update(ready)
        return ready

    def mark_completed(self, op_id: int) -> None:
        """Note that an op is done: one of this graph that was taken, or an external one it waits for."""
        known = OpId(op_id)
        if known in self._external:
            self._completed.add(known)
            return
        self._op(op_id, "op_id")
        if known not in self._taken or known in self._completed:
            state = "already completed" if known in self._completed else "not taken yet"
            raise ValueError(f"op_id {op_id} is {state}")
        self._completed.add(known)
        self._num_completed += 1

    def all_transfer_ops_completed(self) -> bool:
        """True when every op of this graph is completed; an empty graph is."""
        return self._num_completed == len(self._ops)

    def validate(self) -> None:
        """Raise ValueError when an edge leads to an unknown op or the ops form a cycle. O(ops + edges)."""
        for op in self._ops.values():
            unknown = (op.predecessors - self._external | op.successors) - self._ops.keys()
            if unknown:
                raise ValueError(f"op {op.op_id} of graph {self.graph_id} depends on unknown ops {sorted(unknown)}")
        waiting = {op.op_id: len(op.predecessors - self._external) for op in self._ops.values()}
        ready = [op_id for op_id, count in waiting.items() if count == 0]
        num_sorted = 0
        while ready:
            num_sorted += 1
            for successor in self._ops[ready.pop()].successors:
                waiting[successor] -= 1
                if waiting[successor] == 0:
                    ready.append(successor)
        if num_sorted != len(self._ops):
            stuck = sorted(op_id for op_id, count in waiting.items() if count > 0)
            raise ValueError(f"graph {self.graph_id} has a cycle among the ops {stuck}")

    def to_native(self) -> list[NativeOp]:
        """Return the ops as `_core.TransferEngine.submit` takes them. The id vectors are shared, not copied."""
        return [
            (
                op.op_id,
                int(op.transfer_type),
                op.src_block_ids,
                op.dst_block_ids,
                op.after_step,
                sorted(op.predecessors),
                None if op.disk is None else op.disk.to_native(),
                op.layer_ticket,
            )
            for op in self._ops.values()
        ]
