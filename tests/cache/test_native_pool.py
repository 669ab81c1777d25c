"""The native slot pool through its bindings. Its own tests are csrc/tests/test_slot_pool.cpp."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from flexkv import _core


def counts(pool: _core.SlotPool) -> tuple[int, int, int]:
    pool.check_invariants()
    return pool.num_free, pool.num_used, pool.num_quarantined


def slots_of(*slots: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(slots, dtype=np.int64)


def test_a_slot_goes_from_free_to_used_to_quarantined_and_back() -> None:
    pool = _core.SlotPool(10, 8)
    slots = pool.allocate(5)
    assert slots.dtype == np.int64
    assert slots.tolist() == [0, 1, 2, 3, 4]
    assert pool.is_used(4)
    assert not pool.is_used(5)
    pool.quarantine(slots[:2])
    assert counts(pool) == (3, 3, 2)
    pool.release(slots[:2])
    pool.free(slots[2:])
    assert counts(pool) == (8, 0, 0)
    pool.set_available(10)
    assert (pool.available, pool.capacity, counts(pool)) == (10, 10, (10, 0, 0))
    pool.allocate(7)
    pool.reset()
    assert counts(pool) == (10, 0, 0)
    assert pool.mean_free_run() == 10.0


def test_an_allocation_of_none_is_empty() -> None:
    slots = _core.SlotPool(4, 4).allocate(0)
    assert slots.shape == (0,)
    assert slots.dtype == np.int64


def test_slots_outlive_their_pool() -> None:
    pool = _core.SlotPool(1000, 1000)
    slots = pool.allocate(1000)
    del pool
    assert slots.sum() == 499_500


def test_more_than_is_free_is_refused_and_nothing_changed() -> None:
    pool = _core.SlotPool(10, 8)
    with pytest.raises(RuntimeError, match="out of slots: 9 asked for, 8 free"):
        pool.allocate(9)
    with pytest.raises(ValueError, match="n must not be negative"):
        pool.allocate(-1)
    assert counts(pool) == (8, 0, 0)


@pytest.mark.parametrize(
    ("slots", "error", "message"),
    [
        (slots_of(0, 1, 0), ValueError, r"slots\[2\] = 0 is named twice"),
        (slots_of(0, 7), ValueError, r"slots\[1\] = 7 is not used"),
        (slots_of(0, 10), ValueError, r"slots\[1\] = 10 is out of range \[0, 10\)"),
        (slots_of(-1), ValueError, r"slots\[0\] = -1 is out of range"),
        (np.array([0], dtype=np.int32), ValueError, "slots must be .* int64 array"),
        (np.array([0.0]), ValueError, "slots must be .* int64 array"),
        (np.array([True]), ValueError, "slots must be .* int64 array"),
        (np.zeros((1, 1), dtype=np.int64), ValueError, "slots must be .* got 2 dimensions"),
        (slots_of(0, 1, 2)[::2], ValueError, "slots must be .* gaps"),
        ([0], TypeError, "slots must be .* got list"),
    ],
)
def test_slots_that_do_not_fit_are_refused_and_nothing_changed(
    slots: Any, error: type[Exception], message: str
) -> None:
    pool = _core.SlotPool(10, 8)
    pool.allocate(5)
    with pytest.raises(error, match=message):
        pool.free(slots)
    with pytest.raises(error, match=message):
        pool.quarantine(slots)
    assert counts(pool) == (3, 5, 0)
    with pytest.raises(error):
        pool.release(slots)
    assert counts(pool) == (3, 5, 0)


@pytest.mark.parametrize(("capacity", "available"), [(0, 0), (-1, 0), (2**32 - 1, 0), (10, 11), (10, -1)])
def test_bad_sizes_are_refused(capacity: int, available: int) -> None:
    with pytest.raises(ValueError, match=r"(capacity|available) must be"):
        _core.SlotPool(capacity, available)


def test_available_only_grows() -> None:
    pool = _core.SlotPool(10, 8)
    for available in (7, 11):
        with pytest.raises(ValueError, match=r"available must be in \[8, 10\]"):
            pool.set_available(available)
    assert pool.available == 8


def test_stores_of_an_aged_pool_still_lie_in_long_runs() -> None:
    capacity, rng = 1 << 16, random.Random(3)
    pool = _core.SlotPool(capacity, capacity)
    held: list[np.ndarray[Any, np.dtype[np.int64]]] = []
    stored = runs = 0
    for round_idx in range(4000):
        num_slots = rng.randrange(64, 1024)
        while pool.num_used + num_slots > capacity // 2:
            pool.free(held.pop(int(rng.random() ** 3 * len(held))))  # any may go, the older the sooner
        slots = pool.allocate(num_slots)
        held.append(slots)
        if round_idx >= 1000:
            stored += num_slots
            runs += 1 + int(np.count_nonzero(np.diff(slots) != 1))
    pool.check_invariants()
    assert stored / runs > 0.9 * stored / 3000
