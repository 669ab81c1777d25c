"""Allocators: each owns how one kind of memory is had. Thread safety: none; a StorageEngine serialises."""

from __future__ import annotations

from collections.abc import Sequence

from flexkv import _core
from flexkv.common.debug import flexkv_logger
from flexkv.errors import CapacityError, ConfigError

__all__ = ["CPUAllocator"]

_logger = flexkv_logger(__name__)


class CPUAllocator:
    """Host pools: sealed memfd segments, one per rank, prefaulted by threads while the engine already serves (D2)."""

    def __init__(self, prefault_threads: int = 2) -> None:
        self._prefault_threads = prefault_threads

    def allocate(self, num_slots: int, slot_bytes: Sequence[int]) -> _core.HostPool:
        """Return a pool with one shard of `num_slots` slots per rank.

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
