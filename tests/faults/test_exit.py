"""The host process ends with copies in flight and without a shutdown: soon, with its own exit code, leaving nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flexkv.kvtask import own_socket
from flexkv.tasks.stale_sockets import MIN_AGE_S
from tests.faults.host import EXIT_CODE
from tests.faults.hosts import HostProcess

SET_UPS = pytest.mark.parametrize("set_up", ["one", "two"])


@SET_UPS
@pytest.mark.parametrize(
    ("scenario", "code"),
    [
        ("exits", EXIT_CODE),
        ("raises", 1),
        ("exits_under_waiting_threads", EXIT_CODE),
        ("exits_under_busy_threads", EXIT_CODE),
    ],
)
def test_an_interpreter_that_ends_with_copies_in_flight_ends_soon_and_leaves_nothing(
    set_up: str, scenario: str, code: int, tmp_path: Path
) -> None:
    with HostProcess(set_up, scenario, tmp_path) as host:
        returncode, errors = host.end()
        assert returncode == code, errors
        assert "terminate called" not in errors
        assert "nanobind" not in errors
        assert host.files_left() == []


@SET_UPS
@pytest.mark.parametrize(("scenario", "code"), [("exits_at_once", EXIT_CODE), ("is_killed", -signal.SIGKILL)])
def test_a_process_that_cannot_clean_up_leaves_one_name_which_the_next_engine_removes(
    set_up: str, scenario: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HostProcess(set_up, scenario, tmp_path) as host:
        returncode, errors = host.end()
        assert returncode == code, errors
        (name,) = host.files_left()
        assert name.startswith(f"{host.process.pid}-")
        monkeypatch.setattr("tempfile.gettempdir", lambda: str(host.files))
        own_socket()
        assert host.files_left() == [name], "it may be that of an engine that is starting"
        (path,) = host.files.rglob(name)
        os.utime(path, times=(time.time() - MIN_AGE_S - 1,) * 2)
        own_socket()
        assert host.files_left() == []


def test_only_sockets_of_dead_processes_on_which_nobody_listens_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    directory = tmp_path / f"flexkv-{os.getuid()}"
    directory.mkdir()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait(30)
    names = [f"{dead.pid}-0.sock", f"{dead.pid}-1.sock_gpu_register", f"{os.getpid()}-0.sock", "other.sock"]
    sockets = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in names]
    for name, one in zip(names, sockets, strict=True):
        one.bind(str(directory / name))
    sockets[0].listen()
    (directory / f"{dead.pid}-2.sock").touch()
    for path in directory.iterdir():
        os.utime(path, times=(0, 0))
    own_socket()
    gone = f"{dead.pid}-1.sock_gpu_register"
    assert sorted(p.name for p in directory.iterdir()) == sorted({*names, f"{dead.pid}-2.sock"} - {gone})
    for one in sockets:
        one.close()
