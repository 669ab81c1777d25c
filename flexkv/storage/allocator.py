"""Allocators: each owns how one kind of memory is had. Thread safety: none; a StorageEngine serialises."""

from __future__ import annotations

from collections.abc import Sequence

from flexkv import _core
from flexkv.common.config import CacheConfig
from flexkv.common.debug import flexkv_logger
from flexkv.errors import CapacityError, ConfigError, StoreBusyError

__all__ = ["CPUAllocator", "SSDAllocator"]

_logger = flexkv_logger(__name__)


class CPUAllocator:
    """Host pools: sealed memfd segments, one per shard, prefaulted by threads while the engine already serves (D2)."""

    def __init__(self, prefault_threads: int = 2) -> None:
        self._prefault_threads = prefault_threads

    def allocate(self, num_slots: int, slot_bytes: Sequence[int]) -> _core.HostPool:
        """Return a pool of `num_slots` slots, each with one shard of every size in `slot_bytes`.

        Raises:
            ConfigError: a size that is not positive.
            CapacityError: memory cannot be had; the message says how much there is and what to set.
        """
        try:
            pool = _core.HostPool(num_slots, list(slot_bytes), self._prefault_threads)
        except ValueError as error:
            raise ConfigError(f"host pool: {error}", key="num_cpu_blocks", value=num_slots) from error
        except OSError as error:
            raise CapacityError(f"host pool: {error}", tier="cpu", errno=error.errno) from error
        total_bytes = num_slots * sum(_core.slot_stride_bytes(size) for size in slot_bytes)
        _logger.info("host pool allocated slots=%d bytes=%d pages=%s", num_slots, total_bytes, pool.page_kind)
        return pool


class SSDAllocator:
    """Files of the SSD tier: in each directory a sub-directory for one model and layout (docs/formats/ssd.md)."""

    def __init__(self, cache_config: CacheConfig) -> None:
        self._config = cache_config

    def allocate(self, name: str, extent_bytes: Sequence[int]) -> _core.SsdStore:
        """Open or make the store called `name` (hex), of slots with one extent per shard. Waits for the disk.

        Raises:
            ConfigError: a directory or size that cannot work.
            StoreBusyError: somebody else serves from it.
            OSError: a file cannot be had.
        """
        config = self._config
        try:
            return _core.SsdStore(
                list(config.ssd_cache_dir),
                name,
                config.model_name,
                list(extent_bytes),
                config.tokens_per_block,
                self._capacity_bytes(sum(extent_bytes)),
                config.ssd_io_engine,
            )
        except ValueError as error:
            message = f"ssd tier: {error}"
            raise ConfigError(message, key="ssd_cache_dir", value=config.ssd_cache_dir, tier="ssd") from error
        except _core.SsdBusyError as error:
            raise StoreBusyError(str(error), tier="ssd") from error

    def _capacity_bytes(self, slot_bytes: int) -> int:
        """Return the configured capacity, or what `num_ssd_blocks` take with their records."""
        if self._config.ssd_cache_bytes is not None:
            return self._config.ssd_cache_bytes
        num_directories = len(self._config.ssd_cache_dir)
        num_slots = -(-(self._config.num_ssd_blocks or 0) // num_directories)
        return num_directories * _core.ssd_footprint_bytes(num_slots, slot_bytes)
