"""The host slots that bench_gpu_copy moves blocks to: an aged pool is the cache engine's own work."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import bench_gpu_copy
from benchmarks.bench_trace_replay import BLOCKS_PER_ID, made_trace, num_runs
from benchmarks.gpu_slots import Aged, age, compact, fresh, mean_run, random_slots


@given(st.lists(st.integers(min_value=0, max_value=200), unique=True, min_size=1, max_size=60))
def test_slots_numbered_anew_keep_their_neighbours_and_no_others(slots: list[int]) -> None:
    before = np.array(slots, dtype=np.int64)
    after = compact(before)
    assert after.max() < 2 * len(before)
    assert np.array_equal(np.argsort(after), np.argsort(before))
    touching = {(i, j) for i in range(len(slots)) for j in range(len(slots)) if before[j] == before[i] + 1}
    assert {(i, j) for i in range(len(slots)) for j in range(len(slots)) if after[j] == after[i] + 1} == touching


def test_an_aged_pool_gives_distinct_slots_in_shorter_runs_than_a_fresh_one() -> None:
    aged = age(made_trace(1000), 2000)
    for slots in (aged.hit, aged.stored):
        assert len(slots) == 2000
        assert len(np.unique(slots)) == 2000
        assert slots.min() >= 0
        assert slots.max() < aged.pool_slots
        assert mean_run(slots) < 500
    assert aged.requests == 1000
    assert 0 < aged.mean_free_run < aged.pool_slots


def test_a_pool_ages_the_same_way_each_time() -> None:
    one, other = (age(made_trace(200), 500) for _ in range(2))
    assert np.array_equal(one.hit, other.hit)
    assert np.array_equal(one.stored, other.stored)


def test_what_is_stored_last_comes_first_and_in_its_order() -> None:
    # Two prompts of which nothing is shared; the pool has room for one. Empty and in order, it gives one run.
    first, second = list(range(10)), list(range(10, 20))
    aged = age([first, second], 4 * BLOCKS_PER_ID, pool_percent=50)
    assert aged.pool_slots == 10 * BLOCKS_PER_ID
    assert len(aged.hit) == 0
    assert len(aged.stored) == 4 * BLOCKS_PER_ID


def test_slots_are_taken_for_their_way_and_too_few_are_an_error() -> None:
    hit, stored = np.array([7, 8, 3], dtype=np.int64), np.array([40, 2], dtype=np.int64)
    aged = Aged(hit=hit, stored=stored, pool_slots=50, mean_free_run=1.0, requests=2)
    assert aged.take("load", 3).tolist() == [2, 3, 0]
    assert aged.take("store", 2).tolist() == [2, 0]
    with pytest.raises(ValueError, match="gives 2 slots for a store, 3 are needed"):
        aged.take("store", 3)


def test_a_trace_that_fills_no_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="32 blocks in all"):
        age([[1]], 8)


def test_fresh_slots_are_one_run_and_random_ones_hardly_touch() -> None:
    assert num_runs(fresh(1000)) == 1
    scattered = random_slots(1000, 2000, seed=3)
    assert len(np.unique(scattered)) == 1000
    assert scattered.max() < 2000
    assert mean_run(scattered) < 1.1


def test_the_default_trace_has_slots_for_the_smallest_chunk() -> None:
    options = bench_gpu_copy.options_of([])
    aged = bench_gpu_copy.aged_pool(options)
    for way in ("load", "store"):
        assert len(aged.take(way, (1 << 30) // (64 * 4096))) == 4096
    line = bench_gpu_copy.pool_line(aged, "a made trace")
    assert "4000 requests of a made trace" in line
    assert f"{mean_run(aged.hit):.1f}" in line


def test_a_trace_that_has_too_few_slots_is_refused_before_anything_is_measured() -> None:
    options = bench_gpu_copy.options_of(["--requests", "20", "--pool-percent", "50"])
    with pytest.raises(ValueError, match="a longer trace"):
        bench_gpu_copy.aged_pool(options)
