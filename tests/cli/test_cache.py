"""`flexkv cache` over real SSD caches: what is there, whether it is whole, and to remove it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flexkv import _core
from flexkv.cli import verify as verify_module
from flexkv.cli.main import flexkv
from tests.cli import ssd_cache
from tests.cli.ssd_cache import TREE, Cache, flip, make_store, record_offset, record_with, store_folders, written

ROOT = Path(__file__).resolve().parents[2]
DATA_BYTES = 4096  # of a slot of the rig's model: its block in whole pages
LLAMA, QWEN = "00aa00aa00aa00aa", "00bb00bb00bb00bb"


def run(*arguments: object, answer: str | None = None) -> Result:
    return CliRunner().invoke(flexkv, ["cache", *map(str, arguments)], input=answer)


def as_json(*arguments: object, exit_code: int = 0) -> dict:
    ran = run(*arguments, "--json")
    assert ran.exit_code == exit_code, ran.output
    return json.loads(ran.stdout)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def busy(root: Path) -> Iterator[Cache]:
    cache = Cache(root)
    yield cache
    cache.close()


def test_inspect_shows_models_blocks_bytes_and_when_they_were_used(root: Path) -> None:
    written(root, 6, model="org/model é")
    (store,) = as_json("inspect", root)["directories"][0]["stores"]
    assert (store["model"], store["state"], store["is_busy"]) == ("org/model é", "ok", False)
    assert (store["num_slots"], store["slot_bytes"], store["tokens_per_block"]) == (16, DATA_BYTES, 4)
    assert store["footprint_bytes"] == 16 * DATA_BYTES + 2 * 4096
    blocks = store["blocks"]
    assert (blocks["num_blocks"], blocks["num_bytes"]) == (6, 6 * DATA_BYTES)
    assert blocks["ages"][0] == {"up_to_s": 60, "num_blocks": 6, "num_bytes": 6 * DATA_BYTES}
    assert sum(one["num_blocks"] for one in blocks["ages"]) == 6
    assert blocks["ages"][-1]["up_to_s"] is None
    shown = run("inspect", root).stdout
    head, row = next(
        pair for pair in zip(*(shown.splitlines()[i:] for i in (0, 1)), strict=False) if "MODEL" in pair[0]
    )
    assert row.index("org/model é") == head.index("MODEL")
    assert row.index("24.0 KiB") + len("24.0 KiB") == head.index("BYTES") + len("BYTES")
    assert "up to 1 minute ago       6  24.0 KiB  100 %  ####" in shown


def test_blocks_are_as_old_as_their_last_use(root: Path) -> None:
    written(root, 4)
    (folder,) = store_folders(root)
    day_us = 86_400 * 1_000_000
    for slot, used_ago_us in enumerate((2 * day_us, 300 * day_us, -day_us)):
        record_with(folder, slot, used_ago_us=used_ago_us)
    (store,) = as_json("inspect", root)["directories"][0]["stores"]
    counts = {one["up_to_s"]: one["num_blocks"] for one in store["blocks"]["ages"] if one["num_blocks"]}
    assert counts == {60: 1, 604_800: 1, None: 1}
    assert store["blocks"]["num_from_the_future"] == 1
    shown = run("inspect", root).stdout
    assert "1 block last used in the future: the clock was wrong then, or is now" in shown
    assert "longer ago" in shown


def test_expired_blocks_are_counted(root: Path) -> None:
    written(root, 3)
    record_with(store_folders(root)[0], 1, expiry_s=1000)
    assert as_json("inspect", root)["directories"][0]["stores"][0]["blocks"]["num_expired"] == 1
    assert "1 block expired: the next start leaves them out" in run("inspect", root).stdout
    assert "all whole" in run("verify", root).stdout


def test_several_models_below_one_directory_are_rows_of_their_own(root: Path) -> None:
    written(root, 2)
    make_store(root, LLAMA, model="llama")
    make_store(root, QWEN, model="qwen\x1b[2J")
    stores = as_json("inspect", root)["directories"][0]["stores"]
    assert [store["model"] for store in stores][:2] == ["llama", "qwen\x1b[2J"]
    assert [store["blocks"]["num_blocks"] for store in stores] == [0, 0, 2]
    shown = run("inspect", root).stdout
    assert "3 stores" in shown
    assert "qwen\\x1b[2J" in shown
    assert "\x1b" not in shown


def test_several_directories_are_named_one_by_one_or_as_the_setting_has_them(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    cache = Cache(one, two)
    cache.write(6)
    cache.close()
    separate = as_json("inspect", one, two)["directories"]
    assert [directory["path"] for directory in separate] == [str(one), str(two)]
    assert [directory["stores"][0]["blocks"]["num_blocks"] for directory in separate] == [3, 3]
    together = as_json("inspect", f"{one};{two}", one)["directories"]
    assert [directory["path"] for directory in together] == [str(one), str(two)]
    assert as_json("verify", f"{one};{two}")["stores"][1]["num_checked"] == 3


def test_a_directory_that_is_served_from_is_looked_at_all_the_same(root: Path, busy: Cache) -> None:
    busy.write(5)
    (store,) = as_json("inspect", root)["directories"][0]["stores"]
    assert store["is_busy"]
    assert store["blocks"]["num_blocks"] == 5
    assert "  busy  " in run("inspect", root).stdout
    verified = run("verify", root)
    assert verified.exit_code == 0
    assert "busy: blocks that were written since are not checked" in verified.stdout
    assert "5 blocks checked" in verified.stdout
    busy.write(2, first=400)
    assert as_json("verify", root)["stores"][0]["num_checked"] == 7


class _ChangesBehind(_core.SsdReader):
    """Before each check the cache is emptied and filled with other blocks."""

    cache: Cache

    def check(self, first: int, count: int):
        type(self).cache.reset()
        type(self).cache.write(16, first=800)
        return super().check(first, count)


def test_what_changes_while_it_is_verified_is_not_bad(root: Path, busy: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    busy.write(16)
    monkeypatch.setattr(_ChangesBehind, "cache", busy, raising=False)
    monkeypatch.setattr(verify_module._core, "SsdReader", _ChangesBehind)
    verified = run("verify", root)
    assert verified.exit_code == 0, verified.stdout
    assert "16 blocks changed meanwhile: not judged" in verified.stdout


def test_a_flipped_bit_of_a_block_is_found_and_named(root: Path) -> None:
    written(root, 6)
    (folder,) = store_folders(root)
    flip(folder / "data", 3 * DATA_BYTES + 17)
    verified = run("verify", root)
    assert verified.exit_code == 1
    assert "slot 3, block " in verified.stdout
    assert "its bytes are not those that were written" in verified.stdout
    assert "6 blocks checked" in verified.stdout
    assert verified.stdout.rstrip().endswith("1 bad block")
    document = as_json("verify", root, exit_code=1)
    assert document["is_bad"]
    assert [block["slot"] for block in document["stores"][0]["bad_blocks"]] == [3]
    assert len(document["stores"][0]["bad_blocks"][0]["key"]) == 32


def test_a_flipped_bit_of_a_record_is_found_and_named(root: Path) -> None:
    written(root, 6)
    flip(store_folders(root)[0] / "records", record_offset(2) + 3)
    verified = run("verify", root)
    assert verified.exit_code == 1
    assert "5 blocks checked" in verified.stdout
    assert verified.stdout.rstrip().endswith("1 bad record")
    assert as_json("verify", root, exit_code=1)["stores"][0]["damaged_records"] == [2]
    inspected = run("inspect", root)
    assert inspected.exit_code == 0
    assert "1 record damaged: what lay there is a miss" in inspected.stdout


def test_records_of_before_the_cache_was_emptied_are_not_damage(root: Path, busy: Cache) -> None:
    busy.write(6)
    busy.reset()
    verified = run("verify", root)
    assert verified.exit_code == 0, verified.stdout
    assert "6 records of before the cache was last emptied: free slots" in verified.stdout
    assert "0 blocks checked" in verified.stdout


def test_a_damaged_header_is_a_lost_store(root: Path) -> None:
    written(root, 2)
    flip(store_folders(root)[0] / "records", 20)
    assert "damaged header: a start empties it" in run("inspect", root).stdout
    verified = run("verify", root)
    assert verified.exit_code == 1
    assert verified.stdout.rstrip().endswith("1 lost store")


def test_a_data_file_that_is_gone_or_cut_is_found(root: Path) -> None:
    written(root, 3)
    data = store_folders(root)[0] / "data"
    os.truncate(data, DATA_BYTES)
    assert len(as_json("verify", root, exit_code=1)["stores"][0]["bad_blocks"]) == 2
    data.unlink()
    assert as_json("verify", root, exit_code=1)["stores"][0]["problem"]
    assert "No such file" in run("inspect", root).stdout


def test_more_bad_blocks_than_can_be_read_are_counted(root: Path) -> None:
    written(root, 14)
    os.truncate(store_folders(root)[0] / "data", 0)
    shown = run("verify", root).stdout
    assert shown.count("slot ") == 10
    assert "and 4 bad blocks more; --json has all" in shown


def test_what_is_not_ours_is_neither_counted_nor_touched(root: Path) -> None:
    make_store(root, LLAMA)
    foreign = root / TREE / QWEN
    foreign.mkdir()
    (foreign / "records").write_bytes(b"somebody's" * 1000)
    (root / TREE / "notes").mkdir()
    (root / TREE / "deadbeef").write_text("a file")
    (root / "garbage.bin").write_bytes(os.urandom(100))
    (store_folders(root)[0] / "readme").write_text("mine")
    before = {path for path in root.rglob("*") if LLAMA not in path.parts}
    inspected = run("inspect", root)
    assert inspected.exit_code == 0
    assert "not ours: its record file is not FlexKV's, or cannot be read; it is left alone" in inspected.stdout
    assert run("verify", root).exit_code == 0
    cleared = run("clear", root, "--yes")
    assert cleared.exit_code == 0
    assert f"left {foreign}: it is not FlexKV's, or cannot be read" in cleared.stdout
    assert "1 store removed" in cleared.stdout
    assert {path for path in root.rglob("*") if LLAMA not in path.parts} == before
    assert [path.name for path in (root / TREE / LLAMA).iterdir()] == ["readme"]


def test_a_directory_without_a_cache_is_no_error(root: Path) -> None:
    assert f"{root}: no cache here" in run("inspect", root).stdout
    assert as_json("inspect", root)["directories"][0]["stores"] == []
    assert "nothing to verify" in run("verify", root).stdout
    cleared = run("clear", root)
    assert cleared.exit_code == 0
    assert "nothing to clear" in cleared.stdout
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("command", ["inspect", "verify", "clear"])
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("missing", "No such file or directory"),
        ("file", "Not a directory"),
        ("loop", "Too many levels of symbolic links"),
        ("", "DIR is an empty name"),
    ],
)
def test_a_directory_that_cannot_be_read_is_one_line(command: str, name: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    ran = run(command, tmp_path / name if name else "")
    assert ran.exit_code == 2
    assert ran.stdout == ""
    assert len(ran.stderr.splitlines()) == 1
    assert why in ran.stderr
    assert name in ran.stderr


@pytest.mark.parametrize("arguments", [["inspect"], ["verify"], ["clear"], ["clear", ".", "--json"], ["look", "."]])
def test_wrong_arguments_are_exit_status_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_clear_asks_and_does_nothing_without_a_yes(root: Path) -> None:
    make_store(root, LLAMA)
    for answer in ("n\n", ""):
        refused = run("clear", root, answer=answer)
        assert refused.exit_code == 1
        assert "Remove 1 store, " in refused.stderr
        assert len(store_folders(root)) == 1
    cleared = run("clear", root, answer="y\n")
    assert cleared.exit_code == 0
    assert store_folders(root) == []


def test_clear_says_what_was_removed_and_freed(root: Path) -> None:
    make_store(root, LLAMA)
    make_store(root, QWEN)
    cleared = run("clear", root, "--yes")
    assert f"removed {root / TREE / LLAMA}, 40.0 KiB" in cleared.stdout
    assert "2 stores removed, 80.0 KiB freed" in cleared.stdout
    assert as_json("clear", root, "--yes") == {"removed": [], "left": []}


def test_clear_takes_one_store_by_its_fingerprint_or_its_first_digits(root: Path) -> None:
    for fingerprint in (LLAMA, QWEN, QWEN[:-1] + "c"):
        make_store(root, fingerprint)
    for wrong in (LLAMA[:7], "ffffffffffff", QWEN[:10]):
        refused = run("clear", root, "--yes", "--store", wrong)
        assert refused.exit_code == 2
        assert wrong in refused.stderr
    assert len(store_folders(root)) == 3
    document = as_json("clear", root, "--yes", "--store", LLAMA[:8])
    assert [store["fingerprint"] for store in document["removed"]] == [LLAMA]
    assert as_json("clear", root, "--yes", "--store", QWEN)["removed"][0]["fingerprint"] == QWEN
    assert [path.name for path in store_folders(root)] == [QWEN[:-1] + "c"]


def test_clear_leaves_what_is_served_from(root: Path, busy: Cache) -> None:
    busy.write(3)
    make_store(root, LLAMA)
    cleared = run("clear", root, "--yes")
    assert cleared.exit_code == 1
    assert "1 store removed" in cleared.stdout
    assert cleared.stdout.count(": an engine serves from it") == 1
    assert as_json("verify", root)["stores"][0]["num_checked"] == 3


def test_clear_leaves_what_somebody_began_to_serve_from_while_it_asked(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(root, LLAMA)
    stores = []

    def confirm(*_: object, **__: object) -> bool:
        stores.append(ssd_cache.open_store(root, LLAMA))
        return True

    monkeypatch.setattr("click.confirm", confirm)
    cleared = run("clear", root)
    assert cleared.exit_code == 1
    assert "an engine has begun to serve from it" in cleared.stdout
    assert stores[0].stop(5.0)
    assert run("verify", root).exit_code == 0


class _Interrupted(_core.SsdReader):
    def check(self, first: int, count: int):
        signal.raise_signal(signal.SIGINT)
        return super().check(first, count)


def test_ctrl_c_while_blocks_are_read_is_exit_status_130(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(root, 2)
    monkeypatch.setattr(verify_module._core, "SsdReader", _Interrupted)
    interrupted = run("verify", root)
    assert interrupted.exit_code == 130
    assert interrupted.stderr.rstrip().endswith("Interrupted.")


def test_ctrl_c_at_a_question_is_exit_status_130_and_nothing_is_removed(root: Path) -> None:
    make_store(root, LLAMA)
    command = [sys.executable, "-m", "flexkv.cli", "cache", "clear", str(root)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    assert process.stderr is not None
    asked = b""
    while b"?" not in asked:
        byte = process.stderr.read(1)
        assert byte, asked
        asked += byte
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert len(store_folders(root)) == 1


def test_a_terminal_sees_progress_on_stderr_and_the_result_on_stdout(root: Path) -> None:
    written(root, 4)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "flexkv.cli", "cache", "verify", "--json", str(root)]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, timeout=60, check=False)
    os.close(theirs)
    seen = os.read(ours, 65536).decode()
    os.close(ours)
    assert ran.returncode == 0
    assert "verifying" in seen
    assert "100%" in seen
    assert json.loads(ran.stdout)["stores"][0]["num_checked"] == 4


def test_the_command_says_its_version_and_what_it_can_do() -> None:
    version = CliRunner().invoke(flexkv, ["--version"])
    assert version.exit_code == 0
    assert version.stdout.startswith("flexkv ")
    assert "cache" in CliRunner().invoke(flexkv, ["--help"]).stdout
    for command in ("inspect", "verify", "clear"):
        assert command in run("--help").stdout
        assert "DIR..." in run(command, "--help").stdout
