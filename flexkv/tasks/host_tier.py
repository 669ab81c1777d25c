"""HostTier: brings the CPU tier up once every rank has registered, and says whether it serves (D1, D2, D16).

    WAITING ---all ranks registered---> SERVING <---quarantine over / under its budget---> OFF
       '-------pool cannot be had-----> BROKEN <---no slot of it could be prefaulted--- SERVING, OFF

Geometry comes from the registrations: there are `num_cpu_blocks` slots, or as many as fit into `cpu_cache_bytes`.
Thread safety: none; the KVTaskEngine's mutex guards it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from enum import Enum

from flexkv.cache.cache_engine import GlobalCacheEngine
from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.common.debug import flexkv_logger
from flexkv.common.events import EventCollector
from flexkv.errors import ConfigError, FlexKVError
from flexkv.tasks.seams import Pool, Rank, Storage, Transfer

__all__ = ["HostTier", "TierState"]

_logger = flexkv_logger(__name__)
WAITING_WARNING_S = 30.0


class TierState(Enum):
    """See the drawing in the module."""

    WAITING = "waiting"
    SERVING = "serving"
    OFF = "off"
    BROKEN = "broken"


class HostTier:
    """The CPU tier of one task engine: its cache engine, once there is one, and its state.

    Attributes:
        cache: None while WAITING or BROKEN.
        failure: why the tier is BROKEN.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        cache_config: CacheConfig,
        transfer: Transfer,
        storage: Storage,
        collector: EventCollector | None,
    ) -> None:
        self.cache: GlobalCacheEngine | None = None
        self.failure: ConfigError | None = None
        self.state = TierState.WAITING
        self._model_config = model_config
        self._cache_config = cache_config
        self._transfer = transfer
        self._storage = storage
        self._collector = collector
        self._pool: Pool | None = None
        self._warned_of_waiting = False
        self._warned_of_prefault = False

    def refresh(self, now_s: float) -> None:
        """Open the tier when the ranks are there; follow the slots that became available and the quarantine. Cheap.

        `now_s`: seconds since the task engine was made.
        """
        if self.state is TierState.WAITING:
            ranks = self._transfer.ranks()
            if len(ranks) >= self._model_config.num_ranks:
                self._open(sorted(ranks, key=lambda rank: rank.rank))
            elif now_s > WAITING_WARNING_S and not self._warned_of_waiting:
                self._warned_of_waiting = True
                _logger.warning(
                    "cpu tier waits for GPU ranks, everything is a miss until they register; check that all workers "
                    "run and use this socket registered=%d num_ranks=%d waited_s=%.0f socket=%s",
                    len(ranks),
                    self._model_config.num_ranks,
                    now_s,
                    self._transfer.socket_path,
                )
        if self.cache is not None:
            self._follow_slots(self.cache)
        if self.cache is not None:
            self._follow_quarantine(self.cache)

    def _follow_slots(self, cache: GlobalCacheEngine) -> None:
        tier = cache.cpu_cache_engine
        if tier.mempool.num_available_blocks == tier.num_blocks:
            return
        tier.set_available(self._transfer.slots_available)
        assert self._pool is not None
        error = self._pool.prefault_error
        if error == 0 or self._warned_of_prefault:
            return
        self._warned_of_prefault = True
        num_slots = self._pool.slots_prefaulted
        reason = (
            f"prefaulting the host pool ended early with {errno.errorcode.get(error, error)} ({os.strerror(error)}); "
            "free memory, or set FLEXKV_CPU_CACHE_GB to less"
        )
        if num_slots == 0:
            self._break(reason, "cpu_cache_bytes")
            return
        tier.stop_growing()
        _logger.warning("cpu tier is smaller than asked slots=%d of=%d reason=%s", num_slots, tier.num_blocks, reason)

    def _follow_quarantine(self, cache: GlobalCacheEngine) -> None:
        tier = cache.cpu_cache_engine
        budget = self._cache_config.max_quarantined_fraction * tier.num_blocks
        num_quarantined = cache.num_quarantined_blocks
        over = num_quarantined > budget
        if over and self.state is TierState.SERVING:
            _logger.warning(
                "cpu tier off, too many slots in quarantine quarantined=%d budget=%d", num_quarantined, budget
            )
            self.state = TierState.OFF
        elif not over and self.state is TierState.OFF:
            _logger.info("cpu tier on again quarantined=%d budget=%d", num_quarantined, budget)
            self.state = TierState.SERVING

    @property
    def num_gpu_blocks(self) -> int:
        """GPU blocks every rank has; 0 while there is no cache. A rank may come back with others."""
        return 0 if self.cache is None else self._transfer.num_device_blocks

    @property
    def has_slots(self) -> bool:
        """True once slots can be handed out."""
        return self.cache is not None and self.cache.cpu_cache_engine.mempool.num_available_blocks > 0

    def _open(self, ranks: Sequence[Rank]) -> None:
        """Create and hand out the pool. On failure the tier is BROKEN: everything is a miss, `failure` says why."""
        for rank in ranks:
            if rank.tokens_per_block != self._cache_config.tokens_per_block:
                self._break(
                    f"tokens_per_block is {self._cache_config.tokens_per_block}, but rank {rank.rank} registered "
                    f"blocks of {rank.tokens_per_block} tokens; set tokens_per_block={rank.tokens_per_block}",
                    "tokens_per_block",
                )
                return
        slot_bytes = [int(rank.slot_bytes) for rank in ranks]
        try:
            pool = self._storage.allocate_host_pool(slot_bytes)
            cache = GlobalCacheEngine(
                self._cache_config,
                self._model_config,
                num_cpu_blocks=int(pool.num_slots),
                available=min(int(self._transfer.slots_available), int(pool.num_slots)),
                collector=self._collector,
            )
            self._transfer.set_pool(pool)
        except (FlexKVError, OSError, RuntimeError, ValueError, MemoryError) as error:
            self._break(
                f"the host pool or its index cannot be had: {str(error) or repr(error)}", "cpu_cache_bytes", error
            )
            return
        self._pool = pool
        self.cache = cache
        self.state = TierState.SERVING
        _logger.info(
            "cpu tier open ranks=%d replicas=%d slots=%d slot_bytes=%s",
            len(ranks),
            self._model_config.replicas,
            pool.num_slots,
            slot_bytes,
        )

    def _break(self, message: str, key: str, cause: Exception | None = None) -> None:
        self.failure = ConfigError(message, key=key, tier="cpu")
        self.failure.__cause__ = cause
        self.state = TierState.BROKEN
        self.cache = None
        _logger.error("cpu tier off for good, everything is a miss reason=%s", message)
