"""Configuration as values: ModelConfig and CacheConfig.

Frozen and validated once, when they are made: a ConfigError names the key, the value and what to set instead. How users
write settings: flexkv/common/settings.py.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from types import MappingProxyType

import numpy as np

from flexkv import _core
from flexkv.common.checks import as_block_size, as_config_int, as_tuning_cache
from flexkv.common.storage import KVCacheLayoutType
from flexkv.errors import ConfigError

__all__ = [
    "DEFAULT_CPU_CACHE_BYTES",
    "DEFAULT_EVICT_RATIO",
    "CacheConfig",
    "ModelConfig",
    "dtype_name",
]

GIB = 1 << 30
DEFAULT_CPU_CACHE_BYTES = GIB
DEFAULT_EVICT_RATIO = 0.02
MAX_BLOCKS = 1 << 31
MAX_TRANSFER_TIMEOUT_S = 1e6  # the native engine's (csrc/transfer/op_graph.h)
IO_ENGINES = ("auto", "io_uring", "threads")

_DTYPE_BYTES: Mapping[str, int] = MappingProxyType(
    {
        "float64": 8,
        "float32": 4,
        "float16": 2,
        "bfloat16": 2,
        "float8_e4m3fn": 1,
        "float8_e4m3fnuz": 1,
        "float8_e5m2": 1,
        "float8_e5m2fnuz": 1,
        "int8": 1,
        "uint8": 1,
    }
)
_DTYPE_SYNONYMS: Mapping[str, str] = MappingProxyType(
    {
        "half": "float16",
        "fp16": "float16",
        "bf16": "bfloat16",
        "float": "float32",
        "fp32": "float32",
        "fp8": "float8_e4m3fn",
        "fp8_e4m3": "float8_e4m3fn",
        "fp8_e5m2": "float8_e5m2",
    }
)


def dtype_name(dtype: object) -> str:
    """Return the plain name (``bfloat16``) of a torch or numpy dtype, or of a name of one. Raises ConfigError."""
    name = str(dtype).removeprefix("torch.")
    if isinstance(dtype, np.dtype):
        name = dtype.name
    elif isinstance(dtype, type) and issubclass(dtype, np.generic):
        name = np.dtype(dtype).name
    name = _DTYPE_SYNONYMS.get(name, name)
    if name not in _DTYPE_BYTES:
        raise _bad("dtype", dtype, f"use one of {', '.join(_DTYPE_BYTES)}")
    return name


def _bad(key: str, value: object, fix: str) -> ConfigError:
    return ConfigError(f"{key} is {value!r}; {fix}", key=key, value=value)


def _set_count(config: ModelConfig | CacheConfig, key: str, *, minimum: int = 1, maximum: int = MAX_BLOCKS) -> None:
    """Check a field and keep it as an int, while the configuration is made."""
    object.__setattr__(config, key, as_config_int(key, getattr(config, key), minimum, maximum))


def _check_number(key: str, value: object, fix: str, accepts: Callable[[float], bool]) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not accepts(value):  # type: ignore[arg-type]
        raise _bad(key, value, fix)


def _directories(value: object) -> tuple[str, ...]:
    """Return the directories of the SSD tier. Raises ConfigError on an empty or doubled name."""
    parts = value.split(";") if isinstance(value, str) else value
    if not isinstance(parts, Sequence) or not all(isinstance(part, str) for part in parts):
        raise _bad("ssd_cache_dir", value, "use a directory, several with ';' between them, or a list of them")
    names = tuple(part.strip() for part in parts)
    if names in ((), ("",)):
        return ()
    if "" in names:
        raise _bad("ssd_cache_dir", value, "a name between ';' is empty; take it out")
    real = [os.path.realpath(name) for name in names]
    if len(set(real)) != len(real):
        raise _bad("ssd_cache_dir", value, "a directory is named twice; name each once")
    return names


def _check_flag(key: str, value: object) -> None:
    if not isinstance(value, bool):
        raise _bad(key, value, "use True or False")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shape of a model's KV cache, before it is cut into shards.

    What a rank really holds comes from its registration, not from here (the geometry of slots, D2).
    `dtype` may be a torch or numpy dtype or its name; it is kept as the name.

    Attributes:
        use_mla: every layer keeps latent vectors, of which each rank of a pipeline stage holds all: one copy is kept.
    """

    num_layers: int
    num_kv_heads: int
    head_size: int
    use_mla: bool = False
    dtype: str = "bfloat16"
    tp_size: int = 1
    pp_size: int = 1
    dp_size: int = 1

    def __post_init__(self) -> None:
        for key in ("num_layers", "num_kv_heads", "head_size", "tp_size", "pp_size", "dp_size"):
            _set_count(self, key)
        _check_flag("use_mla", self.use_mla)
        object.__setattr__(self, "dtype", dtype_name(self.dtype))
        if self.dp_size > 1:
            fix = "one cache for several engines is not available in this version; set dp_size=1, one cache per engine"
            raise _bad("dp_size", self.dp_size, fix)

    @property
    def num_ranks(self) -> int:
        """Number of GPU workers that register: tp_size * pp_size."""
        return self.tp_size * self.pp_size

    @property
    def replicas(self) -> int:
        """Number of ranks, one after the other (a pipeline stage), that hold the same KV; 1: each has its own.

        Heads that are fewer than ranks are replicated too, but not told apart here: each rank's are kept.
        """
        return self.tp_size if self.use_mla else 1

    @property
    def dtype_bytes(self) -> int:
        """Bytes of one element."""
        return _DTYPE_BYTES[self.dtype]

    @property
    def token_size_in_bytes(self) -> int:
        """Bytes of one token's KV over all layers and heads; K and V, or one latent vector for MLA."""
        kv_dim = 1 if self.use_mla else 2
        return self.num_layers * kv_dim * self.num_kv_heads * self.head_size * self.dtype_bytes


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """What to keep, where, and how much of it.

    Size of the CPU tier: `num_cpu_blocks`, or `cpu_cache_bytes` (over all ranks, replicas once) in its place; with
    neither, 1 GiB.
    Of the SSD tier: `num_ssd_blocks` or `ssd_cache_bytes`, a hard cap on all that lies in its directories; it needs
    `enable_ssd` and `ssd_cache_dir`. `num_ssd_blocks` and `num_remote_blocks` mean nothing while their tier is off.

    Attributes:
        ssd_cache_dir: directories over which blocks are striped, each with the same part of the capacity; a string
            with ``;`` between them is taken too.
        ssd_io_engine: "io_uring", "threads", or "auto": io_uring where the kernel lets us.
        ssd_write_queue_s: writes that would wait longer than this, at the rate that was measured, are dropped (D10).
        ssd_stage_timeout_s: an engine is not kept waiting for reads longer than this (D15).
        model_name: for people who look into a directory.
        evict_ratio: the part of a tier's slots that is kept free once it was full (0: none). What is freed joins into
            longer runs before it is used again, and copies of long runs are fast.
        transfer_timeout_s: bound of a transfer; its task fails then, its slots wait in quarantine until nothing
            touches them.
        max_quarantined_fraction: above this part of the slots in quarantine the tier turns itself off.
        max_finished_tasks: results of tasks that were never launched (misses, cancelled) kept for callers that never
            wait; the oldest are dropped. Those of launched tasks have a bound of their own, 65536.
        fingerprint: hex digest of the model fingerprint; part of every key.
        key_file: file with a secret that keys the block hash, or None.
        trace_path: file to which every request and decision is recorded, or None.
    """

    tokens_per_block: int = 16
    enable_cpu: bool = True
    enable_ssd: bool = False
    enable_remote: bool = False
    num_cpu_blocks: int | None = None
    num_ssd_blocks: int | None = None
    num_remote_blocks: int | None = None
    evict_ratio: float = DEFAULT_EVICT_RATIO
    _: KW_ONLY
    cpu_cache_bytes: int | None = None
    eviction_policy: str = "lru"
    cpu_kv_layout_type: KVCacheLayoutType = KVCacheLayoutType.BLOCKWISE
    transfer_timeout_s: float = 20.0
    max_quarantined_fraction: float = 0.25
    max_finished_tasks: int = 16384
    copy_threads: int = 2
    prefault_threads: int = 2
    gpu_tuning_cache: str = ""
    fingerprint: str = ""
    key_file: str | None = None
    trace_path: str | None = None
    ssd_cache_dir: tuple[str, ...] = ()
    ssd_cache_bytes: int | None = None
    ssd_io_engine: str = "auto"
    ssd_write_queue_s: float = 2.0
    ssd_stage_timeout_s: float = 5.0
    model_name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens_per_block", as_block_size("tokens_per_block", self.tokens_per_block, 1 << 20))
        self._check_tiers()
        self._check_sizes()
        self._check_ssd()
        layout = KVCacheLayoutType.parse(self.cpu_kv_layout_type, "cpu_kv_layout_type")
        if layout is not KVCacheLayoutType.BLOCKWISE:
            raise _bad("cpu_kv_layout_type", layout.name, "the host holds a block in one extent; use BLOCKWISE")
        object.__setattr__(self, "cpu_kv_layout_type", layout)
        policies = _core.eviction_policy_names()
        if self.eviction_policy not in policies:
            raise _bad("eviction_policy", self.eviction_policy, f"use one of {', '.join(policies)}")
        _check_number("evict_ratio", self.evict_ratio, "use a number in [0, 1)", lambda ratio: 0 <= ratio < 1)
        _check_number(
            "transfer_timeout_s",
            self.transfer_timeout_s,
            f"use seconds above 0, at most {MAX_TRANSFER_TIMEOUT_S:.0f}",
            lambda seconds: 0 < seconds <= MAX_TRANSFER_TIMEOUT_S,
        )
        _check_number(
            "max_quarantined_fraction",
            self.max_quarantined_fraction,
            "use a number in (0, 1]",
            lambda part: 0 < part <= 1,
        )
        _set_count(self, "max_finished_tasks")
        _set_count(self, "copy_threads", maximum=64)
        _set_count(self, "prefault_threads", maximum=256)
        object.__setattr__(self, "gpu_tuning_cache", as_tuning_cache("gpu_tuning_cache", self.gpu_tuning_cache))
        if not re.fullmatch(r"(?:[0-9a-f]{2})*", self.fingerprint):
            raise _bad("fingerprint", self.fingerprint, "use a hex digest such as ModelFingerprint.digest.hex()")

    def _check_tiers(self) -> None:
        for key in ("enable_cpu", "enable_ssd", "enable_remote"):
            _check_flag(key, getattr(self, key))
        if self.enable_remote:
            raise _bad(
                "enable_remote",
                True,
                "the remote tier is not available in this version; set enable_remote=False",
            )
        if not self.enable_cpu:
            raise _bad("enable_cpu", False, "all blocks pass through host memory; set enable_cpu=True")

    def _check_ssd(self) -> None:
        object.__setattr__(self, "ssd_cache_dir", _directories(self.ssd_cache_dir))
        if self.ssd_io_engine not in IO_ENGINES:
            raise _bad("ssd_io_engine", self.ssd_io_engine, f"use one of {', '.join(IO_ENGINES)}")
        for key in ("ssd_write_queue_s", "ssd_stage_timeout_s"):
            _check_number(key, getattr(self, key), "use seconds above 0, at most 3600", lambda s: 0 < s <= 3600)
        if self.ssd_cache_bytes is not None:
            _set_count(self, "ssd_cache_bytes", maximum=1 << 60)
        if not self.enable_ssd:
            return
        if not self.fingerprint:
            fix = "what lies on SSD outlives the process, and other weights must not find it: name the model"
            raise _bad("fingerprint", "", f"{fix}, as ModelFingerprint.digest.hex() does, or set enable_ssd=False")
        if not self.ssd_cache_dir:
            raise _bad("ssd_cache_dir", "", "the SSD tier is on; name a directory for it, or set enable_ssd=False")
        if (self.num_ssd_blocks is None) == (self.ssd_cache_bytes is None):
            given = f"num_ssd_blocks={self.num_ssd_blocks} and ssd_cache_bytes={self.ssd_cache_bytes}"
            raise ConfigError(f"{given}; the SSD tier is on, give exactly one of them", key="ssd_cache_bytes")
        if self.num_ssd_blocks == 0:
            raise _bad("num_ssd_blocks", 0, "the SSD tier is on; set it to 1 or more, or enable_ssd=False")

    def _check_sizes(self) -> None:
        if self.num_cpu_blocks is not None:
            _set_count(self, "num_cpu_blocks")
            if self.cpu_cache_bytes is not None:
                raise _bad("cpu_cache_bytes", self.cpu_cache_bytes, "num_cpu_blocks is set too; give one of them")
        elif self.cpu_cache_bytes is None:
            object.__setattr__(self, "cpu_cache_bytes", DEFAULT_CPU_CACHE_BYTES)
        else:
            _set_count(self, "cpu_cache_bytes", maximum=1 << 50)
        for key in ("num_ssd_blocks", "num_remote_blocks"):
            if getattr(self, key) is not None:
                _set_count(self, key, minimum=0, maximum=1 << 40)
