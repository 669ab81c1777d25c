"""A KVTaskEngine over a transfer double, with a clock that stands still, for tests."""

from __future__ import annotations

import numpy as np

from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.common.request import KVResponseStatus as Status
from flexkv.kvtask import KVTaskEngine
from tests.doubles import RankDouble, StorageDouble, TransferDouble

TPB = 4
NUM_BLOCKS = 16


class Bench:
    """An engine over a double, with a clock that stands still."""

    def __init__(
        self, *, ranks: tuple[RankDouble, ...] = (RankDouble(),), available: int | None = None, **config: object
    ) -> None:
        self.clock_s = 50.0
        self.transfer = TransferDouble(ranks, slots_available=available)
        self.storage = StorageDouble(NUM_BLOCKS)
        settings: dict[str, object] = {
            "tokens_per_block": TPB,
            "num_cpu_blocks": NUM_BLOCKS,
            "evict_ratio": 0.0,
        } | config
        self.engine = KVTaskEngine(
            ModelConfig(1, 1, 8),
            CacheConfig(**settings),  # type: ignore[arg-type]
            transfer=self.transfer,
            storage=self.storage,
            clock=lambda: self.clock_s,
        )
        self.engine.start()

    @property
    def graph_ids(self) -> list[int]:
        return list(self.transfer.waiting)

    def put(self, num_blocks: int, first: int = 0, **arguments: object) -> int:
        task_id, _ = self.engine.put_match(tokens(num_blocks, first), **arguments)  # type: ignore[arg-type]
        self.engine.launch(task_id, block_ids=[np.arange(num_blocks)])
        return task_id

    def store(self, num_blocks: int, first: int = 0, **arguments: object) -> None:
        task_id = self.put(num_blocks, first, **arguments)
        self.transfer.finish(self.graph_ids[-1])
        assert self.status(task_id) is Status.SUCCESS

    def load(self, num_blocks: int) -> int:
        task_id, mask = self.engine.get_match(tokens(num_blocks))
        assert mask.all()
        self.engine.launch(task_id, block_ids=[np.arange(num_blocks) + 100])
        return task_id

    def status(self, task_id: int) -> Status:
        return self.engine.wait(task_id, timeout=0)[task_id].status

    def check_nothing_is_held(self) -> None:
        self.engine.check_invariants()
        cache = self.engine._tier.cache
        assert cache is not None
        assert cache.num_live_reservations == cache.cpu_cache_engine.index.num_pinned == 0


def tokens(num_blocks: int, first: int = 0) -> np.ndarray:
    return np.arange(first, first + num_blocks * TPB)
