"""What every benchmark reports with: the machine, figures against what they must reach, tables, JSON.

    python -m benchmarks.bench_NAME [--tiny] [--json [FILE]]

The table goes to standard error, so that standard output can carry the JSON: one object with `benchmark`, `machine`,
`verified`, `rows` (the benchmark's own) and `figures` (Figure, what the summary of `python -m benchmarks` shows).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the summary: what was asked, what was measured, what it must reach, and what stands beside it."""

    question: str
    unit: str
    ours: float
    must: float | None = None
    """None: stated only."""
    at_least: bool = False
    """Whether more is better; otherwise `must` is an upper bound."""
    peer: str = ""
    """What else was measured in the same run, or is quoted."""
    peers: float | None = None
    quoted: bool = False
    """Whether the peer's figure is its own publication's, not of this run."""

    @property
    def missed_by(self) -> float | None:
        """How many times worse than it must be; None when it is met or nothing must be."""
        if self.must is None or self.ours == self.must:
            return None
        if (self.ours >= self.must) if self.at_least else (self.ours <= self.must):
            return None
        good, bad = (self.ours, self.must) if self.at_least else (self.must, self.ours)
        return bad / good if good > 0 else math.inf


def times_us(
    work: Callable[[], Any],
    num_rounds: int,
    before: Callable[[], object] = lambda: None,
    after: Callable[[Any], object] = lambda _: None,
) -> list[float]:
    """Time `work` again and again; `before` and `after` (with its result) stand outside of the time."""
    samples = []
    for _ in range(num_rounds):
        before()
        start_ns = time.perf_counter_ns()
        result = work()
        samples.append((time.perf_counter_ns() - start_ns) / 1000)
        after(result)
    return samples


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def spread(values: Sequence[float]) -> float:
    """Return the width of the values' middle half as a share of their median, which is positive."""
    low, middle, high = (percentile(values, quarter) for quarter in (25, 50, 75))
    return (high - low) / middle


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, memory, kernel, Python, commit."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_bytes / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": _commit(),
    }


def _cpu_model() -> str:
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text(encoding="utf-8").splitlines() if cpu_info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    """Return the tree's commit, marked when it has changes; "unknown" outside a checkout."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return aligned columns: the first to the left, the others to the right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def number(value: float | None) -> str:
    """Return a figure with three digits that mean something; nothing for None."""
    if value is None:
        return ""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def say(text: str) -> None:
    """Print for people."""
    print(text, file=sys.stderr, flush=True)


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the two options that every benchmark has."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", nargs="?", const="-", metavar="FILE", help="write JSON (to standard output)")
    made.add_argument("--tiny", action="store_true", help="a smoke test: small sizes, JSON to standard output")
    return made


def emit(
    name: str,
    options: argparse.Namespace,
    figures: Sequence[Figure],
    rows: Sequence[Mapping[str, Any]],
    *,
    verified: bool = True,
    shown: str | None = None,
    **more: Any,
) -> None:
    """Print the table, and write the JSON where it is wanted. `verified`: what was timed was checked byte by byte.

    `shown` is printed in place of the table of figures.
    """
    if options.tiny:  # nothing is said about times at this size
        figures = [replace(each, must=None) for each in figures]
    header = ("question", "ours", "must", "", "beside it", "")
    lines = [
        (f"{each.question}, {each.unit}", number(each.ours), number(each.must), verdict(each), number(each.peers),
         each.peer + (" (quoted)" if each.quoted else ""))
        for each in figures
    ]  # fmt: skip
    say(table(header, lines) if shown is None else shown)
    target = options.json or ("-" if options.tiny else None)
    if target is None:
        return
    result = {
        "benchmark": name,
        "tiny": options.tiny,
        "machine": machine(),
        "verified": verified,
        **more,
        "figures": [asdict(each) for each in figures],
        "rows": [dict(row) for row in rows],
    }
    text = json.dumps(result, indent=1)
    if target == "-":
        print(text)
    else:
        Path(target).write_text(text + "\n", encoding="utf-8")


def emit_skipped(name: str, options: argparse.Namespace, why_not: str) -> None:
    """Say that nothing is measured, and why, as the result."""
    emit(name, options, [], [], verified=False, shown=f"{why_not}: nothing is measured", skipped=why_not)


def verdict(figure: Figure) -> str:
    """Return whether a figure is what it must be, and by what factor not."""
    if figure.must is None:
        return ""
    return "met" if figure.missed_by is None else f"MISSED {figure.missed_by:.2f}x"
