"""StorageEngine: how large the host pool is, that it is allocated once, and what its errors say."""

from __future__ import annotations

import errno

import numpy as np
import pytest

import flexkv.storage
from flexkv import _core
from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.common.storage import DeviceType, KVCacheLayout, KVCacheLayoutType
from flexkv.errors import CapacityError, ConfigError
from flexkv.storage import CPUAllocator, StorageEngine

MODEL = ModelConfig(num_layers=2, num_kv_heads=2, head_size=8)


def engine_with(**settings: int) -> StorageEngine:
    return StorageEngine(MODEL, CacheConfig(tokens_per_block=4, **settings))  # type: ignore[arg-type]


def layout_of(num_blocks: int) -> KVCacheLayout:
    return KVCacheLayout(KVCacheLayoutType.BLOCKWISE, 2, num_blocks, 4, 2, 8)


def test_the_number_of_blocks_may_be_given() -> None:
    pool = engine_with(num_cpu_blocks=7).allocate_host_pool([100, 5000])
    assert (pool.num_slots, pool.num_shards) == (7, 2)


def test_or_the_bytes_which_all_ranks_share() -> None:
    pool = engine_with(cpu_cache_bytes=10 * (4096 + 8192) + 4095).allocate_host_pool([100, 5000])
    assert pool.num_slots == 10


def test_replicas_share_a_shard_and_are_counted_once() -> None:
    model = ModelConfig(num_layers=2, num_kv_heads=1, head_size=8, use_mla=True, tp_size=3, pp_size=2)
    config = CacheConfig(tokens_per_block=4, cpu_cache_bytes=10 * (4096 + 8192) + 4095)
    pool = StorageEngine(model, config).allocate_host_pool([100, 100, 100, 5000, 5000, 5000])
    assert (pool.num_slots, pool.num_shards) == (10, 2)
    assert [pool.slot_bytes(shard) for shard in (0, 1)] == [100, 5000]


def test_bytes_for_less_than_a_block_are_refused() -> None:
    with pytest.raises(CapacityError, match="cpu_cache_bytes is 5000, but one block takes 8192") as caught:
        engine_with(cpu_cache_bytes=5000).allocate_host_pool([8000])
    assert (caught.value.tier, caught.value.value) == ("cpu", 5000)


def test_memory_that_cannot_be_had_is_a_capacity_error() -> None:
    with pytest.raises(CapacityError, match="FLEXKV_CPU_CACHE_GB") as caught:
        engine_with(num_cpu_blocks=1 << 30).allocate_host_pool([1 << 20])
    assert caught.value.errno == errno.ENOMEM
    assert isinstance(caught.value.__cause__, OSError)


def test_a_rank_without_bytes_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="slot_bytes"):
        engine_with(num_cpu_blocks=1).allocate_host_pool([0])


def test_a_handle_says_what_was_allocated_and_holds_it() -> None:
    engine = engine_with()
    handle = engine.allocate(DeviceType.CPU, layout_of(6), np.float16)
    assert engine.get_storage_handle(DeviceType.CPU) is handle
    assert (handle.dtype, handle.layout, handle.device_id) == ("float16", layout_of(6), 0)
    assert isinstance(handle.data, _core.HostPool)
    assert handle.data.num_slots == 6
    assert handle.data.slot_bytes(0) == 2 * 2 * 4 * 2 * 8 * 2


def test_a_tier_is_allocated_once() -> None:
    engine = engine_with(num_cpu_blocks=3)
    first = engine.allocate_host_pool([4096])
    with pytest.raises(ConfigError, match="already"):
        engine.allocate_host_pool([4096])
    with pytest.raises(ConfigError, match="already"):
        engine.allocate(DeviceType.CPU, layout_of(3), "bfloat16")
    assert engine.get_storage_handle(DeviceType.CPU).data is first


def test_a_tier_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="SSD"):
        engine_with().allocate(DeviceType.SSD, layout_of(3), "bfloat16")
    with pytest.raises(KeyError, match="CPU, device_id 1"):
        engine_with().get_storage_handle(DeviceType.CPU, 1)


def test_the_allocator_logs_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="flexkv"):
        pool = CPUAllocator().allocate(3, [100, 5000])
    assert caplog.messages == [f"host pool allocated slots=3 bytes={3 * (4096 + 8192)} pages={pool.page_kind}"]


def test_the_face_of_storage() -> None:
    assert flexkv.storage.__all__ == ["CPUAllocator", "SSDAllocator", "StorageEngine"]
