"""FlexKVConfig: our settings and an engine's, made into ModelConfig, CacheConfig and addresses.

Where settings come from, later ones win: the file named by FLEXKV_CONFIG_PATH, the environment (FLEXKV_...), the
engine's own options for its connector (vLLM: kv_connector_extra_config). Keys and values: flexkv/common/settings.py.

Engines are read by attribute: neither torch nor an engine is imported here.
Not thread-safe while it is being filled; constant afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from flexkv import _core
from flexkv.common.address import default_socket, register_address
from flexkv.common.config import CacheConfig, ModelConfig, dtype_name
from flexkv.common.debug import flexkv_logger
from flexkv.common.hash_utils import ModelFingerprint, load_key_file, model_fingerprint
from flexkv.common.settings import ENV_PREFIX, load_config_file, parse_config
from flexkv.errors import ConfigError
from flexkv.integration.model_identity import engine_hash_objection, fingerprint_of_vllm, require, weights_name

__all__ = ["FlexKVConfig", "default_cpu_cache_bytes"]

GIB = 1 << 30
MIB = 1 << 20
MAX_DEFAULT_CACHE_BYTES = 16 * GIB
MIN_DEFAULT_CACHE_BYTES = 64 * MIB
_CACHE_KEYS = (
    "num_cpu_blocks",
    "evict_ratio",
    "eviction_policy",
    "transfer_timeout_s",
    "max_quarantined_fraction",
    "max_finished_tasks",
    "copy_threads",
    "prefault_threads",
    "gpu_tuning_cache",
    "key_file",
    "trace_path",
    "ssd_io_engine",
    "ssd_write_queue_s",
    "ssd_stage_timeout_s",
)
_CPU_SIZES = frozenset({"cpu_cache_gb", "cpu_cache_bytes", "num_cpu_blocks"})
_SSD_SIZES = frozenset({"ssd_cache_gb", "ssd_cache_bytes", "num_ssd_blocks"})
_logger = flexkv_logger(__name__)


@dataclass(slots=True, kw_only=True)
class FlexKVConfig:
    """What an integration hands to KVManager and KVTPClient.

    Life: from_env -> post_init_from_<engine>_config -> constant. `model_config` and `cache_config` raise before the
    second.

    Attributes:
        settings: parsed values by key, sizes in bytes.
        server_recv_port, gpu_register_port: addresses of Unix sockets, ``ipc:///path``.
        fingerprint: of the model, readable; its digest is in `cache_config`.
        ssd_pipelined_loads: whether blocks are offered to the engine while they are still being read from SSD: sooner,
            but a load may then fail after it was promised. Off: they are read and checked first (D15).
        enable_layerwise_transfer: whether a load may go layer by layer, while no other request runs: the first layers
            are computed while the last ones' blocks still arrive.
        engine_hash_objection: why the engine's own block hashes must not be used; "" when they can be.
    """

    settings: dict[str, object] = field(default_factory=dict)
    server_recv_port: str = ""
    gpu_register_port: str = ""
    enable_metrics: bool = False
    ssd_pipelined_loads: bool = False
    enable_layerwise_transfer: bool = False
    fingerprint: ModelFingerprint | None = None
    engine_hash_objection: str = "no engine was read"
    _model_config: ModelConfig | None = None
    _cache_config: CacheConfig | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> FlexKVConfig:
        """Read the environment and the file it names. `environ` is os.environ unless given.

        Raises:
            ConfigError: unknown key (the nearest known one is named), unreadable value, bad file.
        """
        variables = os.environ if environ is None else environ
        ours: dict[str, object] = {name: value for name, value in variables.items() if name.startswith(ENV_PREFIX)}
        settings = parse_config(ours, "environment")
        path = settings.pop("config_path", None)
        if path is not None:
            settings = _overlay(load_config_file(cast("str", path)), settings)
        return cls(settings=settings)

    @property
    def model_config(self) -> ModelConfig:
        """The model's shape. Raises ConfigError before an engine was read."""
        if self._model_config is None:
            raise ConfigError("model_config is not known yet; call post_init_from_<engine>_config first")
        return self._model_config

    @property
    def cache_config(self) -> CacheConfig:
        """What to keep. Raises ConfigError before an engine was read."""
        if self._cache_config is None:
            raise ConfigError("cache_config is not known yet; call post_init_from_<engine>_config first")
        return self._cache_config

    @property
    def num_ranks(self) -> int:
        """Number of GPU workers that will register."""
        return self.model_config.num_ranks

    @property
    def engine_hashes_usable(self) -> bool:
        """True when the engine's block hashes are stable across processes, collision resistant and one per block."""
        return not self.engine_hash_objection

    def post_init_from_vllm_config(self, vllm_config: Any) -> FlexKVConfig:
        """Read a VllmConfig (vLLM 0.32 and newer) and return self, filled.

        Raises:
            ConfigError: an unknown key in kv_connector_extra_config, a parallel mode this version lacks, a block size
                that is no power of two, or an attribute this vLLM does not have.
        """
        transfer = require(vllm_config, "kv_transfer_config")
        options = getattr(transfer, "kv_connector_extra_config", None) or {}
        extra = parse_config(dict(options), "kv_connector_extra_config")
        if "config_path" in extra:
            raise ConfigError("kv_connector_extra_config: set FLEXKV_CONFIG_PATH in the environment", key="config_path")
        self.settings = _overlay(self.settings, extra)
        model, cache, parallel = (
            require(vllm_config, name) for name in ("model_config", "cache_config", "parallel_config")
        )
        _refuse_parallel_modes(parallel)
        self._model_config = ModelConfig(
            num_layers=require(model, "get_total_num_hidden_layers")(),
            num_kv_heads=1 if require(model, "use_mla") else require(model, "get_total_num_kv_heads")(),
            head_size=require(model, "get_head_size")(),
            use_mla=bool(require(model, "use_mla")) and _draft_uses_mla(vllm_config),
            dtype=_storage_dtype(str(require(cache, "cache_dtype")), require(model, "dtype")),
            tp_size=require(parallel, "tensor_parallel_size"),
            pp_size=require(parallel, "pipeline_parallel_size"),
        )
        block_size = require(cache, "block_size")
        self.engine_hash_objection = engine_hash_objection(
            str(require(cache, "prefix_caching_hash_algo")),
            block_size,
            getattr(cache, "hash_block_size", None) or getattr(cache, "prefix_match_unit", None),
        )
        self.fingerprint = fingerprint_of_vllm(vllm_config, self._tag)
        return self._finish(block_size, str(getattr(transfer, "engine_id", None) or "default"))

    def post_init_from_sglang_config(self, sglang_config: Any, tp_size: int = 1, page_size: int = 16) -> FlexKVConfig:
        """Read an SGLang ModelConfig and return self, filled. SGLang has no block hashes of its own."""
        use_mla = "MLA" in str(getattr(sglang_config, "attention_arch", ""))
        if use_mla:
            head_size = require(sglang_config, "kv_lora_rank") + require(sglang_config, "qk_rope_head_dim")
            num_kv_heads = 1
        else:
            head_size = require(sglang_config, "head_dim")
            num_kv_heads = require(sglang_config, "get_total_num_kv_heads")()
        dtype = dtype_name(require(sglang_config, "dtype"))
        self._model_config = ModelConfig(
            num_layers=require(sglang_config, "num_hidden_layers"),
            num_kv_heads=num_kv_heads,
            head_size=head_size,
            use_mla=use_mla,
            dtype=dtype,
            tp_size=tp_size,
        )
        self.engine_hash_objection = "SGLang has no block hashes"
        self.fingerprint = model_fingerprint(
            weights=weights_name(sglang_config, str(require(sglang_config, "model_path")), self._tag),
            tokens_per_block=page_size,
            quantization=getattr(sglang_config, "quantization", None),
            compute_dtype=dtype,
            kv_dtype=dtype,
            tp_size=tp_size,
        )
        return self._finish(page_size, "sglang")

    @property
    def _tag(self) -> str | None:
        return cast("str | None", self.settings.get("model_tag"))

    def _finish(self, tokens_per_block: int, engine_id: str) -> FlexKVConfig:
        """Make the cache config and the addresses; say in one line what was chosen."""
        assert self.fingerprint is not None
        assert self._model_config is not None
        if "log_level" in self.settings:
            flexkv_logger("flexkv").setLevel(str(self.settings["log_level"]))
        values: dict[str, Any] = {key: self.settings[key] for key in _CACHE_KEYS if key in self.settings}
        sizes = [key for key in ("cpu_cache_gb", "cpu_cache_bytes", "num_cpu_blocks") if key in self.settings]
        if len(sizes) > 1:
            raise ConfigError(f"{' and '.join(sizes)} are set; give one of them", key=sizes[0])
        if not sizes:
            values["cpu_cache_bytes"] = default_cpu_cache_bytes()
        elif sizes[0] != "num_cpu_blocks":
            values["cpu_cache_bytes"] = self.settings[sizes[0]]
            if values["cpu_cache_bytes"] == 0:
                message = f"{sizes[0]} is 0, nothing could be kept; use a size such as '16GiB'"
                raise ConfigError(message, key=sizes[0], value=0)
        values.update(ssd_settings(self.settings))
        if "key_file" in values:
            load_key_file(values["key_file"])  # refuse a bad one now, not at the first request
        self._cache_config = CacheConfig(
            tokens_per_block=tokens_per_block,
            fingerprint=self.fingerprint.digest.hex(),
            model_name=self.fingerprint.weights,
            **values,
        )
        self.server_recv_port = str(self.settings.get("server_recv_port") or default_socket(engine_id))
        self.gpu_register_port = str(self.settings.get("gpu_register_port") or register_address(self.server_recv_port))
        self.ssd_pipelined_loads = bool(self.settings.get("ssd_pipelined_loads", False))
        self.enable_layerwise_transfer = bool(self.settings.get("enable_layerwise_transfer", False))
        self.enable_metrics = bool(self.settings.get("enable_metrics", False))
        _logger.info(
            "config engine_id=%s cpu_cache_bytes=%s (%s) ssd=%s tokens_per_block=%d num_ranks=%d weights=%s "
            "engine_hashes=%s socket=%s",
            engine_id,
            self._cache_config.cpu_cache_bytes,
            sizes[0] if sizes else "default: a quarter of the available memory, at most 16 GiB; FLEXKV_CPU_CACHE_GB",
            ";".join(self._cache_config.ssd_cache_dir) if self._cache_config.enable_ssd else "off",
            tokens_per_block,
            self._model_config.num_ranks,
            self.fingerprint.weights,
            self.engine_hash_objection or "used",
            self.gpu_register_port,
        )
        return self


def layers_may_wait(extra_config: Mapping[str, object], environ: Mapping[str, str] | None = None) -> bool:
    """Return whether loads may go layer by layer, by an engine's options and the environment. Raises ConfigError."""
    config = FlexKVConfig.from_env(environ)
    settings = _overlay(config.settings, parse_config(dict(extra_config), "kv_connector_extra_config"))
    return bool(settings.get("enable_layerwise_transfer", False))


def ssd_settings(settings: Mapping[str, object]) -> dict[str, Any]:
    """Return what CacheConfig takes for the SSD tier: it is on when a directory and a size are set.

    Raises:
        ConfigError: one is set without the other, or two sizes are.
    """
    sizes = [key for key in ("ssd_cache_gb", "ssd_cache_bytes", "num_ssd_blocks") if settings.get(key)]
    directory = settings.get("ssd_cache_dir")
    if settings.get("enable_ssd") is False or not (sizes or directory or settings.get("enable_ssd")):
        return {}
    if directory is None:
        given = sizes[0] if sizes else "enable_ssd"
        raise ConfigError(f"{given} is set and ssd_cache_dir is not; name a directory on a local SSD", key=given)
    if len(sizes) != 1:
        given = " and ".join(sizes) if sizes else "no size"
        message = f"ssd_cache_dir is {directory!r} and {given} is set; give one size, such as ssd_cache_gb=100"
        raise ConfigError(message, key="ssd_cache_gb", value=given)
    key = "num_ssd_blocks" if sizes[0] == "num_ssd_blocks" else "ssd_cache_bytes"
    return {"enable_ssd": True, "ssd_cache_dir": directory, key: settings[sizes[0]]}


def _overlay(under: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """Lay settings over others. The ways to say one size replace each other."""
    replaced = {key for sizes in (_CPU_SIZES, _SSD_SIZES) if not sizes.isdisjoint(over) for key in sizes}
    return {**{key: value for key, value in under.items() if key not in replaced}, **over}


def _refuse_parallel_modes(parallel: Any) -> None:
    for name in ("data_parallel_size", "decode_context_parallel_size", "prefill_context_parallel_size"):
        size = getattr(parallel, name, 1)
        if size > 1:
            message = f"{name} is {size}; FlexKV does not support it in this version, set 1"
            raise ConfigError(message, key=name, value=size)


def _draft_uses_mla(vllm_config: Any) -> bool:
    """Return whether a draft model, whose layers may lie in the same blocks, uses MLA as well; True without one."""
    draft = getattr(getattr(vllm_config, "speculative_config", None), "draft_model_config", None)
    return draft is None or bool(require(draft, "use_mla"))


def _storage_dtype(cache_dtype: str, model_dtype: object) -> str:
    """Return the dtype of an element as it lies in the cache; packed formats are bytes."""
    if cache_dtype == "auto":
        return dtype_name(model_dtype)
    return cache_dtype if cache_dtype in ("float16", "bfloat16", "float32") else "uint8"


def default_cpu_cache_bytes() -> int:
    """Return a quarter of the memory that can be had now, in whole MiB: at least 64 MiB, at most 16 GiB."""
    wanted = min(_core.memory_headroom() // 4, MAX_DEFAULT_CACHE_BYTES)
    return max(wanted // MIB * MIB, MIN_DEFAULT_CACHE_BYTES)
