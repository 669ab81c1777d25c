"""KVTPClient: a GPU rank's end of the cache. It holds the rank's KV tensors and the copy agent that moves their blocks.

    idle -> register_to_server -> registered -> unregister -> idle ... -> shutdown -> closed

Registering returns at once (D1): the agent's native threads look for the cache's socket in the background, also when
the process that makes it has not started yet, and find it again after a restart. No call here copies anything.
Thread safety: all methods, any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from flexkv import _core
from flexkv.common.address import socket_path_of
from flexkv.common.checks import as_block_size, as_config_int, as_tuning_cache
from flexkv.common.debug import flexkv_logger
from flexkv.common.device_layout import DeviceLayoutSpec
from flexkv.common.kv_tensors import layout_from_kv_caches
from flexkv.errors import CapacityError, ConfigError, DeviceError, ServerError, TransferTimeout
from flexkv.server.copy_tuning import CopyTuning
from flexkv.server.registration import AgentReport, Registration, StepTicket

if TYPE_CHECKING:
    from flexkv.common.storage import KVCacheLayout

__all__ = ["KVTPClient"]

_logger = flexkv_logger(__name__)
STOP_TIMEOUT_S = 5.0
MAX_COPY_THREADS = 64
STAGING_MIB = 128
"""GPU memory that both directions of an agent copy through; see csrc/cuda/stage_pool.h."""


class KVTPClient:
    """Registers one rank's KV tensors with the cache.

    Args:
        gpu_register_port: address of the cache's Unix socket, ``ipc:///path`` or an absolute path.
        dp_client_id: number of the engine, for log lines; every engine has a socket of its own.
        device_id: number of this rank's device on its host; the rank, when `rank` is not given.
        pp_rank: stage of the pipeline, for log lines.
        intra_client_id: name for log lines; derived when absent.
        rank, num_ranks: which of the engine's ranks this is.
        tokens_per_block: size of a block; taken from `kv_layout` when absent.
        copy_threads: threads that copy, for each direction.
        gpu_tuning_cache: on a GPU, the directory that keeps what was measured of its ways to copy; "": the user's
            cache directory, "off": nothing is kept.

    Raises:
        ConfigError: naming the setting.
    """

    def __init__(
        self,
        gpu_register_port: str,
        dp_client_id: int = 0,
        device_id: int = 0,
        pp_rank: int = 0,
        intra_client_id: str | int | None = None,
        *,
        rank: int | None = None,
        num_ranks: int = 1,
        tokens_per_block: int | None = None,
        copy_threads: int = 1,
        gpu_tuning_cache: str = "",
    ) -> None:
        self._socket_path = socket_path_of(gpu_register_port, "gpu_register_port")
        self.dp_client_id = as_config_int("dp_client_id", dp_client_id, minimum=0)
        self.device_id = as_config_int("device_id", device_id, minimum=0)
        self.pp_rank = as_config_int("pp_rank", pp_rank, minimum=0)
        self.num_ranks = as_config_int("num_ranks", num_ranks)
        default_rank = self.device_id if self.num_ranks > 1 else 0
        self.rank = as_config_int("rank", default_rank if rank is None else rank, minimum=0)
        if self.rank >= self.num_ranks:
            message = f"rank is {self.rank}; it must be below num_ranks, {self.num_ranks}"
            raise ConfigError(message, key="rank", value=self.rank)
        self.intra_client_id = f"{self.pp_rank}-{self.rank}" if intra_client_id is None else str(intra_client_id)
        self._tokens_per_block = (
            None if tokens_per_block is None else as_block_size("tokens_per_block", tokens_per_block)
        )
        self._copy_threads = min(as_config_int("copy_threads", copy_threads), MAX_COPY_THREADS)
        self._gpu_tuning_cache = as_tuning_cache("gpu_tuning_cache", gpu_tuning_cache)
        self._lock = threading.Lock()
        self._registration: Registration | None = None
        self._is_closed = False

    def register_to_server(
        self,
        kv_caches: Mapping[str, object] | Sequence[object],
        kv_layout: KVCacheLayout | None = None,
        indexer_buffers: object = None,
        indexer_layout: object = None,
        *,
        layout_tag: str = "",
        num_blocks: int | None = None,
        block_dim: int | None = None,
    ) -> None:
        """Describe the tensors (layer name -> tensor, or in order of layers) and start the agent. Does not block.

        The client keeps the tensors until `unregister` or `shutdown`; they must stay where they are until then.

        Args:
            kv_caches: the tensors; their order is the order of the layers in a block.
            kv_layout: the engine's own description: gives the numbers of blocks and of tokens in a block.
            indexer_buffers: not available in this version; None.
            indexer_layout: as `indexer_buffers`.
            num_blocks: needed only when the shapes do not say which dimension counts the blocks.
            block_dim: that dimension; as `num_blocks`.
            layout_tag: anything more that must agree between ranks that share slots, e.g. scales of quantized KV.

        Raises:
            ConfigError: no backend for the tensors' device; no block size; indexer buffers.
            DeviceError: the GPU or its driver cannot be used: none, too old, or it failed.
            CapacityError: the GPU has no memory left for what blocks are copied through.
            ServerError: tensors are registered already, or the client has been shut down.
            ValueError: naming the layer, when its blocks cannot be described. Nothing was registered.
        """
        if indexer_buffers is not None or indexer_layout is not None:
            raise ConfigError(
                "indexer_buffers are not available in this version; register the KV tensors only",
                key="indexer_buffers",
            )
        tokens_per_block = self._block_size(kv_layout)
        spec = layout_from_kv_caches(
            kv_caches,
            num_blocks=kv_layout.num_block if num_blocks is None and kv_layout is not None else num_blocks,
            block_dim=block_dim,
        )
        tensors = list(kv_caches.values()) if isinstance(kv_caches, Mapping) else list(kv_caches)
        with self._lock:
            if self._is_closed:
                raise ServerError("the client has been shut down; make a new one", rank=self.rank)
            if self._registration is not None:
                raise ServerError("KV tensors are registered already; call unregister first", rank=self.rank)
            agent = self._make_agent(spec, tokens_per_block, layout_tag)
            tuning = CopyTuning(agent, self._gpu_tuning_cache)
            tuning.begin()
            agent.start()
            self._registration = Registration(self, self.rank, agent, tensors, spec, tuning)
        _logger.info(
            "KV tensors registered client=%s rank=%d num_tensors=%d num_blocks=%d block_bytes=%d num_planes=%d addr=%s",
            self.intra_client_id,
            self.rank,
            len(tensors),
            spec.num_blocks,
            spec.slot_bytes,
            len(spec.planes),
            self._socket_path,
        )

    def record_step(self, step: int, stream: int | None = None) -> None:
        """Say that the work of `step` is done: ops with that ticket may run (D17). Steps up to the last are ignored.

        On a GPU it need only be on its way, in `stream` (the address of a CUDA stream; default: torch's current one):
        copies wait for what the stream holds now, on the device.
        """
        registration = self._registration
        if registration is not None:
            registration.record_step(step, stream)

    def expect_load(self, ticket: int, timeout_s: float) -> None:
        """Say, when a step begins, that it computes on what a load by layers brings: see `KVManager.launch`.

        Raises ServerError when nothing is registered, ValueError unless tickets grow, or when 16 loads are expected and
        not finished.

        Args:
            ticket: the `counter_id` of the load.
            timeout_s: a load that has not begun until then fails.
        """
        self._registered().agent.expect_load(ticket, timeout_s)

    def wait_for_layer(self, ticket: int, layer_name: str | None, stream: int | None = None) -> bool:
        """Have the stream (default: torch's current one) wait until the layer's blocks are there; on a CPU, wait.

        `layer_name`: as registered; None: all layers.
        Returns once the copies are on their way; False when the load failed: then the layer has wrong bytes.
        Raises ServerError when nothing is registered, ValueError naming the argument, TransferTimeout when the load has
        begun and does not end, or the device fails.
        """
        registration = self._registered()
        try:
            return registration.wait_for_layer(ticket, layer_name, stream)
        except RuntimeError as error:
            raise TransferTimeout(str(error), rank=self.rank) from error

    def finish_load(self, ticket: int) -> bool:
        """Wait, at the end of the step, until the load has ended. False: not all is there, its blocks have wrong bytes.

        Raises as `wait_for_layer`.
        """
        registration = self._registered()
        try:
            return registration.agent.finish_load(ticket)
        except RuntimeError as error:
            raise TransferTimeout(str(error), rank=self.rank) from error

    def _registered(self) -> Registration:
        registration = self._registration
        if registration is None:
            raise ServerError("no KV tensors are registered; call register_to_server first", rank=self.rank)
        return registration

    def recent_steps(self) -> list[StepTicket]:
        """Return the last steps recorded, oldest first: what an op that waits for a step waits behind."""
        registration = self._registration
        return [] if registration is None else registration.recent_steps()

    @property
    def state(self) -> _core.AgentState:
        """Where the agent is; IDLE when nothing is registered."""
        registration = self._registration
        return _core.AgentState.IDLE if registration is None else registration.agent.state

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until the cache can move blocks of this rank. False after the timeout, or when it never will."""
        registration = self._registration
        return registration is not None and registration.agent.wait_serving(timeout_s)

    def stats(self) -> AgentReport | None:
        """Return the agent's counters; None when nothing is registered. Logs when the agent was lost or refused."""
        registration = self._registration
        return None if registration is None else registration.report()

    def hold(self, held: bool) -> None:
        """While held no op starts. For tests of fences and quarantine."""
        registration = self._registration
        if registration is not None:
            registration.agent.hold(held)

    def unregister(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Finish running copies, cancel queued ones, say goodbye and let the tensors go.

        False when a copy did not end in time: then the tensors are kept, and the call may be repeated.
        """
        with self._lock:
            registration = self._registration
            if registration is None:
                return True
            if not registration.close(timeout_s):
                _logger.warning("copies still run, tensors are kept rank=%d timeout_s=%s", self.rank, timeout_s)
                return False
            self._registration = None
        _logger.info("KV tensors unregistered client=%s rank=%d", self.intra_client_id, self.rank)
        return True

    def shutdown(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Unregister for good. Bounded; idempotent."""
        with self._lock:
            self._is_closed = True
        return self.unregister(timeout_s)

    def _block_size(self, kv_layout: KVCacheLayout | None) -> int:
        from_layout = None if kv_layout is None else kv_layout.tokens_per_block
        size = from_layout if self._tokens_per_block is None else self._tokens_per_block
        if size is None:
            raise ConfigError("tokens_per_block is not given; pass it to KVTPClient", key="tokens_per_block")
        if from_layout is not None and from_layout != size:
            message = f"tokens_per_block is {size}, but kv_layout has blocks of {from_layout} tokens"
            raise ConfigError(message, key="tokens_per_block", value=size)
        return as_block_size("tokens_per_block", size)

    def _make_agent(self, spec: DeviceLayoutSpec, tokens_per_block: int, layout_tag: str) -> _core.CopyAgent:
        try:
            return _core.CopyAgent(
                socket_path=self._socket_path,
                rank=self.rank,
                num_ranks=self.num_ranks,
                tokens_per_block=tokens_per_block,
                layout_tag=f"{spec.tag};{layout_tag}" if layout_tag else spec.tag,
                copy_threads=self._copy_threads,
                num_blocks=spec.num_blocks,
                planes=spec.planes,
                device=spec.device.partition(":")[0],
                layer_ends=sorted(set(spec.layer_ends.values())),
            )
        except MemoryError as error:
            if spec.device == "cpu":
                raise
            message = (
                f"KV tensors on {spec.device} cannot be copied: {error}; up to {STAGING_MIB} MiB of the GPU's memory "
                "are needed, leave them free (in vLLM: a lower gpu_memory_utilization)"
            )
            raise CapacityError(message, rank=self.rank, value=spec.device) from error
        except RuntimeError as error:
            message = f"KV tensors on {spec.device} cannot be copied: {error}"
            raise DeviceError(message, rank=self.rank, value=spec.device) from error
