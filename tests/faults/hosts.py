"""Runs tests/faults/host.py and tests/faults/ssd_host.py, and looks at what they leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.rig import eventually

TIMEOUT_S = 30.0
PROGRAM = Path(__file__).with_name("host.py")
SSD_PROGRAM = Path(__file__).with_name("ssd_host.py")


class Spawned:
    """One process, in a session of its own, with a TMPDIR of its own."""

    def __init__(self, program: Path, arguments: list[str], directory: Path) -> None:
        self.files = directory / "files"
        self.files.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, str(program), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": str(PROGRAM.parents[2]), "TMPDIR": str(self.files)},
        )

    def read_line(self) -> str:
        """Return what it says next; it says something within its own bounds, or ends."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> tuple[int, str]:
        """Wait for its end, and for that of all it started. Returns its exit code, and what it wrote to stderr."""
        errors = self.process.communicate(timeout=TIMEOUT_S)[1]
        assert eventually(lambda: not self.processes_left()), self.processes_left()
        return self.process.returncode, errors

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.processes_left():
            os.kill(pid, signal.SIGKILL)
        self.process.communicate()

    def processes_left(self) -> list[int]:
        """Return those of its session that still live."""
        left = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                text = stat.read_text(encoding="utf-8", errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            state, _, _, session = text.rpartition(")")[2].split()[:4]
            if int(session) == self.process.pid and state != "Z":
                left.append(int(stat.parent.name))
        return left

    def files_left(self) -> list[str]:
        """Return the files below its TMPDIR; directories do not count."""
        return sorted(path.name for path in self.files.rglob("*") if not path.is_dir())


class HostProcess(Spawned):
    """One host process of a cache with copies in flight."""

    def __init__(self, set_up: str, scenario: str, directory: Path) -> None:
        memory = directory / "memory"
        memory.mkdir(exist_ok=True)
        super().__init__(PROGRAM, [set_up, scenario, str(memory)], directory)


class SsdProcess(Spawned):
    """One process with an SSD tier in a directory."""

    def __init__(self, scenario: str, ssd: Path, directory: Path, argument: int = 0) -> None:
        super().__init__(SSD_PROGRAM, [scenario, str(ssd), str(argument)], directory)
