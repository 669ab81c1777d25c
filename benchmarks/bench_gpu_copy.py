"""How fast do blocks move between a GPU and host memory, and what does it cost the engine?

Unit: GB/s (10^9 bytes) of blocks of 64 chunks, all blocks scattered on the GPU; beside it, in the same run, the limit:
contiguous copies of pinned memory (64 MiB each, through torch). Contents are compared byte by byte, against what was
there before, with the destination overwritten in between. By size of a chunk, one way and both ways at once:

    idle     nothing else runs
    product  bf16 matrix products of 8192 x 8192 x 8192 back to back: how much longer one takes is beside it
    small    products of 1024 x 1024 x 1024 back to back, like the many short kernels of a decode

`slots`: fresh, one run of host slots; aged, runs of 32 slots in random order. CPU: seconds of the process per GB moved.
The latency is that of one block of 2 MiB, from the call to its return, beside one contiguous copy of as many bytes.

    python -m benchmarks.bench_gpu_copy             a table
    python -m benchmarks.bench_gpu_copy --tiny      a smoke test; without a GPU it says so and does nothing
"""

from __future__ import annotations

import resource
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.report import Figure, emit, number, parser, say
from flexkv import _core

try:
    import torch
except ImportError:  # a benchmark of a machine that has no GPU either
    torch = None  # type: ignore[assignment]

KIB, MIB = 1 << 10, 1 << 20
WAIT_S = 120.0
LOAD, STORE = 0, 1
WAYS = {"load": (LOAD,), "store": (STORE,), "both": (LOAD, STORE)}
CHUNKS = (4 * KIB, 8 * KIB, 18 * KIB, 32 * KIB, 64 * KIB, 256 * KIB, 2 * MIB)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    chunk_kib: float
    way: str
    load: str
    slots: str
    ours_gbs: float
    limit_gbs: float
    ratio: float
    cpu_s_per_gb: float
    engine_slower: float
    engine_slower_by_limit: float


class Rig:
    """Planes on the GPU whose blocks are scattered, and a pool of as many slots."""

    def __init__(self, chunk_bytes: int, total_bytes: int, slots: str) -> None:
        num_planes = 64 if chunk_bytes < MIB else 1
        self.slot_bytes = num_planes * chunk_bytes
        self.num_blocks = max(8, total_bytes // self.slot_bytes)
        self.memory = torch.empty(num_planes * self.num_blocks * chunk_bytes, dtype=torch.uint8, device="cuda")
        self.memory.random_(0, 256)
        base = self.memory.data_ptr()
        plane_bytes = self.num_blocks * chunk_bytes
        planes = [[base + plane * plane_bytes, chunk_bytes, chunk_bytes] for plane in range(num_planes)]
        self.pool = _core.HostPool(self.num_blocks, [self.slot_bytes])
        assert self.pool.wait_prefaulted(self.num_blocks, WAIT_S)
        host = self.pool.view(0, 0).__array_interface__["data"][0]
        stride = self.pool.stride_bytes(0)
        layout = np.array(planes, dtype=np.uint64)
        self.copies = _core.BlockCopies("cuda", self.num_blocks, layout, host, stride, self.num_blocks)
        assert self.copies.wait_usable(WAIT_S)
        rng = np.random.default_rng(chunk_bytes)
        self.blocks = rng.permutation(self.num_blocks).astype(np.int64)
        self.slots = np.arange(self.num_blocks, dtype=np.int64)
        if slots == "aged":
            runs = np.array_split(self.slots, max(1, self.num_blocks // 32))
            self.slots = np.concatenate([runs[at] for at in rng.permutation(len(runs))])

    def verify(self) -> None:
        """Store, wipe, load: every byte must be what it was."""
        torch.cuda.synchronize()
        before = self.memory.clone()
        self.copies.copy(STORE, self.slots, self.blocks)
        self.memory.fill_(0xA5)
        torch.cuda.synchronize()
        self.copies.copy(LOAD, self.slots, self.blocks)
        assert torch.equal(self.memory, before), "what was loaded is not what was stored"

    def mover(self, direction: int, part: slice) -> Callable[[], int]:
        """Return what moves a part of the blocks once, and says how many bytes."""
        slots, blocks = self.slots[part].copy(), self.blocks[part].copy()
        return lambda: int(self.copies.copy(direction, slots, blocks))


class Contiguous:
    """The limit: copies of pinned memory, 64 MiB each."""

    def __init__(self, total_bytes: int) -> None:
        self.host = torch.empty(total_bytes, dtype=torch.uint8, pin_memory=True)
        self.device = torch.empty(total_bytes, dtype=torch.uint8, device="cuda")
        self.streams = [torch.cuda.Stream(priority=-1), torch.cuda.Stream(priority=-1)]

    def mover(self, direction: int, part: slice) -> Callable[[], int]:
        """Return what moves a part once, and says how many bytes."""
        to, source = (self.device, self.host) if direction == LOAD else (self.host, self.device)
        to, source = to[part], source[part]
        done = torch.cuda.Event(blocking=True)

        def move() -> int:
            with torch.cuda.stream(self.streams[direction]):
                for start in range(0, len(to), 64 * MIB):
                    to[start : start + 64 * MIB].copy_(source[start : start + 64 * MIB], non_blocking=True)
                done.record()
            done.synchronize()
            return len(to)

        return move


class Engine:
    """Matrix products on a stream of their own, back to back."""

    def __init__(self, size: int) -> None:
        self.one = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
        self.out = torch.empty_like(self.one)
        self.at_once = 32 if size > 4096 else 512

    def alone(self) -> float:
        """Return the seconds of one product."""
        self._run()
        return statistics.median(self._run() for _ in range(7))

    def _run(self) -> float:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True, blocking=True)
        begin.record()
        for _ in range(self.at_once):
            torch.matmul(self.one, self.one, out=self.out)
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3 / self.at_once

    @contextmanager
    def running(self) -> Iterator[list[float]]:
        """Run until the block ends; the list has the seconds of a product, one for each bundle."""
        stop = threading.Event()
        taken: list[float] = []

        def run() -> None:
            while not stop.is_set():
                taken.append(self._run())

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield taken
        finally:
            stop.set()
            thread.join(WAIT_S)


def rate(movers: list[Callable[[], int]], seconds: float) -> tuple[float, float]:
    """Return (GB/s, CPU seconds per GB) of movers that run beside each other again and again."""
    moved = [0] * len(movers)
    for mover in movers:
        mover()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    begin_s = time.perf_counter()
    end_s = begin_s + seconds

    def run(at: int) -> None:
        while time.perf_counter() < end_s:
            moved[at] += movers[at]()

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(movers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    taken_s = time.perf_counter() - begin_s
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
    gigabytes = sum(moved) / 1e9
    return gigabytes / taken_s, cpu_s / gigabytes


def movers_of(what: Any, way: str, length: int) -> list[Callable[[], int]]:
    """Return one mover for each direction; both at once have a half each."""
    if way != "both":
        return [what.mover(WAYS[way][0], slice(0, length))]
    return [what.mover(LOAD, slice(0, length // 2)), what.mover(STORE, slice(length // 2, length))]


def measure(
    rig: Rig, limit: Contiguous, way: str, engine: Engine | None, rounds: int, seconds: float
) -> dict[str, float]:
    """Take turns with the limit; medians over rounds."""
    ours, limits, cpu, slower, slower_by_limit = [], [], [], [], []
    pairs = (
        (movers_of(limit, way, len(limit.host)), limits, slower_by_limit),
        (movers_of(rig, way, rig.num_blocks), ours, slower),
    )
    for _ in range(rounds):
        for movers, rates, by in pairs:
            if engine is None:
                speed, cost = rate(movers, seconds)
            else:
                alone_s = engine.alone()  # now: the GPU's clocks follow its heat
                with engine.running() as taken:
                    speed, cost = rate(movers, seconds)
                by.append(statistics.median(taken) / alone_s - 1)
            rates.append(speed)
            if rates is ours and engine is None:
                cpu.append(cost)
    return {
        "ours_gbs": statistics.median(ours),
        "limit_gbs": statistics.median(limits),
        "ratio": statistics.median(mine / most for mine, most in zip(ours, limits, strict=True)),
        "cpu_s_per_gb": statistics.median(cpu) if cpu else 0.0,
        "engine_slower": statistics.median(slower) if slower else 0.0,
        "engine_slower_by_limit": statistics.median(slower_by_limit) if slower_by_limit else 0.0,
    }


def latency_us(mover: Callable[[], int], rounds: int) -> float:
    """Return the median time of one call."""
    taken = []
    for _ in range(rounds):
        begin_ns = time.perf_counter_ns()
        mover()
        taken.append((time.perf_counter_ns() - begin_ns) / 1e3)
    return statistics.median(taken)


def must_of(way: str, load: str, slots: str) -> float | None:
    """Return the least ratio to the limit (the project's targets); None where there is none."""
    if load == "product":
        return 0.90 if way != "both" else None
    if load == "small":
        return None
    if slots == "aged":
        return 0.92 if way != "both" else None
    return 0.95 if way == "both" else 0.98


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--mib", type=int, default=1024, help="MiB of blocks")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=0.25, help="of one measurement")
    options.add_argument("--chunks", type=int, nargs="*", default=list(CHUNKS), help="bytes")
    arguments = options.parse_args()
    if torch is None or not torch.cuda.is_available():
        say("no GPU is here: nothing is measured")
        emit("gpu_copy", arguments, [], [], verified=False)
        return
    total = 64 * MIB if arguments.tiny else arguments.mib * MIB
    seconds, rounds = (0.02, 1) if arguments.tiny else (arguments.seconds, arguments.rounds)
    limit = Contiguous(total)
    loads = {"idle": None, "product": Engine(8192), "small": Engine(1024)}
    rows: list[dict[str, Any]] = []
    figures: list[Figure] = []
    for chunk in arguments.chunks:
        for slots in ("fresh", "aged"):
            rig = Rig(chunk, total, slots)
            rig.verify()
            for load, engine in loads.items():
                if slots == "aged" and load != "idle":
                    continue
                for way in WAYS:
                    row = Row(
                        chunk_kib=chunk / KIB, way=way, load=load, slots=slots,
                        **measure(rig, limit, way, engine, rounds, seconds),
                    )  # fmt: skip
                    rows.append(asdict(row))
                    work = f"{number(row.chunk_kib)} KiB, {way}, {load}, {slots} slots"
                    beside = f"{number(row.ours_gbs)} of {number(row.limit_gbs)} GB/s"
                    if engine is not None:
                        beside += f"; engine {row.engine_slower:+.1%}, by the limit {row.engine_slower_by_limit:+.1%}"
                    say(f"{work}: {row.ratio:.3f}; {beside}; CPU {number(row.cpu_s_per_gb)} s per GB")
                    must = must_of(way, load, slots)
                    figures.append(
                        Figure(
                            question=work, unit="of contiguous", ours=row.ratio, must=must, at_least=True, peer=beside
                        )
                    )
            rig.verify()
            if chunk == 32 * KIB and slots == "fresh":
                for way, direction in (("load", LOAD), ("store", STORE)):
                    mine = latency_us(rig.mover(direction, slice(0, 1)), 200)
                    dma = latency_us(limit.mover(direction, slice(0, rig.slot_bytes)), 200)
                    rows.append({"latency_us": mine, "contiguous_us": dma, "way": way})
                    figures.append(
                        Figure(question=f"one block of 2 MiB, {way}", unit="us beyond contiguous", ours=mine - dma,
                               must=20.0, peer=f"{number(mine)} us; contiguous", peers=dma)
                    )  # fmt: skip
            del rig
    emit("gpu_copy", arguments, figures, rows)


if __name__ == "__main__":
    main()
