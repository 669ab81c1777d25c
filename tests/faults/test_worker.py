"""A rank's process that holds, freezes or dies, also in mid-copy: what callers see, and when slots come back.

In mid-copy means: the process stands still, some of the target's bytes are written, others are not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from flexkv.common.request import KVResponseStatus as Status
from tests.rig import POISON, Pair, eventually, slots_of, tokens

NUM_BIG_BLOCKS = 48
BIG_ROW_BYTES = 64 << 10  # blocks of 1.5 MiB: a copy of them takes long enough to be stopped on its way
MAX_ATTEMPTS = 60
CAUGHT_TIMEOUT_S = 1.0


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


class MidCopy:
    """A pair with large blocks, whose worker can be frozen while it copies them."""

    def __init__(self, directory: Path) -> None:
        self.pair = Pair(directory, row=BIG_ROW_BYTES, num_cpu_blocks=NUM_BIG_BLOCKS + 4, max_quarantined_fraction=1.0)
        self.blocks = range(NUM_BIG_BLOCKS)

    @property
    def gpu_edges(self) -> np.ndarray:
        """For each layer and block: the first and the last bytes of its memory on the GPU."""
        layers = self.pair.worker.gpu.layers
        return np.stack([np.concatenate([layer[self.blocks, 0, 0, :8], layer[self.blocks, 1, -1, -8:]], axis=1)
                         for layer in layers])  # fmt: skip

    @property
    def host(self) -> list[np.ndarray]:
        pool = self.pair.manager._engine._tier._pool
        assert pool is not None
        return [pool.view(0, slot) for slot in range(NUM_BIG_BLOCKS + 4)]

    @property
    def host_edges(self) -> np.ndarray:
        """For each slot: its first and its last bytes."""
        return np.stack([np.concatenate([slot[:8], slot[-8:]]) for slot in self.host])

    def store(self) -> int:
        return self.pair.put(NUM_BIG_BLOCKS, timeout_s=CAUGHT_TIMEOUT_S)

    def load(self) -> int:
        return self.pair.get(NUM_BIG_BLOCKS, 0, timeout_s=CAUGHT_TIMEOUT_S)

    def freeze_in_store(self) -> int:
        def prepare() -> None:
            self.pair.manager.reset()
            for slot in self.host:
                slot[:] = POISON

        return self._freeze_in(prepare, self.store, lambda: self.host_edges, NUM_BIG_BLOCKS)

    def freeze_in_load(self) -> int:
        assert self.pair.status(self.store()) is Status.SUCCESS
        return self._freeze_in(
            self.pair.worker.gpu.poison, self.load, lambda: self.gpu_edges, self.gpu_edges[..., 0].size
        )

    def _freeze_in(
        self, prepare: Callable[[], None], start: Callable[[], int], edges: Callable[[], np.ndarray], num_edges: int
    ) -> int:
        """Start until the worker stands with a part of its copy done; returns the task."""
        for _ in range(MAX_ATTEMPTS):
            prepare()
            task_id = start()
            deadline_s = time.monotonic() + 10
            while not (edges() != POISON).any():
                assert time.monotonic() < deadline_s
            self.pair.worker.freeze()
            written = (edges() != POISON).reshape(-1, 2, 8).any(axis=2)
            if written.sum() < 2 * num_edges:
                return task_id
            self.pair.worker.thaw()
            assert self.pair.status(task_id) is Status.SUCCESS
        raise AssertionError("the copy was always over before the worker stood")


@pytest.fixture
def mid_copy(tmp_path: Path) -> Iterator[MidCopy]:
    mid_copy = MidCopy(tmp_path)
    yield mid_copy
    mid_copy.pair.close()


def test_a_worker_killed_in_the_middle_of_a_load_fails_it_and_the_blocks_stay(mid_copy: MidCopy) -> None:
    pair = mid_copy.pair
    load = mid_copy.freeze_in_load()
    expected = mid_copy.host_edges
    pair.worker.kill()
    assert pair.status(load) is Status.FAILED
    assert eventually(lambda: pair.num_held() == 0)
    assert pair.manager.stats().slots_used == NUM_BIG_BLOCKS
    assert np.array_equal(mid_copy.host_edges, expected)
    pair.add_worker()
    assert eventually(lambda: pair.status(mid_copy.load()) is Status.SUCCESS)


def test_a_worker_killed_in_the_middle_of_a_store_leaves_nothing_behind(mid_copy: MidCopy) -> None:
    pair = mid_copy.pair
    store = mid_copy.freeze_in_store()
    pair.worker.kill()
    assert pair.status(store) is Status.FAILED
    assert eventually(lambda: pair.num_held() == 0)
    assert not pair.manager.get_match(tokens(NUM_BIG_BLOCKS))[1].any()
    stats = pair.manager.stats()
    assert (stats.slots_used, stats.slots_quarantined) == (0, 0)
    pair.add_worker()
    assert eventually(lambda: pair.status(mid_copy.store()) is Status.SUCCESS)


def test_a_store_that_is_done_after_its_timeout_commits_nothing_and_frees_its_slots_then(mid_copy: MidCopy) -> None:
    pair = mid_copy.pair
    store = mid_copy.freeze_in_store()
    written = mid_copy.host_edges
    begin_s = time.monotonic()
    assert pair.status(store) is Status.FAILED
    assert time.monotonic() - begin_s < 5
    assert pair.manager.stats().slots_quarantined == NUM_BIG_BLOCKS
    other, mask = pair.manager.put_match(tokens(NUM_BIG_BLOCKS, first=5000))
    assert mask.sum() == 4 * 4, "only the slots that nobody may write are handed out"
    pair.manager.cancel(other)
    assert pair.num_held() == 1
    assert pair.manager.stats().timed_out_tasks == 1
    pair.worker.thaw()
    assert eventually(lambda: pair.num_held() == 0)
    assert (mid_copy.host_edges != written).any(), "the copy went on after the answer"
    assert not pair.manager.get_match(tokens(NUM_BIG_BLOCKS))[1].any()
    stats = pair.manager.stats()
    assert (stats.slots_used, stats.slots_quarantined) == (0, 0)
    assert pair.status(mid_copy.store()) is Status.SUCCESS


def test_a_load_that_is_done_after_its_timeout_is_failed_only_then_and_the_blocks_stay(mid_copy: MidCopy) -> None:
    pair = mid_copy.pair
    load = mid_copy.freeze_in_load()
    assert eventually(lambda: pair.manager.stats().slots_quarantined == NUM_BIG_BLOCKS)
    begin_s = time.monotonic()
    assert pair.status(load, timeout=0.05) is Status.TIMEOUT, "it may still write the GPU blocks"
    assert time.monotonic() - begin_s < 5
    assert pair.manager.num_running == 1
    pair.worker.thaw()
    assert pair.status(load) is Status.FAILED
    assert eventually(lambda: pair.num_held() == 0)
    pair.worker.gpu.poison()
    assert pair.status(mid_copy.load()) is Status.SUCCESS
    assert (mid_copy.gpu_edges != POISON).reshape(-1, 8).any(axis=1).all()
