"""What bench_gpu_copy measures, as rows, and what each row must reach. Pure.

A row is a dict in the benchmark's JSON; `part` says which of these it is. Sizes are bytes, times as named, rates 10^9
bytes a second, ratios and shares plain numbers (1: as much as the limit; a whole core).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.report import GIB, KIB, MIB, Figure, number

WAYS = ("load", "store", "both")
LIMITS = (
    "must: 98 % of contiguous DMA one way and 95 % both ways on an idle GPU, 92 % with aged slots; beside the product "
    "90 %, and the product slowed by at most 2 points more than DMA slows it; a block of 2 MiB within 20 us of its DMA "
    "(spinning wait, p50); CPU under 20 % of a core at full rate, 2 % idle; 128 MiB of GPU memory for stages"
)
# What both directions take of the GPU beside the stages: a table of the layout, kernels, streams, whole pages of 2 MiB.
BESIDE_STAGES_MIB = 8

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyRow:
    """Blocks moved one way or both, beside contiguous DMA in the same rounds."""

    part: str
    """copies, calls, load or pools"""
    chunk_bytes: int
    size_bytes: int
    way: str
    load: str
    """What runs on the GPU meanwhile: idle, product or decode."""
    slots: str
    """fresh, aged or random"""
    mean_run: float
    """Adjacent host slots that go as one copy."""
    ours_gbs: float
    limit_gbs: float
    ratio: float
    """Median over the rounds, as are the others; each round has both. Of calls: of the medians."""
    ratio_low: float
    """The lowest and highest of the rounds, which are shorter and more for short copies on an idle GPU; of calls: by
    their slower and faster quarter, beside DMA's median."""
    ratio_high: float
    limit_spread: float = 0.0
    """How wide the middle half of DMA's own windows, or calls, is beside their median: how still the host is."""
    mechanism: str = ""
    """By which ours go; `loads/stores` where both go and by different ones."""
    engine_unit: str = ""
    engine_alone: float = 0.0
    """The engine's own speed in the windows around, in its unit."""
    engine_slower: float = 0.0
    """How much longer the engine's work takes beside ours than in the windows around; 0.02: 2 % longer."""
    engine_slower_by_limit: float = 0.0
    points: float = 0.0
    """How many hundredths more it is beside ours than beside DMA: the median of the rounds' differences."""
    points_by_chance: float = 0.0
    """By how many DMA differs from itself, in two windows of a round."""
    sm_mhz: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyRow:
    """One block, from the call to its end."""

    part: str = "latency"
    block_bytes: int
    chunk_bytes: int
    way: str
    ours_p50_us: float
    ours_p99_us: float
    spin_p50_us: float
    """One contiguous DMA of as many bytes, its event waited for by spinning."""
    spin_p99_us: float
    blocking_p50_us: float
    """The same, its event waited for by an interrupt."""
    blocking_p99_us: float
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OthersRow:
    """A small copy of the engine's, the way of the long ones, from the call to its end."""

    part: str = "others"
    chunk_bytes: int
    size_bytes: int
    """Of the blocks of a long copy."""
    way: str
    engine_bytes: int
    alone_p50_us: float
    limit_p50_us: float
    """Beside contiguous DMA, 64 MiB each; calls of as many bytes as the blocks have, each waited for."""
    limit_max_us: float
    limit_gbs: float
    ours_p50_us: float
    """Beside ours, while a step of the engine's runs that does nothing."""
    ours_max_us: float
    ours_gbs: float
    mechanism: str
    """By which ours go there."""
    samples: int
    limit_samples: int
    """Fewer where each waits for longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuRow:
    """What copies cost the CPU: of the process (`who`: ours, dma blocking, dma spin) or of the agent's threads."""

    part: str = "cpu"
    who: str
    way: str
    """idle: nothing moves"""
    gbs: float
    share: float
    """Of a core."""
    s_per_gb: float
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterRow:
    """Host memory made usable for the GPU."""

    part: str = "register"
    size_bytes: int
    ours_s: float
    one_call_s: float
    """The driver's registration of all of it in one call."""
    release_s: float
    prefault_s: float
    page_kind: str
    gpu_memory_mib: float
    """Taken by both directions: stages, tables, kernels, streams."""


def name_of_bytes(size: int) -> str:
    """Return a size as people write it: 64 KiB, 1 GiB."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size} B"


def must_of(row: Row) -> float | None:
    """Return the least ratio to contiguous DMA; None where there is none."""
    if row["load"] == "product":
        return 0.90
    if row["load"] == "decode" or row["slots"] == "random":
        return None
    if row["way"] == "both":
        return 0.95
    return 0.92 if row["slots"] == "aged" else 0.98


def _copy_figures(row: Row) -> list[Figure]:
    what = f"{row['part']}: {name_of_bytes(row['chunk_bytes'])}, {row['way']}, {row['load']}, {row['slots']} slots"
    what += f", {name_of_bytes(row['size_bytes'])}"
    beside = f"{number(row['ours_gbs'])} GB/s, {row['ratio_low']:.3f} to {row['ratio_high']:.3f}; DMA in GB/s"
    figures = [
        Figure(question=what, unit="of DMA", ours=row["ratio"], must=must_of(row), at_least=True, peer=beside,
               peers=row["limit_gbs"])
    ]  # fmt: skip
    if row["load"] != "idle":
        chance = f"by chance {number(row.get('points_by_chance', 0.0))}"
        beside = f"{row['engine_slower']:+.1%} beside ours; {chance}; engine alone in {row['engine_unit']}"
        must = 2.0 if row["load"] == "product" else None
        figures.append(
            Figure(question=f"{what}: the engine slowed beyond what DMA slows it", unit="points", ours=row["points"],
                   must=must, peer=beside, peers=row["engine_alone"])
        )  # fmt: skip
    return figures


def _latency_figures(row: Row) -> list[Figure]:
    what = f"one block of {name_of_bytes(row['block_bytes'])}, {row['way']}"
    peer = f"p50 {number(row['ours_p50_us'])} us; by a blocking wait {number(row['blocking_p50_us'])} us; DMA"
    return [
        Figure(question=f"{what}: beyond its DMA", unit="us, p50", ours=row["ours_p50_us"] - row["spin_p50_us"],
               must=20.0 if row["block_bytes"] == 2 * MIB else None, peer=peer, peers=row["spin_p50_us"]),
        Figure(question=what, unit="us, p99", ours=row["ours_p99_us"], peer="DMA, spinning wait, p99",
               peers=row["spin_p99_us"]),
    ]  # fmt: skip


def _others_figures(row: Row) -> list[Figure]:
    what = f"the engine's copy of {name_of_bytes(row['engine_bytes'])} beside a {row['way']}"
    what += f", {name_of_bytes(row['chunk_bytes'])}, {name_of_bytes(row['size_bytes'])}"
    return [
        Figure(question=what, unit="us, p50", ours=row["ours_p50_us"], peer="beside contiguous DMA, us",
               peers=row["limit_p50_us"]),
        Figure(question=what, unit="us, longest", ours=row["ours_max_us"], peer="beside contiguous DMA, us",
               peers=row["limit_max_us"]),
    ]  # fmt: skip


def _cpu_figures(row: Row) -> list[Figure]:
    what = f"CPU of {row['who']}, {row['way']}"
    if row["way"] == "idle":
        must = 0.02 if row["who"] == "agent" else None
        return [Figure(question=what, unit="of a core", ours=row["share"], must=must, peer=row["detail"])]
    must = None if row["who"].startswith("dma") else 0.20
    return [
        Figure(question=what, unit="of a core", ours=row["share"], must=must, peer="GB/s", peers=row["gbs"]),
        Figure(question=what, unit="s per GB", ours=row["s_per_gb"], peer=row["detail"]),
    ]


def _register_figures(row: Row) -> list[Figure]:
    what = f"{name_of_bytes(row['size_bytes'])} of host memory registered"
    return [
        Figure(question=what, unit="s", ours=row["ours_s"], peer="in one call of the driver, s",
               peers=row["one_call_s"]),
        Figure(question=f"{what}, rate", unit="GB/s", ours=row["size_bytes"] / 1e9 / row["ours_s"],
               peer="in one call of the driver, GB/s", peers=row["size_bytes"] / 1e9 / row["one_call_s"]),
        Figure(question="GPU memory of both directions", unit="MiB", ours=row["gpu_memory_mib"],
               must=128.0 + BESIDE_STAGES_MIB, peer="stages of at most 128 MiB; tables, kernels, streams"),
    ]  # fmt: skip


FIGURES_OF = {
    "copies": _copy_figures,
    "calls": _copy_figures,
    "load": _copy_figures,
    "pools": _copy_figures,
    "latency": _latency_figures,
    "others": _others_figures,
    "cpu": _cpu_figures,
    "register": _register_figures,
}
PARTS = tuple(FIGURES_OF)


def figures_of(rows: Sequence[Row]) -> list[Figure]:
    """Return what the rows are judged by. Raises ValueError for a row of no known part."""
    figures: list[Figure] = []
    for row in rows:
        if row.get("part") not in FIGURES_OF:
            raise ValueError(f"a row has part {row.get('part')!r}; known are {', '.join(PARTS)}")
        figures += FIGURES_OF[row["part"]](row)
    return figures
