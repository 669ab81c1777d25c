"""The adapter that vLLM's connector classes forward to: one object per role.

vLLM's own ``FlexKVConnectorV1`` imports `FlexKVConnectorV1Impl` from here and constructs it with ``(vllm_config,
role)``; so does `flexkv.integration.vllm.connector.FlexKVConnector`, which forwards more and also gives the KV cache
configuration.

A wrong configuration raises ConfigError while the engine starts. After that nothing of ours takes the engine down: an
unexpected error turns FlexKV off in this engine with one WARNING, what vLLM was promised is wound up as failed loads
and finished stores, and the engine serves on. That is why the two guards below catch everything: they stand where a
thread's top would stand.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import vllm
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, KVConnectorRole
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import KVConnectorOutput

from flexkv.common.debug import flexkv_logger
from flexkv.errors import ConfigError
from flexkv.integration.config import FlexKVConfig
from flexkv.integration.stats import FlexKVConnectorStats, StatsInterval, StatsLog, named_step
from flexkv.integration.vllm.metadata import FlexKVConnectorMetadata, bound_notice
from flexkv.integration.vllm.request_state import FlexKVGetTask, FlexKVPutTask
from flexkv.integration.vllm.roles import make_scheduler_role, make_worker_role
from flexkv.integration.vllm.scheduler_connector import FlexKVSchedulerConnector
from flexkv.integration.vllm.scheduler_role import SchedulerRole
from flexkv.integration.vllm.version import check_vllm
from flexkv.integration.vllm.worker_connector import FlexKVWorkerConnector

if TYPE_CHECKING:
    import torch
    from vllm.config import VllmConfig
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks
    from vllm.v1.kv_cache_interface import KVCacheConfig
    from vllm.v1.request import Request

__all__ = [
    "FlexKVConnectorV1Impl",
    "FlexKVGetTask",
    "FlexKVPutTask",
    "FlexKVSchedulerConnector",
    "FlexKVWorkerConnector",
]

logger = flexkv_logger(__name__)
Answer = TypeVar("Answer")
STATS_INTERVAL_S = 2.0


class FlexKVConnectorV1Impl:
    """Both roles behind one face; which one it is was decided at construction.

    Args:
        vllm_config: the engine's configuration.
        role: SCHEDULER or WORKER.
        kv_cache_config: what vLLM decided about its KV cache; vLLM's own connector class does not pass it on.
        report_stats: whether the scheduler role reports counters; only for a connector class that can read them back.

    Raises:
        ConfigError: naming the setting, the value and the fix.
    """

    def __init__(
        self,
        vllm_config: VllmConfig,
        role: KVConnectorRole,
        kv_cache_config: KVCacheConfig | None = None,
        *,
        report_stats: bool = False,
    ) -> None:
        check_vllm(vllm.__version__, KVConnectorBase_V1, KVConnectorOutput, SchedulerOutput)
        config = FlexKVConfig.from_env().post_init_from_vllm_config(vllm_config)
        self._role = role
        self._report_stats = report_stats
        self._scheduler: SchedulerRole | None = None
        self._worker: FlexKVWorkerConnector | None = None
        self._interval = StatsInterval()
        self._stats_due_s = 0.0
        self._log = StatsLog() if config.enable_metrics else None
        if role is KVConnectorRole.SCHEDULER:
            self._scheduler = make_scheduler_role(config, vllm_config, kv_cache_config)
        else:
            self._worker = make_worker_role(config, vllm_config, kv_cache_config)

    @property
    def scheduler(self) -> SchedulerRole:
        """The scheduler role's present implementation."""
        assert self._scheduler is not None, "not the scheduler role"
        return self._scheduler

    @property
    def worker(self) -> FlexKVWorkerConnector:
        """The worker role's implementation."""
        assert self._worker is not None, "not the worker role"
        return self._worker

    def shutdown(self) -> None:
        """Stop. Idempotent, bounded."""
        if self._scheduler is not None:
            if self._log is not None:
                self._log.tick(lambda: self._ask(lambda role: role.stats()), is_last=True)
            self._ask(lambda role: role.shutdown())
        if self._worker is not None:
            self._tell(FlexKVWorkerConnector.shutdown)

    # ---- worker role

    def register_kv_caches(self, kv_caches: Mapping[str, torch.Tensor]) -> None:
        """Register this rank's KV tensors (layer name -> tensor). Returns at once."""
        self._tell(lambda worker: worker.register_to_server(kv_caches))

    def start_load_kv(self, forward_context: object, **kwargs: Any) -> None:
        """Note which step runs. Loads are started by the scheduler role."""
        self._tell(lambda worker: worker.bind_step(bound_notice()))

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Have the layer wait for its blocks of a load by layers. Other requests run only when their load has ended."""
        if self.worker.computes_on_load:
            self._tell(lambda worker: worker.wait_for_layer(layer_name))

    def save_kv_layer(self, layer_name: str, kv_layer: object, attn_metadata: object, **kwargs: Any) -> None:
        """Nothing: whole blocks are stored after the step."""

    def wait_for_save(self) -> None:
        """Record that the step's work has been submitted. Waits only for a load by layers that the step computes on."""
        self._tell(FlexKVWorkerConnector.record_step)

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        """Nothing: which transfers ended is known, and filled in, on the scheduler's side."""
        return None, None

    def get_block_ids_with_load_errors(self) -> set[int]:
        """Return the device blocks whose load failed."""
        return self._worker.failed_block_ids() if self._worker is not None else set()

    def handle_preemptions(self, metadata: FlexKVConnectorMetadata) -> None:
        """Nothing to wait for: stores of preempted blocks were doomed before the step was sent out."""

    # ---- scheduler role

    def on_new_request(self, request: Request) -> None:
        """Nothing: the request is asked about before it runs."""

    def get_num_new_matched_tokens(self, request: Request, num_computed_tokens: int) -> tuple[int | None, bool]:
        """Return (tokens that can be loaded beyond the computed ones, whether asynchronously)."""
        return self._ask(lambda role: role.get_num_new_matched_tokens(request, num_computed_tokens))

    def update_state_after_alloc(
        self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int, *optional: object
    ) -> None:
        """Blocks were allocated for the request."""
        self._ask(lambda role: role.update_state_after_alloc(request, blocks, num_external_tokens))

    def build_connector_meta(self, scheduler_output: SchedulerOutput) -> FlexKVConnectorMetadata:
        """Launch what the step needs and number it."""
        if self._log is not None:
            self._log.tick(lambda: self._ask(lambda role: role.stats()))
        return FlexKVConnectorMetadata(self._ask(lambda role: role.build_connector_meta(scheduler_output)))

    def update_connector_output(self, connector_output: KVConnectorOutput) -> None:
        """A step came back: fill in the requests whose transfers ended."""
        stats = connector_output.kv_connector_stats
        self._ask(lambda role: role.update_connector_output(connector_output, named_step(stats)))

    def request_finished(self, request: Request, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """Return (whether vLLM must hold the request's blocks, nothing more)."""
        return self._ask(lambda role: role.request_finished(request))

    def has_pending_block_frees(self) -> bool:
        """Whether blocks become free soon, so that no request needs to be preempted."""
        return self._ask(lambda role: role.has_pending_block_frees())

    def reset_cache(self) -> bool:
        """Forget all blocks."""
        return self._ask(lambda role: role.reset_cache())

    def take_events(self) -> Iterable[Any]:
        """Nothing: vLLM's own events speak of its own blocks; ours are KVManager's `event_collector`."""
        return ()

    # ---- both

    def get_kv_connector_stats(self) -> FlexKVConnectorStats | None:
        """Scheduler: what was counted since it last told. Worker: an empty one, if the step's output is to be named.

        vLLM asks after every step and shows the sums every few seconds: the scheduler role tells as seldom.
        vLLM's single-process executor drops the output of a step without tokens that reports nothing, and with it the
        call that lets the scheduler role settle its transfers.
        """
        if self._worker is not None:
            step = self._worker.step_to_name
            return None if step is None else FlexKVConnectorStats.naming(step)
        now_s = time.monotonic()
        if not self._report_stats or now_s < self._stats_due_s:
            return None
        self._stats_due_s = now_s + STATS_INTERVAL_S
        stats = self._ask(lambda role: role.stats())
        return self._interval.take(stats) if stats is not None else None

    # ---- guards

    def _ask(self, question: Callable[[SchedulerRole], Answer]) -> Answer:
        """Ask the scheduler role; if it fails, turn FlexKV off and answer from the role that winds up."""
        try:
            return question(self.scheduler)
        except Exception as error:
            role = self._scheduler
            if not isinstance(role, FlexKVSchedulerConnector):
                raise
            logger.warning("FlexKV turned off in this engine error=%r", error, exc_info=True)
            self._turn_off(role)
            return question(self.scheduler)

    def _turn_off(self, role: FlexKVSchedulerConnector) -> None:
        drained = False
        try:
            drained = role.shutdown()
        except Exception:
            logger.exception("stopping the cache failed too")
        self._scheduler = role.turn_off(drained=drained)

    def _tell(self, order: Callable[[FlexKVWorkerConnector], None]) -> None:
        """Tell the worker role; if it fails, this rank takes no part any more: its transfers fail."""
        try:
            order(self.worker)
        except ConfigError:  # the tensors of a device we cannot copy from: said at start
            raise
        except Exception as error:
            if self.worker.computes_on_load:  # on blocks that may be wrong, or still be written to: the step must fail
                raise
            logger.warning("FlexKV turned off on this rank error=%r", error, exc_info=True)
            self._worker = self.worker.turned_off()
