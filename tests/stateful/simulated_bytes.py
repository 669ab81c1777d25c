"""A task engine over doubles, and the bytes on its GPU and host. The bytes of a block are the tokens up to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.kvtask import KVTaskEngine
from tests.doubles import GATE_TIMEOUT_S, DiskStoreDouble, RankDouble, StorageDouble, TransferDouble

TPB = 2
NUM_GPU_BLOCKS = 65536
Content = tuple[object, ...]
SCRIBBLE: Content = ("scribble",)  # what is left where a copy failed
Chain = list[int]  # a sequence: each number stands for a block of the same token


def tokens_of(chain: Chain) -> np.ndarray:
    return np.repeat(np.array(chain, dtype=np.int64), TPB)


def content_of(chain: Chain, index: int) -> Content:
    """The bytes of a chain's block."""
    return tuple(chain[: index + 1])


def config(num_host_slots: int, **more: object) -> CacheConfig:
    settings: dict[str, object] = {
        "tokens_per_block": TPB,
        "num_cpu_blocks": num_host_slots,
        "evict_ratio": 0.0,
        "transfer_timeout_s": 0.001,
    } | more
    return CacheConfig(**settings)  # type: ignore[arg-type]


def start_engine(
    cache_config: CacheConfig, clock: Callable[[], float], *stores: DiskStoreDouble
) -> tuple[KVTaskEngine, TransferDouble]:
    """Start an engine with one rank. `stores`: what opening its SSD tier gives."""
    transfer = TransferDouble([RankDouble(num_blocks=NUM_GPU_BLOCKS, tokens_per_block=TPB)])
    assert cache_config.num_cpu_blocks is not None
    storage = StorageDouble(cache_config.num_cpu_blocks, stores=list(stores))
    engine = KVTaskEngine(
        ModelConfig(num_layers=1, num_kv_heads=1, head_size=8),
        cache_config,
        transfer=transfer,
        storage=storage,
        clock=clock,
    )
    engine.start()
    assert engine.wait_ready(GATE_TIMEOUT_S if stores else 0), "without an SSD tier it is ready at once"
    return engine, transfer


class Memory:
    """Content of host slots and of GPU blocks, which are handed out in order and used once."""

    def __init__(self) -> None:
        self.host: dict[int, Content] = {}
        self.gpu: dict[int, Content] = {}
        self._next_block = 0

    def take_blocks(self, count: int) -> list[int]:
        self._next_block += count
        return list(range(self._next_block - count, self._next_block))

    def compute(self, chain: Chain, start: int, blocks: Sequence[int]) -> None:
        """The engine computes blocks of a chain, from `start` on."""
        for index, block in enumerate(blocks, start):
            self.gpu[block] = content_of(chain, index)

    def check_loaded(self, chain: Chain, start: int, blocks: Sequence[int]) -> None:
        for index, block in enumerate(blocks, start):
            assert self.gpu[block] == content_of(chain, index), "wrong bytes loaded"

    def scribble_gpu(self, blocks: Iterable[int]) -> None:
        self.gpu.update(dict.fromkeys(blocks, SCRIBBLE))

    def scribble_host(self, slots: Iterable[int]) -> None:
        self.host.update(dict.fromkeys(slots, SCRIBBLE))
