"""Runs tests/faults/host.py and looks at what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.rig import eventually

TIMEOUT_S = 30.0
PROGRAM = Path(__file__).with_name("host.py")


class HostProcess:
    """One host process, in a session of its own, with a TMPDIR of its own."""

    def __init__(self, set_up: str, scenario: str, directory: Path) -> None:
        self.files = directory / "files"
        self.files.mkdir(exist_ok=True)
        memory = directory / "memory"
        memory.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), set_up, scenario, str(memory)],
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

    def __enter__(self) -> HostProcess:
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
