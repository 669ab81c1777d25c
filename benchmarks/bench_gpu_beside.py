"""Which way of copying blocks is best beside the engine's work: how fast is each, and how much does it slow that?

Unit: GB/s (10^9 bytes) of 1 GiB (--size) of blocks of 64 chunks (of one from 1 MiB on) that lie scattered over the GPU,
host slots in one run. Every mechanism that can copy the blocks takes its turn beside bf16 products of 8192^3 (or decode
steps, or layers over a prompt), and so does contiguous DMA, twice: by how much it differs from itself may be chance.
`points`: how many hundredths longer the engine's work takes than beside DMA, median of the rounds; of DMA itself
("limit"), than beside its other turn ("again"). `chosen`: what the tuner has such ops go by beside the engine's work.
Contents are compared.

    python -m benchmarks.bench_gpu_beside                      the product, about five minutes
    python -m benchmarks.bench_gpu_beside --chunks 4 18 --ways load --rounds 24
    python -m benchmarks.bench_gpu_beside --size 64 --mechanisms staged strided mixed
    python -m benchmarks.bench_gpu_beside --tiny               a smoke test; without a GPU it says so and does nothing
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from benchmarks.report import GIB, KIB, MIB, Figure, emit, emit_skipped, number, parser, percentile, say

try:
    import torch
except ImportError:  # a benchmark of a machine that has no GPU either
    torch = None  # type: ignore[assignment]

LEAST_BLOCKS = 4
CHUNKS_KIB = (4, 8, 18, 32, 64, 256, 2048)
MECHANISMS = ("staged", "direct", "strided", "batched", "mixed")
"""A kernel over host memory (zero_copy) slows products by a third and more, and no long op gets it."""


def measure(
    rig: Any, dma: Any, engine: Any, way: str, by: Sequence[str], rounds: int, seconds: float, alone_bundles: int
) -> list[dict[str, Any]]:
    """Return a row for DMA and one for each mechanism of `by` that can copy the rig's blocks."""
    from benchmarks import gpu_load, gpu_parts  # they need torch

    limit = dma.movers(way)
    movers_of = {"limit": limit}
    with gpu_load.Running(engine, rig.record_step):
        chosen = rig.moved_by(way)
    movers_of |= {name: rig.movers_by(name, way) for name in rig.mechanisms(way) if name in by}
    movers_of["again"] = limit
    with gpu_load.Running(engine, rig.record_step) as running:
        seconds = gpu_parts.window_s(running, seconds)
        found = [gpu_load.beside(running, turn, seconds, alone_bundles) for turn in gpu_parts.turns(movers_of, rounds)]
        for name in movers_of.keys() - {"limit", "again"}:
            rig.use(name)
            if not rig.verify_beside_work(way, name, movers_of[name]):
                say(gpu_parts.not_beside(rig, way, name, engine.name))
    rows = []
    for name in movers_of:
        of_limit = [(each["limit_slower"] + each["again_slower"]) / 2 for each in found]
        other = [each["again_slower"] for each in found] if name == "limit" else of_limit
        rows.append(
            {
                "chunk_bytes": rig.chunk_bytes,
                "way": way,
                "mechanism": name,
                "is_chosen": name == chosen,
                "gbs": percentile([each[f"{name}_gbs"] for each in found], 50),
                "of_dma": percentile(
                    [2 * each[f"{name}_gbs"] / (each["limit_gbs"] + each["again_gbs"]) for each in found], 50
                ),
                "slower": percentile([each[f"{name}_slower"] for each in found], 50),
                "points": percentile(
                    [100 * (each[f"{name}_slower"] - beside) for each, beside in zip(found, other, strict=True)], 50
                ),
                "alone": percentile([each["alone"] for each in found], 50),
            }
        )
    return rows


def figure_of(row: dict[str, Any], unit: str) -> Figure:
    """Return the row as a line of the table."""
    what = f"{number(row['chunk_bytes'] / KIB)} KiB, {row['way']}, {row['mechanism']}"
    slower = f"engine {row['slower']:+.1%}, {row['points']:+.1f} points; alone, {unit}"
    return Figure(
        question=what + (", chosen" if row["is_chosen"] else ""), unit="of DMA", ours=row["of_dma"], at_least=True,
        peer=slower, peers=row["alone"],
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> tuple[list[Figure], list[dict[str, Any]]]:
    """Measure the grid."""
    from benchmarks import gpu_parts
    from benchmarks.gpu_rig import Arena, Driver, Rig

    size = 64 * MIB if arguments.tiny else arguments.size * MIB
    engine = gpu_parts.engine_of(arguments.engine, is_tiny=arguments.tiny)
    figures, rows = [], []
    with Arena(Driver(), size, size) as arena:
        for chunk in [4 * KIB, 64 * KIB] if arguments.tiny else [each * KIB for each in arguments.chunks]:
            for way in arguments.ways:
                with Rig(arena, chunk, gpu_parts.planes_of(chunk)) as rig:  # a new one: choices are forced
                    found = measure(
                        rig, arena.dma, engine, way, arguments.mechanisms, 2 if arguments.tiny else arguments.rounds,
                        0.05 if arguments.tiny else arguments.seconds, 2 if arguments.tiny else 6,
                    )  # fmt: skip
                for row in found:
                    rows.append(row)
                    figures.append(figure_of(row, engine.unit))
                    say(f"{figures[-1].question}: {row['of_dma']:.3f} of DMA, {figures[-1].peer} {row['alone']:.0f}")
    return figures, rows


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--chunks", type=int, nargs="+", default=list(CHUNKS_KIB), metavar="KIB")
    options.add_argument("--ways", nargs="+", choices=("load", "store", "both"), default=["load", "store"])
    options.add_argument("--size", type=int, default=GIB // MIB, metavar="MIB", help="of one copy (1024)")
    options.add_argument("--mechanisms", nargs="+", choices=(*MECHANISMS, "zero_copy"), default=list(MECHANISMS))
    options.add_argument("--engine", choices=("product", "decode", "prefill"), default="product")
    options.add_argument("--rounds", type=int, default=12)
    options.add_argument("--seconds", type=float, default=0.12, help="of one window, at least")
    arguments = options.parse_args()
    for chunk in arguments.chunks:
        planes = 64 if chunk * KIB < MIB else 1
        if chunk <= 0 or arguments.size * MIB < LEAST_BLOCKS * planes * chunk * KIB:
            options.error(f"--size {arguments.size} holds fewer than {LEAST_BLOCKS} blocks of --chunks {chunk}")
    if torch is None or not torch.cuda.is_available():
        emit_skipped("gpu_beside", arguments, "no GPU is here")
        return
    figures, rows = run(arguments)
    emit("gpu_beside", arguments, figures, rows, device=torch.cuda.get_device_name())


if __name__ == "__main__":
    main()
