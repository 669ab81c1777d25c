"""Directories in which an SSD tier cannot work, or only just: it says why and what to set, or works; it never hangs.

What was in a directory before is left as it was, byte for byte.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flexkv.tasks.ssd_tier import SsdState
from tests.faults.hosts import SsdProcess
from tests.faults.ssd_rig import HEADER_BYTES, SLOT_BYTES, TREE, SsdRig, config_error, only_sub_directory, prepare
from tests.rig import eventually

DISK_BYTES = 2 << 20
Snapshot = dict[str, tuple[int, int, bytes]]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts file systems and becomes another user")


def snapshot(directory: Path) -> Snapshot:
    """Mode, mtime and bytes of everything below it, but for what is ours."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if TREE not in path.parts:
            info = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
            found[str(path)] = (info.st_mode, info.st_mtime_ns, content)
    return found


def crc64(content: bytes) -> int:
    """CRC-64/NVME."""
    crc = 2**64 - 1
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x9A6C9329AC4BC9B5 if crc & 1 else 0)
    return crc ^ (2**64 - 1)


def litter(directory: Path) -> None:
    """Files of somebody else, some with names like ours."""
    for name in ("data", "records", "lock", "flexkv-ssd-v0", "1a194b9f4fec29fe1fe79cf3598cdfe8"):
        (directory / name).write_bytes(os.urandom(5000))
    (directory / "deep").mkdir()
    (directory / "deep" / "data").write_bytes(b"precious")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB, in memory."""
    where = tmp_path / "disk"
    where.mkdir()
    options = f"size={DISK_BYTES},mode=0777"
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", where], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip("this root may not mount")
    yield where
    subprocess.run(["umount", "--lazy", where], check=True)


def remount(where: Path, how: str) -> bool:
    return subprocess.run(["mount", "-o", f"remount,{how}", where], capture_output=True, check=False).returncode == 0


def works_in(directory: Path, **config: object) -> SsdRig:
    rig = SsdRig(directory, **config)  # type: ignore[arg-type]
    assert rig.state is SsdState.SERVING
    num_blocks = min(4, rig.manager.stats().ssd_slots_total)
    assert rig.put(1, num_blocks)
    rig.forget_host_blocks()
    assert rig.serve(1, num_blocks) == num_blocks
    rig.check_books()
    return rig


# --- room


@needs_root
def test_a_disk_that_is_too_full_is_refused_at_start_with_what_is_free_and_what_to_set(small_disk: Path) -> None:
    (small_disk / "of others").write_bytes(os.urandom(1 << 20))
    before = snapshot(small_disk)
    message = config_error(small_disk, num_ssd_blocks=None, ssd_cache_bytes=DISK_BYTES)
    assert f"the SSD capacity is {DISK_BYTES} bytes for {small_disk}" in message
    advice = message.partition("set at most ")[2].partition(",")[0]
    assert 0 < int(advice) <= DISK_BYTES - (1 << 20)
    assert snapshot(small_disk) == before
    works_in(small_disk, num_ssd_blocks=None, ssd_cache_bytes=int(advice)).close()
    assert snapshot(small_disk) == before


@needs_root
def test_a_disk_that_others_fill_while_it_runs_costs_nothing(small_disk: Path) -> None:
    rig = SsdRig(small_disk)
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "of others").write_bytes(bytes(DISK_BYTES))
    for chain in range(1, 9):
        assert rig.put(chain, 6)
        rig.forget_host_blocks()
        assert rig.serve(chain, 6) == 6
    assert rig.state is SsdState.SERVING
    assert rig.manager.stats().ssd_dropped_blocks == 0
    rig.close()
    again = SsdRig(small_disk)
    assert again.num_held == again.manager.stats().ssd_slots_total
    assert again.serve(8, 6) == 6
    again.check_books()
    again.close()


def test_a_limit_on_the_size_of_files_keeps_the_tier_off_and_the_cpu_tier_serves(ssd: Path, tmp_path: Path) -> None:
    with SsdProcess("is_limited", ssd, tmp_path, 80_000) as host:
        assert host.read_line() == "busy"
        assert host.read_line() == "serves from host memory"
        _, errors = host.end()
    assert errors.count("WARNING") == 1, errors
    assert "File too large" in errors


@pytest.mark.parametrize("spare", [0, 1, SLOT_BYTES // 2 + 7, SLOT_BYTES + 4095])
def test_a_capacity_that_is_a_multiple_of_nothing_is_never_exceeded(spare: int, ssd: Path) -> None:
    capacity = 40_000 + spare
    rig = works_in(ssd, num_ssd_blocks=None, ssd_cache_bytes=capacity)
    num_slots = rig.manager.stats().ssd_slots_total
    assert num_slots == (capacity - HEADER_BYTES) // SLOT_BYTES - 1, "a page of records, and whole slots"
    for chain in range(2, 12):
        rig.put(chain, 3)
    rig.close()
    files = [path for path in (ssd / TREE).rglob("*") if path.is_file()]
    assert sum(max(path.stat().st_size, path.stat().st_blocks * 512) for path in files) <= capacity


@pytest.mark.parametrize("capacity", [1, HEADER_BYTES, HEADER_BYTES + SLOT_BYTES, HEADER_BYTES + 2 * SLOT_BYTES - 1])
def test_a_capacity_below_one_block_is_refused_with_what_one_takes(capacity: int, ssd: Path) -> None:
    message = config_error(ssd, num_ssd_blocks=None, ssd_cache_bytes=capacity)
    one_block = HEADER_BYTES + 2 * SLOT_BYTES
    assert f"the SSD capacity is {capacity} bytes" in message
    assert f"one slot takes {one_block}; set at least that" in message
    works_in(ssd, num_ssd_blocks=None, ssd_cache_bytes=one_block).close()


# --- what the directory is


def test_a_directory_that_does_not_exist_is_made_and_only_it(ssd: Path) -> None:
    works_in(ssd / "new").close()
    assert stat.S_IMODE((ssd / "new").stat().st_mode) == 0o700
    message = config_error(ssd / "not mounted" / "cache")
    assert f"{ssd / 'not mounted' / 'cache'} cannot be made" in message
    assert "make it, or mount what belongs there" in message
    assert not (ssd / "not mounted").exists()


def test_a_file_in_its_place_is_refused_and_left_alone(ssd: Path) -> None:
    (ssd / "cache").write_bytes(b"precious")
    before = snapshot(ssd)
    assert f"{ssd / 'cache'} is not a directory" in config_error(ssd / "cache")
    assert snapshot(ssd) == before


@pytest.mark.parametrize("to_a_directory", [True, False], ids=["to a directory", "to nothing"])
def test_a_link_is_refused_with_the_advice_to_name_the_directory(to_a_directory: bool, ssd: Path) -> None:
    if to_a_directory:
        (ssd / "real").mkdir()
    (ssd / "link").symlink_to(ssd / "real")
    assert f"{ssd / 'link'} is a symbolic link; name the directory itself" in config_error(ssd / "link")
    assert os.listdir(ssd) == (["real", "link"] if to_a_directory else ["link"]) or to_a_directory
    assert not (ssd / "real" / TREE).exists()


def test_a_link_in_the_place_of_our_tree_is_refused(ssd: Path) -> None:
    (ssd / "elsewhere").mkdir()
    (ssd / TREE).symlink_to(ssd / "elsewhere")
    assert f"{ssd / TREE} is a symbolic link" in config_error(ssd)
    assert os.listdir(ssd / "elsewhere") == []


@needs_root
def test_a_directory_on_tmpfs_works(small_disk: Path) -> None:
    rig = works_in(small_disk)
    rig.close()
    again = SsdRig(small_disk)
    assert again.num_held == 4
    again.close()


def test_a_directory_that_others_may_write_to_is_refused(ssd: Path) -> None:
    prepare(ssd, {1: 3})
    (ssd / TREE).chmod(0o777)
    assert "can be written to by others; chmod it to 0700" in config_error(ssd)
    (ssd / TREE).chmod(0o700)
    works_in(ssd).close()


@needs_root
def test_a_directory_of_another_user_is_refused_with_both_users_named(ssd: Path) -> None:
    prepare(ssd, {1: 3})
    os.chown(ssd / TREE, 4321, -1)
    message = config_error(ssd)
    assert "belongs to user 4321, and this process is user 0" in message
    assert "remove it, or name another root" in message


@needs_root
@pytest.mark.parametrize("what", ["root", "tree", "sub-directory", "data", "records", "lock"])
def test_what_this_user_may_not_write_to_is_refused_with_its_name_and_the_cpu_tier_serves(
    what: str, ssd: Path, tmp_path: Path
) -> None:
    user = 65534
    ssd.chmod(0o755)
    sub_directory = prepare(ssd, {1: 3})
    shutil.chown(ssd / TREE, user)
    for path in (ssd / TREE).rglob("*"):
        shutil.chown(path, user)
    places = {"root": ssd, "tree": ssd / TREE, "sub-directory": sub_directory}
    place = places.get(what, sub_directory / what)
    if what == "root":  # nothing of ours is there, and none can be made
        shutil.rmtree(ssd / TREE)
    else:
        place.chmod(0o500 if place.is_dir() else 0o400)
    with SsdProcess("is_user", ssd, tmp_path, user) as host:
        says = host.read_line() or host.end()[1]
        if what in ("tree", "sub-directory"):  # the files in it are enough to go on with
            assert says == "serving"
        else:
            assert says.startswith("ConfigError: ")
            assert str(place) in says
            assert "Permission denied" in says
        assert host.read_line() == "serves from host memory"
        host.end()


@needs_root
def test_a_file_system_that_is_read_only_now_is_refused_and_serves_again_when_it_can_be_written_to(
    small_disk: Path,
) -> None:
    prepare(small_disk, {1: 5})
    assert eventually(lambda: remount(small_disk, "ro")), "nothing has it open any more"
    message = config_error(small_disk)
    assert "Read-only file system" in message
    assert "name another root" in message or "change its owner" in message
    assert remount(small_disk, "rw")
    rig = SsdRig(small_disk)
    assert rig.serve(1, 5) == 5
    rig.close()


# --- what lies in it


def test_files_that_are_not_ours_are_never_touched(ssd: Path) -> None:
    litter(ssd)
    before = snapshot(ssd)
    rig = works_in(ssd)
    for chain in range(2, 9):
        rig.put(chain, 5)
    rig.manager.reset()
    rig.close()
    works_in(ssd, fingerprint="ab" * 16, num_ssd_blocks=8).close()
    assert snapshot(ssd) == before


def test_files_that_are_not_ours_within_our_tree_stay_when_a_model_is_evicted(ssd: Path) -> None:
    sub_directory = prepare(ssd, {1: 5}, fingerprint="ab" * 16)
    (sub_directory / "notes").write_bytes(b"precious")
    (ssd / TREE / "notes").write_bytes(b"precious")
    (ssd / TREE / "no-fingerprint").mkdir()
    works_in(ssd, fingerprint="cd" * 16).close()
    assert sorted(path.name for path in sub_directory.iterdir()) == ["notes"]
    assert (sub_directory / "notes").read_bytes() == (ssd / TREE / "notes").read_bytes() == b"precious"
    assert (ssd / TREE / "no-fingerprint").is_dir()


def test_a_directory_of_another_format_version_is_emptied_and_used(ssd: Path) -> None:
    """A header of version 2, as a later program would write it: its checksum holds."""
    sub_directory = prepare(ssd, {1: 5})
    path = sub_directory / "records"
    header = bytearray(path.read_bytes()[:HEADER_BYTES])
    header[8:12] = struct.pack("<I", 2)
    header[-8:] = struct.pack("<Q", crc64(header[:-8]))
    with path.open("r+b") as file:
        file.write(header)
    rig = SsdRig(ssd)
    assert rig.num_held == 0
    assert rig.manager._engine._ssd.store is not None
    assert [device.origin for device in rig.manager._engine._ssd.store.devices()] == ["other version"]
    assert rig.put(1, 5)
    rig.check_books()
    rig.close()
    again = SsdRig(ssd)
    assert again.serve(1, 5) == 5
    again.close()


def test_garbage_in_the_place_of_records_is_refused_and_left_alone(ssd: Path) -> None:
    path = prepare(ssd, {1: 5}) / "records"
    path.write_bytes(b"somebody's notes\n" * 300)
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert f"{path} is not a file of this cache; remove it, or name another root" in config_error(ssd)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_a_tier_that_got_smaller_keeps_what_fits_and_one_that_got_larger_keeps_all(ssd: Path) -> None:
    prepare(ssd, {1: 6, 2: 6, 3: 6, 4: 6})
    small = SsdRig(ssd, num_ssd_blocks=15)
    assert [small.serve(chain, 6) for chain in (1, 2, 3, 4)] == [6, 6, 3, 0]
    small.check_books()
    small.close()
    large = SsdRig(ssd, num_ssd_blocks=60)
    assert large.manager.stats().ssd_slots_total == 60
    assert [large.serve(chain, 6) for chain in (1, 2, 3, 4)] == [6, 6, 3, 0]
    large.check_books()
    large.close()
    assert (only_sub_directory(ssd) / "data").stat().st_size == 60 * SLOT_BYTES
