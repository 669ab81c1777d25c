"""A KVTaskEngine over a transfer double, with a clock that stands still, for tests."""

from __future__ import annotations

import numpy as np

from flexkv.cache.cache_engine import CacheEngine, GlobalCacheEngine
from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.common.events import EventCollector
from flexkv.common.request import KVResponseStatus as Status
from flexkv.common.transfer import TransferType
from flexkv.kvtask import KVTaskEngine
from flexkv.tasks.ssd_tier import SsdState
from tests.doubles import DiskStoreDouble, RankDouble, StorageDouble, TransferDouble

TPB = 4
NUM_BLOCKS = 16
READY_TIMEOUT_S = 20.0


class Bench:
    """An engine over a double, with a clock that stands still."""

    def __init__(
        self,
        *,
        ranks: tuple[RankDouble, ...] = (RankDouble(),),
        available: int | None = None,
        stores: tuple[DiskStoreDouble | Exception, ...] = (),
        collector: EventCollector | None = None,
        **config: object,
    ) -> None:
        self.clock_s = 50.0
        self.transfer = TransferDouble(ranks, slots_available=available)
        settings: dict[str, object] = {
            "tokens_per_block": TPB,
            "num_cpu_blocks": NUM_BLOCKS,
            "evict_ratio": 0.0,
        } | config
        self.storage = StorageDouble(int(settings["num_cpu_blocks"]), stores=list(stores))  # type: ignore[call-overload]
        self.engine = KVTaskEngine(
            ModelConfig(1, 1, 8),
            CacheConfig(**settings),  # type: ignore[arg-type]
            transfer=self.transfer,
            storage=self.storage,
            event_collector=collector,
            clock=lambda: self.clock_s,
        )
        self.engine.start()

    @property
    def graph_ids(self) -> list[int]:
        return list(self.transfer.waiting)

    def put(self, num_blocks: int, first: int = 0, **arguments: object) -> int:
        task_id, mask = self.engine.put_match(tokens(num_blocks, first), **arguments)  # type: ignore[arg-type]
        self.engine.launch(task_id, block_ids=[np.arange(int(mask.sum()) // TPB)])
        return task_id

    def store(self, num_blocks: int, first: int = 0, **arguments: object) -> int:
        task_id = self.put(num_blocks, first, **arguments)
        self.transfer.finish(self.graph_ids[-1])
        assert self.status(task_id) is Status.SUCCESS
        return task_id

    def load(self, num_blocks: int, first: int = 0) -> int:
        task_id, mask = self.engine.get_match(tokens(num_blocks, first))
        assert mask.all()
        self.engine.launch(task_id, block_ids=[np.arange(num_blocks) + 100])
        return task_id

    def status(self, task_id: int) -> Status:
        return self.engine.wait(task_id, timeout=0)[task_id].status

    def check_nothing_is_held(self) -> None:
        self.engine.check_invariants()
        assert self.cache.num_live_reservations == self.cache.cpu_cache_engine.index.num_pinned == 0

    @property
    def cache(self) -> GlobalCacheEngine:
        cache = self.engine._tier.cache
        assert cache is not None
        return cache


class SsdBench(Bench):
    """The same with an SSD tier over a double."""

    def __init__(
        self,
        *stores: DiskStoreDouble | Exception,
        num_ssd_blocks: int = 64,
        is_ready: bool = True,
        collector: EventCollector | None = None,
        **config: object,
    ) -> None:
        self.disk = DiskStoreDouble(num_ssd_blocks)
        settings = {
            "enable_ssd": True,
            "fingerprint": "f1a6",
            "ssd_cache_dir": "/ssd",
            "num_ssd_blocks": num_ssd_blocks,
        } | config
        super().__init__(stores=stores or (self.disk,), collector=collector, **settings)
        if is_ready:
            assert self.engine.wait_ready(READY_TIMEOUT_S)

    @property
    def state(self) -> SsdState:
        return self.engine._ssd.state

    @property
    def ssd(self) -> CacheEngine:
        ssd = self.cache.ssd_cache_engine
        assert ssd is not None
        return ssd

    def check_nothing_is_held(self) -> None:
        super().check_nothing_is_held()
        for tier in (self.cache.cpu_cache_engine, self.ssd):
            assert tier.index.num_pinned == tier.index.num_unready == tier.index.num_doomed == 0
            assert tier.mempool.num_quarantined_blocks == tier.num_reserved == 0
        assert self.cache.arrivals.num_slots == 0

    def moves(self, route: TransferType) -> list[int]:
        """Graphs of moves that wait, along one route."""
        return [
            graph_id
            for graph_id, graph in self.transfer.waiting.items()
            if any(op.transfer_type is route for op in graph)
        ]

    @property
    def reads(self) -> list[int]:
        return self.moves(TransferType.DISK2H)

    @property
    def writes(self) -> list[int]:
        return self.moves(TransferType.H2DISK)

    def finish_all(self) -> None:
        while self.graph_ids:
            for graph_id in self.graph_ids:
                self.transfer.finish(graph_id)
            self.engine.try_wait([])

    def keep_on_ssd(self, num_blocks: int, first: int = 0, **arguments: object) -> None:
        """Blocks that only the SSD tier has."""
        self.store(num_blocks, first, **arguments)
        self.finish_all()
        self.forget_on_cpu(num_blocks, first)

    def forget_on_cpu(self, num_blocks: int, first: int = 0, start: int = 0) -> None:
        keys = self.engine.sequence(tokens(num_blocks, first)).block_hashes
        cpu = self.cache.cpu_cache_engine
        slot = cpu.index.find(keys[start].tobytes())
        assert slot is not None
        cpu.drop(keys[start], slot)

    def held(self, num_blocks: int, first: int = 0) -> tuple[int, int]:
        """Ready blocks of a sequence in the CPU and the SSD tier."""
        self.engine.try_wait([])
        sequence = self.engine.sequence(tokens(num_blocks, first))
        now_s = int(self.clock_s - 50.0)
        return int(self.cache.cpu_cache_engine.match(sequence, now_s).num_ready), int(
            self.ssd.match(sequence, now_s).num_ready
        )


def tokens(num_blocks: int, first: int = 0) -> np.ndarray:
    return np.arange(first, first + num_blocks * TPB)
