"""Makes the two roles from the engine's configuration: sizes, addresses, and whether this engine can be cached."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flexkv.common.debug import flexkv_logger
from flexkv.errors import ConfigError
from flexkv.integration.config import FlexKVConfig
from flexkv.integration.vllm.scheduler_connector import FlexKVSchedulerConnector
from flexkv.integration.vllm.scheduler_off import OffSchedulerConnector
from flexkv.integration.vllm.scheduler_role import SchedulerRole
from flexkv.integration.vllm.support import unreplicated_layers, unsupported_groups, unsupported_layers
from flexkv.integration.vllm.worker_connector import LOAD_TIMEOUT_S, FlexKVWorkerConnector
from flexkv.kvmanager import KVManager
from flexkv.server.client import KVTPClient

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.kv_cache_interface import KVCacheConfig, KVCacheSpec

__all__ = ["make_scheduler_role", "make_worker_role"]

logger = flexkv_logger(__name__)

READY_WAIT_S = 5.0
STORE_TIMEOUT_FACTOR = 3
"""A store waits for the step that computes its blocks, and a long prompt's step can take many seconds."""


def make_scheduler_role(
    config: FlexKVConfig, vllm_config: VllmConfig, kv_cache_config: KVCacheConfig | None
) -> SchedulerRole:
    """Return the scheduler role, started; one that is off, with a WARNING, when the KV cache cannot be kept.

    Raises:
        ConfigError: memory or the socket cannot be had.
    """
    tokens_per_block = config.cache_config.tokens_per_block
    reason = unsupported_groups(kv_cache_config) if kv_cache_config is not None else None
    if reason is not None:
        logger.warning("FlexKV is off in this engine: nothing is loaded or stored reason=%s", reason)
        return OffSchedulerConnector(tokens_per_block)
    _check_block_size(tokens_per_block, kv_cache_config)
    transfer = vllm_config.kv_transfer_config
    _check_options(config, transfer.kv_load_failure_policy)
    if config.enable_layerwise_transfer:
        _check_layerwise(vllm_config, kv_cache_config)
    if kv_cache_config is None:
        logger.warning(
            "vLLM's own connector class does not forward cache resets: blocks of old weights would be served after an "
            "update in place; use kv_connector_module_path=flexkv.integration.vllm.connector if weights change"
        )
    manager = KVManager(
        config.model_config,
        config.cache_config,
        server_recv_port=config.server_recv_port,
        gpu_register_port=config.gpu_register_port,
    )
    try:
        manager.start()
        is_ready = manager.wait_ready(READY_WAIT_S)  # workers have registered before this: memory is taken from here on
    except ConfigError:
        manager.shutdown()
        raise
    except OSError as error:
        manager.shutdown()
        address = config.gpu_register_port
        message = f"the workers cannot be listened for at {address!r}: {error}; give another address or unset it"
        raise ConfigError(message, key="gpu_register_port", value=address) from error
    if not is_ready:
        logger.warning(
            "the workers have not registered yet, or an SSD tier is still being opened; what is not there is not used "
            "until then waited_s=%.0f",
            READY_WAIT_S,
        )
    return FlexKVSchedulerConnector(
        manager,
        tokens_per_block=tokens_per_block,
        use_engine_hashes=config.engine_hashes_usable,
        may_load=transfer.is_kv_consumer,
        may_store=transfer.is_kv_producer,
        store_timeout_s=STORE_TIMEOUT_FACTOR * config.cache_config.transfer_timeout_s,
        by_layers=config.enable_layerwise_transfer,
        own_thread=True,
        has_slow_tier=config.cache_config.enable_ssd,
        stage_timeout_s=None if config.ssd_pipelined_loads else config.cache_config.ssd_stage_timeout_s,
    )


def _check_options(config: FlexKVConfig, policy: str) -> None:
    """Raise ConfigError when an option does not go with vLLM's policy for failed loads."""
    if policy != "recompute":
        logger.info(
            "vLLM will fail a request whose load fails; 'recompute' in --kv-transfer-config is safer "
            "kv_load_failure_policy=%s",
            policy,
        )
    if config.ssd_pipelined_loads and policy != "recompute":
        message = (
            f"ssd_pipelined_loads is on and kv_load_failure_policy is {policy!r}: a block "
            "that turns out bad would fail its request; set kv_load_failure_policy to 'recompute', or "
            "ssd_pipelined_loads=0"
        )
        raise ConfigError(message, key="ssd_pipelined_loads", value=True)


def _check_layerwise(vllm_config: VllmConfig, kv_cache_config: KVCacheConfig | None) -> None:
    """Raise ConfigError when layers cannot wait: under vLLM's own class, or where it could not make good a lost load.

    With asynchronous scheduling the next step is planned before vLLM hears that a synchronous load failed. To fail the
    request is right then; vLLM 0.32's way to recompute it is not: it computes on tokens that were never sampled.
    """
    key = "enable_layerwise_transfer"
    if kv_cache_config is None:
        message = (
            f"{key} is on, and vLLM's own connector class does not keep CUDA graphs clear of layers "
            "that wait; set kv_connector_module_path to flexkv.integration.vllm.connector, or turn it off"
        )
        raise ConfigError(message, key=key, value=True)
    if getattr(kv_cache_config, "needs_kv_cache_zeroing", False):
        message = (
            f"{key} is on, and vLLM zeroes new blocks of this model as the step begins that computes on them: "
            f"what was loaded would be lost; set {key}=0"
        )
        raise ConfigError(message, key=key, value=True)
    policy = vllm_config.kv_transfer_config.kv_load_failure_policy
    if vllm_config.scheduler_config.async_scheduling and policy == "recompute":
        message = (
            f"{key} is on, and vLLM cannot recompute a load that fails while the next step is under way; set "
            f"kv_load_failure_policy to 'fail', or --no-async-scheduling, or {key}=0"
        )
        raise ConfigError(message, key=key, value=True)


def make_worker_role(
    config: FlexKVConfig, vllm_config: VllmConfig, kv_cache_config: KVCacheConfig | None
) -> FlexKVWorkerConnector:
    """Return the worker role of this rank; one that does nothing, with a WARNING, when the KV cache cannot be kept."""
    if kv_cache_config is not None:
        reason = unsupported_groups(kv_cache_config)
    else:
        hybrid_manager_off = bool(vllm_config.scheduler_config.disable_hybrid_kv_cache_manager)
        reason = unsupported_layers(_layer_specs(vllm_config), hybrid_manager_off)
    if reason is not None:
        logger.warning("FlexKV is off on this rank: its KV cache is not registered reason=%s", reason)
        return FlexKVWorkerConnector(None)
    _check_block_size(config.cache_config.tokens_per_block, kv_cache_config)
    tp_rank, pp_rank = _rank_of_this_process()
    client = KVTPClient(
        config.gpu_register_port,
        device_id=tp_rank,
        pp_rank=pp_rank,
        rank=pp_rank * config.model_config.tp_size + tp_rank,
        num_ranks=config.num_ranks,
        tokens_per_block=config.cache_config.tokens_per_block,
        copy_threads=config.cache_config.copy_threads,
        gpu_tuning_cache=config.cache_config.gpu_tuning_cache,
    )
    num_blocks = vllm_config.cache_config.num_gpu_blocks if kv_cache_config is None else int(kv_cache_config.num_blocks)
    tag = _tag_of_own_shard(config, vllm_config, kv_cache_config, tp_rank)
    return FlexKVWorkerConnector(client, num_blocks, tag, min(config.cache_config.transfer_timeout_s, LOAD_TIMEOUT_S))


def _tag_of_own_shard(
    config: FlexKVConfig, vllm_config: VllmConfig, kv_cache_config: KVCacheConfig | None, tp_rank: int
) -> str:
    """Return what tells this rank from those it is said to be a replica of, when layers show that it is none.

    The scheduler's role knows only one of the layers. Ranks that are told apart are refused by it: off, not wrong.
    """
    if config.model_config.replicas == 1:
        return ""
    own = unreplicated_layers(_layer_specs(vllm_config) if kv_cache_config is None else _group_specs(kv_cache_config))
    if not own:
        return ""
    logger.warning(
        "this model uses MLA, but has layers of which each rank holds a part: its ranks are refused layers=%s", own
    )
    return f"own={','.join(own)};tp_rank={tp_rank}"


def _check_block_size(tokens_per_block: int, kv_cache_config: KVCacheConfig | None) -> None:
    if kv_cache_config is None:
        return
    block_size = kv_cache_config.kv_cache_groups[0].kv_cache_spec.block_size
    if block_size != tokens_per_block:
        message = (
            f"block_size is {tokens_per_block}, but vLLM's KV cache has blocks of {block_size} tokens; "
            f"set --block-size {block_size}"
        )
        raise ConfigError(message, key="block_size", value=tokens_per_block)


def _group_specs(kv_cache_config: KVCacheConfig) -> list[KVCacheSpec]:
    """Return the specs of this rank's layers, as far as they differ."""
    spec = kv_cache_config.kv_cache_groups[0].kv_cache_spec
    return list(getattr(spec, "kv_cache_specs", {"": spec}).values())


def _layer_specs(vllm_config: VllmConfig) -> list[KVCacheSpec]:
    """Return the specs of this rank's layers that have a KV cache."""
    from vllm.config import get_layers_from_vllm_config
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase

    layers = get_layers_from_vllm_config(vllm_config, AttentionLayerBase)
    specs = [layer.get_kv_cache_spec(vllm_config) for layer in layers.values()]
    return [spec for spec in specs if spec is not None]


def _rank_of_this_process() -> tuple[int, int]:
    """Return this worker's ranks in tensor and pipeline parallelism."""
    from vllm.distributed.parallel_state import get_pp_group, get_tp_group

    return int(get_tp_group().rank_in_group), int(get_pp_group().rank_in_group)
