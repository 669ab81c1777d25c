"""Ctrl-C while the host waits for a copy that is held: it comes through at once, and the copy keeps its slots."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.faults.host import EXIT_CODE
from tests.faults.hosts import HostProcess

SOON_S = 10.0  # the waits themselves would take a minute


@pytest.mark.parametrize("set_up", ["one", "two"])
@pytest.mark.parametrize(
    "scenario", ["is_interrupted_in_a_wait", "is_interrupted_in_wait_any", "is_interrupted_in_a_native_wait"]
)
def test_an_interrupt_ends_a_wait_at_once_and_no_slot_is_reused(set_up: str, scenario: str, tmp_path: Path) -> None:
    with HostProcess(set_up, scenario, tmp_path) as host:
        assert host.read_line() == "waiting"
        begin_s = time.monotonic()
        host.process.send_signal(signal.SIGINT)
        assert host.read_line() == "interrupted"
        assert host.read_line() == "checked"
        returncode, errors = host.end()
        assert returncode == EXIT_CODE, errors
        assert time.monotonic() - begin_s < SOON_S
        assert host.files_left() == []


@pytest.mark.parametrize("set_up", ["one", "two"])
def test_an_interrupt_that_nobody_handles_ends_the_process_with_a_traceback(set_up: str, tmp_path: Path) -> None:
    with HostProcess(set_up, "is_interrupted_unhandled", tmp_path) as host:
        assert host.read_line() == "waiting"
        begin_s = time.monotonic()
        host.process.send_signal(signal.SIGINT)
        returncode, errors = host.end()
        assert returncode == -signal.SIGINT, errors
        assert "KeyboardInterrupt" in errors
        assert time.monotonic() - begin_s < SOON_S
        assert host.files_left() == []
