"""What one run of bench_gpu_copy measures and how long it may take, and the rows that came of it. No GPU in here."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.gpu_rows import CopyRow, CpuRow, LatencyRow, OthersRow, RegisterRow
from benchmarks.report import say


@dataclass(slots=True, kw_only=True)
class Plan:
    """What to measure and how long; the rows that came of it."""

    driver: Any
    """gpu_rig.Driver"""
    sizes: dict[str, list[int]]
    """Bytes, by part."""
    chunks: dict[int, list[int]]
    """Bytes, by size."""
    ways: list[str]
    loads: list[str]
    rounds: int
    seconds: float
    samples: int
    register_bytes: int
    agent_blocks: int
    is_tiny: bool
    budget_s: float
    begin_s: float = field(default_factory=time.monotonic)
    rows: list[dict[str, Any]] = field(default_factory=list)
    not_measured: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def has_time(self, what: str) -> bool:
        """Return whether the budget lasts; what is left out is told in the result."""
        if time.monotonic() - self.begin_s <= self.budget_s:
            return True
        self.not_measured.append(what)
        return False

    def add(self, row: CopyRow | LatencyRow | OthersRow | CpuRow | RegisterRow, told: str) -> None:
        """Keep a row, and say so."""
        self.rows.append(asdict(row))
        say(told)

    def warn(self, text: str) -> None:
        """Tell once of what makes figures doubtful."""
        if text not in self.warnings:
            self.warnings.append(text)
            say(f"warning: {text}")
