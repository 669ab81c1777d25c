"""FlexKV's own connector class for vLLM; also forwards what vLLM's `FlexKVConnectorV1` does not.

    --kv-transfer-config '{"kv_connector": "FlexKVConnector", "kv_role": "kv_both",
                           "kv_connector_module_path": "flexkv.integration.vllm.connector"}'

Beyond the in-tree class: the KV cache configuration reaches us (several groups are recognised at start), resets of
the prefix cache with their connector, blocks that come free soon (no preemption for them), counters in vLLM's log,
and hits counted as host hits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, KVConnectorRole
from vllm.v1.metrics.cache_hit_source import CacheHitSource

from flexkv.integration.config import layers_may_wait
from flexkv.integration.stats import FlexKVConnectorStats
from flexkv.integration.vllm.metadata import FlexKVConnectorMetadata
from flexkv.integration.vllm.vllm_v1_adapter import FlexKVConnectorV1Impl

if TYPE_CHECKING:
    import torch
    from vllm.config import VllmConfig
    from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorStats
    from vllm.forward_context import ForwardContext
    from vllm.v1.attention.backend import AttentionMetadata
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.kv_cache_interface import KVCacheConfig
    from vllm.v1.outputs import KVConnectorOutput
    from vllm.v1.request import Request

__all__ = ["FlexKVConnector"]


class FlexKVConnector(KVConnectorBase_V1):
    """One role of FlexKV in vLLM. Everything is decided in FlexKVConnectorV1Impl."""

    _cache_hit_source = CacheHitSource.HOST

    def __init__(self, vllm_config: VllmConfig, role: KVConnectorRole, kv_cache_config: KVCacheConfig) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        self.impl = FlexKVConnectorV1Impl(vllm_config, role, kv_cache_config, report_stats=True)

    @property
    def requires_kv_delivery(self) -> bool:
        """A cache: a store that is lost is a later miss."""
        return False

    @classmethod
    def requires_piecewise_for_cudagraph(cls, extra_config: dict[str, Any]) -> bool:
        """Whether layers wait for their blocks: no graph may then hold more than a piece of a layer."""
        return layers_may_wait(extra_config)

    def shutdown(self) -> None:
        """Stop this role."""
        self.impl.shutdown()

    # ---- worker role

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        """Register this rank's KV tensors."""
        self.impl.register_kv_caches(kv_caches)

    def start_load_kv(self, forward_context: ForwardContext, **kwargs: Any) -> None:
        """A step runs."""
        self.impl.start_load_kv(forward_context, **kwargs)

    def wait_for_layer_load(self, layer_name: str) -> None:
        """A layer is about to be computed."""
        self.impl.wait_for_layer_load(layer_name)

    def save_kv_layer(
        self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: AttentionMetadata, **kwargs: Any
    ) -> None:
        """Nothing is saved layer by layer."""
        self.impl.save_kv_layer(layer_name, kv_layer, attn_metadata, **kwargs)

    def wait_for_save(self) -> None:
        """The step's work has been submitted."""
        self.impl.wait_for_save()

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        """Known on the scheduler's side."""
        return self.impl.get_finished(finished_req_ids)

    def get_block_ids_with_load_errors(self) -> set[int]:
        """Return the blocks whose load failed."""
        return self.impl.get_block_ids_with_load_errors()

    def handle_preemptions(self, kv_connector_metadata: FlexKVConnectorMetadata) -> None:
        """Blocks are about to be overwritten."""
        self.impl.handle_preemptions(kv_connector_metadata)

    # ---- scheduler role

    def on_new_request(self, request: Request) -> None:
        """A request arrived."""
        self.impl.on_new_request(request)

    def get_num_new_matched_tokens(self, request: Request, num_computed_tokens: int) -> tuple[int | None, bool]:
        """Return what can be loaded beyond the computed tokens."""
        return self.impl.get_num_new_matched_tokens(request, num_computed_tokens)

    def update_state_after_alloc(self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int) -> None:
        """Blocks were allocated."""
        self.impl.update_state_after_alloc(request, blocks, num_external_tokens)

    def build_connector_meta(self, scheduler_output: SchedulerOutput) -> FlexKVConnectorMetadata:
        """The step is planned."""
        return self.impl.build_connector_meta(scheduler_output)

    def update_connector_output(self, connector_output: KVConnectorOutput) -> None:
        """A step came back."""
        self.impl.update_connector_output(connector_output)

    def request_finished(self, request: Request, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """Return whether the request's blocks must be held."""
        return self.impl.request_finished(request, block_ids)

    def has_pending_block_frees(self) -> bool:
        """Whether held blocks come free soon."""
        return self.impl.has_pending_block_frees()

    def reset_cache(self) -> bool:
        """Forget all blocks."""
        return self.impl.reset_cache()

    def take_events(self) -> Iterable[Any]:
        """No events of ours."""
        return self.impl.take_events()

    # ---- both

    def get_kv_connector_stats(self) -> FlexKVConnectorStats | None:
        """Return the counters of the last interval."""
        return self.impl.get_kv_connector_stats()

    @classmethod
    def build_kv_connector_stats(cls, data: dict[str, Any] | None = None) -> KVConnectorStats | None:
        """Return counters read back from another process."""
        return FlexKVConnectorStats(data=data or {})
