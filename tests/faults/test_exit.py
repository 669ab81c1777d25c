"""The host process ends with copies in flight and without a shutdown: soon, with its own exit code, leaving nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from flexkv.transfer.transfer_engine import TransferEngine
from tests.faults.host import EXIT_CODE
from tests.faults.hosts import HostProcess

TIMEOUT_S = 5.0
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
    set_up: str, scenario: str, code: int, tmp_path: Path
) -> None:
    with HostProcess(set_up, scenario, tmp_path) as host:
        returncode, errors = host.end()
        assert returncode == code, errors
        (name,) = host.files_left()
        assert name.startswith(f"{host.process.pid}-")
        (path,) = host.files.rglob(name)
        engine = TransferEngine(str(path.with_name("next.sock")))
        engine.start()
        assert engine.shutdown(TIMEOUT_S)
        assert host.files_left() == []
