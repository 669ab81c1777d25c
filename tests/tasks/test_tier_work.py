"""What becomes due between the tiers: who does it, who is told, and what is written down of a use."""

from __future__ import annotations

import errno
import logging
import time

import numpy as np
import pytest

from flexkv._core import OpStatus
from flexkv.tasks.ssd_tier import MAX_READ_FAILURES, SsdState
from tests.task_bench import SsdBench, tokens

# --- work that is due


def test_verbs_that_an_engines_scheduler_waits_for_leave_writes_to_others() -> None:
    bench = SsdBench()
    bench.store(1, first=4000)
    bench.finish_all()
    first, second = bench.put(3), bench.put(2, first=1000)
    for graph_id in bench.graph_ids:
        bench.transfer.finish(graph_id)
    task_id, _ = bench.engine.get_span(bench.engine.sequence(tokens(1, 4000)))
    assert bench.engine._flow.is_work_due, "the stores have ended"
    bench.engine.staging(task_id)
    bench.engine.launch(task_id, block_ids=[np.arange(1)])
    bench.engine.cancel(task_id)
    bench.engine.doom(task_id)
    assert bench.writes == []
    assert bench.engine.try_wait([first, second]).keys() == {first, second}
    assert len(bench.writes) == 2
    assert not bench.engine._flow.is_work_due
    bench.finish_all()
    assert bench.held(3) == (3, 3)
    assert bench.held(2, 1000) == (2, 2)


def test_a_reset_forgets_writes_that_were_left_to_others() -> None:
    bench = SsdBench()
    bench.put(3)
    bench.transfer.finish(bench.graph_ids[0])
    bench.engine.cancel([])
    assert bench.engine._flow.is_work_due
    with bench.engine._gate.entered_briefly():
        bench.engine._flow.reset()
    assert not bench.engine._flow.is_work_due
    bench.engine.reset()
    assert bench.writes == []


def test_a_reset_while_much_is_written_does_not_turn_the_cpu_tier_off(caplog: pytest.LogCaptureFixture) -> None:
    bench = SsdBench(num_cpu_blocks=16, max_quarantined_fraction=0.25)
    for first in (0, 1000):
        bench.store(4, first=first)
    assert len(bench.writes) == 2
    with bench.engine._gate.entered_briefly():
        bench.engine._flow.reset()
    writes = bench.writes
    for graph_id in writes:
        bench.transfer._decide(graph_id, OpStatus.CANCELLED)  # its ops run on until it is released
    bench.engine.try_wait([])
    assert bench.engine.stats().slots_quarantined == 0, "nothing writes to them"
    bench.store(1, first=2000)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    for graph_id in writes:
        bench.transfer.release(graph_id)
    bench.finish_all()
    bench.check_nothing_is_held()


def test_it_is_known_whether_blocks_go_from_tier_to_tier() -> None:
    bench = SsdBench()
    assert not bench.engine.is_working
    bench.put(3)
    bench.transfer.finish(bench.graph_ids[0])
    bench.engine.cancel([])
    assert bench.engine.is_working, "a write is due"
    bench.engine.poll()
    assert bench.writes
    assert bench.engine.is_working, "and on its way"
    bench.finish_all()
    assert not bench.engine.is_working


def test_a_hit_of_which_the_ssd_tier_lacks_the_end_is_used_there_as_far_as_it_goes() -> None:
    bench = SsdBench()
    bench.store(2)
    bench.finish_all()
    bench.put(4)
    bench.transfer.finish(bench.graph_ids[-1])
    bench.engine.cancel([])  # its write is due, and not begun
    bench.engine.get_match(tokens(4))
    slots = bench.ssd.match(bench.engine.sequence(tokens(2))).slots()
    assert [touch[0] for touch in bench.disk.touches] == [int(slots[1])]


# --- use


def test_hits_in_the_cpu_tier_and_stores_of_what_is_held_are_written_into_the_record_of_the_last_block() -> None:
    bench = SsdBench()
    bench.store(3)
    bench.finish_all()
    assert bench.held(3) == (3, 3)
    assert bench.disk.touches == []
    slots = bench.ssd.match(bench.engine.sequence(tokens(3))).slots()
    keys = [key.tobytes() for key in bench.engine.sequence(tokens(3)).block_hashes]
    bench.load(3)
    assert bench.disk.touches == [(int(slots[2]), keys[2], 0, 0)]
    bench.finish_all()
    bench.load(2)
    assert bench.disk.touches[1:] == [(int(slots[1]), keys[1], 0, 0)]
    bench.finish_all()
    now_s = int(time.time())
    bench.engine.put_match(tokens(3), priority=5, ttl_s=1000)
    slot, key, expiry_s, priority = bench.disk.touches[-1]
    assert (slot, key, priority) == (int(slots[2]), keys[2], 5)
    assert now_s + 998 <= expiry_s <= now_s + 1002
    assert bench.ssd.meta_of(int(slots[0])).priority == 5
    bench.engine.get_match(tokens(3), cpu_only=True)
    bench.engine.get_match(tokens(1, 4000))
    assert len(bench.disk.touches) == 3


def test_a_tier_that_is_not_written_to_is_not_touched() -> None:
    bench = SsdBench()
    bench.store(2)
    bench.finish_all()
    bench.engine._ssd.write_failed(errno.EIO, "on purpose")
    assert bench.state is SsdState.READ_ONLY
    bench.load(2)
    assert bench.disk.touches == []


def test_what_only_a_tier_that_is_off_has_is_a_miss_at_once() -> None:
    bench = SsdBench()
    bench.keep_on_ssd(1)
    key = bench.engine.sequence(tokens(1)).block_hashes[0].tobytes()
    assert not bench.engine.misses(key, first_key=key, num_blocks=1)
    for _ in range(MAX_READ_FAILURES):
        bench.engine._ssd.read_ended(errno.EIO, "on purpose")
    assert bench.engine.misses(key, first_key=key, num_blocks=1)
