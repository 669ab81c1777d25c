"""Doubles: small real implementations that stand where the transfer and storage engines stand. Nothing here is a mock.

TransferDouble keeps graphs in memory and lets a test say what becomes of each: `finish`, `fail`, `time_out`, `release`.
It checks what it is given, as the native engine does, and that nothing is written to or read from a slot or GPU block
while another op writes it.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from flexkv._core import CompletionKind, OpStatus, OpType
from flexkv.common.transfer import TransferOp, TransferOpGraph, TransferType

GATE_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class RankDouble:
    rank: int = 0
    num_blocks: int = 1024
    slot_bytes: int = 64
    tokens_per_block: int = 4
    layout_tag: str = "double"


@dataclass(frozen=True)
class CompletionDouble:
    kind: CompletionKind
    graph_id: int
    status: OpStatus
    op_id: int = -1
    bytes: int = 0
    seconds: float = 0.0
    error: str = ""
    type: OpType = OpType.VIRTUAL
    num_blocks: int = 0
    failed_blocks: tuple[int, ...] = ()
    num_bad_checksums: int = 0
    io_errno: int = 0
    queued_seconds: float = 0.0


@dataclass(frozen=True)
class BadBlocks:
    """How a disk op of a graph fails."""

    failed: tuple[int, ...]  # positions in the op
    bad_checksums: int = 0
    io_errno: int = 0


@dataclass(frozen=True)
class DeviceDouble:
    io_engine: str = "double"


@dataclass(frozen=True)
class RecordDouble:
    """What an SSD tier keeps on disk of one slot."""

    slot: int
    key: bytes
    parent: bytes = bytes(16)
    expiry_s: int = 0xFFFFFFFF  # since 1970
    tenant: int = 0


def scan_of(records: Sequence[RecordDouble]) -> tuple[np.ndarray, ...]:
    """Columns of what lies in an SSD tier; the oldest comes first."""
    count = len(records)
    return (
        np.array([record.slot for record in records], dtype=np.int64),
        np.frombuffer(b"".join(record.key for record in records), dtype=np.uint8).reshape(count, 16),
        np.frombuffer(b"".join(record.parent for record in records), dtype=np.uint8).reshape(count, 16),
        np.array([record.expiry_s for record in records], dtype=np.uint32),
        np.array([record.tenant for record in records], dtype=np.uint16),
        np.zeros(count, dtype=np.uint8),
        np.zeros(count, dtype=np.uint8),
    )


@dataclass
class DiskStoreDouble:
    """The records of an SSD tier: what lies there is what the test says. A renewal waits for `may_renew`."""

    num_slots: int
    slot_bytes: int = 4096
    records: list[RecordDouble] = field(default_factory=list)
    scan_error: OSError | None = None
    renew_error: OSError | None = None
    drains: bool = True
    num_scans: int = 0
    num_renewed: int = 0
    num_stops: int = 0
    touches: list[tuple[int, bytes, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.may_renew = threading.Event()
        self.may_renew.set()
        self.is_renewing = threading.Event()

    @property
    def is_stopped(self) -> bool:
        return self.num_stops > 0

    def scan(self) -> tuple[np.ndarray, ...]:
        self.num_scans += 1
        if self.scan_error is not None:
            raise self.scan_error
        return scan_of(self.records)

    def touch(self, slot: int, key: np.ndarray, expiry_s: int = 0, priority: int = 0) -> None:
        self.touches.append((slot, key.tobytes(), expiry_s, priority))

    def renew(self) -> None:
        self.is_renewing.set()
        assert self.may_renew.wait(GATE_TIMEOUT_S)
        self.num_renewed += 1
        if self.renew_error is not None:
            raise self.renew_error
        self.records.clear()

    def stop(self, timeout_s: float) -> bool:
        self.num_stops += 1
        return self.drains

    def devices(self) -> list[DeviceDouble]:
        return [DeviceDouble()]


@dataclass
class PoolDouble:
    """All slots are prefaulted unless a test says otherwise."""

    num_slots: int
    slots_prefaulted: int
    prefault_error: int = 0


@dataclass
class StorageDouble:
    """Hands out a pool of `num_slots`, or raises `error`. Opening an SSD tier waits for `may_open`."""

    num_slots: int
    error: Exception | None = None
    asked: list[list[int]] = field(default_factory=list)
    stores: list[DiskStoreDouble | Exception] = field(default_factory=list)  # what opening gives, one after the other

    def __post_init__(self) -> None:
        self.pool = PoolDouble(self.num_slots, self.num_slots)
        self.may_open = threading.Event()
        self.may_open.set()
        self.opened_for: list[list[int]] = []  # the ranks, each time

    def allocate_host_pool(self, slot_bytes: Sequence[int]) -> PoolDouble:
        self.asked.append(list(slot_bytes))
        if self.error is not None:
            raise self.error
        return self.pool

    def open_ssd_store(self, ranks: Sequence[RankDouble]) -> DiskStoreDouble:
        assert self.may_open.wait(GATE_TIMEOUT_S)
        self.opened_for.append([rank.rank for rank in ranks])
        store = self.stores.pop(0)
        if isinstance(store, Exception):
            raise store
        return store


class TransferDouble:
    """A transfer engine whose ops end when the test says so. Thread-safe.

    waiting: submitted, nothing decided; decided: status was given, not released. `auto` finishes each graph as it
    comes.
    """

    def __init__(
        self, ranks: Sequence[RankDouble] = (RankDouble(),), *, slots_available: int | None = None, auto: bool = False
    ) -> None:
        self.event_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.auto = auto
        self.socket_path = "/run/flexkv/double.sock"
        self.refusal: Exception | None = None
        self.started = False
        self.stopped = False
        self.drains = True
        self.num_shutdowns = 0
        self.timeouts_s: dict[int, float] = {}
        self.waiting: dict[int, TransferOpGraph] = {}
        self.decided: dict[int, TransferOpGraph] = {}
        self.cancelled: list[int] = []
        self.lost_tickets: list[int] = []
        self._ranks = list(ranks)
        self._pool: PoolDouble | None = None
        self.disk: DiskStoreDouble | None = None
        self._available = slots_available
        self.queued_seconds: list[float] = []  # of the next graph's ops, by index
        self._completions: deque[CompletionDouble] = deque()
        self._done: set[int] = set()
        self._lock = threading.RLock()

    def close(self) -> None:
        os.close(self.event_fd)

    def start(self) -> None:
        self.started = True

    def shutdown(self, timeout_s: float) -> bool:
        with self._lock:
            self.num_shutdowns += 1
            self.stopped = True
            if self.drains:
                for graph_id in list(self.waiting):
                    self.finish(graph_id)
                for graph_id in list(self.decided):
                    self.release(graph_id)
            return self.drains

    def ranks(self) -> Sequence[RankDouble]:
        return list(self._ranks)

    def register(self, rank: RankDouble) -> None:
        """A rank registers, or registers again."""
        self._ranks = [*(other for other in self._ranks if other.rank != rank.rank), rank]

    @property
    def num_device_blocks(self) -> int:
        return min((rank.num_blocks for rank in self._ranks), default=0)

    def set_pool(self, pool: PoolDouble) -> None:
        assert self._pool is None, "a pool is set once"
        self._pool = pool

    def set_disk(self, store: DiskStoreDouble) -> None:
        assert self._pool is not None, "the pool comes first"
        assert self.disk is None, "a store is set once"
        self.disk = store

    @property
    def slots_available(self) -> int:
        if self._pool is None:
            return 0
        return self._pool.num_slots if self._available is None else self._available

    def set_available(self, available: int) -> None:
        self._available = available

    def submit_transfer_graph(self, graph: TransferOpGraph, timeout_s: float) -> None:
        with self._lock:
            if self.refusal is not None:
                raise self.refusal
            if self.stopped:
                raise RuntimeError("the engine is stopped")
            self._check(graph)
            self.timeouts_s[graph.graph_id] = timeout_s
            self.waiting[graph.graph_id] = graph
            if self.auto:
                self.finish(graph.graph_id)

    def cancel(self, graph_id: int) -> None:
        with self._lock:
            if graph_id in self.waiting:
                self.cancelled.append(graph_id)

    def lose_load(self, layer_ticket: int) -> None:
        self.lost_tickets.append(layer_ticket)

    def poll(self) -> list[CompletionDouble]:
        with self._lock:
            taken = list(self._completions)
            self._completions.clear()
            if taken:
                os.eventfd_read(self.event_fd)
            return taken

    def finish(self, graph_id: int) -> None:
        """Every op is done, and nothing touches anything any more."""
        with self._lock:
            self._decide(graph_id, OpStatus.DONE)
            self.release(graph_id)

    def fail(self, graph_id: int, bad: dict[int, BadBlocks] | None = None, cancelled: Sequence[int] = ()) -> None:
        """An op failed; others may still run until `release`.

        `bad`: of a graph of disk ops, by the index of the op: which blocks; the others are done, but for those that
        were `cancelled`.
        """
        self._decide(graph_id, OpStatus.FAILED, "broken on purpose", bad, cancelled)

    def time_out(self, graph_id: int, done: Sequence[int] = ()) -> None:
        """The bound has passed; its ops may still run until `release`, but those that were `done`, by index."""
        self._decide(graph_id, OpStatus.TIMED_OUT, "late on purpose", done=done)

    def acknowledge_cancel(self, graph_id: int) -> None:
        """What was asked by `cancel` came in time."""
        assert graph_id in self.cancelled
        with self._lock:
            self._decide(graph_id, OpStatus.CANCELLED, "cancelled")
            self.release(graph_id)

    def done_late(self, graph_id: int) -> None:
        """The status is done, but the release has not been heard of."""
        self._decide(graph_id, OpStatus.DONE)

    def is_done(self, graph_id: int) -> bool:
        """Whether the graph's status was done."""
        return graph_id in self._done

    def release(self, graph_id: int) -> None:
        """Nothing touches the slots and blocks of a decided graph any more."""
        with self._lock:
            del self.decided[graph_id]
            self._push(CompletionDouble(CompletionKind.GRAPH_RELEASED, graph_id, OpStatus.DONE))

    def _decide(
        self,
        graph_id: int,
        status: OpStatus,
        error: str = "",
        bad: dict[int, BadBlocks] | None = None,
        cancelled: Sequence[int] = (),
        done: Sequence[int] = (),
    ) -> None:
        with self._lock:
            graph = self.waiting.pop(graph_id)
            self.decided[graph_id] = graph
            if status == OpStatus.DONE:
                self._done.add(graph_id)
            for index, op in enumerate(graph):
                num_blocks = len(op.src_block_ids)
                how = BadBlocks(()) if bad is None else bad.get(index, BadBlocks(()))
                own = OpStatus.DONE if bad is not None and not how.failed else status
                own = OpStatus.CANCELLED if index in cancelled else OpStatus.DONE if index in done else own
                self._push(
                    CompletionDouble(
                        CompletionKind.OP,
                        graph_id,
                        own,
                        op.op_id,
                        64 * num_blocks if own == OpStatus.DONE else 0,
                        0.001,
                        error,
                        OpType(op.transfer_type),
                        num_blocks,
                        how.failed,
                        how.bad_checksums,
                        how.io_errno,
                        self.queued_seconds[index] if index < len(self.queued_seconds) else 0.0,
                    )
                )
            self._push(CompletionDouble(CompletionKind.GRAPH_STATUS, graph_id, status, error=error))

    def _push(self, completion: CompletionDouble) -> None:
        if not self._completions:
            os.eventfd_write(self.event_fd, 1)
        self._completions.append(completion)

    def _check(self, graph: TransferOpGraph) -> None:
        """What the native engine refuses, and what must never happen.

        A slot that two running ops touch, one of them writing: unless one of them waits for the other.
        """
        graph.validate()
        assert self._pool is not None
        limits = {"host": self._pool.num_slots, "gpu": self.num_device_blocks}
        limits["disk"] = 0 if self.disk is None else self.disk.num_slots
        in_flight = self._in_flight()
        for op in graph:
            for place, _, ids in _touched(op):
                if len(ids) == 0 or int(ids.max()) >= limits[place]:
                    raise ValueError("slot or block out of range")
                if place == "gpu":
                    continue
                assert len(set(ids.tolist())) == len(ids) or op.transfer_type is TransferType.H2D, "named twice"
            for other in in_flight:
                if other.op_id not in op.predecessors:
                    _check_apart(op, other)

    def _in_flight(self) -> list[TransferOp]:
        failed = [graph for graph_id, graph in self.decided.items() if graph_id not in self._done]
        return [op for graph in (*self.waiting.values(), *failed) for op in graph]


_PLACES = {
    TransferType.H2D: ("host", "gpu"),
    TransferType.D2H: ("gpu", "host"),
    TransferType.DISK2H: ("disk", "host"),
    TransferType.H2DISK: ("host", "disk"),
}


def _touched(op: TransferOp) -> list[tuple[str, bool, np.ndarray]]:
    """Return (place, whether it is written, ids) of what an op touches."""
    if op.transfer_type is TransferType.VIRTUAL:
        return []
    src, dst = _PLACES[op.transfer_type]
    return [(src, False, op.src_block_ids), (dst, True, op.dst_block_ids)]


def _check_apart(op: TransferOp, other: TransferOp) -> None:
    for place, writes, ids in _touched(op):
        for other_place, other_writes, other_ids in _touched(other):
            if place == other_place and place != "gpu" and (writes or other_writes):
                assert not set(ids.tolist()) & set(other_ids.tolist()), f"a {place} slot is used while an op writes it"


class DeviceTensor:
    """Says that it lies on another device."""

    shape = (4, 16)
    dtype = "torch.float16"

    def __init__(self, device: str) -> None:
        self.device = device

    def data_ptr(self) -> int:
        return 4096

    def stride(self) -> tuple[int, ...]:
        return (16, 1)

    def element_size(self) -> int:
        return 2
