"""A real KVManager with ranks over numpy "GPU" memory, in this process or in another one, for tests.

Every GPU block starts as fresh random bytes and is poisoned after a store, so that a load that moves nothing, or moves
the wrong bytes, shows.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from flexkv.cache.cache_engine import GlobalCacheEngine
from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.common.request import KVResponseStatus
from flexkv.kvmanager import KVManager
from flexkv.server.client import KVTPClient
from flexkv.tasks.recorder import EventBuffer

TPB = 4
NUM_GPU_BLOCKS = 64
ROW_BYTES = 24
POISON = 0xA5
READY_TIMEOUT_S = 20.0


class Gpu:
    """KV memory of one rank as bytes: `layers` arrays of shape (blocks, 2, TPB, row), or (blocks, *block_shape)."""

    def __init__(
        self,
        seed: int = 0,
        *,
        layers: int = 3,
        row: int = ROW_BYTES,
        block_shape: tuple[int, ...] | None = None,
        memory: Path | None = None,
    ) -> None:
        shape = (NUM_GPU_BLOCKS, *(block_shape or (2, TPB, row)))
        size = int(np.prod(shape))
        if memory is None:
            self.layers = [np.empty(shape, dtype=np.uint8) for _ in range(layers)]
        else:
            mode = "r+" if memory.exists() else "w+"
            whole = np.memmap(memory, dtype=np.uint8, mode=mode, shape=(layers, size))
            self.layers = [whole[layer].reshape(shape) for layer in range(layers)]
        self._random = np.random.default_rng(seed)

    def fill(self) -> None:
        for layer in self.layers:
            layer[:] = self._random.integers(0, 256, layer.shape, dtype=np.uint8)

    def read(self, blocks: Sequence[int]) -> np.ndarray:
        return np.stack([layer[list(blocks)] for layer in self.layers])

    def poison(self) -> None:
        for layer in self.layers:
            layer[:] = POISON

    def untouched(self, blocks: Sequence[int]) -> bool:
        """Whether every block but `blocks` still is poisoned."""
        others = [block for block in range(NUM_GPU_BLOCKS) if block not in set(blocks)]
        return all((layer[others] == POISON).all() for layer in self.layers)


def eventually(holds: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    """Ask until it holds; for what has no event of its own. False after the timeout."""
    tick, deadline_s = threading.Event(), time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline_s:
            return False
        tick.wait(0.002)
    return True


def slots_of(blocks: Sequence[int]) -> np.ndarray:
    if len(blocks) == 0:
        return np.empty(0, dtype=np.int64)
    return np.concatenate([np.arange(TPB) + block * TPB for block in blocks])


def tokens(num_blocks: int, first: int = 0) -> np.ndarray:
    return np.arange(first, first + num_blocks * TPB)


class Rig:
    """A manager, and its ranks in this process."""

    def __init__(
        self,
        *,
        num_ranks: int = 1,
        num_stages: int = 1,
        use_mla: bool = False,
        num_cpu_blocks: int = 48,
        block_shape: tuple[int, ...] | None = None,
        view_as: str = "uint8",
        wait: bool = True,
        events: EventBuffer | None = None,
        **config: object,
    ) -> None:
        """Start all.

        Args:
            num_ranks: of the whole engine.
            num_stages: of its pipeline; with `use_mla` the ranks of one have the same bytes.
            view_as: the dtype that the ranks register their memory as.
        """
        tp_size = num_ranks // num_stages
        model = ModelConfig(3, 1, 24, use_mla, dtype="uint8", tp_size=tp_size, pp_size=num_stages)
        settings: dict[str, object] = {
            "tokens_per_block": TPB,
            "num_cpu_blocks": num_cpu_blocks,
            "evict_ratio": 0.0,
        } | config
        self.manager = KVManager(model, CacheConfig(**settings), event_collector=events)  # type: ignore[arg-type]
        self.manager.start()
        self.gpus = [Gpu(rank // model.replicas, block_shape=block_shape) for rank in range(num_ranks)]
        self.clients = [
            KVTPClient(self.manager.gpu_register_port, rank=rank, num_ranks=num_ranks, tokens_per_block=TPB)
            for rank in range(num_ranks)
        ]
        for gpu, client in zip(self.gpus, self.clients, strict=True):
            gpu.fill()
            client.register_to_server([layer.view(view_as) for layer in gpu.layers], block_dim=0)
        if wait:
            assert self.manager.wait_ready(READY_TIMEOUT_S)

    @property
    def gpu(self) -> Gpu:
        return self.gpus[0]

    @property
    def client(self) -> KVTPClient:
        return self.clients[0]

    def close(self) -> None:
        for client in self.clients:
            assert client.shutdown()
        self.manager.shutdown()

    def store(self, token_ids: np.ndarray, blocks: Sequence[int]) -> KVResponseStatus:
        task_id, mask = self.manager.put_match(token_ids)
        used = list(blocks)[len(blocks) - int(mask.sum()) // TPB :]
        self.manager.launch(task_id, [slots_of(used)])
        return self.manager.wait(task_id)[task_id].status

    def load(self, token_ids: np.ndarray, blocks: Sequence[int]) -> KVResponseStatus:
        task_id, mask = self.manager.get_match(token_ids)
        assert mask.sum() == len(blocks) * TPB
        self.manager.launch(task_id, [slots_of(blocks)])
        return self.manager.wait(task_id)[task_id].status

    def check_nothing_is_held(self) -> None:
        """No pin, no reservation, no slot that is neither free nor a block's."""
        self.manager.check_invariants()
        engine = self.manager._engine
        cache = engine._tier.cache
        assert cache is not None
        assert eventually(lambda: self.manager.num_running == 0 and self._num_live() == 0), "a release may come late"
        assert cache.cpu_cache_engine.index.num_pinned == 0
        assert cache.cpu_cache_engine.index.num_unready == 0
        assert cache.num_quarantined_blocks == 0

    def _num_live(self) -> int:
        self.manager.check_invariants()
        cache = self.manager._engine._tier.cache
        return 0 if cache is None else cache.num_live_reservations


WORKER = """
import sys
from pathlib import Path
from flexkv.server.client import KVTPClient
from tests.rig import TPB, Gpu

gpu = Gpu(memory=Path(sys.argv[2]), row=int(sys.argv[3]))
rank, num_ranks = map(int, sys.argv[4:6])
client = KVTPClient(sys.argv[1], rank=rank, num_ranks=num_ranks, tokens_per_block=TPB)
client.register_to_server(gpu.layers, block_dim=0)
print("registered", flush=True)
for line in sys.stdin:
    verb, _, argument = line.strip().partition(" ")
    if verb == "hold":
        client.hold(argument == "1")
    elif verb == "step":
        client.record_step(int(argument))
    print("ok", flush=True)
client.shutdown()
"""


class WorkerProcess:
    """A rank in a process of its own; its GPU memory is a file that this process maps too."""

    def __init__(
        self, gpu_register_port: str, memory: Path, *, row: int = ROW_BYTES, rank: int = 0, num_ranks: int = 1
    ) -> None:
        self.gpu = Gpu(memory=memory, row=row)
        self.gpu.fill()
        arguments = [gpu_register_port, str(memory), str(row), str(rank), str(num_ranks)]
        root = str(Path(__file__).resolve().parent.parent)
        environment = os.environ | {"PYTHONPATH": root}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.expect("registered")

    def expect(self, answer: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == answer

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        self.expect("ok")

    def freeze(self) -> None:
        """Stop every thread of it; returns once they stand."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(READY_TIMEOUT_S)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        if self.process.poll() is None:
            self.thaw()
            self.process.wait(READY_TIMEOUT_S)
        self.process.stdout.close()


class Pair:
    """A manager here, a rank there."""

    def __init__(self, directory: Path, *, row: int = ROW_BYTES, **config: object) -> None:
        self.directory = directory
        self.row = row
        settings: dict[str, object] = {
            "tokens_per_block": TPB,
            "num_cpu_blocks": 16,
            "evict_ratio": 0.0,
            "transfer_timeout_s": 10.0,
        } | config
        self.manager = KVManager(ModelConfig(3, 1, row, dtype="uint8"), CacheConfig(**settings))  # type: ignore[arg-type]
        self.manager.start()
        self.workers: list[WorkerProcess] = []
        self.add_worker()
        assert self.manager.wait_ready(READY_TIMEOUT_S)
        assert eventually(lambda: self.cache.cpu_cache_engine.mempool.num_available_blocks == self.num_slots)

    @property
    def num_slots(self) -> int:
        return self.manager.stats().slots_total

    @property
    def cache(self) -> GlobalCacheEngine:
        cache = self.manager._engine._tier.cache
        assert cache is not None
        return cache

    @property
    def worker(self) -> WorkerProcess:
        return self.workers[-1]

    def add_worker(self) -> None:
        memory = self.directory / f"gpu{len(self.workers)}"
        self.workers.append(WorkerProcess(self.manager.gpu_register_port, memory, row=self.row))

    def put(self, num_blocks: int, first: int = 0, timeout_s: float | None = None) -> int:
        return self.manager.put_async(
            tokens(num_blocks, first), slots_of(range(first % 60, first % 60 + num_blocks)), timeout_s=timeout_s
        )

    def get(self, num_blocks: int, first_gpu_block: int, timeout_s: float | None = None) -> int:
        blocks = range(first_gpu_block, first_gpu_block + num_blocks)
        return self.manager.get_async(tokens(num_blocks), slots_of(blocks), timeout_s=timeout_s)

    def status(self, task_id: int, timeout: float = 10.0) -> KVResponseStatus:
        return self.manager.wait(task_id, timeout=timeout)[task_id].status

    def num_held(self) -> int:
        self.manager.check_invariants()
        return self.cache.num_live_reservations

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
        self.manager.shutdown()
