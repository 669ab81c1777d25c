"""StorageEngine: owns the bytes of the tiers, and hands out handles to them: host memory, and files on local SSDs.

Thread safety: all methods, any thread.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from typing import Protocol

from flexkv import _core
from flexkv.common.config import CacheConfig, ModelConfig, dtype_name
from flexkv.common.storage import DeviceType, KVCacheLayout, StorageHandle
from flexkv.errors import CapacityError, ConfigError
from flexkv.storage.allocator import CPUAllocator, SSDAllocator

__all__ = ["StorageEngine"]


class RankGeometry(Protocol):
    """What a rank registered of its blocks (`_core.RankInfo`)."""

    @property
    def slot_bytes(self) -> int:
        """Bytes of one block on it."""

    @property
    def layout_tag(self) -> str:
        """The order of the bytes in a block."""


class StorageEngine:
    """Allocates each (device type, device id) once and keeps it until it is garbage."""

    def __init__(self, model_config: ModelConfig, cache_config: CacheConfig) -> None:
        self.model_config = model_config
        self.cache_config = cache_config
        self._cpu_allocator = CPUAllocator(cache_config.prefault_threads)
        self._handles: dict[tuple[DeviceType, int], StorageHandle] = {}
        self._lock = threading.Lock()

    def allocate_host_pool(self, slot_bytes: Sequence[int]) -> _core.HostPool:
        """Allocate the CPU tier for ranks that hold `slot_bytes` bytes of a block each (from their registrations, D2).

        Replicas share a shard; the transfer engine takes none that differ.

        Raises:
            ConfigError: sizes that cannot work, or a pool that was allocated already.
            CapacityError: memory cannot be had.
        """
        shard_bytes = slot_bytes[:: self.model_config.replicas]
        with self._lock:
            self._check_new(DeviceType.CPU)
            pool = self._cpu_allocator.allocate(self._num_host_slots(shard_bytes), shard_bytes)
            self._handles[DeviceType.CPU, 0] = StorageHandle(device_type=DeviceType.CPU, data=pool)
        return pool

    def open_ssd_store(self, ranks: Sequence[RankGeometry]) -> _core.SsdStore:
        """Open the SSD tier for what ranks registered, in order of rank. Waits for the disk.

        What shapes a block's bytes names the store: two models, or two layouts of one, never share one (D6). Replicas
        are written once, and a store that has each of them is another one.

        Raises:
            ConfigError: it can never work as configured.
            StoreBusyError: somebody else serves from a directory.
            OSError: a file cannot be had.
        """
        holders = ranks[:: self.model_config.replicas]
        extents = [_core.slot_stride_bytes(rank.slot_bytes) for rank in holders]
        described: list[object] = [
            self.cache_config.fingerprint,
            self.cache_config.tokens_per_block,
            str(self.model_config),
            [(rank.slot_bytes, rank.layout_tag) for rank in holders],
        ]
        if self.model_config.replicas > 1:
            described.append({"replicas": self.model_config.replicas})
        name = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]
        store = SSDAllocator(self.cache_config).allocate(name, extents)
        with self._lock:
            self._handles[DeviceType.SSD, 0] = StorageHandle(device_type=DeviceType.SSD, data=store)
        return store

    def allocate(self, device_type: DeviceType, layout: KVCacheLayout, dtype: object) -> StorageHandle:
        """Allocate `layout.num_block` blocks of `dtype` (torch or numpy dtype or its name) for a single rank.

        Raises:
            ConfigError: a tier that this version does not have, or one that was allocated already.
            CapacityError: memory cannot be had.
        """
        if device_type is not DeviceType.CPU:
            message = f"device_type is {device_type.name}; this version allocates CPU memory only"
            raise ConfigError(message, key="device_type", value=device_type)
        name = dtype_name(dtype)
        slot_bytes = layout.get_elements_per_block() * ModelConfig(1, 1, 1, dtype=name).dtype_bytes
        with self._lock:
            self._check_new(device_type)
            pool = self._cpu_allocator.allocate(layout.num_block, [slot_bytes])
            handle = StorageHandle(device_type=device_type, layout=layout, dtype=name, data=pool)
            self._handles[device_type, 0] = handle
        return handle

    def get_storage_handle(self, device_type: DeviceType, device_id: int = 0) -> StorageHandle:
        """Return what was allocated. Raises KeyError, naming it, when nothing was."""
        with self._lock:
            handle = self._handles.get((device_type, device_id))
        if handle is None:
            raise KeyError(f"nothing was allocated for {device_type.name}, device_id {device_id}")
        return handle

    def _check_new(self, device_type: DeviceType) -> None:
        if (device_type, 0) in self._handles:
            message = f"device_type {device_type.name} was allocated already; use get_storage_handle"
            raise ConfigError(message, key="device_type", value=device_type)

    def _num_host_slots(self, shard_bytes: Sequence[int]) -> int:
        if self.cache_config.num_cpu_blocks is not None:
            return self.cache_config.num_cpu_blocks
        stride_bytes = sum(_core.slot_stride_bytes(size) for size in shard_bytes)
        budget_bytes = self.cache_config.cpu_cache_bytes or 0
        num_slots = budget_bytes // stride_bytes if stride_bytes else 0
        if num_slots == 0:
            message = f"cpu_cache_bytes is {budget_bytes}, but one block takes {stride_bytes} bytes; set it larger"
            raise CapacityError(message, tier="cpu", key="cpu_cache_bytes", value=budget_bytes)
        return num_slots
