"""Several managers, processes and models want one directory; a process with an SSD tier is interrupted, or forks."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path

import pytest

import flexkv.tasks.ssd_tier
from flexkv.tasks.ssd_tier import SsdState
from tests.faults.hosts import SsdProcess
from tests.faults.ssd_host import EXIT_CODE
from tests.faults.ssd_rig import NUM_SSD_BLOCKS, TREE, SsdRig, only_sub_directory, prepare
from tests.rig import eventually

ONE_MODEL, OTHER_MODEL, THIRD_MODEL = "ab" * 16, "cd" * 16, "ef" * 16
END_BOUND_S = 10.0


@pytest.fixture
def _quick_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flexkv.tasks.ssd_tier, "FIRST_RETRY_S", 0.02)
    monkeypatch.setattr(flexkv.tasks.ssd_tier, "MAX_RETRY_S", 0.02)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def check_waits(rig: SsdRig, caplog: pytest.LogCaptureFixture) -> None:
    """Its tier is off, said once, however often it was tried since; the CPU tier serves."""
    for number in range(20):
        rig.check_serves_from_host(100 + number)
        assert rig.state in (SsdState.BUSY, SsdState.OPENING)
    (warning,) = warnings_of(caplog)
    assert "ssd tier off" in warning
    assert "is in use" in warning
    rig.check_books()


@pytest.mark.usefixtures("_quick_retry")
def test_a_second_manager_is_without_the_tier_until_the_first_has_ended_and_then_takes_over(
    ssd: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = SsdRig(ssd)
    assert first.put(1, 6)
    second = SsdRig(ssd)
    check_waits(second, caplog)
    assert first.put(2, 5)
    first.close()
    assert eventually(lambda: second.state is SsdState.SERVING)
    assert (second.serve(1, 6), second.serve(2, 5)) == (6, 5)
    assert second.put(3, 4)
    second.check_books()
    second.close()
    assert len(warnings_of(caplog)) == 1


@pytest.mark.usefixtures("_quick_retry")
@pytest.mark.parametrize("is_killed", [False, True], ids=["ends", "is killed"])
def test_a_manager_takes_over_when_the_process_that_served_is_gone(
    is_killed: bool, ssd: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with SsdProcess("serves_until_told", ssd, tmp_path) as host:
        assert host.read_line() == "serving"
        rig = SsdRig(ssd)
        check_waits(rig, caplog)
        if is_killed:
            host.process.kill()
        host.end()
        assert eventually(lambda: rig.state is SsdState.SERVING)
        assert rig.serve(1, 6) == 6
        rig.check_books()
        rig.close()


@pytest.mark.usefixtures("_quick_retry")
def test_a_reset_while_another_one_serves_empties_the_tier_when_it_is_taken_over(ssd: Path) -> None:
    first = SsdRig(ssd)
    assert first.put(1, 6)
    second = SsdRig(ssd)
    assert second.state is SsdState.BUSY
    second.manager.reset()
    assert first.serve(1, 6) == 6, "it is not the second one's to empty"
    first.close()
    assert eventually(lambda: second.state is SsdState.SERVING)
    assert second.serve(1, 6) == 0
    second.close()


@pytest.mark.usefixtures("_quick_retry")
def test_different_models_share_the_cap_and_one_that_finds_no_room_waits_for_it(
    ssd: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = SsdRig(ssd, fingerprint=ONE_MODEL, num_ssd_blocks=None, ssd_cache_bytes=100_000)
    other = SsdRig(ssd, fingerprint=OTHER_MODEL, num_ssd_blocks=None, ssd_cache_bytes=160_000)
    assert (one.state, other.state) == (SsdState.SERVING, SsdState.SERVING)
    assert one.put(1, 6)
    assert other.put(1, 6, version=2)
    third = SsdRig(ssd, fingerprint=THIRD_MODEL, num_ssd_blocks=None, ssd_cache_bytes=160_000)
    check_waits(third, caplog)
    for rig, version in ((one, 0), (other, 2)):
        rig.forget_host_blocks()
        assert rig.serve(1, 6, version) == 6
    assert used_bytes(ssd) <= 160_000
    other.close()
    assert eventually(lambda: third.state is SsdState.SERVING), "it was used last, and nobody serves from it now"
    assert third.serve(1, 6, version=2) == 0
    assert used_bytes(ssd) <= 160_000
    assert sub_directories(ssd) == 2
    third.close()
    one.close()


def used_bytes(ssd: Path) -> int:
    sizes = [path.stat() for path in (ssd / TREE).rglob("*") if path.is_file()]
    return sum(max(size.st_size, size.st_blocks * 512) for size in sizes)


def sub_directories(ssd: Path) -> int:
    return sum(path.is_dir() for path in (ssd / TREE).iterdir())


def test_a_change_of_the_model_evicts_what_the_former_one_kept(ssd: Path) -> None:
    old = prepare(ssd, {1: 6, 2: 6}, fingerprint=ONE_MODEL)
    rig = SsdRig(ssd, fingerprint=OTHER_MODEL)
    assert rig.serve(1, 6) == 0
    assert not old.exists()
    assert rig.put(1, 6, version=2)
    rig.close()
    only_sub_directory(ssd)
    back = SsdRig(ssd, fingerprint=ONE_MODEL)
    assert back.num_held == 0
    back.check_books()
    back.close()


def test_a_tier_takes_all_of_the_cap_that_is_not_served_from_also_from_a_model_that_has_little(ssd: Path) -> None:
    prepare(ssd, {1: 6}, fingerprint=ONE_MODEL, num_ssd_blocks=8)
    other = SsdRig(ssd, fingerprint=OTHER_MODEL)
    assert other.manager.stats().ssd_slots_total == NUM_SSD_BLOCKS
    assert sub_directories(ssd) == 1
    other.close()


# --- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_in_the_middle_of_writes_ends_the_process_soon_and_the_next_start_is_exact(
    number: signal.Signals, ssd: Path, tmp_path: Path
) -> None:
    with SsdProcess("writes_for_ever", ssd, tmp_path) as host:
        assert host.read_line() == "writing"
        written = [int(host.read_line()) for _ in range(12)]
        host.process.send_signal(number)
        sent_s = time.monotonic()
        assert host.process.stdout is not None
        written += [int(line) for line in host.process.stdout.read().split()]
        host.end()
        assert time.monotonic() - sent_s < END_BOUND_S
    rig = SsdRig(ssd, num_cpu_blocks=32, num_ssd_blocks=64)
    num_restored = rig.num_held
    served = {chain: rig.serve(chain, 6) for chain in range(max(written) + 2)}
    assert num_restored == sum(served.values())
    assert served[max(written)] == 6, "what was written last stays longest"
    rig.check_books()
    rig.close()


# --- reset and kill -9


@pytest.mark.parametrize("scenario", ["resets_and_is_killed", "resets_while_it_opens_and_is_killed"])
def test_after_a_reset_nothing_of_before_is_served_though_the_process_was_killed_at_once(
    scenario: str, ssd: Path, tmp_path: Path
) -> None:
    prepare(ssd, {0: 6, 1: 6, 2: 6})
    with SsdProcess(scenario, ssd, tmp_path) as host:
        code, errors = host.end()
        assert code == -signal.SIGKILL, errors
    rig = SsdRig(ssd)
    assert rig.num_held == 0
    assert [rig.serve(chain, 6) for chain in range(3)] == [0, 0, 0]
    assert rig.put(1, 6, version=2)
    rig.forget_host_blocks()
    assert rig.serve(1, 6, version=2) == 6
    rig.check_books()
    rig.close()


def test_after_a_reset_of_a_tier_that_was_given_up_nothing_of_before_is_served_by_the_next_start(ssd: Path) -> None:
    rig = SsdRig(ssd)
    assert all(rig.put(chain, 1) for chain in range(NUM_SSD_BLOCKS))
    data = only_sub_directory(ssd) / "data"
    before = data.read_bytes()
    rig.forget_host_blocks()
    os.truncate(data, 0)
    assert not any(rig.serve(chain, 1) for chain in range(NUM_SSD_BLOCKS))
    assert rig.state is SsdState.BROKEN
    data.write_bytes(before)  # whatever it was that failed, it works again
    rig.manager.reset()
    rig.close()
    again = SsdRig(ssd)
    assert again.num_held == 0
    assert not any(again.serve(chain, 1) for chain in range(NUM_SSD_BLOCKS))
    again.close()


# --- fork


def test_a_forked_child_that_ends_does_no_harm_to_the_tier(ssd: Path, tmp_path: Path) -> None:
    with SsdProcess("forks_a_child_that_ends", ssd, tmp_path) as host:
        code, errors = host.end()
        assert code == EXIT_CODE, errors
    rig = SsdRig(ssd)
    assert rig.serve(1, 6) == 6
    rig.check_books()
    rig.close()


def test_a_forked_child_that_lives_on_keeps_nobody_from_the_directory_once_its_parent_has_stopped(
    ssd: Path, tmp_path: Path
) -> None:
    with SsdProcess("forks_a_child_that_outlives_its_parent", ssd, tmp_path, 1) as host:
        assert sorted((host.read_line(), host.read_line())) == ["child", "closed"]
        rig = SsdRig(ssd)
        assert rig.state is SsdState.SERVING
        assert rig.serve(1, 6) == 6
        rig.close()
        host.end()


@pytest.mark.usefixtures("_quick_retry")
def test_a_forked_child_of_a_process_that_was_killed_keeps_the_lock_until_it_ends(ssd: Path, tmp_path: Path) -> None:
    with SsdProcess("forks_a_child_that_outlives_its_parent", ssd, tmp_path, 0) as host:
        assert host.read_line() == "child"
        assert host.process.wait(END_BOUND_S) == -signal.SIGKILL
        rig = SsdRig(ssd)
        assert rig.state is SsdState.BUSY
        rig.check_serves_from_host()
        host.end()
        assert eventually(lambda: rig.state is SsdState.SERVING)
        assert rig.serve(1, 6) == 6
        rig.close()
