"""SsdTier: how it is opened, emptied, retried, given up and closed; what a restart brings back."""

from __future__ import annotations

import errno
import logging
import threading
import time

import numpy as np
import pytest

from flexkv.common.events import AllCleared, BlocksStored, KVEvent
from flexkv.common.request import KVResponseStatus as Status
from flexkv.common.storage import DeviceType
from flexkv.errors import ConfigError, StoreBusyError
from flexkv.tasks.ssd_tier import EVENTS_AT_ONCE, MAX_READ_FAILURES, SsdState, SsdTier
from tests.doubles import GATE_TIMEOUT_S, BadBlocks, DiskStoreDouble, RankDouble, RecordDouble
from tests.rig import eventually
from tests.task_bench import TPB, Bench, SsdBench, tokens

BUSY = StoreBusyError("/ssd is served from by another process", tier="ssd")


class Collector(list[KVEvent]):
    def publish(self, event: KVEvent) -> None:
        self.append(event)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def records_of(num_blocks: int, first: int = 0, **fields: int) -> list[RecordDouble]:
    """What lies on disk of a document; slot numbers are those of its tokens' blocks."""
    keys = [key.tobytes() for key in SsdBench().engine.sequence(tokens(num_blocks, first)).block_hashes]
    parents = [bytes(16), *keys[:-1]]
    return [
        RecordDouble(first // TPB + index, key, parent, **fields)
        for index, (key, parent) in enumerate(zip(keys, parents, strict=True))
    ]


def until(bench: SsdBench, state: SsdState) -> bool:
    """Ask until the tier is in this state."""

    def is_there() -> bool:
        bench.engine.try_wait([])
        return bench.state is state

    return eventually(is_there)


class Pauses:
    """The pauses between two attempts to open a tier: each ends when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[float] = []
        self._may_go_on = threading.Semaphore(0)
        monkeypatch.setattr(SsdTier, "_pause", self._pause)

    def _pause(self, seconds: float) -> bool:
        self.asked.append(seconds)
        return not self._may_go_on.acquire(timeout=GATE_TIMEOUT_S)

    def end(self) -> None:
        """End one; the next, too, if there is none now."""
        self._may_go_on.release()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    return Pauses(monkeypatch)


# --- opening


def test_a_tier_that_is_not_configured_is_off() -> None:
    bench = Bench()
    assert bench.engine.is_ready()
    assert bench.engine._ssd.state is SsdState.OFF
    bench.engine.reset()
    assert bench.engine.shutdown()
    assert bench.engine._ssd.state is SsdState.OFF


def test_it_is_opened_for_all_ranks_once_they_have_registered(caplog: pytest.LogCaptureFixture) -> None:
    bench = SsdBench(is_ready=False, ranks=(RankDouble(1), RankDouble(0)))
    with caplog.at_level(logging.INFO, logger="flexkv"):
        assert bench.engine.wait_ready(GATE_TIMEOUT_S)
    assert bench.storage.opened_for == [[0, 1]]
    assert bench.transfer.disk is bench.disk
    (line,) = [message for message in caplog.messages if message.startswith("ssd tier open")]
    assert "directories=/ssd slots=64 block_bytes=4096 restored=0" in line
    assert "io=double" in line
    stats = bench.engine.stats()
    assert (stats.ssd_slots_total, stats.ssd_slots_used) == (64, 0)


def test_the_engine_serves_while_the_tier_is_opened() -> None:
    bench = SsdBench(is_ready=False)
    bench.storage.may_open.clear()
    bench.store(2)
    assert not bench.engine.is_ready()
    assert not bench.engine.wait_ready(0)
    assert bench.state is SsdState.OPENING
    load = bench.load(2)
    bench.finish_all()
    assert bench.status(load) is Status.SUCCESS
    assert bench.transfer.disk is None
    bench.storage.may_open.set()
    assert bench.engine.wait_ready(GATE_TIMEOUT_S)
    assert bench.state is SsdState.SERVING


def test_a_tier_that_can_never_work_is_said_to_who_starts_the_engine_and_the_cpu_tier_serves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = ConfigError("capacity is 5 bytes; set ssd_cache_gb larger", key="ssd_cache_gb", value=5, tier="ssd")
    bench = SsdBench(error, is_ready=False)
    with pytest.raises(ConfigError, match="set ssd_cache_gb larger") as caught:
        bench.engine.wait_ready(GATE_TIMEOUT_S)
    assert (caught.value.key, caught.value.tier) == ("ssd_cache_gb", "ssd")
    with pytest.raises(ConfigError, match="set ssd_cache_gb larger"):
        bench.engine.is_ready()
    bench.store(2)
    assert bench.writes == []
    assert bench.engine.get_match(tokens(2))[1].all()
    (warning,) = warnings_of(caplog)
    assert "ssd tier off for good, the cpu tier serves on" in warning
    bench.clock_s += 1000
    assert until(bench, SsdState.BROKEN)
    assert bench.storage.opened_for == [[0]]
    assert bench.engine.shutdown()


@pytest.mark.parametrize("error", [BUSY, OSError(errno.EIO, "the disk is gone"), MemoryError()])
def test_a_directory_that_cannot_be_had_now_is_warned_of_once_and_tried_again_with_backoff(
    error: Exception, pauses: Pauses, caplog: pytest.LogCaptureFixture
) -> None:
    store = DiskStoreDouble(64)
    num_failures = 6
    bench = SsdBench(*[error] * num_failures, store)
    assert bench.engine.is_ready(), "the engine starts without it"
    for failure in range(1, num_failures + 1):
        assert eventually(lambda failure=failure: len(pauses.asked) == failure)
        assert until(bench, SsdState.BUSY)
        assert len(bench.storage.opened_for) == failure
        assert bench.engine.is_ready(), "it is known to be off, so that a retry makes nobody wait"
        pauses.end()
    assert pauses.asked == [5, 10, 20, 40, 60, 60]
    assert until(bench, SsdState.SERVING)
    assert bench.transfer.disk is store
    (warning,) = warnings_of(caplog)
    assert "ssd tier off, its directory" in warning
    assert "it is tried again from time to time directories=/ssd" in warning
    bench.store(1)
    assert len(bench.writes) == 1


def test_an_engine_that_has_started_stays_ready_when_a_tier_that_was_busy_turns_out_never_to_work(
    pauses: Pauses, caplog: pytest.LogCaptureFixture
) -> None:
    bench = SsdBench(BUSY, ConfigError("capacity is 5 bytes", key="ssd_cache_gb", value=5, tier="ssd"))
    assert until(bench, SsdState.BUSY)
    pauses.end()
    assert until(bench, SsdState.BROKEN)
    assert bench.engine.is_ready(), "the cpu tier serves on"
    assert "ssd tier off for good" in warnings_of(caplog)[-1]


def test_it_is_tried_again_while_nobody_calls_and_is_there_for_the_next_request(pauses: Pauses) -> None:
    disk = DiskStoreDouble(64, records=records_of(3))
    bench = SsdBench(BUSY, disk)
    assert until(bench, SsdState.BUSY)
    pauses.end()
    assert eventually(lambda: disk.num_scans == 1 and bench.engine._ssd._opened is not None)
    assert bench.held(3) == (0, 3)


def test_a_tier_that_is_busy_waits_no_longer_than_the_engine_lives() -> None:
    bench = SsdBench(BUSY)
    assert until(bench, SsdState.BUSY)
    thread = bench.engine._ssd._thread
    assert thread is not None
    assert bench.engine.shutdown()
    assert not thread.is_alive(), "its first pause takes 5 s"


def test_records_that_cannot_be_read_let_the_directory_go_and_are_tried_again(pauses: Pauses) -> None:
    broken, whole = DiskStoreDouble(64, scan_error=OSError(errno.EIO, "records")), DiskStoreDouble(64)
    bench = SsdBench(broken, whole)
    assert until(bench, SsdState.BUSY)
    assert broken.is_stopped
    pauses.end()
    assert until(bench, SsdState.SERVING)


def test_a_transfer_engine_that_does_not_take_it_ends_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = SsdBench(is_ready=False)

    def refuse(store: DiskStoreDouble) -> None:
        raise ValueError("another stride")

    monkeypatch.setattr(bench.transfer, "set_disk", refuse)
    assert until(bench, SsdState.BROKEN)
    assert eventually(lambda: bench.disk.is_stopped)
    assert bench.cache.ssd_cache_engine is None
    assert "the transfer engine does not take it: another stride" in warnings_of(caplog)[0]
    assert bench.engine.shutdown()


# --- what a restart brings back


def test_what_a_scan_finds_are_hits() -> None:
    disk = DiskStoreDouble(512, records=[*records_of(3), *records_of(2, first=1000)[1:]])
    bench = SsdBench(disk)
    assert bench.held(3) == (0, 3)
    assert bench.held(2, 1000) == (0, 0), "its first block is not there"
    assert bench.engine.stats().ssd_slots_used == 3
    task_id, mask = bench.engine.get_match(tokens(3))
    assert mask.all()
    (read,) = bench.reads
    (op,) = bench.transfer.waiting[read]
    assert op.src_block_ids.tolist() == [0, 1, 2]
    bench.transfer.finish(read)
    bench.engine.launch(task_id, block_ids=[np.arange(3)])
    bench.finish_all()
    assert bench.status(task_id) is Status.SUCCESS
    bench.check_nothing_is_held()


def test_expiries_are_on_the_clock_of_the_task_engine() -> None:
    now_s = int(time.time())
    disk = DiskStoreDouble(
        512,
        records=[
            *records_of(1, expiry_s=now_s - 5),
            *records_of(1, first=400, expiry_s=now_s + 100),
            *records_of(1, first=800),
        ],
    )
    bench = SsdBench(disk, num_ssd_blocks=512)
    assert bench.held(1) == (0, 0)
    assert bench.engine.stats().ssd_slots_used == 2
    assert bench.held(1, 400) == bench.held(1, 800) == (0, 1)
    bench.clock_s += 90
    assert bench.held(1, 400) == (0, 1)
    bench.clock_s += 20
    assert bench.held(1, 400) == (0, 0)
    bench.clock_s += 1e6
    assert bench.held(1, 800) == (0, 1), "never is never"


def test_a_block_whose_record_is_expired_comes_back_under_a_child_that_lives() -> None:
    now_s = int(time.time())
    expired, living = records_of(2, expiry_s=now_s - 5), records_of(3, expiry_s=now_s + 100)
    bench = SsdBench(DiskStoreDouble(512, records=[*expired, living[2]]), num_ssd_blocks=512)
    assert bench.held(3) == (0, 3)
    bench.clock_s += 110
    assert bench.held(3) == (0, 0)


@pytest.mark.parametrize(
    ("ttl_s", "lifetime_s"), [(None, None), (100.0, 100), (3e9, None)], ids=["never", "a while", "beyond 2106"]
)
def test_expiries_are_written_in_seconds_since_1970(ttl_s: float | None, lifetime_s: int | None) -> None:
    bench = SsdBench()
    bench.clock_s += 1000
    before_s = int(time.time())
    bench.store(1, ttl_s=ttl_s)
    (op,) = bench.transfer.waiting[bench.writes[0]]
    assert op.disk is not None
    if lifetime_s is not None:
        assert before_s + lifetime_s - 2 <= op.disk.expiry_s <= int(time.time()) + lifetime_s + 2
    else:
        assert op.disk.expiry_s == (0xFFFFFFFF if ttl_s is None else 0xFFFFFFFE)


def test_events_of_what_was_found_come_when_it_serves() -> None:
    events = Collector()
    disk = DiskStoreDouble(64, records=records_of(3))
    bench = SsdBench(disk, is_ready=False, collector=events)
    bench.storage.may_open.clear()
    bench.store(1, first=5000)
    (cpu,) = events
    assert isinstance(cpu, BlocksStored)
    bench.storage.may_open.set()
    assert bench.engine.wait_ready(GATE_TIMEOUT_S)
    found = events[-1]
    assert isinstance(found, BlocksStored)
    assert (found.tier, len(found.keys)) == (DeviceType.SSD, 3)
    events.clear()
    bench.engine.reset()
    assert events == [AllCleared(DeviceType.CPU), AllCleared(DeviceType.SSD)]


def test_events_of_what_was_found_are_published_bit_by_bit_and_in_order() -> None:
    events = Collector()
    num_leaves = EVENTS_AT_ONCE + 50
    records = [RecordDouble(slot, bytes([slot % 256, slot // 256 + 1]) + bytes(14)) for slot in range(num_leaves)]
    bench = SsdBench(DiskStoreDouble(512, records=records), is_ready=False, collector=events)
    bench.storage.may_open.clear()
    assert not bench.engine.is_ready()
    bench.storage.may_open.set()
    assert eventually(lambda: bench.engine._ssd._opened is not None)
    assert events == []
    bench.engine.try_wait([])
    assert bench.state is SsdState.SERVING
    assert len(events) == EVENTS_AT_ONCE, "one verb does not publish them all"
    bench.engine.reset()
    assert len(events) == num_leaves + 2, "what comes later waits behind them"
    assert all(isinstance(event, BlocksStored) for event in events[:-2])
    assert events[-1] == AllCleared(DeviceType.SSD)


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


def test_a_write_may_be_planned_while_the_tier_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = SsdBench()
    task_id = bench.put(3)
    bench.transfer.finish(bench.graph_ids[0])
    find = bench.cache.find

    def closed_meanwhile(*arguments: object, **keywords: object) -> object:
        found = find(*arguments, **keywords)  # type: ignore[arg-type]
        assert bench.engine._ssd.close(GATE_TIMEOUT_S)
        return found

    monkeypatch.setattr(bench.cache, "find", closed_meanwhile)
    assert bench.status(task_id) is Status.SUCCESS
    assert bench.state is SsdState.CLOSED
    assert bench.engine._ssd.store is None


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


# --- failures at run time


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EROFS])
def test_a_write_that_fails_makes_it_read_only_with_one_warning(error: int, caplog: pytest.LogCaptureFixture) -> None:
    bench = SsdBench()
    bench.keep_on_ssd(2)
    for first in (1000, 2000):
        bench.store(2, first=first)
    for write in bench.writes:
        bench.transfer.fail(write, {0: BadBlocks((0, 1), io_errno=error)})
        bench.transfer.release(write)
    bench.engine.try_wait([])
    assert bench.state is SsdState.READ_ONLY
    (warning,) = [message for message in warnings_of(caplog) if "read-only" in message]
    assert f"errno={errno.errorcode[error]}" in warning
    assert "what=broken on purpose" in warning
    bench.store(2, first=3000)
    assert bench.writes == []
    assert bench.engine.get_match(tokens(2))[1].all()
    assert len(bench.reads) == 1
    assert bench.engine.stats().ssd_dropped_blocks == 4


def fail_a_read(bench: SsdBench, first: int, bad: BadBlocks, num_cancelled: int = 0) -> None:
    task_id, _ = bench.engine.get_match(tokens(1, first))
    (read,) = bench.reads
    bench.transfer.fail(read, {0: bad})
    bench.transfer.release(read)
    bench.engine.cancel(task_id)


def test_reads_that_fail_one_after_the_other_turn_it_off(caplog: pytest.LogCaptureFixture) -> None:
    bench = SsdBench(num_cpu_blocks=64)
    for number in range(MAX_READ_FAILURES + 2):
        bench.keep_on_ssd(1, first=1000 * number)
    for number in range(MAX_READ_FAILURES):
        assert bench.state is SsdState.SERVING
        fail_a_read(bench, 1000 * number, BadBlocks((0,), io_errno=errno.EIO))
    assert bench.state is SsdState.BROKEN
    (warning,) = [message for message in warnings_of(caplog) if "for good" in message]
    assert f"{MAX_READ_FAILURES} reads failed one after the other" in warning
    last = 1000 * (MAX_READ_FAILURES + 1)
    assert not bench.engine.get_match(tokens(1, last))[1].any()
    assert bench.reads == []
    bench.store(1, first=50_000)
    assert bench.writes == []
    assert bench.engine.is_ready(), "the cpu tier serves on"
    bench.check_nothing_is_held()


def test_a_good_read_in_between_ends_the_row_but_a_cancelled_one_does_not() -> None:
    bench = SsdBench(num_cpu_blocks=64, num_ssd_blocks=256)
    for number in range(MAX_READ_FAILURES + 2):
        bench.keep_on_ssd(1, first=1000 * number)
    bench.keep_on_ssd(9, first=90_000)
    bench.keep_on_ssd(9, first=91_000)
    for number in range(MAX_READ_FAILURES - 2):
        fail_a_read(bench, 1000 * number, BadBlocks((0,), io_errno=errno.EIO))
    bench.engine.prefetch_async(tokens(1, 1000 * MAX_READ_FAILURES))
    bench.finish_all()
    for number in range(MAX_READ_FAILURES - 2, MAX_READ_FAILURES):
        fail_a_read(bench, 1000 * number, BadBlocks((0,), io_errno=errno.EIO))
    assert bench.state is SsdState.SERVING
    for number in range(MAX_READ_FAILURES - 2):
        bench.keep_on_ssd(9, first=100_000 + 1000 * number)
        task_id, _ = bench.engine.get_match(tokens(9, 100_000 + 1000 * number))
        (read,) = bench.reads
        bench.transfer.fail(read, {0: BadBlocks((0,), io_errno=errno.EIO)}, cancelled=(1,))
        bench.transfer.release(read)
        bench.engine.cancel(task_id)
    assert bench.state is SsdState.BROKEN


# --- reset


def test_a_reset_empties_the_disk_after_transfers_ended_and_what_they_bring_is_never_seen() -> None:
    bench = SsdBench(transfer_timeout_s=GATE_TIMEOUT_S)
    bench.keep_on_ssd(2)
    bench.store(2, first=1000)
    (write,) = bench.writes
    store = bench.put(2, first=2000)
    bench.engine.prefetch_async(tokens(2))
    (read,) = bench.reads
    done = threading.Event()
    thread = threading.Thread(target=lambda: (bench.engine.reset(), done.set()))
    thread.start()
    assert eventually(lambda: bench.state is SsdState.RESETTING and bench.engine._gate.num_sleepers == 1)
    assert bench.disk.num_renewed == 0
    assert set(bench.transfer.cancelled) >= {write}
    assert not bench.engine.get_match(tokens(2))[1].any()
    bench.store(1, first=7000)
    assert bench.writes == [write], "nothing is written while it is emptied"
    bench.finish_all()
    assert done.wait(GATE_TIMEOUT_S)
    thread.join()
    assert bench.disk.num_renewed == 1
    assert bench.state is SsdState.SERVING
    for first in (0, 1000, 2000):
        assert bench.held(2, first) == (0, 0)
    assert bench.engine.wait(store)[store].status is Status.SUCCESS
    assert read not in bench.transfer.waiting
    assert bench.ssd.mempool.num_used_blocks == 0
    bench.check_nothing_is_held()
    bench.keep_on_ssd(2)
    assert bench.held(2) == (0, 2)


def test_a_reset_does_not_wait_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    bench = SsdBench(transfer_timeout_s=0.01)
    bench.store(2)
    (write,) = bench.writes
    bench.engine.reset()
    assert bench.disk.num_renewed == 1
    assert "reset left transfers in flight" in caplog.text
    bench.transfer.finish(write)
    assert bench.held(2) == (0, 0)
    bench.check_nothing_is_held()


def test_a_reset_waits_for_a_tier_that_is_being_opened_so_that_no_restart_finds_its_blocks() -> None:
    disk = DiskStoreDouble(64, records=records_of(3))
    bench = SsdBench(disk, is_ready=False)
    bench.storage.may_open.clear()
    bench.engine.try_wait([])
    thread = threading.Thread(target=bench.engine.reset)
    thread.start()
    assert eventually(lambda: bench.engine._ssd.owes_reset)
    assert disk.num_renewed == 0
    bench.storage.may_open.set()
    thread.join(GATE_TIMEOUT_S)
    assert not thread.is_alive()
    assert disk.num_renewed == 1
    assert bench.state is SsdState.SERVING


@pytest.mark.parametrize("when", ["before it is taken over", "while it is opened", "while it is busy"])
def test_a_reset_of_what_is_not_open_yet_empties_it_before_it_serves(when: str, pauses: Pauses) -> None:
    disk = DiskStoreDouble(64, records=records_of(3))
    stores = (BUSY, disk) if when == "while it is busy" else (disk,)
    bench = SsdBench(*stores, is_ready=False)
    if when == "while it is busy":
        assert until(bench, SsdState.BUSY)
        bench.engine.reset()
        pauses.end()
    else:
        if when == "while it is opened":
            bench.storage.may_open.clear()
        bench.engine.try_wait([])
        if when == "before it is taken over":
            assert eventually(lambda: bench.engine._ssd._opened is not None)
        assert bench.state is SsdState.OPENING
        bench.engine._flow.reset()  # without the drain that would take it over
        bench.storage.may_open.set()
    assert until(bench, SsdState.SERVING)
    assert disk.num_renewed == 1
    assert bench.held(3) == (0, 0)
    assert disk.records == []
    assert not disk.is_stopped
    bench.engine.reset()
    assert disk.num_renewed == 2


def test_a_tier_that_failed_is_emptied_too() -> None:
    bench = SsdBench()
    bench.keep_on_ssd(1)
    for _ in range(MAX_READ_FAILURES):
        bench.engine._ssd.read_ended(errno.EIO, "on purpose")
    assert bench.state is SsdState.BROKEN
    bench.engine.reset()
    assert bench.disk.num_renewed == 1
    assert bench.state is SsdState.BROKEN


def test_blocks_that_cannot_be_forgotten_end_the_tier_and_say_what_to_remove(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = SsdBench()
    bench.keep_on_ssd(2)
    bench.disk.renew_error = OSError(errno.EROFS, "Read-only file system")
    bench.engine.reset()
    assert bench.state is SsdState.BROKEN
    assert "remove the directories before the next start directories=/ssd" in caplog.text
    assert not bench.engine.get_match(tokens(2))[1].any()
    bench.store(2)
    assert bench.writes == []
    assert bench.engine.shutdown()
    assert bench.disk.is_stopped


def test_two_resets_renew_one_after_the_other_and_serve_after_both(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = SsdBench()
    states: list[SsdState] = []
    renew = bench.disk.renew

    def watched() -> None:
        states.append(bench.state)
        renew()

    monkeypatch.setattr(bench.disk, "renew", watched)
    bench.disk.may_renew.clear()
    threads = [threading.Thread(target=bench.engine.reset) for _ in range(2)]
    threads[0].start()
    assert bench.disk.is_renewing.wait(GATE_TIMEOUT_S)
    threads[1].start()
    assert eventually(lambda: bench.engine.stats().resets == 2)
    bench.disk.may_renew.set()
    for thread in threads:
        thread.join(GATE_TIMEOUT_S)
    assert bench.disk.num_renewed == 2
    assert states == [SsdState.RESETTING] * 2, "what is written in between would be lost"
    assert bench.state is SsdState.SERVING


def test_a_renewal_that_ends_after_a_shutdown_does_not_bring_the_tier_back() -> None:
    bench = SsdBench()
    bench.disk.may_renew.clear()
    thread = threading.Thread(target=bench.engine.reset)
    thread.start()
    assert bench.disk.is_renewing.wait(GATE_TIMEOUT_S)
    assert bench.engine.shutdown(0.05)
    bench.disk.may_renew.set()
    thread.join(GATE_TIMEOUT_S)
    assert bench.state is SsdState.CLOSED


def test_a_shutdown_lets_a_renewal_end_before_it_stops_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = SsdBench()
    calls: list[str] = []
    renew, stop = bench.disk.renew, bench.disk.stop
    monkeypatch.setattr(bench.disk, "renew", lambda: (renew(), calls.append("renewed")))
    monkeypatch.setattr(bench.disk, "stop", lambda timeout_s: (calls.append("stopped"), stop(timeout_s))[1])
    bench.disk.may_renew.clear()
    reset = threading.Thread(target=bench.engine.reset)
    reset.start()
    assert bench.disk.is_renewing.wait(GATE_TIMEOUT_S)
    closed: list[bool] = []
    shutdown = threading.Thread(target=lambda: closed.append(bench.engine.shutdown(2 * GATE_TIMEOUT_S)))
    shutdown.start()
    assert eventually(lambda: bench.transfer.stopped)
    bench.disk.may_renew.set()
    for thread in (reset, shutdown):
        thread.join(GATE_TIMEOUT_S)
    assert closed == [True]
    assert calls == ["renewed", "stopped"]


# --- shutdown


def test_a_shutdown_waits_for_writes_and_lets_the_directory_go() -> None:
    bench = SsdBench()
    bench.store(3)
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(bench.engine.shutdown(GATE_TIMEOUT_S)))
    thread.start()
    assert eventually(lambda: bench.engine._gate.num_sleepers == 1)
    assert not bench.transfer.stopped
    bench.finish_all()
    thread.join(GATE_TIMEOUT_S)
    assert answers == [True]
    assert bench.disk.is_stopped
    assert bench.state is SsdState.CLOSED
    assert bench.engine.stats().ssd_stored_blocks == 3
    bench.check_nothing_is_held()


def test_a_shutdown_waits_for_writes_within_its_bound() -> None:
    bench = SsdBench()
    bench.store(3)
    assert bench.engine.shutdown(0.05)
    assert bench.transfer.stopped
    bench.check_nothing_is_held()


def test_a_shutdown_that_left_a_write_running_keeps_its_slots_and_can_be_asked_again() -> None:
    bench = SsdBench()
    bench.store(3)
    bench.transfer.drains = False
    bench.disk.drains = False
    assert bench.engine.shutdown(0.05) is False
    assert bench.ssd.mempool.num_quarantined_blocks == 3
    assert bench.engine.shutdown(0.05) is False
    bench.transfer.drains = True
    assert bench.engine.shutdown(0.05) is False, "the disk has not let go"
    bench.disk.drains = True
    assert bench.engine.shutdown(0.05)
    bench.check_nothing_is_held()
    assert bench.disk.num_stops == 4


@pytest.mark.parametrize("is_reset", [False, True])
def test_a_thread_that_ends_after_shutdown_stops_what_it_opened(is_reset: bool) -> None:
    disk = DiskStoreDouble(64, records=records_of(1))
    bench = SsdBench(disk, is_ready=False)
    bench.storage.may_open.clear()
    bench.engine.try_wait([])
    if is_reset:
        bench.engine._flow.reset()  # without the wait for what is opened
    thread = bench.engine._ssd._thread
    assert thread is not None
    assert bench.engine.shutdown(0.05)
    assert not disk.is_stopped
    bench.storage.may_open.set()
    thread.join(GATE_TIMEOUT_S)
    assert disk.is_stopped
    assert disk.num_renewed == is_reset, "what was forgotten must not be found by the next start"


@pytest.mark.parametrize("is_reset", [False, True])
def test_what_was_opened_and_never_taken_over_is_stopped_at_shutdown(is_reset: bool) -> None:
    disk = DiskStoreDouble(64, records=records_of(1))
    bench = SsdBench(disk, is_ready=False)
    bench.engine.try_wait([])
    assert eventually(lambda: bench.engine._ssd._opened is not None)
    if is_reset:
        bench.engine._flow.reset()
    bench.engine._flow.close()  # else the shutdown would take it over first
    assert bench.engine.shutdown()
    assert disk.is_stopped
    assert disk.num_renewed == is_reset
    assert bench.state is SsdState.CLOSED
