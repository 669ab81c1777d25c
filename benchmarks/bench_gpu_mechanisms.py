"""Which way of copying blocks between a GPU and host memory is fastest, by size, number and order? Is it the tuner's?

Unit: microseconds of one copy, from the call to its return, on an idle GPU; medians, the mechanisms taking turns.
Blocks have 2 MiB or 64 chunks, whichever is less, in planes at a regular stride; they lie scattered over the GPU, their
slots in one run (adjacent) or no two of them side by side (scattered). Beside it, in the same turns, the limit: one
contiguous copy of pinned memory of as many bytes, waited for by a spin. Contents of every mechanism are compared
byte by byte, over poisoned memory.

`ours` is the time of the mechanism that the tuner has chosen, from its own short measurement; "lost" is how much longer
that takes than the fastest one. A dash: the mechanism cannot copy this.

    python -m benchmarks.bench_gpu_mechanisms             a table; about a minute
    python -m benchmarks.bench_gpu_mechanisms --tiny      a smoke test; without a GPU it says so and does nothing
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.gpu_blocks import address_of, planes_in, prefaulted_pool, tuned_copies
from benchmarks.gpu_rate import DIRECTION, LOAD, STORE
from benchmarks.report import KIB, MIB, Figure, emit, emit_skipped, number, parser, say

try:
    import torch
except ImportError:  # a benchmark of a machine that has no GPU either
    torch = None  # type: ignore[assignment]

CHUNKS = (4 * KIB, 32 * KIB, 256 * KIB, 2 * MIB)
COUNTS = (1, 4, 16, 64, 512)
ORDERS = ("adjacent", "scattered")
NUM_VERIFIED = 24
MIN_ROUNDS = 3
MAX_ROUNDS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One line of the table."""

    chunk_bytes: int
    num_blocks: int
    order: str
    way: str

    def __str__(self) -> str:
        return f"{number(self.chunk_bytes / KIB)} KiB, {self.num_blocks} {self.order}, {self.way}"


class Rig:
    """Planes in one tensor on the GPU, a pool of as many slots, and pinned memory for the limit."""

    def __init__(self, chunk_bytes: int, num_blocks: int) -> None:
        num_planes = max(1, min(64, 2 * MIB // chunk_bytes))
        self.chunk_bytes, self.num_blocks = chunk_bytes, num_blocks
        self.slot_bytes = num_planes * chunk_bytes
        self.memory = torch.empty(num_blocks * self.slot_bytes, dtype=torch.uint8, device="cuda")
        self.memory.random_(0, 256)
        planes = planes_in(self.memory.data_ptr(), num_planes, num_blocks, chunk_bytes)
        self.pool = prefaulted_pool(num_blocks, self.slot_bytes)
        torch.cuda.synchronize()
        stride = self.pool.stride_bytes(0)
        self.copies = tuned_copies(planes, num_blocks, address_of(self.pool), stride, num_blocks)
        self.tuning = self.copies.tuning()
        self.rng = np.random.default_rng(chunk_bytes)
        self.blocks = self.rng.permutation(num_blocks).astype(np.int64)
        self.pinned = torch.empty(num_blocks * self.slot_bytes, dtype=torch.uint8, pin_memory=True)
        self.target = torch.empty_like(self.memory)

    def slots(self, count: int, order: str) -> npt.NDArray[np.int64]:
        """Return as many slots: a run, or such that no two neighbours are adjacent where there are enough."""
        if order == "adjacent":
            return np.arange(count, dtype=np.int64)
        every = np.concatenate([np.arange(start, self.num_blocks, 3) for start in range(3)])
        return every[:count].astype(np.int64).copy()

    def verify(self, mechanism: str) -> None:
        """Store, wipe, load, in pieces of several sizes: every byte must be what it was, the others as they were."""
        self.copies.use_mechanism(mechanism)
        count = min(NUM_VERIFIED, self.num_blocks)
        slots, blocks = self.slots(count, "scattered"), self.blocks[:count].copy()
        before = self.memory.clone()
        for way in (STORE, LOAD):
            for part in (slice(0, 1), slice(1, count)):
                self.copies.copy(way, slots[part].copy(), blocks[part].copy())
            if way == STORE:
                self._poison(blocks)
        torch.cuda.synchronize()
        assert torch.equal(self.memory, before), f"{mechanism}: what was loaded is not what was stored"

    def _poison(self, blocks: npt.NDArray[np.int64]) -> None:
        planes = self.memory.view(-1, self.num_blocks, self.chunk_bytes)
        planes[:, torch.from_numpy(blocks).cuda()] = 0xA5
        torch.cuda.synchronize()

    def contiguous_us(self, case: Case) -> float:
        """Return the time of one contiguous copy of as many bytes."""
        part = slice(0, case.num_blocks * self.slot_bytes)
        to, source = (self.target, self.pinned) if case.way == "load" else (self.pinned, self.target)
        begin_ns = time.perf_counter_ns()
        to[part].copy_(source[part], non_blocking=True)
        torch.cuda.synchronize()
        return (time.perf_counter_ns() - begin_ns) / 1e3

    def chosen(self, case: Case) -> str:
        """Return the tuner's mechanism for this on an idle GPU."""
        sizes = sorted({blocks for _, blocks, _ in self.tuning["cells"] if blocks <= case.num_blocks})
        order = "adjacent" if case.num_blocks == 1 else case.order
        return str(self.tuning["idle"][self.tuning["cells"].index((case.way, sizes[-1], order))])

    def used(self, case: Case, able: dict[str, float]) -> str:
        """Return what copies this: the tuner's choice where it can."""
        chosen = self.chosen(case)
        return chosen if chosen in able else str(self.tuning["usual"])


def measure(rig: Rig, case: Case, seconds: float) -> dict[str, float]:
    """Return the median microseconds of each mechanism that can, and of the contiguous copy ("limit")."""
    slots, blocks = rig.slots(case.num_blocks, case.order), rig.blocks[: case.num_blocks].copy()
    able = []
    for mechanism in rig.tuning["mechanisms"]:
        rig.copies.use_mechanism(mechanism)
        if rig.copies.mechanism_for(DIRECTION[case.way], slots) == mechanism:
            able.append(mechanism)
    taken: dict[str, list[float]] = {name: [] for name in (*able, "limit")}
    begin_s = time.perf_counter()
    for round_idx in range(MAX_ROUNDS + 1):
        if round_idx > MIN_ROUNDS and time.perf_counter() - begin_s > seconds:
            break
        for mechanism in able:
            rig.copies.use_mechanism(mechanism)
            begin_ns = time.perf_counter_ns()
            rig.copies.copy(DIRECTION[case.way], slots, blocks)
            taken[mechanism].append((time.perf_counter_ns() - begin_ns) / 1e3)
        taken["limit"].append(rig.contiguous_us(case))
    return {name: statistics.median(samples[1:]) for name, samples in taken.items()}


def figure_of(rig: Rig, case: Case, us: dict[str, float]) -> Figure:
    """Return the line: the tuner's choice, beside all others."""
    chosen = rig.used(case, us)
    best = min(time_us for name, time_us in us.items() if name != "limit")
    columns = [f"{name} {number(us.get(name)) or '-'}" for name in rig.tuning["mechanisms"]]
    lost = us[chosen] / best - 1
    return Figure(
        question=str(case),
        unit=f"us, {chosen}",
        ours=us[chosen],
        peer=f"contiguous; lost {lost:.0%}; " + ", ".join(columns),
        peers=us["limit"],
    )


def run(arguments: argparse.Namespace) -> tuple[list[Figure], list[dict[str, Any]]]:
    """Measure the grid."""
    figures, rows = [], []
    counts = (1, 4, 16) if arguments.tiny else COUNTS
    for chunk in CHUNKS[:2] if arguments.tiny else arguments.chunks:
        begin_s = time.perf_counter()
        rig = Rig(chunk, max(counts))
        say(f"{number(chunk / KIB)} KiB: layout {rig.tuning['layout']}, {rig.tuning['state']} {rig.tuning['why_not']}")
        for mechanism in rig.tuning["mechanisms"]:
            rig.verify(mechanism)
        for count in counts:
            for order in ORDERS[: 1 if count == 1 else 2]:
                for way in DIRECTION:
                    case = Case(chunk_bytes=chunk, num_blocks=count, order=order, way=way)
                    us = measure(rig, case, 0.005 if arguments.tiny else arguments.seconds)
                    figures.append(figure_of(rig, case, us))
                    rows.append(
                        {
                            "chunk_bytes": chunk,
                            "slot_bytes": rig.slot_bytes,
                            "num_blocks": count,
                            "slots": order,
                            "way": way,
                            "chosen": rig.used(case, us),
                            "us": us,
                        }
                    )
        rows.append({"chunk_bytes": chunk, "tuning": {**rig.tuning, "cells": [list(c) for c in rig.tuning["cells"]]}})
        for mechanism in rig.tuning["mechanisms"]:
            rig.verify(mechanism)
        say(f"{number(chunk / KIB)} KiB: {number(time.perf_counter() - begin_s)} s")
        del rig
    return figures, rows


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=0.1, help="of one case, all mechanisms together")
    options.add_argument("--chunks", type=int, nargs="*", default=list(CHUNKS), help="bytes")
    arguments = options.parse_args()
    if torch is None or not torch.cuda.is_available():
        emit_skipped("gpu_mechanisms", arguments, "no GPU is here")
        return
    figures, rows = run(arguments)
    emit("gpu_mechanisms", arguments, figures, rows, device=torch.cuda.get_device_name())


if __name__ == "__main__":
    main()
