"""HostTier: what it says when ranks never register or prefaulting fails."""

from __future__ import annotations

import errno
import logging

import numpy as np
import pytest

from flexkv.common.request import KVResponseStatus as Status
from flexkv.errors import ConfigError
from tests.doubles import RankDouble
from tests.task_bench import NUM_BLOCKS, Bench, tokens


def test_ranks_that_never_register_are_warned_of_once_with_the_socket(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(ranks=())
    bench.clock_s += 29
    assert not bench.engine.is_ready()
    assert caplog.text == ""
    for _ in range(3):
        bench.clock_s += 2
        assert not bench.engine.is_ready()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert bench.transfer.socket_path in record.getMessage()
    assert "registered=0" in record.getMessage()


def test_prefaulting_that_ends_early_is_warned_of_once_and_the_tier_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(available=4)
    bench.store(4)
    bench.storage.pool.prefault_error = errno.ENOMEM
    bench.storage.pool.slots_prefaulted = 4
    for _ in range(2):
        assert bench.engine.is_ready()
    (record,) = [record for record in caplog.records if record.levelno > logging.INFO]
    assert record.levelno == logging.WARNING
    assert "ENOMEM" in record.getMessage()
    assert "FLEXKV_CPU_CACHE_GB" in record.getMessage()
    bench.store(3, 500)
    assert bench.engine.stats().evicted_blocks == 3, "no further slots will come, so old blocks go"


def test_without_a_single_slot_the_tier_is_broken() -> None:
    bench = Bench(available=0)
    assert not bench.engine.is_ready()
    bench.storage.pool.slots_prefaulted = 0
    bench.storage.pool.prefault_error = errno.ENOSPC
    with pytest.raises(ConfigError, match=r"ENOSPC.*FLEXKV_CPU_CACHE_GB"):
        bench.engine.is_ready()
    assert not bench.engine.put_match(tokens(2))[1].any()
    bench.engine.check_invariants()


def test_slots_that_are_prefaulted_but_not_mapped_yet_break_nothing() -> None:
    bench = Bench(available=0)
    assert not bench.engine.is_ready()
    bench.storage.pool.slots_prefaulted = 3
    bench.storage.pool.prefault_error = errno.ENOSPC
    assert not bench.engine.is_ready()
    bench.transfer.set_available(3)
    assert bench.engine.is_ready()


def test_a_rank_that_comes_back_with_other_blocks_is_asked_for_those() -> None:
    bench = Bench(ranks=(RankDouble(num_blocks=600),))
    bench.store(2)
    bench.transfer.register(RankDouble(num_blocks=1024))
    task_id, mask = bench.engine.get_match(tokens(2))
    assert mask.all()
    bench.engine.launch(task_id, block_ids=[np.array([1023, 5])])
    bench.transfer.finish(bench.graph_ids[-1])
    assert bench.status(task_id) is Status.SUCCESS
    bench.transfer.register(RankDouble(num_blocks=8))
    task_id, _ = bench.engine.get_match(tokens(2))
    with pytest.raises(ValueError, match="names GPU block 8; the GPU has 8 blocks"):
        bench.engine.launch(task_id, block_ids=[np.array([7, 8])])
    bench.engine.launch(task_id, block_ids=[np.array([7, 6])])


def test_a_cold_start_does_not_evict_what_it_has_just_stored() -> None:
    bench = Bench(available=4)
    bench.store(3)
    _, mask = bench.engine.put_match(tokens(3, 500))
    assert mask[:4].all()
    assert not mask[4:].any()
    assert bench.engine.stats().evicted_blocks == 0
    bench.transfer.set_available(NUM_BLOCKS)
    bench.store(12, 900)
    bench.store(2, 2000)
    assert bench.engine.stats().evicted_blocks > 0


def test_without_memory_for_its_index_the_tier_is_broken_once_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("flexkv.tasks.host_tier.GlobalCacheEngine", no_memory)
    bench = Bench()
    for _ in range(2):
        with pytest.raises(ConfigError, match="its index cannot be had: MemoryError"):
            bench.engine.is_ready()
    assert not bench.engine.put_match(tokens(2))[1].any()
