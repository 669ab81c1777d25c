"""KVManager with its rank in another process: bytes, and what callers see when that process holds, freezes or dies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.common.request import KVResponseStatus as Status
from flexkv.kvmanager import KVManager
from tests.rig import READY_TIMEOUT_S, TPB, WorkerProcess, eventually, slots_of, tokens


class Pair:
    """A manager here, a rank there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        config = CacheConfig(tokens_per_block=TPB, num_cpu_blocks=16, evict_ratio=0.0, transfer_timeout_s=10.0)
        self.manager = KVManager(ModelConfig(3, 1, 24, dtype="uint8"), config)
        self.manager.start()
        self.workers: list[WorkerProcess] = []
        self.add_worker()
        assert self.manager.wait_ready(READY_TIMEOUT_S)

    @property
    def worker(self) -> WorkerProcess:
        return self.workers[-1]

    def add_worker(self) -> None:
        memory = self.directory / f"gpu{len(self.workers)}"
        self.workers.append(WorkerProcess(self.manager.gpu_register_port, memory))

    def put(self, num_blocks: int, first: int = 0, timeout_s: float | None = None) -> int:
        return self.manager.put_async(
            tokens(num_blocks, first), slots_of(range(first % 60, first % 60 + num_blocks)), timeout_s=timeout_s
        )

    def status(self, task_id: int, timeout: float = 10.0) -> Status:
        return self.manager.wait(task_id, timeout=timeout)[task_id].status

    def num_held(self) -> int:
        cache = self.manager._engine._tier.cache
        assert cache is not None
        self.manager.check_invariants()
        return cache.num_live_reservations

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
        self.manager.shutdown()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    yield pair
    pair.close()


def test_bytes_survive_the_trip_to_another_process_and_back(pair: Pair) -> None:
    gpu = pair.worker.gpu
    expected = gpu.read([3, 4, 5])
    task_id, _ = pair.manager.put_match(tokens(3))
    pair.manager.launch(task_id, [slots_of([3, 4, 5])])
    assert pair.status(task_id) is Status.SUCCESS
    gpu.poison()
    task_id, _ = pair.manager.get_match(tokens(3))
    pair.manager.launch(task_id, [slots_of([40, 20, 30])])
    assert pair.status(task_id) is Status.SUCCESS
    assert np.array_equal(gpu.read([40, 20, 30]), expected)
    assert gpu.untouched([40, 20, 30])
    assert pair.num_held() == 0


def test_a_worker_killed_in_the_middle_fails_its_tasks_and_everything_is_released(pair: Pair) -> None:
    stored = pair.put(4)
    assert pair.status(stored) is Status.SUCCESS
    pair.worker.tell("hold 1")
    store = pair.put(3, first=100)
    load = pair.manager.get_async(tokens(4), slots_of([50, 51, 52, 53]))
    matched, _ = pair.manager.get_match(tokens(4))
    assert pair.status(load, timeout=0.02) is Status.TIMEOUT
    pair.worker.kill()
    assert pair.status(store) is Status.FAILED
    assert pair.status(load) is Status.FAILED
    pair.manager.cancel(matched)
    assert eventually(lambda: pair.num_held() == 0)
    assert pair.manager.stats().slots_used == 4, "what was stored before stays, what was not is gone"
    late = pair.manager.get_async(tokens(4), slots_of([50, 51, 52, 53]))
    assert pair.status(late) is Status.FAILED, "no rank is there"
    assert eventually(lambda: pair.num_held() == 0)


def test_a_new_worker_takes_over_and_the_blocks_are_still_there(pair: Pair) -> None:
    expected = pair.worker.gpu.read([0, 1, 2])
    assert pair.status(pair.put(3)) is Status.SUCCESS
    pair.worker.kill()
    pair.add_worker()
    pair.worker.gpu.poison()

    def loads() -> bool:
        return pair.status(pair.manager.get_async(tokens(3), slots_of([7, 8, 9]))) is Status.SUCCESS

    assert eventually(loads)
    assert np.array_equal(pair.worker.gpu.read([7, 8, 9]), expected)


def test_an_op_that_is_late_fails_and_is_called_back(pair: Pair) -> None:
    pair.worker.tell("hold 1")
    assert pair.status(pair.put(2, timeout_s=0.05)) is Status.FAILED
    assert eventually(lambda: pair.num_held() == 0), "the worker lives: it gives back what it has not started"
    pair.worker.tell("hold 0")
    assert pair.status(pair.put(2)) is Status.SUCCESS


def test_slots_of_a_frozen_worker_are_quarantined_until_it_is_dead(pair: Pair) -> None:
    assert pair.status(pair.put(4)) is Status.SUCCESS
    pair.worker.freeze()
    store = pair.put(3, first=100, timeout_s=0.05)
    load = pair.manager.get_async(tokens(4), slots_of([50, 51, 52, 53]), timeout_s=0.05)
    assert pair.status(store) is Status.FAILED
    assert eventually(lambda: pair.manager.stats().slots_quarantined == 7)
    assert pair.status(load, timeout=0) is Status.TIMEOUT, "its DMA may still write"
    _, mask = pair.manager.get_match(tokens(4))
    assert not mask.any(), "over its budget of quarantined slots the tier is off"
    assert not pair.manager.put_match(tokens(4, first=500))[1].any()
    pair.manager.check_invariants()
    pair.worker.kill()
    assert pair.status(load) is Status.FAILED
    assert eventually(lambda: pair.num_held() == 0)
    assert pair.manager.stats().slots_quarantined == 0
    assert pair.manager.get_match(tokens(4))[1].all(), "and on again"


def test_reset_returns_within_its_bound_while_a_worker_is_frozen(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    engine = pair.manager._engine
    object.__setattr__(engine.cache_config, "transfer_timeout_s", 0.05)
    pair.worker.freeze()
    stored = pair.put(2)
    pair.manager.reset()
    assert not pair.manager.get_match(tokens(2))[1].any()
    pair.worker.kill()
    assert pair.status(stored) in (Status.FAILED, Status.CANCELLED)
    assert eventually(lambda: pair.num_held() == 0)
    pair.close()


def test_shutdown_is_bounded_while_a_worker_is_frozen(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.worker.freeze()
    store = pair.put(2)
    pair.manager.shutdown(timeout_s=0.05)
    assert pair.status(store, timeout=0) in (Status.FAILED, Status.CANCELLED)
    pair.manager.check_invariants()
    pair.worker.kill()
    pair.close()
