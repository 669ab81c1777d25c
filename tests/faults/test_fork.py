"""The host process forks with copies in flight: children cannot hang or break anything, the parent goes on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flexkv.common.tracer import TraceOp, Tracer, read_trace
from tests.faults.host import EXIT_CODE
from tests.faults.hosts import HostProcess

SET_UPS = pytest.mark.parametrize("set_up", ["one", "two"])


@SET_UPS
def test_a_forked_child_that_uses_nothing_exits_and_the_parent_goes_on(set_up: str, tmp_path: Path) -> None:
    with HostProcess(set_up, "forks_a_child_that_does_nothing", tmp_path) as host:
        returncode, errors = host.end()
        assert returncode == EXIT_CODE, errors
        assert host.files_left() == []


@SET_UPS
def test_a_verb_in_a_forked_child_is_an_error_that_names_the_owner(set_up: str, tmp_path: Path) -> None:
    with HostProcess(set_up, "forks_a_child_that_calls_verbs", tmp_path) as host:
        returncode, errors = host.end()
        assert returncode == EXIT_CODE, errors
        assert host.files_left() == []


@SET_UPS
def test_a_forked_child_that_lives_on_keeps_nobody_from_stopping_or_starting_anew(set_up: str, tmp_path: Path) -> None:
    with HostProcess(set_up, "forks_a_child_that_outlives_it", tmp_path) as host:
        assert host.read_line() == "ended"
        returncode, errors = host.end()
        assert returncode == EXIT_CODE, errors
        assert host.files_left() == []


def test_a_forked_child_that_ends_writes_nothing_to_the_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    tracer = Tracer(path, tokens_per_block=4)
    tracer.record(TraceOp.GET, 1.0)
    pid = os.fork()
    if pid == 0:
        assert tracer._file is not None
        tracer._file.close()  # what the end of an interpreter does
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    tracer.close()
    assert [record.op for record in read_trace(path)] == [TraceOp.GET]
