"""TierMover, through the verbs: blocks go on to SSD, come back for who asks, and what becomes of those that fail."""

from __future__ import annotations

import errno
import logging
import threading

import numpy as np
import pytest

from flexkv.common.events import BlocksRemoved, BlocksStored, KVEvent
from flexkv.common.request import KVResponseStatus as Status
from flexkv.common.storage import DeviceType
from flexkv.common.transfer import TransferType
from flexkv.kvtask import StagingState
from flexkv.tasks import tier_mover
from flexkv.tasks.ssd_tier import SsdState
from tests.doubles import GATE_TIMEOUT_S, BadBlocks
from tests.rig import eventually
from tests.task_bench import SsdBench, tokens


class Collector(list[KVEvent]):
    def publish(self, event: KVEvent) -> None:
        self.append(event)


def match(bench: SsdBench, num_blocks: int, first: int = 0, **arguments: bool) -> tuple[int, int]:
    """Returns the task and the number of blocks found."""
    task_id, span = bench.engine.get_span(bench.engine.sequence(tokens(num_blocks, first)), 0, **arguments)
    return task_id, span.num_blocks


def launch(bench: SsdBench, task_id: int, num_blocks: int) -> int:
    bench.engine.launch(task_id, block_ids=[np.arange(num_blocks) + 100])
    return bench.graph_ids[-1]


def predecessors_of(bench: SsdBench, graph_id: int) -> list[set[int]]:
    return [set(op.predecessors) for op in bench.transfer.waiting[graph_id]]


def ops_of(bench: SsdBench, graph_id: int) -> list[int]:
    return [op.op_id for op in bench.transfer.waiting[graph_id]]


# --- writing


def test_a_store_goes_on_to_ssd() -> None:
    bench = SsdBench()
    task_id = bench.put(3, priority=4, tenant=7)
    assert bench.writes == [], "its bytes are not in host memory yet"
    bench.transfer.finish(bench.graph_ids[0])
    assert bench.status(task_id) is Status.SUCCESS
    (write,) = bench.writes
    (op,) = bench.transfer.waiting[write]
    assert op.disk is not None
    assert (op.disk.priority, op.disk.tenant) == (4, 7)
    assert bench.transfer.timeouts_s[write] == pytest.approx(bench.engine.cache_config.transfer_timeout_s, abs=0.1)
    assert bench.held(3) == (3, 0)
    assert bench.engine.stats().ssd_moves_running == 1
    bench.transfer.finish(write)
    assert bench.held(3) == (3, 3)
    stats = bench.engine.stats()
    assert (stats.ssd_stored_blocks, stats.ssd_dropped_blocks, stats.ssd_moves_running) == (3, 0, 0)
    assert stats.routes[TransferType.H2DISK].num_blocks == 3
    bench.check_nothing_is_held()


def test_a_store_that_failed_or_was_doomed_does_not_go_on() -> None:
    bench = SsdBench()
    failed, doomed = bench.put(2), bench.put(2, first=1000)
    bench.engine.doom(doomed)
    first, second = bench.graph_ids
    bench.transfer.fail(first)
    bench.transfer.release(first)
    bench.transfer.finish(second)
    assert [answer.status for answer in bench.engine.wait([failed, doomed], 0).values()] == [
        Status.FAILED,
        Status.CANCELLED,
    ]
    assert bench.writes == []


def test_what_the_cpu_tier_has_and_the_ssd_tier_lacks_is_written_when_it_is_stored_again() -> None:
    bench = SsdBench(is_ready=False)
    bench.storage.may_open.clear()
    bench.store(3)
    bench.storage.may_open.set()
    assert bench.engine.wait_ready(GATE_TIMEOUT_S)
    task_id, mask = bench.engine.put_match(tokens(3))
    assert not mask.any()
    assert len(bench.writes) == 1
    bench.engine.put_match(tokens(3))
    assert len(bench.writes) == 1, "it is on its way"
    bench.finish_all()
    assert bench.held(3) == (3, 3)
    assert bench.status(task_id) is Status.SUCCESS


def test_verbs_that_an_engines_scheduler_waits_for_leave_writes_to_others() -> None:
    bench = SsdBench()
    bench.store(1, first=4000)
    bench.finish_all()
    first, second = bench.put(3), bench.put(2, first=1000)
    for graph_id in bench.graph_ids:
        bench.transfer.finish(graph_id)
    task_id, _ = match(bench, 1, 4000)
    assert bench.engine._flow.is_work_due, "the stores have ended"
    bench.engine.staging(task_id)
    launch(bench, task_id, 1)
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


def test_each_part_of_a_batch_goes_on() -> None:
    bench = SsdBench()
    ids = [bench.engine.put_match(tokens(2, first))[0] for first in (0, 1000)]
    bench.engine.launch(ids, block_ids=[[0, 1], [2, 3]], as_batch=True)
    bench.finish_all()
    assert bench.held(2) == bench.held(2, 1000) == (2, 2)


def test_blocks_that_wait_for_their_write_are_not_evicted() -> None:
    bench = SsdBench(num_cpu_blocks=8)
    bench.store(4)
    bench.store(4, first=1000)
    assert len(bench.writes) == 1, "half of the CPU tier may wait"
    _, mask = bench.engine.put_match(tokens(8, 2000))
    assert mask.sum() // 4 == 4
    assert bench.held(4) == (4, 0)
    assert bench.held(4, 1000) == (0, 0)


@pytest.mark.parametrize("is_good", [True, False])
def test_a_document_that_may_not_wait_as_a_whole_is_written_in_turns(is_good: bool) -> None:
    bench = SsdBench(num_cpu_blocks=8)
    task_id = bench.put(7)
    bench.transfer.finish(bench.graph_ids[0])
    assert bench.status(task_id) is Status.SUCCESS
    (write,) = bench.writes
    assert sum(len(op.src_block_ids) for op in bench.transfer.waiting[write]) == 4, "half of the CPU tier may wait"
    if is_good:
        bench.transfer.finish(write)
        assert not bench.engine.wait_any(0)
        (write,) = bench.writes
        bench.transfer.finish(write)
        assert bench.held(7) == (7, 7)
        assert bench.engine.stats().ssd_dropped_blocks == 0
    else:
        bench.transfer.fail(write, {0: BadBlocks((0, 1, 2, 3), io_errno=errno.ENOMEM)})
        bench.transfer.release(write)
        assert bench.held(7) == (7, 0)
        assert bench.writes == []
        assert bench.engine.stats().ssd_dropped_blocks == 7, "what was to follow is dropped, too"
    bench.check_nothing_is_held()


def test_the_next_turn_begins_when_the_one_before_is_released() -> None:
    bench = SsdBench(num_cpu_blocks=8)
    task_id = bench.store(7)
    (write,) = bench.writes
    bench.transfer.done_late(write)
    bench.engine.try_wait([])
    assert not bench.engine._flow.is_work_due, "what it wrote still takes the room"
    assert not bench.engine._flow.is_idle
    bench.transfer.release(write)
    bench.engine.try_wait([])
    assert len(bench.writes) == 1
    bench.finish_all()
    assert bench.held(7) == (7, 7)
    assert bench.engine.stats().ssd_dropped_blocks == 0
    assert bench.status(task_id) is Status.NOTFOUND
    bench.check_nothing_is_held()


def test_a_turn_that_is_refused_is_dropped_with_those_that_were_to_follow() -> None:
    bench = SsdBench(num_cpu_blocks=8)
    task_id = bench.put(7)
    bench.transfer.finish(bench.graph_ids[0])
    bench.transfer.refusal = RuntimeError("too many graphs")
    assert bench.status(task_id) is Status.SUCCESS
    assert bench.engine.stats().ssd_dropped_blocks == 7
    assert not bench.engine._flow.is_work_due
    bench.check_nothing_is_held()


def test_a_wait_may_be_until_a_store_lies_on_ssd() -> None:
    bench = SsdBench()
    task_id = bench.put(2)
    bench.transfer.finish(bench.graph_ids[0])
    done = threading.Event()
    answers: dict[int, Status] = {}

    def wait() -> None:
        answers[task_id] = bench.engine.wait(task_id, GATE_TIMEOUT_S, completely=True)[task_id].status
        done.set()

    assert bench.engine.try_wait(task_id)[task_id].status is Status.SUCCESS
    thread = threading.Thread(target=wait)
    thread.start()
    assert eventually(lambda: bench.engine._gate.num_sleepers == 1)
    (write,) = bench.writes
    bench.transfer.finish(write)
    assert done.wait(GATE_TIMEOUT_S)
    thread.join()
    assert answers == {task_id: Status.SUCCESS}
    assert bench.held(2) == (2, 2)


def test_a_complete_wait_is_also_for_what_a_store_writes_that_had_nothing_to_copy() -> None:
    bench = SsdBench()
    bench.store(2)
    bench.transfer.fail(bench.writes[0])
    (failed,) = bench.transfer.decided
    bench.transfer.release(failed)
    assert bench.held(2) == (2, 0)
    task_id, mask = bench.engine.put_match(tokens(2))
    assert not mask.any()
    done = threading.Event()
    thread = threading.Thread(target=lambda: (bench.engine.wait(task_id, GATE_TIMEOUT_S, completely=True), done.set()))
    thread.start()
    assert eventually(lambda: bench.engine._gate.num_sleepers == 1 or done.is_set())
    assert not done.is_set()
    (write,) = bench.writes
    bench.transfer.finish(write)
    assert done.wait(GATE_TIMEOUT_S)
    thread.join()
    assert bench.held(2) == (2, 2)


def test_a_complete_wait_gives_the_stores_own_status_when_its_time_is_over_or_its_write_fails() -> None:
    bench = SsdBench()
    late, failed = bench.put(2), bench.put(2, first=1000)
    for graph_id in bench.graph_ids:
        bench.transfer.finish(graph_id)
    assert bench.engine.wait(late, 0, completely=True)[late].status is Status.SUCCESS
    write = bench.writes[1]
    bench.transfer.fail(write, {0: BadBlocks((0,), io_errno=errno.EIO)})
    bench.transfer.release(write)
    assert bench.engine.wait(failed, 5, completely=True)[failed].status is Status.SUCCESS


def test_writes_beyond_the_bound_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tier_mover, "FIRST_QUEUE_BYTES", 5 * 4096)
    bench = SsdBench(num_cpu_blocks=64)
    bench.store(3)
    bench.store(4, first=1000)
    assert [len(op.src_block_ids) for write in bench.writes for op in bench.transfer.waiting[write]] == [3, 2]
    bench.store(1, first=2000)
    assert len(bench.writes) == 2
    assert bench.engine.stats().ssd_dropped_blocks == 3
    bench.finish_all()
    assert bench.held(4, 1000) == (4, 2), "the first blocks of a document are of use without the last"
    bench.store(4, first=1000)
    bench.finish_all()
    assert bench.held(4, 1000) == (4, 4)
    bench.check_nothing_is_held()


def test_the_bound_is_a_time_once_writes_were_measured() -> None:
    bench = SsdBench(num_cpu_blocks=64, ssd_write_queue_s=2.0)
    bench.engine._mover.cost_model.transferred(TransferType.H2DISK, 3 * 4096, 1.0, 0.0)
    bench.store(9)
    (write,) = bench.writes
    assert [len(op.src_block_ids) for op in bench.transfer.waiting[write]] == [6]
    assert bench.engine.stats().ssd_dropped_blocks == 3


def test_a_slow_disk_still_takes_a_block_at_a_time() -> None:
    bench = SsdBench(num_cpu_blocks=64)
    bench.engine._mover.cost_model.transferred(TransferType.H2DISK, 1, 100.0, 0.0)
    bench.store(3)
    bench.store(3, first=1000)
    assert len(bench.writes) == 1
    bench.finish_all()
    assert bench.held(3)[1] == 1


def test_a_write_that_failed_keeps_the_good_blocks_before_the_first_bad_one() -> None:
    bench = SsdBench(num_cpu_blocks=64)
    bench.store(12)
    (write,) = bench.writes
    bench.transfer.fail(write, {1: BadBlocks((2,), io_errno=errno.ENOSPC)})
    bench.engine.try_wait([])
    assert bench.held(12) == (12, 0), "what is good is known once nothing is written any more"
    bench.transfer.release(write)
    assert bench.held(12) == (12, 10)
    stats = bench.engine.stats()
    assert (stats.ssd_stored_blocks, stats.ssd_dropped_blocks) == (10, 2)
    assert bench.state is SsdState.READ_ONLY
    bench.check_nothing_is_held()


@pytest.mark.parametrize("is_timeout", [False, True])
def test_a_write_that_is_late_or_was_refused_is_counted_as_dropped(is_timeout: bool) -> None:
    bench = SsdBench()
    if is_timeout:
        bench.store(3)
        (write,) = bench.writes
        bench.transfer.time_out(write)
        bench.engine.try_wait([])
        assert bench.ssd.mempool.num_free_blocks == bench.ssd.num_blocks - 3, "a write may still touch them"
        assert bench.held(3) == (3, 0)
        bench.transfer.release(write)
    else:
        task_id = bench.put(3)
        bench.transfer.finish(bench.graph_ids[0])
        bench.transfer.refusal = RuntimeError("too many graphs")
        assert bench.status(task_id) is Status.SUCCESS
        bench.transfer.refusal = None
    assert bench.held(3) == (3, 0)
    assert bench.engine.stats().ssd_dropped_blocks == 3
    assert bench.state is SsdState.SERVING
    bench.check_nothing_is_held()


def test_events_name_the_ssd_tier() -> None:
    events = Collector()
    bench = SsdBench(collector=events, num_ssd_blocks=4)
    bench.store(3)
    events.clear()
    bench.finish_all()
    (stored,) = events
    assert isinstance(stored, BlocksStored)
    assert (stored.tier, len(stored.keys)) == (DeviceType.SSD, 3)
    events.clear()
    bench.store(3, first=1000)
    removed = [event for event in events if isinstance(event, BlocksRemoved)]
    assert [(event.tier, len(event.keys)) for event in removed] == [(DeviceType.SSD, 2)]


# --- reading


def test_a_get_plans_what_is_here_and_what_is_coming_and_its_copies_wait_for_the_reads() -> None:
    bench = SsdBench(num_cpu_blocks=64)
    bench.keep_on_ssd(20)
    bench.store(3)
    bench.finish_all()
    task_id, found = match(bench, 20)
    assert found == 20
    (read,) = bench.reads
    reads = ops_of(bench, read)
    assert [len(op.src_block_ids) for op in bench.transfer.waiting[read]] == [8, 8, 1]
    assert bench.engine.staging(task_id) is StagingState.PENDING
    load = launch(bench, task_id, 20)
    assert predecessors_of(bench, load) == [set(), *({op} for op in reads)]
    sizes = [len(op.src_block_ids) for op in bench.transfer.waiting[load]]
    assert sizes == [3, 8, 8, 1]
    bench.transfer.finish(read)
    bench.transfer.finish(load)
    assert bench.status(task_id) is Status.SUCCESS
    assert bench.held(20) == (20, 20)
    stats = bench.engine.stats()
    assert (stats.ssd_staged_blocks, stats.ssd_bad_blocks) == (17, 0)
    bench.check_nothing_is_held()


def test_a_get_that_starts_later_reads_what_comes_before_too_but_loads_only_its_own() -> None:
    bench = SsdBench()
    bench.keep_on_ssd(6)
    task_id, span = bench.engine.get_span(bench.engine.sequence(tokens(6)), 4)
    assert (span.start, span.end) == (4, 6)
    bench.finish_all()
    assert bench.held(6)[0] == 6
    assert bench.engine.staging(task_id) is StagingState.READY


def test_a_hundred_requests_for_one_document_cause_one_read() -> None:
    bench = SsdBench()
    bench.keep_on_ssd(6)
    tasks = [match(bench, 6)[0] for _ in range(100)]
    (read,) = bench.reads
    (op,) = ops_of(bench, read)
    for task_id in tasks[:50]:
        load = launch(bench, task_id, 6)
        assert predecessors_of(bench, load) == [{op}]
    bench.transfer.finish(read)
    for task_id in tasks[50:]:
        assert bench.engine.staging(task_id) is StagingState.READY
        assert predecessors_of(bench, launch(bench, task_id, 6)) == [set()]
    bench.finish_all()
    assert {answer.status for answer in bench.engine.wait(tasks, 0).values()} == {Status.SUCCESS}
    assert bench.engine.stats().ssd_staged_blocks == 6
    bench.check_nothing_is_held()


def test_a_longer_request_joins_what_is_read_and_reads_the_rest() -> None:
    bench = SsdBench()
    bench.keep_on_ssd(6)
    match(bench, 3)
    task_id, found = match(bench, 6)
    assert found == 6
    first, second = bench.reads
    load = launch(bench, task_id, 6)
    assert predecessors_of(bench, load) == [{*ops_of(bench, first)}, {*ops_of(bench, second)}]


def test_a_get_of_the_cpu_tier_alone_neither_reads_nor_waits() -> None:
    bench = SsdBench()
    bench.keep_on_ssd(6)
    bench.store(2)
    bench.finish_all()
    assert match(bench, 6, cpu_only=True)[1] == 2
    assert bench.reads == []
    match(bench, 6)
    assert match(bench, 6, cpu_only=True)[1] == 2
    assert len(bench.reads) == 1


def test_a_read_without_host_slots_is_shorter_and_blocks_in_use_are_not_evicted_for_it() -> None:
    bench = SsdBench(num_cpu_blocks=8)
    bench.keep_on_ssd(6)
    bench.store(4, first=1000)
    bench.finish_all()
    held, _ = match(bench, 4, 1000)
    task_id, found = match(bench, 6)
    assert found == 4
    bench.finish_all()
    assert bench.engine.staging(task_id) is StagingState.READY
    assert bench.held(4, 1000)[0] == 4
    bench.engine.cancel([held, task_id])
    bench.check_nothing_is_held()


def test_what_was_staged_for_a_request_that_went_away_is_there_for_the_next() -> None:
    bench = SsdBench()
    bench.keep_on_ssd(4)
    task_id, _ = match(bench, 4)
    bench.engine.cancel(task_id)
    bench.finish_all()
    assert bench.held(4)[0] == 4
    bench.check_nothing_is_held()


# --- blocks that are bad


@pytest.mark.parametrize(
    "bad",
    [BadBlocks((2,), bad_checksums=1), BadBlocks((2, 3), io_errno=errno.EIO), BadBlocks((2, 3, 4), 1, errno.EIO)],
    ids=["checksum", "EIO", "both"],
)
def test_a_bad_block_and_what_follows_it_leave_the_tier_and_the_good_ones_before_it_are_offered(
    bad: BadBlocks, caplog: pytest.LogCaptureFixture
) -> None:
    bench = SsdBench(num_cpu_blocks=64)
    bench.keep_on_ssd(20)
    waiting, found = match(bench, 20)
    assert found == 20
    (read,) = bench.reads
    slot = bench.transfer.waiting[read]
    bad_slot = int(list(slot)[1].src_block_ids[2])
    bench.transfer.fail(read, {1: bad})
    assert bench.engine.staging(waiting) is StagingState.PENDING, "the others may still be good"
    assert match(bench, 20)[1] == 0
    assert bench.reads == [], "nothing is read twice meanwhile"
    bench.transfer.release(read)
    assert bench.engine.staging(waiting) is StagingState.BROKEN
    assert bench.held(20) == (10, 10)
    again, found = match(bench, 20)
    assert (found, bench.engine.staging(again)) == (10, StagingState.READY)
    assert bench.reads == []
    stats = bench.engine.stats()
    assert (stats.ssd_bad_blocks, stats.ssd_staged_blocks) == (len(bad.failed), 10)
    (line,) = [message for message in caplog.messages if message.startswith("ssd block is bad")]
    assert f"slot={bad_slot} block=10 bad_checksums={bad.bad_checksums}" in line
    assert bench.state is SsdState.SERVING
    bench.engine.cancel([waiting, again])
    bench.check_nothing_is_held()
    bench.store(20)
    bench.finish_all()
    assert bench.held(20) == (20, 20)


def test_blocks_whose_records_are_gone_are_dropped_or_they_would_be_read_for_ever() -> None:
    bench = SsdBench()
    bench.keep_on_ssd(4)
    task_id, _ = match(bench, 4)
    (read,) = bench.reads
    bench.transfer.fail(read, {0: BadBlocks((0, 1, 2, 3))})
    bench.transfer.release(read)
    assert bench.engine.staging(task_id) is StagingState.BROKEN
    assert bench.held(4) == (0, 0)
    assert bench.engine.stats().ssd_bad_blocks == 4


def test_a_load_that_was_launched_before_its_read_failed_fails_and_the_next_gets_the_good_part() -> None:
    bench = SsdBench()
    bench.keep_on_ssd(4)
    task_id, _ = match(bench, 4)
    (read,) = bench.reads
    load = launch(bench, task_id, 4)
    bench.transfer.fail(read, {0: BadBlocks((1,), bad_checksums=1)})
    bench.transfer.release(read)
    bench.transfer.fail(load)
    bench.transfer.release(load)
    assert bench.status(task_id) is Status.FAILED
    assert match(bench, 4)[1] == 1
    assert bench.held(4) == (1, 1)


@pytest.mark.parametrize("is_released", [False, True])
def test_a_launch_of_what_is_broken_fails_at_once_and_starts_nothing(is_released: bool) -> None:
    bench = SsdBench()
    bench.keep_on_ssd(4)
    task_id, _ = match(bench, 4)
    (read,) = bench.reads
    bench.transfer.fail(read, {0: BadBlocks((1,), bad_checksums=1)})
    if is_released:
        bench.transfer.release(read)
    bench.engine.launch(task_id, block_ids=[np.arange(4)])
    assert bench.graph_ids == []
    assert bench.status(task_id) is Status.FAILED
    if not is_released:
        bench.transfer.release(read)
    assert bench.held(4) == (1, 1)
    bench.check_nothing_is_held()


def test_a_read_that_is_late_keeps_its_slots_and_holds_others_off_until_it_is_released() -> None:
    bench = SsdBench()
    bench.keep_on_ssd(4)
    task_id, _ = match(bench, 4)
    (read,) = bench.reads
    bench.transfer.time_out(read)
    assert bench.engine.staging(task_id) is StagingState.PENDING, "which blocks are good is not known yet"
    bench.engine.cancel(task_id)
    assert bench.engine.stats().slots_quarantined == 0, "a slow disk is no reason to turn the cpu tier off"
    assert bench.held(4) == (0, 4)
    assert match(bench, 4)[1] == 0, "they are not read a second time"
    bench.store(2, first=1000)
    assert bench.writes == [], "while a disk hangs nothing is given to it"
    bench.engine.check_invariants()
    bench.transfer.release(read)
    assert bench.engine.stats().ssd_moves_running == 0
    second, found = match(bench, 4)
    assert found == 4
    bench.finish_all()
    assert bench.engine.staging(second) is StagingState.READY
    bench.engine.cancel(second)
    bench.check_nothing_is_held()


def test_what_a_late_read_brought_before_its_first_late_block_is_kept() -> None:
    bench = SsdBench(num_cpu_blocks=64, num_ssd_blocks=64)
    bench.keep_on_ssd(20)
    task_id, _ = match(bench, 20)
    (read,) = bench.reads
    bench.transfer.time_out(read, done=[0])
    bench.transfer.release(read)
    bench.engine.cancel(task_id)
    assert bench.held(20) == (8, 20)
    bench.check_nothing_is_held()


def test_the_rate_of_a_disk_is_that_of_the_whole_move() -> None:
    bench = SsdBench(num_cpu_blocks=64, num_ssd_blocks=64)
    bench.keep_on_ssd(20)
    match(bench, 20)
    (read,) = bench.reads
    bench.transfer.queued_seconds = [0.0, 1.0, 2.0]
    bench.transfer.finish(read)
    assert bench.engine.stats().ssd_read_bytes_per_s == pytest.approx(20 * 64 / 2.001)


def test_a_read_that_was_refused_is_as_if_it_was_never_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    bench = SsdBench()
    bench.keep_on_ssd(4)
    bench.transfer.refusal = OSError(errno.EMFILE, "too many")
    assert match(bench, 4)[1] == 0
    bench.transfer.refusal = None
    assert "move was refused route=DISK2H blocks=4" in caplog.text
    bench.check_nothing_is_held()
    assert match(bench, 4)[1] == 4


# --- staging, prefetch, cost


def test_staging_states() -> None:
    bench = SsdBench()
    bench.keep_on_ssd(4)
    bench.store(2, first=1000)
    bench.finish_all()
    here, _ = match(bench, 2, 1000)
    assert bench.engine.staging(here) is StagingState.READY
    coming, _ = match(bench, 4)
    assert bench.engine.staging(coming) is StagingState.PENDING
    bench.finish_all()
    assert bench.engine.staging(coming) is StagingState.READY
    launch(bench, coming, 4)
    assert bench.engine.staging(coming) is StagingState.BROKEN, "it is asked before the launch"
    bench.engine.cancel(here)
    assert bench.engine.staging(here) is StagingState.BROKEN
    assert bench.engine.staging(10**9) is StagingState.BROKEN


def test_a_reset_breaks_what_is_coming() -> None:
    bench = SsdBench(transfer_timeout_s=0.01)
    bench.keep_on_ssd(4)
    task_id, _ = match(bench, 4)
    bench.engine.reset()
    assert bench.engine.staging(task_id) is StagingState.BROKEN
    bench.finish_all()
    assert bench.held(4) == (0, 0)
    bench.check_nothing_is_held()


def test_a_prefetch_ends_when_the_blocks_are_in_host_memory() -> None:
    bench = SsdBench(num_cpu_blocks=64)
    bench.keep_on_ssd(12)
    task_id = bench.engine.prefetch_async(tokens(12))
    (read,) = bench.reads
    join = next(graph_id for graph_id in bench.graph_ids if graph_id != read)
    assert predecessors_of(bench, join) == [set(ops_of(bench, read))]
    assert bench.status(task_id) is Status.TIMEOUT
    second = bench.engine.prefetch_async(tokens(12))
    assert len(bench.reads) == 1
    bench.finish_all()
    assert [answer.status for answer in bench.engine.wait([task_id, second], 0).values()] == [Status.SUCCESS] * 2
    assert bench.held(12) == (12, 12)
    third = bench.engine.prefetch_async(tokens(12))
    assert bench.status(third) is Status.SUCCESS, "there is nothing to bring"
    assert bench.engine.stats().ssd_staged_blocks == 12
    bench.check_nothing_is_held()


def test_a_prefetch_whose_read_fails_has_failed() -> None:
    bench = SsdBench()
    bench.keep_on_ssd(4)
    task_id = bench.engine.prefetch_async(tokens(4))
    read, join = bench.graph_ids
    bench.transfer.fail(read, {0: BadBlocks((2,), bad_checksums=1)})
    bench.transfer.fail(join)
    for graph_id in (read, join):
        bench.transfer.release(graph_id)
    assert bench.status(task_id) is Status.FAILED
    assert bench.held(4) == (2, 2)
    bench.check_nothing_is_held()


def test_what_is_slower_to_read_than_to_compute_is_not_read_and_counted_once_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = SsdBench()
    bench.keep_on_ssd(4)
    bench.keep_on_ssd(3, first=1000)
    bench.engine.note_prefill(100, 1.0)  # 0.16 s for 4 blocks of 4 tokens
    costs = bench.engine._mover.cost_model
    costs.transferred(TransferType.DISK2H, 4 * 4096, 1.0, 0.0)
    costs.transferred(TransferType.H2D, 1 << 30, 0.1, 0.0)
    with caplog.at_level(logging.INFO, logger="flexkv"):
        assert match(bench, 4)[1] == match(bench, 3, 1000)[1] == 0
    assert bench.reads == []
    assert bench.engine.stats().ssd_not_offered_blocks == 7
    (line,) = [message for message in caplog.messages if "left out" in message]
    assert "blocks=4 reason=slower_than_compute" in line
    bench.clock_s += 3600
    assert match(bench, 4)[1] == 4, "a probe, so that one slow minute does not turn the tier off for good"


def test_reads_are_measured_when_they_were_alone() -> None:
    bench = SsdBench()
    bench.keep_on_ssd(4)
    bench.keep_on_ssd(4, first=1000)
    costs = bench.engine._mover.cost_model
    assert costs.rate_of(TransferType.DISK2H) is None
    match(bench, 4)
    match(bench, 4, 1000)
    first, second = bench.reads
    bench.transfer.finish(second)
    bench.engine.try_wait([])
    assert costs.rate_of(TransferType.DISK2H) is None
    bench.transfer.finish(first)
    bench.engine.try_wait([])
    assert costs.rate_of(TransferType.DISK2H) == pytest.approx(4 * 64 / 0.001)


def test_a_miss_of_both_tiers_is_known_without_a_task() -> None:
    bench = SsdBench()
    bench.keep_on_ssd(2)
    keys = [key.tobytes() for key in bench.engine.sequence(tokens(2)).block_hashes]
    assert not bench.engine.misses(keys[0], first_key=keys[0], num_blocks=2)
    assert bench.engine.misses(b"x" * 16, first_key=b"x" * 16, num_blocks=2)


def test_evicting_both_tiers_keeps_everything_exact() -> None:
    bench = SsdBench(num_cpu_blocks=8, num_ssd_blocks=12)
    for number in range(40):
        bench.put(number % 5 + 1, first=1000 * (number % 7))
        bench.finish_all()
        task_id, found = match(bench, 5, 1000 * ((number * 3) % 7))
        bench.finish_all()
        if found:
            assert bench.engine.staging(task_id) is StagingState.READY
            launch(bench, task_id, found)
            bench.finish_all()
            assert bench.status(task_id) is Status.SUCCESS
        bench.check_nothing_is_held()
    stats = bench.engine.stats()
    assert stats.ssd_evicted_blocks > 0
    assert stats.evicted_blocks > 0
    assert stats.ssd_staged_blocks > 0
