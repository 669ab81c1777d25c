"""The file that keeps what was measured of a GPU's ways to copy, with a small agent in the place of the native one."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from flexkv import _core
from flexkv.common.config import CacheConfig
from flexkv.errors import ConfigError
from flexkv.server import KVTPClient
from flexkv.server.copy_tuning import FILE_VERSION, CopyTuning, cache_directory

MECHANISMS = ["staged", "zero_copy"]
CELLS = [("load", 1, "adjacent"), ("store", 1, "adjacent"), ("store", 4, "scattered")]
US = [[70.0, 50.0], [80.0, 79.0], [90.0, 0.0]]


class SmallAgent:
    """Chooses the fastest, as the native agent does in its way."""

    def __init__(self, layout: str = "2x4096-w16") -> None:
        self.layout = layout
        self.state = "UNTUNED"
        self.us = [[0.0, 0.0] for _ in CELLS]

    def tuning(self) -> dict[str, Any]:
        chosen = [MECHANISMS[int(us[0] > us[1] > 0)] for us in self.us]
        return {
            "gpu": "NVIDIA H100 80GB/HBM3",
            "driver": 13010,
            "layout": self.layout,
            "state": self.state,
            "why_not": "",
            "usual": "staged",
            "mechanisms": MECHANISMS,
            "cells": CELLS,
            "us": self.us,
            "idle": chosen,
            "busy_tiny": ["batched"] * len(CELLS),
            "busy_short": ["staged"] * len(CELLS),
            "busy_long": ["strided"] * len(CELLS),
        }

    def give_copy_figures(self, us: npt.NDArray[np.float64]) -> bool:
        assert us.shape == (len(CELLS), len(MECHANISMS))
        assert us.dtype == np.float64
        self.state, self.us = "GIVEN", us.tolist()
        return True

    def measure(self) -> None:
        self.state, self.us = "MEASURED", US


def only_file(directory: Path) -> Path:
    (path,) = directory.iterdir()
    return path


def measured(directory: Path) -> CopyTuning:
    """Return the tuning of an agent that found no file and has written one."""
    agent = SmallAgent()
    tuning = CopyTuning(agent, str(directory))
    tuning.begin()
    assert agent.state == "UNTUNED"
    agent.measure()
    tuning.finish(30)
    return tuning


def cache_of(tuning: CopyTuning) -> str:
    report = tuning.report()
    assert report is not None
    return report.cache


def test_what_was_measured_is_given_to_the_next_agent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flexkv")
    directory = tmp_path / "a" / "b"
    first = measured(directory)
    assert cache_of(first) == f"{only_file(directory)}: written"
    assert "/" not in only_file(directory).name
    assert "H100" in only_file(directory).name
    agent = SmallAgent()
    second = CopyTuning(agent, str(directory))
    second.begin()
    second.finish(30)
    assert agent.state == "GIVEN"
    assert agent.us == US
    assert cache_of(second) == f"{only_file(directory)}: used"
    lines = [record.getMessage() for record in caplog.records if "GPU copies are tuned" in record.getMessage()]
    assert ["state=MEASURED" in line for line in lines] == [True, False]
    assert "load=1a:zero_copy store=1a:zero_copy,4s:staged" in lines[1]


def test_the_report_has_the_choices_with_their_figures(tmp_path: Path) -> None:
    report = measured(tmp_path).report()
    assert report is not None
    assert (report.state, report.usual, report.layout) == ("MEASURED", "staged", "2x4096-w16")
    assert [(row.direction, row.blocks, row.slots) for row in report.choices] == CELLS
    first = report.choices[0]
    chosen = (first.idle, first.busy_tiny, first.busy_short, first.busy_long)
    assert chosen == ("zero_copy", "batched", "staged", "strided")
    assert first.us == {"staged": 70.0, "zero_copy": 50.0}
    assert report.choices[2].us == {"staged": 90.0}
    assert report.driver.endswith("cuda13.1")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is no JSON"),
        (b"\xff\xfe{", "it is no JSON"),
        (b"[" * 100_000, "it is no JSON"),
        (b"[]", "it holds no object"),
        (b"{}", "its version is another one"),
        (b" " * (1 << 20) + b"{}", "it has more than"),
        ({"version": FILE_VERSION + 1}, "its version is another one"),
        ({"gpu": "another"}, "its gpu is another one"),
        ({"driver": "550.1"}, "its driver is another one"),
        ({"layout": "2x8192-w16"}, "its layout is another one"),
        ({"mechanisms": ["staged"]}, "its mechanisms is another one"),
        ({"cells": []}, "its cells is another one"),
        ({"us": None}, "its us is no table"),
        ({"us": US[:2]}, "its us is no table"),
        ({"us": [[1.0], [2.0], [3.0]]}, "its us is no table"),
        ({"us": [[1.0, -1.0], *US[1:]]}, "which is no time"),
        ({"us": [[1.0, float("nan")], *US[1:]]}, "which is no time"),
        ({"us": [[1.0, float("inf")], *US[1:]]}, "which is no time"),
        ({"us": [[1.0, "2"], *US[1:]]}, "which is no time"),
        ({"us": [[1.0, True], *US[1:]]}, "which is no time"),
    ],
)
def test_a_damaged_or_foreign_file_is_ignored_and_written_anew(
    tmp_path: Path, content: bytes | dict[str, object], reason: str
) -> None:
    measured(tmp_path)
    path = only_file(tmp_path)
    good = path.read_bytes()
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(json.loads(good) | content).encode())
    agent = SmallAgent()
    tuning = CopyTuning(agent, str(tmp_path))
    tuning.begin()
    assert agent.state == "UNTUNED"
    assert cache_of(tuning).startswith(f"{path}: ignored, ")
    assert reason in cache_of(tuning)
    agent.measure()
    tuning.finish(30)
    assert only_file(tmp_path).read_bytes() == good


def test_another_layout_has_a_file_of_its_own(tmp_path: Path) -> None:
    measured(tmp_path)
    agent = SmallAgent("2x8192-w16")
    tuning = CopyTuning(agent, str(tmp_path))
    tuning.begin()
    assert agent.state == "UNTUNED"
    assert cache_of(tuning).endswith("not there yet")
    agent.measure()
    tuning.finish(30)
    assert len(list(tmp_path.iterdir())) == 2


def test_where_nothing_can_be_written_that_is_said(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    tuning = measured_into(blocked / "below")
    assert "cannot be written" in cache_of(tuning)
    (tmp_path / "taken").mkdir()
    measured(tmp_path / "taken")
    path = only_file(tmp_path / "taken")
    path.unlink()
    path.mkdir()  # it cannot be replaced by a file
    tuning = measured_into(tmp_path / "taken")
    assert "cannot be written" in cache_of(tuning)
    assert only_file(tmp_path / "taken") == path  # nothing half-written stays


def measured_into(directory: Path) -> CopyTuning:
    agent = SmallAgent()
    tuning = CopyTuning(agent, str(directory))
    tuning.begin()
    agent.measure()
    tuning.finish(30)
    return tuning


def test_turned_off_nothing_is_read_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    agent = SmallAgent()
    tuning = CopyTuning(agent, "off")
    tuning.begin()
    agent.measure()
    tuning.finish(30)
    assert cache_of(tuning) == "off"
    assert list(tmp_path.iterdir()) == []


def test_a_measurement_that_was_not_finished_is_used_but_not_kept(tmp_path: Path) -> None:
    agent = SmallAgent()
    tuning = CopyTuning(agent, str(tmp_path))
    tuning.begin()
    agent.state, agent.us = "MEASURED", [*US[:2], [0.0, 0.0]]
    tuning.finish(30)
    assert list(tmp_path.iterdir()) == []
    assert cache_of(tuning).endswith("not written, not all kinds of ops could be measured")


def test_failed_measurements_are_not_kept(tmp_path: Path) -> None:
    agent = SmallAgent()
    tuning = CopyTuning(agent, str(tmp_path))
    tuning.begin()
    agent.state = "FAILED"
    tuning.finish(30)
    assert list(tmp_path.iterdir()) == []


def test_the_directory_follows_the_setting_and_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x/cache")
    assert cache_directory("") == Path("/x/cache/flexkv")
    assert cache_directory("/else/where") == Path("/else/where")
    assert cache_directory("off") is None
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/users/one")
    assert cache_directory("") == Path("/users/one/.cache/flexkv")


def test_without_a_gpu_there_is_no_tuning(tmp_path: Path) -> None:
    memory = np.zeros(4096, dtype=np.uint8)
    planes = np.array([[memory.__array_interface__["data"][0], 1024, 1024]], dtype=np.uint64)
    agent = _core.CopyAgent(
        socket_path=str(tmp_path / "none.sock"),
        rank=0,
        num_ranks=1,
        tokens_per_block=16,
        layout_tag="",
        copy_threads=1,
        num_blocks=4,
        planes=planes,
    )
    assert agent.tuning() == {}
    assert not agent.give_copy_figures(np.zeros((16, 6)))
    tuning = CopyTuning(agent, str(tmp_path / "cache"))
    tuning.begin()
    tuning.finish(1)
    assert tuning.report() is None
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("value", ["relative/path", 3, None, "Off"])
def test_a_bad_setting_is_named(value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        KVTPClient("ipc:///x", tokens_per_block=16, gpu_tuning_cache=value)  # type: ignore[arg-type]
    assert caught.value.key == "gpu_tuning_cache"
    with pytest.raises(ConfigError) as caught:
        CacheConfig(num_cpu_blocks=4, gpu_tuning_cache=value)  # type: ignore[arg-type]
    assert caught.value.key == "gpu_tuning_cache"
