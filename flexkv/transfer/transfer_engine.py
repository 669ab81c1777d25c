"""TransferEngine: runs graphs of transfer ops; the Python face of the native engine (csrc/transfer/transfer_engine.h).

Each submitted graph gets two completions, its status and then its release, each exactly once; between them its slots
must not be used again (D16). An engine that is dropped, or still runs when the interpreter ends, is stopped then.
Thread safety: all methods, any thread.
"""

from __future__ import annotations

import weakref

from flexkv import _core
from flexkv.common.address import socket_path_of
from flexkv.common.config import ModelConfig
from flexkv.common.debug import flexkv_logger
from flexkv.common.transfer import TransferOpGraph, TransferType
from flexkv.transfer.worker import (
    CPUSSDDiskTransferWorker,
    GPUCPUTransferWorker,
    TransferWorker,
    VirtualTransferWorker,
)

__all__ = ["TransferEngine"]

_logger = flexkv_logger(__name__)

ABANDON_TIMEOUT_S = 5.0
_WORKERS: tuple[type[TransferWorker], ...] = (GPUCPUTransferWorker, CPUSSDDiskTransferWorker, VirtualTransferWorker)


class TransferEngine:
    """Owns the socket on which copy agents register, and runs what is submitted.

    Args:
        gpu_register_port: address of that socket, ``ipc:///path`` or a path. Its directory is made owner-only.
        num_ranks: GPU ranks that will register.
        replicas: each so many ranks, one after the other, hold the same bytes: they share a shard of the pool, each
            loads all of an op, and stores its share.

    Raises:
        ConfigError: naming the argument.
    """

    def __init__(self, gpu_register_port: str, num_ranks: int = 1, replicas: int = 1) -> None:
        self.socket_path = socket_path_of(gpu_register_port, "gpu_register_port")
        self._native = _core.TransferEngine(self.socket_path, num_ranks, replicas=replicas)
        weakref.finalize(self, self._native.stop, ABANDON_TIMEOUT_S)  # also at exit
        self._num_logged_errors = 0
        self._worker_map: dict[TransferType, TransferWorker] = {}
        for kind in _WORKERS:
            worker = kind.create_worker(self._native)
            self._worker_map.update(dict.fromkeys(kind.transfer_types, worker))

    @classmethod
    def of_model(cls, gpu_register_port: str, model_config: ModelConfig) -> TransferEngine:
        """Return an engine for the ranks of a model. Raises ConfigError."""
        return cls(gpu_register_port, model_config.num_ranks, model_config.replicas)

    def start(self) -> None:
        """Listen for ranks. Does not block. Raises OSError when the socket cannot be had, or is in use."""
        self._native.start()

    def shutdown(self, timeout_s: float = 5.0) -> bool:
        """Cancel what waits and drain what runs; False when something still ran after `timeout_s`. Idempotent."""
        return self._native.stop(timeout_s)

    def ranks(self) -> list[_core.RankInfo]:
        """Return the ranks that have ever registered, by rank."""
        return self._native.ranks()

    def wait_ranks(self, timeout_s: float) -> bool:
        """Wait until every rank has registered; False after `timeout_s`."""
        return self._native.wait_ranks(timeout_s)

    @property
    def num_device_blocks(self) -> int:
        """Device blocks that every rank has, as registered last; 0 before all have."""
        return self._native.num_device_blocks

    def set_pool(self, pool: _core.HostPool) -> None:
        """Give the host pool, a shard for each group of replicas, to the ranks. Once, after all have registered."""
        self._native.set_pool(pool)

    def set_disk(self, store: _core.SsdStore) -> None:
        """Have DISK2H and H2DISK run on a store. Once, after `set_pool`, else RuntimeError."""
        self._native.set_disk(store)

    @property
    def slots_available(self) -> int:
        """Host slots that every connected rank can use and that are prefaulted."""
        return self._native.slots_available

    @property
    def num_graphs(self) -> int:
        """Graphs that are not released yet."""
        return self._native.num_graphs

    @property
    def protocol_errors(self) -> int:
        """Peers that were turned away or disconnected for what they sent."""
        return self._native.protocol_errors

    @property
    def last_protocol_error(self) -> str:
        """What the last of them did; empty when there was none."""
        return self._native.last_protocol_error

    def submit_transfer_graph(self, graph: TransferOpGraph, timeout_s: float) -> None:
        """Start a graph.

        Raises:
            ValueError: a route without worker, ids out of range, an unknown predecessor, a cycle; nothing was started.
            RuntimeError: not started, or too many graphs; nothing was started.
        """
        for op in graph:
            worker = self._worker_map.get(op.transfer_type)
            if worker is None:
                served = ", ".join(kind.name for kind in self._worker_map)
                raise ValueError(f"transfer_type is {op.transfer_type.name}; the routes of this engine are {served}")
            worker.check(op)
        self._native.submit(graph.graph_id, graph.to_native(), timeout_s)

    def cancel(self, graph_id: int) -> None:
        """Cancel the ops of a graph that do not run yet; its status becomes CANCELLED. Unknown ids are passed over."""
        self._native.cancel(graph_id)

    def lose_load(self, layer_ticket: int) -> None:
        """Tell the workers that no load by layers comes with this ticket. Of submitted graphs they know."""
        self._native.lose_load(layer_ticket)

    def poll(self) -> list[_core.Completion]:
        """Take the completions that wait, and log what peers were turned away for. Does not block."""
        num_errors = self._native.protocol_errors
        if num_errors != self._num_logged_errors:
            self._num_logged_errors = num_errors
            _logger.warning("peers turned away total=%d last=%s", num_errors, self._native.last_protocol_error)
        return self._native.poll()

    def wait(self, timeout_s: float) -> bool:
        """Wait until `poll` would return something; False after `timeout_s` or a shutdown."""
        return self._native.wait(timeout_s)

    @property
    def event_fd(self) -> int:
        """Readable while completions wait. Owned by the engine."""
        return self._native.event_fd
