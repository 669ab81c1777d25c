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

from flexkv._core import CompletionKind, OpStatus, OpType
from flexkv.common.transfer import TransferOpGraph, TransferType


@dataclass(frozen=True)
class RankDouble:
    rank: int = 0
    num_blocks: int = 1024
    slot_bytes: int = 64
    tokens_per_block: int = 4


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


@dataclass
class PoolDouble:
    """All slots are prefaulted unless a test says otherwise."""

    num_slots: int
    slots_prefaulted: int
    prefault_error: int = 0


@dataclass
class StorageDouble:
    """Hands out a pool of `num_slots`, or raises `error`."""

    num_slots: int
    error: Exception | None = None
    asked: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pool = PoolDouble(self.num_slots, self.num_slots)

    def allocate_host_pool(self, slot_bytes: Sequence[int]) -> PoolDouble:
        self.asked.append(list(slot_bytes))
        if self.error is not None:
            raise self.error
        return self.pool


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
        self._ranks = list(ranks)
        self._pool: PoolDouble | None = None
        self._available = slots_available
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

    def fail(self, graph_id: int) -> None:
        """An op failed; others may still run until `release`."""
        self._decide(graph_id, OpStatus.FAILED, "broken on purpose")

    def time_out(self, graph_id: int) -> None:
        """The bound has passed; its ops may still run until `release`."""
        self._decide(graph_id, OpStatus.TIMED_OUT, "late on purpose")

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

    def _decide(self, graph_id: int, status: OpStatus, error: str = "") -> None:
        with self._lock:
            graph = self.waiting.pop(graph_id)
            self.decided[graph_id] = graph
            if status == OpStatus.DONE:
                self._done.add(graph_id)
            for op in graph:
                num_blocks = len(op.src_block_ids)
                num_bytes = 64 * num_blocks if status == OpStatus.DONE else 0
                route = OpType(op.transfer_type)
                self._push(
                    CompletionDouble(
                        CompletionKind.OP, graph_id, status, op.op_id, num_bytes, 0.001, error, route, num_blocks
                    )
                )
            self._push(CompletionDouble(CompletionKind.GRAPH_STATUS, graph_id, status, error=error))

    def _push(self, completion: CompletionDouble) -> None:
        if not self._completions:
            os.eventfd_write(self.event_fd, 1)
        self._completions.append(completion)

    def _check(self, graph: TransferOpGraph) -> None:
        """What the native engine refuses, and what must never happen.

        A slot that two running ops touch, one of them writing.
        """
        graph.validate()
        assert self._pool is not None
        written, read = self._slots_in_flight()
        for op in graph:
            slots, blocks = (op.src_block_ids, op.dst_block_ids)
            if op.transfer_type is TransferType.D2H:
                slots, blocks = blocks, slots
            if (
                len(slots) == 0
                or int(slots.max()) >= self._pool.num_slots
                or int(blocks.max()) >= self.num_device_blocks
            ):
                raise ValueError("slot or block out of range")
            mine = set(slots.tolist())
            assert not mine & written, "a slot is used while an op writes it"
            if op.transfer_type is TransferType.D2H:
                assert len(mine) == len(slots), "a slot is written twice"
                assert not mine & read, "a slot is written while an op reads it"

    def _slots_in_flight(self) -> tuple[set[int], set[int]]:
        written: set[int] = set()
        read: set[int] = set()
        failed = [graph for graph_id, graph in self.decided.items() if graph_id not in self._done]
        for graph in (*self.waiting.values(), *failed):
            for op in graph:
                if op.transfer_type is TransferType.D2H:
                    written.update(op.dst_block_ids.tolist())
                else:
                    read.update(op.src_block_ids.tolist())
        return written, read
