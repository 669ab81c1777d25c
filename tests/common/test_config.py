"""ModelConfig and CacheConfig: what is accepted, and what each refusal says."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from flexkv.common.config import DEFAULT_CPU_CACHE_BYTES, CacheConfig, ModelConfig, dtype_name
from flexkv.common.storage import KVCacheLayoutType
from flexkv.errors import ConfigError


class TorchDtypeDouble:
    """Prints like a torch dtype."""

    def __str__(self) -> str:
        return "torch.bfloat16"


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        ("float16", "float16"),
        ("torch.float32", "float32"),
        ("bf16", "bfloat16"),
        ("fp8", "float8_e4m3fn"),
        (np.float16, "float16"),
        (np.dtype("uint8"), "uint8"),
        (TorchDtypeDouble(), "bfloat16"),
    ],
)
def test_a_dtype_is_kept_as_its_plain_name(dtype: object, name: str) -> None:
    assert dtype_name(dtype) == name
    assert ModelConfig(1, 1, 1, dtype=dtype).dtype == name  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float3", np.complex64, None, 4, "", object()])
def test_an_unknown_dtype_is_refused_with_the_known_ones(dtype: object) -> None:
    with pytest.raises(ConfigError, match=r"dtype is .*bfloat16"):
        ModelConfig(1, 1, 1, dtype=dtype)  # type: ignore[arg-type]


def test_a_token_is_as_large_as_all_its_keys_and_values() -> None:
    assert ModelConfig(4, 8, 128, dtype="float16", tp_size=2).token_size_in_bytes == 4 * 2 * 8 * 128 * 2
    assert ModelConfig(4, 1, 576, True, "bfloat16").token_size_in_bytes == 4 * 576 * 2


def test_a_model_has_a_rank_for_each_shard() -> None:
    assert ModelConfig(4, 8, 128, tp_size=4, pp_size=2).num_ranks == 8


def test_ranks_of_a_stage_are_replicas_where_all_layers_keep_latents() -> None:
    assert ModelConfig(4, 1, 576, True, tp_size=4, pp_size=2).replicas == 4
    assert ModelConfig(4, 1, 576, True, pp_size=2).replicas == 1
    assert ModelConfig(4, 2, 128, tp_size=4).replicas == 1, "heads that are fewer than ranks are not told apart"


@pytest.mark.parametrize("key", ["num_layers", "num_kv_heads", "head_size", "tp_size", "pp_size", "dp_size"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "2", None, True])
def test_a_model_size_that_is_no_positive_integer_is_refused_by_name(key: str, value: object) -> None:
    sizes: dict[str, object] = {"num_layers": 2, "num_kv_heads": 2, "head_size": 2, key: value}
    with pytest.raises(ConfigError, match=f"{key} is {value!r}") as caught:
        ModelConfig(**sizes)  # type: ignore[arg-type]
    assert (caught.value.key, caught.value.value) == (key, value)


def test_several_data_parallel_engines_are_not_available_yet() -> None:
    with pytest.raises(ConfigError, match="dp_size=1"):
        ModelConfig(1, 1, 1, dp_size=2)


def test_configs_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        CacheConfig().tokens_per_block = 32  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        ModelConfig(1, 1, 1).num_layers = 2  # type: ignore[misc]


def test_the_cache_takes_its_arguments_in_the_order_of_the_contract() -> None:
    config = CacheConfig(32, True, False, False, 100, 200, 300, 0.1)
    assert (config.tokens_per_block, config.num_cpu_blocks, config.num_ssd_blocks) == (32, 100, 200)
    assert (config.num_remote_blocks, config.evict_ratio, config.cpu_cache_bytes) == (300, 0.1, None)
    with pytest.raises(TypeError):
        CacheConfig(32, True, False, False, 100, 200, 300, 0.1, 1 << 30)  # type: ignore[misc]


def test_the_host_tier_has_a_size_by_default() -> None:
    assert CacheConfig().cpu_cache_bytes == DEFAULT_CPU_CACHE_BYTES
    assert CacheConfig(num_cpu_blocks=5).cpu_cache_bytes is None


@pytest.mark.parametrize("tokens_per_block", [1, 2, 16, 128, 1024])
def test_any_power_of_two_is_a_block_size(tokens_per_block: int) -> None:
    assert CacheConfig(tokens_per_block).tokens_per_block == tokens_per_block


def test_a_layout_may_be_named() -> None:
    assert CacheConfig(cpu_kv_layout_type="blockfirst").cpu_kv_layout_type is KVCacheLayoutType.BLOCKWISE  # type: ignore[arg-type]


BAD_CACHES: list[tuple[str, object, str]] = [
    ("tokens_per_block", 3, "power of two"),
    ("tokens_per_block", 0, "integer from 1"),
    ("tokens_per_block", -16, "integer from 1"),
    ("tokens_per_block", 16.0, "integer from 1"),
    ("tokens_per_block", True, "integer from 1"),
    ("enable_ssd", 1, "True or False"),
    ("enable_remote", True, "enable_remote=False"),
    ("enable_cpu", False, "enable_cpu=True"),
    ("enable_cpu", 1, "True or False"),
    ("num_cpu_blocks", 0, "integer from 1"),
    ("num_cpu_blocks", -5, "integer from 1"),
    ("num_cpu_blocks", 1.5, "integer from 1"),
    ("num_ssd_blocks", -1, "integer from 0"),
    ("num_remote_blocks", "many", "integer from 0"),
    ("cpu_cache_bytes", 0, "integer from 1"),
    ("ssd_cache_bytes", 0, "integer from 1"),
    ("ssd_cache_bytes", 1.5, "integer from 1"),
    ("ssd_cache_dir", 7, "several with ';'"),
    ("ssd_cache_dir", ("/a", 7), "several with ';'"),
    ("ssd_cache_dir", "/a;;/b", "take it out"),
    ("ssd_cache_dir", ["/a", " "], "take it out"),
    ("ssd_cache_dir", "/a;/b/../a", "name each once"),
    ("ssd_io_engine", "magic", "use one of auto, io_uring, threads"),
    ("ssd_write_queue_s", 0, "above 0"),
    ("ssd_write_queue_s", 3601, "at most 3600"),
    ("ssd_stage_timeout_s", -1, "above 0"),
    ("ssd_stage_timeout_s", "soon", "above 0"),
    ("evict_ratio", 1.0, r"\[0, 1\)"),
    ("evict_ratio", -0.1, r"\[0, 1\)"),
    ("evict_ratio", float("nan"), r"\[0, 1\)"),
    ("evict_ratio", "half", r"\[0, 1\)"),
    ("eviction_policy", "magic", "use one of .*lru"),
    ("transfer_timeout_s", 0, "above 0"),
    ("transfer_timeout_s", float("inf"), "above 0"),
    ("transfer_timeout_s", 1.1e6, "at most"),
    ("max_quarantined_fraction", 0, r"\(0, 1\]"),
    ("max_quarantined_fraction", 1.5, r"\(0, 1\]"),
    ("max_finished_tasks", 0, "integer from 1"),
    ("copy_threads", 0, "integer from 1"),
    ("prefault_threads", -1, "integer from 1"),
    ("cpu_kv_layout_type", "LAYERWISE", "use BLOCKWISE"),
    ("cpu_kv_layout_type", "sideways", "use one of"),
    ("fingerprint", "xyz", "hex"),
]


@pytest.mark.parametrize(("key", "value", "fix"), BAD_CACHES)
def test_a_bad_cache_setting_is_refused_by_name_value_and_fix(key: str, value: object, fix: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} is .*{fix}") as caught:
        CacheConfig(**{key: value})  # type: ignore[arg-type]
    assert caught.value.key == key


def test_two_sizes_of_the_host_tier_are_refused() -> None:
    with pytest.raises(ConfigError, match="give one of them"):
        CacheConfig(num_cpu_blocks=10, cpu_cache_bytes=1 << 30)


SSD = {"enable_ssd": True, "fingerprint": "f1a6", "ssd_cache_dir": "/a"}
BAD_SSD_TIERS: list[tuple[dict[str, object], str, str]] = [
    (
        {"enable_ssd": True, "fingerprint": "f1a6", "num_ssd_blocks": 5},
        "ssd_cache_dir",
        "name a directory for it, or set enable_ssd=False",
    ),
    ({**SSD, "ssd_cache_dir": " ", "num_ssd_blocks": 5}, "ssd_cache_dir", "name a directory"),
    (SSD, "ssd_cache_bytes", "give exactly one"),
    ({**SSD, "num_ssd_blocks": 5, "ssd_cache_bytes": 1 << 30}, "ssd_cache_bytes", "give exactly one"),
    ({**SSD, "num_ssd_blocks": 0}, "num_ssd_blocks", "1 or more"),
]


@pytest.mark.parametrize(("settings", "key", "fix"), BAD_SSD_TIERS)
def test_an_ssd_tier_needs_a_directory_and_one_size(settings: dict[str, object], key: str, fix: str) -> None:
    with pytest.raises(ConfigError, match=fix) as caught:
        CacheConfig(**settings)  # type: ignore[arg-type]
    assert caught.value.key == key


@pytest.mark.parametrize("written", ["/a; /b", ["/a", "/b"], ("/a ", "/b")])
def test_directories_are_kept_as_a_tuple_however_they_are_written(written: object) -> None:
    assert CacheConfig(enable_ssd=True, fingerprint="f1a6", num_ssd_blocks=5, ssd_cache_dir=written).ssd_cache_dir == (
        "/a",
        "/b",
    )  # type: ignore[arg-type]


def test_sizes_of_an_ssd_tier_that_is_off_mean_nothing() -> None:
    assert not CacheConfig(num_ssd_blocks=5, ssd_cache_bytes=1 << 30).enable_ssd
