"""Runs every benchmark, each in a process of its own, and prints one table (`make bench`).

    .venv/dev/bin/python -m benchmarks [--quick] [--only NAME] [--trace FILE] [--markdown FILE] [--out FOLDER]

Writes FOLDER/NAME.json for each, FOLDER/all.json and FOLDER/chart.svg (default: out/bench). A benchmark is any
benchmarks/bench_NAME.py: it takes `--json FILE` and `--tiny`, and its JSON has `figures` (benchmarks/report.py); one
without them is run and shows nothing in the table. Fails when a benchmark fails, not when a figure is missed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import summary
from benchmarks.report import ROOT, say

TIMEOUT_S = 3600.0
VLLM_PYTHON = ROOT / ".venv" / "vllm" / "bin" / "python"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """How to run what is not run as it comes."""

    quick: tuple[str, ...] = ()
    """Arguments of the quick mode."""
    needs_vllm: bool = False
    takes_trace: bool = False
    """Whether it replays the trace if there is one."""


BENCHES = {
    "ageing": Bench(quick=("--operations", "10000000"), takes_trace=True),
    "gpu_copy": Bench(quick=("--quick",)),
    "deciding": Bench(quick=("--rounds", "21")),
    "gpu_model": Bench(quick=("--quick",)),
    "index_growth": Bench(quick=("--prompts", "16", "256", "--rounds", "51")),
    "host_copy": Bench(quick=("--rounds", "3", "--mib", "64")),
    "scheduler_cost": Bench(quick=("--steps", "100"), needs_vllm=True),
}


@dataclass(slots=True)
class Run:
    """What came of it."""

    results: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def command_of(name: str, options: argparse.Namespace) -> list[str] | str:
    """Return the command of a benchmark, or why it is skipped."""
    bench = BENCHES.get(name, Bench())
    python = [sys.executable]
    if bench.needs_vllm:
        if not VLLM_PYTHON.exists():
            return "there is no .venv/vllm; `make install` prepares it"
        python = [str(VLLM_PYTHON), "-P"]  # the installed flexkv; the tree comes last on the path
    command = [*python, "-W", "ignore", "-m", f"benchmarks.bench_{name}"]
    if name == "trace_replay":
        if options.trace is None:
            return "no trace was given; TRACE=FILE replays one"
        command += [str(options.trace), *(["--requests", "2000"] if options.quick else [])]
    if bench.takes_trace and options.trace is not None:
        command.append(str(options.trace))
    return command + list(bench.quick if options.quick else ())


def run_one(name: str, options: argparse.Namespace, run: Run) -> None:
    """Run one benchmark and take its result."""
    command = command_of(name, options)
    if isinstance(command, str):
        run.notes.append(f"{name}: skipped, {command}")
        say(run.notes[-1])
        return
    path = options.out / f"{name}.json"
    path.unlink(missing_ok=True)
    say(f"==> {name}")
    try:
        done = subprocess.run([*command, "--json", str(path)], cwd=ROOT, check=False, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        run.failed.append(f"{name}: did not end within {TIMEOUT_S:.0f} s")
        return
    if done.returncode or not path.exists():
        run.failed.append(f"{name}: exit code {done.returncode}")
        return
    result = json.loads(path.read_text(encoding="utf-8"))
    run.results.append(result)
    run.notes += result.get("absent", ())
    if "skipped" in result:
        run.notes.append(f"{name}: skipped, {result['skipped']}")


def write(options: argparse.Namespace, run: Run) -> None:
    """Write the merged JSON, the chart, and the tables of a document."""
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    merged = {"date": date, "quick": options.quick, "notes": run.notes, "failed": run.failed, "results": run.results}
    (options.out / "all.json").write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")
    if not run.results:
        return
    machine = summary.machine_line(run.results[0], date)
    (options.out / "chart.svg").write_text(summary.chart(run.results, f"FlexKV on {machine}"), encoding="utf-8")
    if options.markdown is not None:
        document = options.markdown.read_text(encoding="utf-8")
        tables = summary.markdown(run.results, date, run.notes)
        options.markdown.write_text(summary.insert(document, tables), encoding="utf-8")
    print(machine)
    print(summary.text(run.results))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = sorted(path.stem.removeprefix("bench_") for path in (ROOT / "benchmarks").glob("bench_*.py"))
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller indices")
    parser.add_argument("--only", choices=names, action="append", help="only this one; may be repeated")
    parser.add_argument("--trace", type=Path, help="a trace for trace_replay")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the tables between the markers of FILE")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench", help="folder of the results")
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.trace = None if options.trace is None else options.trace.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("FLEXKV_LOG_LEVEL", "WARNING")
    run = Run()
    for name in options.only or names:
        run_one(name, options, run)
    write(options, run)
    for line in [*run.notes, *(f"FAILED {line}" for line in run.failed)]:
        print(line)
    print(f"{len(run.results)} benchmarks ran, {len(run.failed)} failed; {options.out}/all.json, chart.svg")
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
