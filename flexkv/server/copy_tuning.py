"""CopyTuning: which mechanism copies what on a rank's GPU, and the file that keeps the figures for the next start.

The agent measures once, in the background, after its first registration of host memory (csrc/cuda/copy_tuner.h). The
figures are kept in a file of their own for each GPU, driver and class of layouts: the next start need not measure.

    {"version": 4, "gpu": ..., "driver": ..., "layout": ..., "mechanisms": [...], "cells": [...], "us": [[...], ...]}

A file that is damaged, or speaks of anything else, is left alone and said to be so; the agent then measures, and the
file is written anew. It only ever names one of several right ways of copying. Thread safety: all methods, any thread.
"""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from flexkv.common.debug import flexkv_logger

__all__ = ["OFF", "CopyChoice", "CopyTuning", "CopyTuningReport", "cache_directory"]

_logger = flexkv_logger(__name__)
FILE_VERSION = 4
OFF = "off"
MAX_FILE_BYTES = 1 << 20
_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_IDENTITY = ("version", "gpu", "driver", "layout", "mechanisms", "cells")


class TunedAgent(Protocol):
    """What is used of a copy agent."""

    def tuning(self) -> dict[str, Any]:
        """Return the state of the tuning; empty without a GPU."""

    def give_copy_figures(self, us: npt.NDArray[np.float64]) -> bool:
        """Use these figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyChoice:
    """What copies ops of one kind: of at least so many blocks, with host slots in long runs ("adjacent") or not."""

    direction: str  # load or store
    blocks: int
    slots: str  # adjacent or scattered
    idle: str  # the mechanism
    busy_tiny: str  # the mechanism beside a step of the engine's, of ops of at most 16 MiB
    busy_short: str  # the same, of up to 128 MiB
    busy_long: str  # the same, of more
    us: Mapping[str, float]  # by mechanism, on an idle GPU; those that were measured


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyTuningReport:
    """How a GPU's copies are tuned.

    `state` is UNTUNED, MEASURING, MEASURED, GIVEN (by the file) or FAILED, and `why_not` then says why. `cache` says
    what became of the file. As long as there are no figures, and without a clear gain, `usual` copies.
    """

    state: str
    why_not: str
    cache: str
    gpu: str
    driver: str
    layout: str
    usual: str
    choices: tuple[CopyChoice, ...]


def cache_directory(setting: str) -> Path | None:
    """Return the directory of the files: the setting, or the user's cache directory; None when turned off.

    A user without a home has none either.
    """
    if setting == OFF:
        return None
    if setting:
        return Path(setting)
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):  # the standard: paths that are not absolute are to be ignored
        home = os.path.expanduser("~")
        if not home.startswith("/"):
            return None
        base = os.path.join(home, ".cache")
    return Path(base) / "flexkv"


class CopyTuning:
    """The tuning of one agent. Life: made -> begin (before the agent starts) -> note, now and then -> finish.

    Args:
        setting: "" for the user's cache directory, "off" for no file, or a directory.
    """

    def __init__(self, agent: TunedAgent, setting: str = "") -> None:
        self._agent = agent
        self._lock = threading.Lock()
        self._is_noted = False
        self._writer: threading.Thread | None = None
        self._identity: dict[str, Any] = {}
        self._path: Path | None = None
        self._cache = ""
        tuning = agent.tuning()
        if not tuning:
            return
        self._identity = {
            "version": FILE_VERSION,
            "gpu": tuning["gpu"],
            "driver": _driver_name(tuning["driver"]),
            "layout": tuning["layout"],
            "mechanisms": list(tuning["mechanisms"]),
            "cells": [list(cell) for cell in tuning["cells"]],
        }
        directory = cache_directory(setting)
        self._cache = "off" if directory is None else ""
        if directory is not None:
            self._path = directory / _file_name(self._identity)

    def begin(self) -> None:
        """Give the agent the figures of the file, when it has some of this GPU, driver and layout."""
        if self._path is None:
            return
        try:
            figures = self._read(self._path)
        except FileNotFoundError:
            self._cache = f"{self._path}: not there yet"
            return
        except (OSError, ValueError) as error:
            self._cache = f"{self._path}: ignored, {error}"
            return
        if self._agent.give_copy_figures(figures):
            self._cache = f"{self._path}: used"
        self.note()

    def note(self) -> None:
        """Log the choices once they are known, and have figures that were measured written. Does not block."""
        if not self._identity or self._is_noted:
            return
        tuning = self._agent.tuning()
        if tuning.get("state") not in ("MEASURED", "GIVEN", "FAILED"):
            return
        if not self._is_first_to_note():
            return
        if tuning["state"] == "MEASURED" and self._path is not None and _is_complete(tuning):
            self._writer = threading.Thread(
                target=self._write, args=(self._path, tuning["us"]), name="flexkv-tuning", daemon=True
            )
            self._writer.start()
        elif tuning["state"] == "MEASURED" and self._path is not None:
            self._cache = f"{self._path}: not written, not all kinds of ops could be measured"
        _log(self._report(tuning))

    def _is_first_to_note(self) -> bool:
        with self._lock:
            is_first = not self._is_noted
            self._is_noted = True
        return is_first

    def finish(self, timeout_s: float) -> None:
        """Note what has not been, and wait until the file is written, at most so long."""
        self.note()
        writer = self._writer
        if writer is not None:
            writer.join(timeout_s)

    def report(self) -> CopyTuningReport | None:
        """Return the choices with their figures; None without a GPU."""
        tuning = self._agent.tuning() if self._identity else {}
        return self._report(tuning) if tuning else None

    def _report(self, tuning: Mapping[str, Any]) -> CopyTuningReport:
        columns = ("cells", "idle", "busy_tiny", "busy_short", "busy_long", "us")
        rows = zip(*(tuning[name] for name in columns), strict=True)
        choices = tuple(
            CopyChoice(
                direction=direction,
                blocks=blocks,
                slots=slots,
                idle=idle,
                busy_tiny=busy_tiny,
                busy_short=busy_short,
                busy_long=busy_long,
                us={name: figure for name, figure in zip(tuning["mechanisms"], us, strict=True) if figure > 0},
            )
            for (direction, blocks, slots), idle, busy_tiny, busy_short, busy_long, us in rows
        )
        return CopyTuningReport(
            state=tuning["state"],
            why_not=tuning["why_not"],
            cache=self._cache,
            gpu=tuning["gpu"],
            driver=str(self._identity["driver"]),
            layout=tuning["layout"],
            usual=tuning["usual"],
            choices=choices,
        )

    def _read(self, path: Path) -> npt.NDArray[np.float64]:
        """Return the figures of the file. Raises OSError, and ValueError for what cannot be used, saying why."""
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"it has more than {MAX_FILE_BYTES} bytes")
        try:
            kept = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it is no JSON: {error}") from error
        if not isinstance(kept, dict):
            raise ValueError("it holds no object")
        for key in _IDENTITY:
            if kept.get(key) != self._identity[key]:
                raise ValueError(f"its {key} is another one")
        return _figures(kept.get("us"), (len(self._identity["cells"]), len(self._identity["mechanisms"])))

    def _write(self, path: Path, us: list[list[float]]) -> None:
        """Replace the file as a whole, so that no reader finds half of one."""
        text = json.dumps(self._identity | {"us": [[round(figure, 2) for figure in row] for row in us]}, indent=1)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, written = tempfile.mkstemp(prefix=path.name, suffix=".new", dir=path.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(text + "\n")
                os.replace(written, path)
            except OSError:
                os.unlink(written)
                raise
        except OSError as error:
            self._cache = f"{path}: cannot be written, {error}"
            return
        self._cache = f"{path}: written"


def _is_complete(tuning: Mapping[str, Any]) -> bool:
    """Return whether every kind of op has figures (one block is in no order): else the next start measures again."""
    usual = tuning["mechanisms"].index(tuning["usual"])
    rows = zip(tuning["cells"], tuning["us"], strict=True)
    return all(us[usual] > 0 for (_, blocks, slots), us in rows if blocks > 1 or slots == "adjacent")


def _figures(us: object, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return the figures as an array. Shape: float64 (cells, mechanisms). Raises ValueError, saying why."""
    rows = us if isinstance(us, list) else []
    if len(rows) != shape[0] or any(not isinstance(row, list) or len(row) != shape[1] for row in rows):
        raise ValueError("its us is no table of that many cells and mechanisms")
    for figure in (figure for row in rows for figure in row):
        is_number = isinstance(figure, (int, float)) and not isinstance(figure, bool)
        if not is_number or not 0 <= figure <= 1e12 or math.isnan(figure):
            raise ValueError(f"its us has {figure!r}, which is no time")
    return np.array(rows, dtype=np.float64)


def _driver_name(cuda_version: int) -> str:
    """Return the driver's own version where it can be seen, and that of the CUDA that it speaks."""
    cuda = f"cuda{cuda_version // 1000}.{cuda_version % 1000 // 10}"
    try:
        text = _DRIVER_FILE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return cuda  # not shown in this container; what it speaks is known all the same
    found = re.search(r"Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return f"{found.group(1)}-{cuda}" if found else cuda


def _file_name(identity: Mapping[str, Any]) -> str:
    parts = ("gpu-copies", f"v{identity['version']}", identity["gpu"], identity["driver"], identity["layout"])
    name = "_".join(re.sub(r"[^A-Za-z0-9.+-]+", "-", str(part)) for part in parts)
    return f"{name[:240]}.json"


def _log(report: CopyTuningReport) -> None:
    ways = []
    for direction in ("load", "store"):
        chosen = [f"{row.blocks}{row.slots[0]}:{row.idle}" for row in report.choices if row.direction == direction]
        ways.append(",".join(chosen))
    _logger.info(
        "GPU copies are tuned gpu=%r driver=%s layout=%s state=%s why_not=%r cache=%r load=%s store=%s",
        report.gpu,
        report.driver,
        report.layout,
        report.state,
        report.why_not,
        report.cache,
        *ways,
    )
