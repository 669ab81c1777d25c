"""Runs the demo: its phases one after the other, each in a process of its own, then table, chart and verdict.

The third one is a restart: a new engine finds on SSD what the second one stored, and serves the first questions again.

    make demo ARGS='--json out/demo.json'

Exit status: 0 when all outputs are identical and FlexKV served hits, 1 when not, 2 on a bad setting, 130 on Ctrl-C.
No process outlives this one: a phase runs in its own process group, which is ended with the demo, and the kernel ends a
phase whose parent has died.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from demo import chart, prepare_model, report, tables
from demo.phase import PhaseConfig
from demo.workload import USERS, turns

_ROOT = Path(__file__).resolve().parent.parent
_PHASES = ("without FlexKV", "with FlexKV", report.RESTART)
_STOP_LIMIT_S = 10.0
_LOG_WIDTH = 132
_BLOCK_TOKENS = 32
# A question, its answer's frame and the chat template's words, generously.
_TURN_TOKENS = 48


class PhaseFailedError(Exception):
    """A phase ended without its result; the message says where its log is."""


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make demo", description="Serve a workload with vLLM, without FlexKV and with it."
    )
    parser.add_argument("--model", type=Path, help="folder of a model (default: SmolLM2-135M-Instruct, prepared once)")
    parser.add_argument("--rounds", type=int, default=4, help="turns of each user (default 4)")
    parser.add_argument("--document-tokens", type=int, default=3840, help="length of each document (default 3840)")
    parser.add_argument("--answer-tokens", type=int, default=24, help="longest answer (default 24)")
    parser.add_argument("--cpu-cache-gb", type=float, default=1.0, help="host memory for FlexKV (default 1)")
    parser.add_argument("--ssd-cache-gb", type=float, default=2.0, help="SSD space for FlexKV (default 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to FILE")
    parser.add_argument(
        "--html", type=Path, default=_ROOT / "out" / "demo.html", metavar="FILE", help="where the chart goes"
    )
    return parser.parse_args(argv)


def _config(args: argparse.Namespace, model: Path) -> PhaseConfig:
    if args.document_tokens < _BLOCK_TOKENS or min(args.answer_tokens, args.cpu_cache_gb, args.ssd_cache_gb) <= 0:
        raise ValueError("--document-tokens must be at least 32, --answer-tokens, --*-cache-gb positive")
    longest = args.document_tokens + _TURN_TOKENS + args.rounds * (_TURN_TOKENS + args.answer_tokens)
    blocks = -(-longest // _BLOCK_TOKENS)
    return PhaseConfig(
        flexkv=False,
        num_turns=len(turns(args.rounds)),
        model=str(model),
        num_rounds=args.rounds,
        document_tokens=args.document_tokens,
        block_tokens=_BLOCK_TOKENS,
        # Room for one conversation and a little: the two documents push each other out, as a busy engine's users do.
        engine_blocks=blocks + 256 // _BLOCK_TOKENS,
        max_model_tokens=blocks * _BLOCK_TOKENS,
        answer_tokens=args.answer_tokens,
        cpu_cache_gb=args.cpu_cache_gb,
        ssd_cache_gb=args.ssd_cache_gb,
        ssd_cache_dir="",
    )


def _environment(config: PhaseConfig) -> dict[str, str]:
    environment = dict(os.environ)
    environment.update(
        HF_HUB_OFFLINE="1",
        VLLM_NO_USAGE_STATS="1",
        VLLM_CPU_KVCACHE_SPACE="1",
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_LOGGING_LEVEL="INFO",
        TOKENIZERS_PARALLELISM="false",
    )
    # Left alone, vLLM computes with one thread only when it runs in one process.
    environment.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    if config.flexkv:
        environment["FLEXKV_CPU_CACHE_GB"] = str(config.cpu_cache_gb)
        environment["FLEXKV_SSD_CACHE_GB"] = str(config.ssd_cache_gb)
        environment["FLEXKV_SSD_CACHE_DIR"] = config.ssd_cache_dir
    return environment


@contextmanager
def _phase_process(config: PhaseConfig, log: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a phase; at the end of the block its whole process group is gone."""
    with log.open("w", encoding="utf-8") as log_file:
        process = subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore",
                "-c",
                "import sys; sys.path[:] = sys.argv[1:]; from demo.phase import main; main()",
            ]
            + [entry for entry in sys.path if entry],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            env=_environment(config),
            text=True,
            start_new_session=True,
        )
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(config)))
        process.stdin.close()
        yield process
    finally:
        _end_group(process)


def _end_group(process: subprocess.Popen[str]) -> None:
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, signal_number)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            continue
    process.wait(timeout=_STOP_LIMIT_S)
    if process.stdout is not None:
        process.stdout.close()


def _of_phase(name: str, config: PhaseConfig) -> PhaseConfig:
    """Return the configuration of one phase. After the restart each user asks the first question once more."""
    num_turns = len(USERS) if name == report.RESTART else config.num_turns
    return replace(config, flexkv=name != _PHASES[0], num_turns=num_turns)


def _run_phase(name: str, config: PhaseConfig, logs: Path, progress: Progress, console: Console) -> dict[str, Any]:
    """Run one phase and return its records.

    Raises:
        PhaseFailedError: it ended early.
    """
    task = progress.add_task(f"{name}: starting the engine", total=config.num_turns)
    requests: list[dict[str, Any]] = []
    log = logs / f"demo-{name.replace(', ', '-').replace(' ', '-').lower()}.log"
    with _phase_process(config, log) as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "ready":
                progress.update(task, description=f"{name}: serving")
            elif event["event"] == "request":
                record = event["record"]
                requests.append(record)
                progress.update(task, advance=1)
                if not console.is_terminal:
                    console.print(
                        f"{name}: {len(requests)}/{config.num_turns}  {record['user']:<6}{record['ttft_s']:8.3f} s"
                    )
            elif event["event"] == "done":
                progress.update(task, description=name)
                process.wait(timeout=_STOP_LIMIT_S * 3)
                return {"requests": requests, "elapsed_s": event["elapsed_s"], "flexkv": event["flexkv"]}
        process.wait(timeout=_STOP_LIMIT_S)
    tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
    raise PhaseFailedError(f"the phase '{name}' ended with status {process.returncode}; its log is {log}:\n{tail}")


def _machine() -> dict[str, Any]:
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else ""
    return {
        "cpu": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }


def _run(args: argparse.Namespace, console: Console) -> int:
    with console.status("preparing the model (once)") if args.model is None else console.status("reading the model"):
        model = args.model or prepare_model.prepare()
    if not (model / "config.json").is_file():
        raise ValueError(f"--model {model}: no config.json there; give the folder of a Hugging Face model")
    config = _config(args, model.resolve())
    logs = _ROOT / "out"
    logs.mkdir(exist_ok=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<38}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
        tempfile.TemporaryDirectory(prefix="flexkv-demo-", dir=logs) as ssd_cache_dir,
    ):
        config = replace(config, ssd_cache_dir=ssd_cache_dir)
        phases = {name: _run_phase(name, _of_phase(name, config), logs, progress, console) for name in _PHASES}
    result = report.build(phases)
    machine = _machine()
    tables.show(console, result, config, machine)
    args.html.parent.mkdir(parents=True, exist_ok=True)
    args.html.write_text(chart.page(result, phases, machine), encoding="utf-8")
    console.print(f"chart: {args.html}", soft_wrap=True)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        everything = {**report.as_json(result), "machine": machine, "config": asdict(config), "phases": phases}
        args.json.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
        console.print(f"json:  {args.json}", soft_wrap=True)
    for failure in result.failures:
        console.print(f"FAILED: {failure}", style="bold red")
    return 1 if result.failures else 0


def _terminated(signal_number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    """Run the demo and return its exit status."""
    args = _arguments(argv)
    # Into a file or a pipe there is no width to keep to: columns are to be whole there.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _LOG_WIDTH)
    signal.signal(signal.SIGTERM, _terminated)
    if Path("/dev/nvidiactl").exists():
        console.print("An NVIDIA GPU is here; this demo runs vLLM on the CPU all the same.")
    try:
        return _run(args, console)
    except KeyboardInterrupt:
        console.print("interrupted; nothing is left running")
        return 130
    except PhaseFailedError as error:
        console.print(f"FAILED: {error}", markup=False, soft_wrap=True)
        return 1
    except (ValueError, FileNotFoundError) as error:
        console.print(f"demo: {error}", markup=False)
        return 2
