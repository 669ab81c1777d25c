"""The slot pool against a model of three sets: exact counts, nothing handed out twice, nothing lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flexkv.cache.mempool import Mempool
from flexkv.errors import CapacityError
from tests.stateful.campaigns import every_run

CAPACITY = 200


def array(slots: list[int]) -> np.ndarray:
    return np.array(slots, dtype=np.int64)


class PoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pool = Mempool(CAPACITY, 70)
        self.available = 70
        self.used: set[int] = set()
        self.apart: set[int] = set()

    @property
    def num_free(self) -> int:
        return self.available - len(self.used) - len(self.apart)

    @rule(count=st.integers(0, 80))
    def allocate(self, count: int) -> None:
        if count > self.num_free:
            with pytest.raises(CapacityError):
                self.pool.allocate_blocks(count)
            return
        slots = self.pool.allocate_blocks(count)
        taken = set(slots.tolist())
        assert slots.dtype == np.int64
        assert len(taken) == len(slots) == count
        assert not taken & (self.used | self.apart)
        assert all(0 <= slot < self.available for slot in taken)
        self.used |= taken

    @precondition(lambda self: self.used)
    @rule(data=st.data())
    def recycle(self, data: st.DataObject) -> None:
        slots = data.draw(st.lists(st.sampled_from(sorted(self.used)), unique=True, max_size=40))
        self.pool.recycle_blocks(array(slots))
        self.used -= set(slots)

    @precondition(lambda self: self.used)
    @rule(data=st.data())
    def quarantine(self, data: st.DataObject) -> None:
        slots = data.draw(st.lists(st.sampled_from(sorted(self.used)), unique=True, max_size=20))
        self.pool.quarantine_blocks(array(slots))
        self.used -= set(slots)
        self.apart |= set(slots)

    @precondition(lambda self: self.apart)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        slots = data.draw(st.lists(st.sampled_from(sorted(self.apart)), unique=True, max_size=20))
        self.pool.release_blocks(array(slots))
        self.apart -= set(slots)

    @rule(slots=st.lists(st.integers(-2, CAPACITY + 1), min_size=1, max_size=5))
    def a_bad_free_changes_nothing(self, slots: list[int]) -> None:
        if set(slots) <= self.used and len(set(slots)) == len(slots):
            return
        with pytest.raises(ValueError, match="slot"):
            self.pool.recycle_blocks(array(slots))

    @rule(more=st.integers(0, 60))
    def grow(self, more: int) -> None:
        self.available = min(CAPACITY, self.available + more)
        self.pool.set_available(self.available)

    @rule()
    def reset(self) -> None:
        self.pool.reset()
        self.used.clear()
        self.apart.clear()

    @invariant()
    def counts_are_exact(self) -> None:
        self.pool.check_invariants()
        assert self.pool.num_used_blocks == len(self.used)
        assert self.pool.num_quarantined_blocks == len(self.apart)
        assert self.pool.num_free_blocks == self.num_free
        assert self.pool.num_available_blocks == self.available


TestPool = every_run(PoolMachine, 50, 40)
