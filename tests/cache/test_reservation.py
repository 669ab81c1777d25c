"""Reservations end whatever goes wrong on the way: no pin, no live reservation, exact slots."""

from __future__ import annotations

import numpy as np
import pytest

from flexkv.cache.cache_engine import GlobalCacheEngine
from flexkv.cache.radixtree import EntryMeta
from flexkv.cache.reservation import ReservationState
from flexkv.common.block import SequenceMeta
from flexkv.common.config import CacheConfig, ModelConfig

TPB = 4
NUM_BLOCKS = 8


@pytest.fixture
def cache() -> GlobalCacheEngine:
    config = CacheConfig(tokens_per_block=TPB, num_cpu_blocks=NUM_BLOCKS, evict_ratio=0.0)
    return GlobalCacheEngine(config, ModelConfig(num_layers=1, num_kv_heads=1, head_size=8))


def sequence(num_blocks: int) -> SequenceMeta:
    return SequenceMeta(np.arange(num_blocks * TPB), TPB)


def fail(*_: object) -> None:
    raise AssertionError("broken on purpose")


def test_an_abort_that_fails_on_its_way_still_ends_and_unpins(
    cache: GlobalCacheEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = cache.prepare_put(sequence(3), meta=EntryMeta())
    tier = cache.cpu_cache_engine
    with monkeypatch.context() as patch:
        patch.setattr(tier, "drop", fail)
        with pytest.raises(AssertionError, match="on purpose"):
            put.abort()
    assert put.state is ReservationState.ABORTED
    assert not put.is_open
    assert tier.index.num_pinned == cache.num_live_reservations == 0
    cache.check_invariants()
    with pytest.raises(RuntimeError, match="ABORTED"):
        put.abort()


def test_an_abort_out_of_quarantine_that_fails_takes_its_slots_out_of_the_count(
    cache: GlobalCacheEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = cache.prepare_put(sequence(3), meta=EntryMeta())
    put.quarantine()
    assert cache.num_quarantined_blocks == 3
    monkeypatch.setattr(type(put), "_on_doom", fail)
    with pytest.raises(AssertionError, match="on purpose"):
        put.abort()
    assert cache.num_quarantined_blocks == cache.num_live_reservations == 0
    assert cache.cpu_cache_engine.index.num_pinned == 0
    cache.check_invariants()


def test_a_commit_that_fails_on_its_way_still_ends_and_unpins(
    cache: GlobalCacheEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = cache.prepare_put(sequence(3), meta=EntryMeta())
    monkeypatch.setattr(cache.cpu_cache_engine, "publish", fail)
    with pytest.raises(AssertionError, match="on purpose"):
        put.commit()
    assert cache.cpu_cache_engine.index.num_pinned == cache.num_live_reservations == 0
    cache.check_invariants()
