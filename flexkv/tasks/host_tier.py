"""HostTier: brings the CPU tier up once every rank has registered, and says whether it serves (D1, D2, D16).

    WAITING ---all ranks registered---> SERVING <---quarantine over / under its budget---> OFF
       '-------pool cannot be had-----> BROKEN

Geometry comes from the registrations: there are `num_cpu_blocks` slots, or as many as fit into `cpu_cache_bytes`.
Thread safety: none; the KVTaskEngine's mutex guards it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from flexkv.cache.cache_engine import GlobalCacheEngine
from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.common.debug import flexkv_logger
from flexkv.common.events import EventCollector
from flexkv.errors import ConfigError, FlexKVError
from flexkv.tasks.seams import Rank, Storage, Transfer

__all__ = ["HostTier", "TierState"]

_logger = flexkv_logger(__name__)


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
        num_gpu_blocks: GPU blocks every rank has; 0 while there is no cache.
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
        self.num_gpu_blocks = 0
        self.failure: ConfigError | None = None
        self.state = TierState.WAITING
        self._model_config = model_config
        self._cache_config = cache_config
        self._transfer = transfer
        self._storage = storage
        self._collector = collector

    def refresh(self) -> None:
        """Open the tier when the ranks are there; follow the slots that became available and the quarantine. Cheap."""
        if self.state is TierState.WAITING:
            ranks = self._transfer.ranks()
            if len(ranks) >= self._model_config.num_ranks:
                self._open(sorted(ranks, key=lambda rank: rank.rank))
        if self.cache is None:
            return
        tier = self.cache.cpu_cache_engine
        if tier.mempool.num_available_blocks < tier.num_blocks:
            tier.set_available(self._transfer.slots_available)
        budget = self._cache_config.max_quarantined_fraction * tier.num_blocks
        num_quarantined = self.cache.num_quarantined_blocks
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
            self._transfer.set_pool(pool)
        except (FlexKVError, OSError, RuntimeError, ValueError) as error:
            self._break(f"the host pool cannot be had: {error}", "cpu_cache_bytes", error)
            return
        self.cache = GlobalCacheEngine(
            self._cache_config,
            self._model_config,
            num_cpu_blocks=int(pool.num_slots),
            available=min(int(self._transfer.slots_available), int(pool.num_slots)),
            collector=self._collector,
        )
        self.num_gpu_blocks = min(int(rank.num_blocks) for rank in ranks)
        self.state = TierState.SERVING
        _logger.info("cpu tier open ranks=%d slots=%d slot_bytes=%s", len(ranks), pool.num_slots, slot_bytes)

    def _break(self, message: str, key: str, cause: Exception | None = None) -> None:
        self.failure = ConfigError(message, key=key, tier="cpu")
        self.failure.__cause__ = cause
        self.state = TierState.BROKEN
        _logger.error("cpu tier off for good, everything is a miss reason=%s", message)
