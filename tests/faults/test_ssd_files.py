"""The files of the SSD tier are cut, deleted, replaced or overwritten: under a running manager, and between two.

No wrong byte, no hang: what is left is a miss or the good prefix, the CPU tier serves on, and the next start is exact.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flexkv.tasks.ssd_tier import MAX_READ_FAILURES, SsdState
from tests.faults.ssd_rig import (
    HEADER_BYTES,
    NUM_SSD_BLOCKS,
    SLOT_BYTES,
    SsdRig,
    config_error,
    only_sub_directory,
    prepare,
)

CHAINS = {1: 6, 2: 5, 3: 7, 4: 6}
assert sum(CHAINS.values()) == NUM_SSD_BLOCKS
Damage = Callable[[Path], None]


def cut_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


def cut_to_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def delete(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    """Another file of the same length takes its name."""
    other = path.with_name("other")
    other.write_bytes(os.urandom(path.stat().st_size))
    other.rename(path)


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))


each_damage = pytest.mark.parametrize(
    "damage", [cut_to_nothing, cut_to_half, delete, replace, overwrite], ids=lambda damage: damage.__name__
)


def serve_all(rig: SsdRig) -> dict[int, int]:
    return {chain: rig.serve(chain, num_blocks) for chain, num_blocks in CHAINS.items()}


def check_a_new_start(directory: Path) -> dict[int, int]:
    """A manager starts here: what it holds is right, its books are exact, all slots are there and can be filled."""
    rig = SsdRig(directory)
    assert rig.state is SsdState.SERVING
    assert rig.manager.stats().ssd_slots_total == NUM_SSD_BLOCKS
    served = serve_all(rig)
    rig.check_books()
    for chain in range(50, 54):
        assert rig.put(chain, 6)
        rig.forget_host_blocks()
        assert rig.serve(chain, 6) == 6
    rig.check_books()
    assert rig.num_held == NUM_SSD_BLOCKS
    rig.close()
    return served


def full_tier(directory: Path, **config: object) -> SsdRig:
    rig = SsdRig(directory, **config)  # type: ignore[arg-type]
    for chain, num_blocks in CHAINS.items():
        assert rig.put(chain, num_blocks)
    assert rig.num_held == NUM_SSD_BLOCKS
    rig.forget_host_blocks()
    return rig


def is_foreign(damage: Damage) -> bool:
    """Whether a record file is nothing of ours any more."""
    return damage in (replace, overwrite)


@each_damage
@pytest.mark.parametrize("io_engine", ["auto", "threads"])
def test_a_data_file_damaged_under_a_running_manager_costs_the_blocks_that_are_gone(
    damage: Damage, io_engine: str, ssd: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = full_tier(ssd, ssd_io_engine=io_engine)
    damage(only_sub_directory(ssd) / "data")
    caplog.clear()
    served = serve_all(rig)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING and "ssd" in record.message]
    if damage in (delete, replace):  # the file that is open is whole
        assert served == CHAINS
    elif damage is cut_to_half:
        assert served == {1: 6, 2: 5, 3: 1, 4: 0}
    else:
        assert set(served.values()) == {0}
    assert len(warnings) == sum(served[chain] < num_blocks for chain, num_blocks in CHAINS.items()), "one for each read"
    rig.check_serves_from_host()
    rig.check_books()
    rig.close()
    check_a_new_start(ssd)


@each_damage
def test_a_record_file_damaged_under_a_running_manager_costs_it_nothing_until_the_next_start(
    damage: Damage, ssd: Path
) -> None:
    rig = full_tier(ssd)
    path = only_sub_directory(ssd) / "records"
    damage(path)
    assert serve_all(rig) == CHAINS
    rig.check_serves_from_host()
    rig.check_books()
    rig.close()
    if is_foreign(damage):
        assert f"{path} is not a file of this cache; remove it" in config_error(ssd)
        path.unlink()
    check_a_new_start(ssd)


@each_damage
def test_a_data_file_damaged_between_two_runs_costs_the_blocks_that_are_gone(damage: Damage, ssd: Path) -> None:
    damage(prepare(ssd, CHAINS) / "data")
    served = check_a_new_start(ssd)
    assert served == ({1: 6, 2: 5, 3: 1, 4: 0} if damage is cut_to_half else dict.fromkeys(CHAINS, 0))


@each_damage
def test_a_record_file_damaged_between_two_runs_costs_the_blocks_that_are_gone(damage: Damage, ssd: Path) -> None:
    path = prepare(ssd, CHAINS) / "records"
    damage(path)
    if is_foreign(damage):
        before = path.read_bytes()
        assert f"{path} is not a file of this cache; remove it" in config_error(ssd)
        assert path.read_bytes() == before, "what is not ours is left alone"
        path.unlink()
    served = check_a_new_start(ssd)
    assert set(served.values()) == {0}, "its header was gone"


def test_a_record_file_cut_among_its_records_keeps_those_before_the_cut(ssd: Path) -> None:
    path = prepare(ssd, CHAINS) / "records"
    os.truncate(path, HEADER_BYTES + 13 * 64 + 17)
    assert check_a_new_start(ssd) == {1: 6, 2: 5, 3: 2, 4: 0}


def test_files_that_grew_between_two_runs_are_brought_to_their_size(ssd: Path) -> None:
    sub_directory = prepare(ssd, CHAINS)
    sizes = {name: (sub_directory / name).stat().st_size for name in ("data", "records")}
    for name, size in sizes.items():
        os.truncate(sub_directory / name, size + 3 * SLOT_BYTES + 1)
    assert check_a_new_start(ssd) == CHAINS
    assert {name: (sub_directory / name).stat().st_size for name in sizes} == sizes


def test_reads_that_fail_again_and_again_turn_the_tier_off_with_one_warning_and_the_cpu_tier_serves_on(
    ssd: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = SsdRig(ssd)
    chains = range(NUM_SSD_BLOCKS)
    assert all(rig.put(chain, 1) for chain in chains)
    rig.forget_host_blocks()
    os.truncate(only_sub_directory(ssd) / "data", 0)
    caplog.clear()
    assert not any(rig.serve(chain, 1) for chain in chains)
    assert rig.state is SsdState.BROKEN
    assert len([record for record in caplog.records if "ssd tier off for good" in record.message]) == 1
    assert rig.num_held == NUM_SSD_BLOCKS - MAX_READ_FAILURES, "nothing is asked of it any more"
    rig.check_serves_from_host()
    rig.check_books()
    rig.close()
    check_a_new_start(ssd)


def test_two_managers_that_serve_from_one_directory_since_its_lock_was_deleted_serve_no_wrong_byte(
    ssd: Path,
) -> None:
    first = SsdRig(ssd)
    (only_sub_directory(ssd) / "lock").unlink()
    second = SsdRig(ssd)
    assert second.state is SsdState.SERVING, "the lock is what keeps two apart"
    for chain in range(1, 9):
        rig = (first, second)[chain % 2]
        assert rig.put(chain, 6)
    for rig in (first, second):
        rig.forget_host_blocks()
        for chain in range(1, 9):
            rig.serve(chain, 6)
        rig.check_books()
    first.manager.reset()
    assert second.put(9, 4)
    second.close()
    first.close()
    check_a_new_start(ssd)


@pytest.mark.parametrize("stand_in", ["directory", "link", "pipe"])
@pytest.mark.parametrize("name", ["data", "records", "lock"])
def test_what_is_no_file_in_the_place_of_one_is_refused_and_left_alone(name: str, stand_in: str, ssd: Path) -> None:
    path = prepare(ssd, CHAINS) / name
    precious = ssd / "precious"
    precious.write_bytes(b"not ours")
    path.unlink()
    if stand_in == "directory":
        path.mkdir()
    elif stand_in == "link":
        path.symlink_to(precious)
    else:
        os.mkfifo(path)
    message = config_error(ssd)
    assert f"{path} is not a regular file; remove it, or name another root" in message
    assert precious.read_bytes() == b"not ours"
    if stand_in == "directory":
        path.rmdir()
    else:
        path.unlink()
    check_a_new_start(ssd)
