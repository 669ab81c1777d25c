"""How fast do blocks move between a GPU and host memory, and what does it cost the engine and the CPU?

Unit: GB/s (10^9 bytes) of blocks of 64 chunks (of one at 2 MiB) that lie scattered over the GPU's memory. Beside it, in
the same rounds and in turns: contiguous copies of pinned memory by the driver's own calls, 64 MiB each, waited for by
spinning. Medians over the rounds. Before, after and between, destinations are poisoned and every byte is compared.

    copies    chunks of 4 KiB to 2 MiB; 64 MiB, 1 GiB, 8 GiB; one way each, and both at once
    calls     64 MiB, one way: call by call in turns with DMA, neither's next to its own last
    load      1 GiB, 64 MiB beside bf16 products of 8192^3, and beside decode steps (many small kernels): also how much
              longer the engine's work takes beside ours and beside DMA, its own speed measured around each window
    latency   one block of 2 MiB, of 64 KiB: the call, beside a DMA waited for by spinning, by interrupt
    others    a small copy of the engine's, as of block tables or sampled tokens: how long it waits beside long ones
    cpu       share of a core and seconds per GB at full rate; the copy agent's threads, idle, busy, beside a product
    pools     host slots of a fresh pool, of one aged by a trace in the cache engine with eviction, and random ones
    register  8 GiB of host memory made usable, beside one call of the driver; GPU memory taken

    python -m benchmarks.bench_gpu_copy                                everything, about 30 minutes
    python -m benchmarks.bench_gpu_copy --parts copies --budget-s 420 --json copies.json
    python -m benchmarks.bench_gpu_copy --merge copies.json load.json --svg plot.svg --markdown tables.md
    python -m benchmarks.bench_gpu_copy --quick                        a few cells of each part, a minute

The tables come last; --json also leaves a plot beside its file. --merge needs no GPU; without one nothing else is done.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from benchmarks import gpu_plot, gpu_slots, gpu_table
from benchmarks.bench_trace_replay import made_trace, read_trace
from benchmarks.gpu_plan import Plan
from benchmarks.gpu_rows import PARTS, WAYS, figures_of
from benchmarks.report import GIB, KIB, MIB, emit, emit_skipped, machine, parser, say

CHUNKS_KIB = (4, 8, 18, 32, 64, 256, 2048)
LOADS = ("product", "decode")
SIZES_MIB = {"copies": (64, 1024, 8192), "calls": (64,), "load": (1024, 64), "pools": (1024,), "others": (1024,),
             "cpu": (1024,)}  # fmt: skip
QUICK_CHUNKS_KIB, TINY_CHUNKS_KIB = (4, 32, 2048), (4, 2048)
LEAST_BLOCKS = 4


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options, checked; ends the program with a line where they make no sense."""
    made = parser(__doc__)
    made.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    made.add_argument("--sizes", type=int, nargs="+", metavar="MIB", help="MiB of blocks; default: by part")
    made.add_argument("--chunks", type=int, nargs="+", metavar="KIB", help=f"KiB; default: {CHUNKS_KIB}")
    made.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    made.add_argument("--loads", nargs="+", choices=LOADS, default=list(LOADS))
    made.add_argument(
        "--rounds", type=int, help="of which the median counts (5; of idle copies of 64 MiB five times as many)"
    )
    made.add_argument("--seconds", type=float, help="of one measurement (0.25; of idle copies of 64 MiB a fifth)")
    made.add_argument("--samples", type=int, help="calls of one latency (2000)")
    made.add_argument("--register-gib", type=int, help="GiB of host memory (8)")
    made.add_argument("--budget-s", type=float, default=math.inf, help="measure nothing more after so many seconds")
    made.add_argument("--trace", type=Path, help="ages the pool (see bench_trace_replay); default: a made one")
    made.add_argument("--requests", type=int, help="only the first so many of the trace")
    made.add_argument("--pool-percent", type=float, default=10.0, help="of the trace's blocks that the pool holds (10)")
    made.add_argument("--quick", action="store_true", help="a few cells of each part")
    made.add_argument("--svg", type=Path, help="the plot; default: beside the file of --json")
    made.add_argument("--markdown", type=Path, help="the tables for a document")
    made.add_argument("--merge", type=Path, nargs="+", metavar="JSON", help="put results together, measure nothing")
    options = made.parse_args(arguments)
    small = options.tiny or options.quick
    for name, usual, quick in (
        ("rounds", 5, 2), ("seconds", 0.25, 0.1), ("samples", 2000, 200), ("register_gib", 8, 1),
    ):  # fmt: skip
        if getattr(options, name) is None:
            setattr(options, name, quick if small else usual)
    for name in ("rounds", "seconds", "samples", "register_gib", "budget_s", "requests", "pool_percent"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            made.error(f"--{name.replace('_', '-')} is {value}; it must be above 0")
    options.size_bytes, options.chunk_bytes = _sizes_of(options), {}
    for size in sorted({size for sizes in options.size_bytes.values() for size in sizes}):
        options.chunk_bytes[size] = _chunks_of(options)
        _check_cells(made, size, options.chunk_bytes[size])
    if options.merge is None and options.trace is not None and not options.trace.is_file():
        made.error(f"--trace {options.trace} is no file")
    return options


def _sizes_of(options: argparse.Namespace) -> dict[str, list[int]]:
    if options.sizes:
        return {part: [size * MIB for size in dict.fromkeys(options.sizes)] for part in SIZES_MIB}
    if options.tiny or options.quick:
        return {part: [(32 if options.tiny else 64) * MIB] for part in SIZES_MIB}
    return {part: [size * MIB for size in sizes] for part, sizes in SIZES_MIB.items()}


def _chunks_of(options: argparse.Namespace) -> list[int]:
    if options.chunks:
        chosen = tuple(options.chunks)
    elif options.tiny or options.quick:
        chosen = TINY_CHUNKS_KIB if options.tiny else QUICK_CHUNKS_KIB
    else:
        chosen = CHUNKS_KIB
    return [chunk * KIB for chunk in chosen]


def _check_cells(made: argparse.ArgumentParser, size: int, chunks: list[int]) -> None:
    for chunk in chunks:
        block = 64 * chunk if chunk < MIB else chunk
        if size <= 0 or chunk <= 0 or size < LEAST_BLOCKS * block:
            text = f"--sizes {size // MIB} and --chunks {chunk // KIB}: a size must hold {LEAST_BLOCKS} blocks of 64 "
            made.error(f"{text}chunks (of one chunk from 1 MiB on), and both must be above 0")


def aged_pool(options: argparse.Namespace) -> gpu_slots.Aged:
    """Age a pool for the part `pools`. Raises ValueError for a trace that is too short."""
    if options.trace is not None:
        prompts = read_trace(options.trace, options.requests)
    else:
        prompts = made_trace(400 if options.tiny else 4000)[: options.requests]
    largest = max(options.size_bytes["pools"])
    smallest_block = min(64 * chunk if chunk < MIB else chunk for chunk in options.chunk_bytes[largest])
    aged = gpu_slots.age(prompts, largest // smallest_block, options.pool_percent)
    for way in ("load", "store"):
        aged.take(way, largest // smallest_block)
    return aged


def pool_line(aged: gpu_slots.Aged, source: str) -> str:
    """Return how a pool was aged, and what runs it gives."""
    return (
        f"aged by {aged.requests} requests of {source} in a pool of {aged.pool_slots:,} slots: a run of what was hit "
        f"has {gpu_slots.mean_run(aged.hit):.1f} slots, of what was stored {gpu_slots.mean_run(aged.stored):.1f}, of "
        f"free ones {aged.mean_free_run:.1f}"
    )


def finish(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """Write plot, document and JSON; print the tables last."""
    target = options.svg
    if target is None and options.json not in (None, "-"):
        target = Path(options.json).with_suffix(".svg")
    if any(row["part"] in ("copies", "load", "pools") for row in result["rows"]) and target is not None:
        target.write_text(gpu_plot.svg(result), encoding="utf-8")
    if options.markdown is not None:
        options.markdown.write_text(gpu_table.markdown(result), encoding="utf-8")
    rows = result["rows"]
    more = {name: result[name] for name in ("device", "pools", "warnings", "not_measured")}
    emit("gpu_copy", options, figures_of(rows), rows, verified=result["verified"], shown=gpu_table.text(result), **more)


def merge(options: argparse.Namespace) -> int:
    """Put results of several runs together."""
    try:
        results = [json.loads(path.read_text(encoding="utf-8")) for path in options.merge]
        result = gpu_table.merged(results)
    except (OSError, ValueError) as error:
        say(f"--merge: {error}")
        return 2
    finish(options, result)
    return 0


def why_not() -> str | None:
    """Return why nothing can be measured here; None where it can."""
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    return None if torch.cuda.is_available() else "no GPU is here"


def measure(options: argparse.Namespace, aged: gpu_slots.Aged | None) -> int:
    """Run the parts. What was measured before an error is printed, too. `aged`: for the part `pools`."""
    from benchmarks import gpu_others, gpu_parts
    from benchmarks.gpu_rig import Driver, TooLittleMemoryError, check_room

    result: dict[str, Any] = {
        "rows": [], "pools": [], "warnings": [], "not_measured": [], "verified": False, "tiny": options.tiny,
        "machine": machine(), "device": gpu_parts.device_facts(),
    }  # fmt: skip
    if aged is not None:
        result["pools"].append(pool_line(aged, options.trace.name if options.trace else "a made trace"))
    plan = Plan(
        driver=Driver(), sizes=options.size_bytes, chunks=options.chunk_bytes, ways=options.ways, loads=options.loads,
        rounds=options.rounds, seconds=options.seconds, samples=options.samples,
        register_bytes=options.register_gib * GIB, agent_blocks=16 if options.tiny else 256, is_tiny=options.tiny,
        budget_s=options.budget_s, rows=result["rows"], warnings=result["warnings"],
        not_measured=result["not_measured"],
    )  # fmt: skip
    try:
        for part in set(options.parts) & set(options.size_bytes):
            largest = max(options.size_bytes[part])
            check_room(largest, 2 * largest if part == "pools" else largest)
        for part in dict.fromkeys(options.parts):
            if not plan.has_time(f"the part {part}"):
                continue
            if part == "pools":
                assert aged is not None
                gpu_parts.pools(plan, aged)
            elif part == "others":
                gpu_others.others(plan)
            else:
                getattr(gpu_parts, part)(plan)
        result["verified"] = True
    except TooLittleMemoryError as error:
        say(f"too little memory: {error}")
        return 2
    finally:
        if result["rows"] or result["not_measured"]:
            finish(options, result)
    return 0


def main(arguments: list[str] | None = None) -> int:
    options = options_of(arguments)
    if options.merge is not None:
        return merge(options)
    reason = why_not()
    if reason is not None:
        emit_skipped("gpu_copy", options, reason)
        return 0
    try:
        aged = aged_pool(options) if "pools" in options.parts else None
    except ValueError as error:
        say(f"--trace: {error}")
        return 2
    return measure(options, aged)


if __name__ == "__main__":
    sys.exit(main())
