"""How fast does the CopyEngine move scattered blocks between a CPU device and the host pool?

Unit: GB/s (10^9 bytes), median of alternating rounds. Blocks of 2 MiB and of 256 KiB at random places on both sides, in
one piece each and in 32 KiB chunks (one plane for each layer's K and V). The limit in the same rounds, on the same
memory: a non-temporal memcpy of as many bytes in one piece by as many threads; the peer: the same with plain memcpy.
`ratio` is the median over rounds of ours / limit; the target is 0.90. All bytes are random, and after the last round
every byte of both sides is compared.

    .venv/dev/bin/python -m benchmarks.bench_host_copy                 a table
    .venv/dev/bin/python -m benchmarks.bench_host_copy --json FILE     and JSON
    .venv/dev/bin/python -m benchmarks.bench_host_copy --threads 4     as many threads; default: 1, and every processor
    .venv/dev/bin/python -m benchmarks.bench_host_copy --tiny          a smoke test: JSON to standard output
"""

from __future__ import annotations

import ctypes
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.report import KIB, MIB, Figure, emit, parser, say
from flexkv import _core

LOAD, STORE = 0, 1
CHUNK_BYTES = 32 * KIB
PREFAULT_TIMEOUT_S = 120.0

Bytes = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    direction: str
    block_kib: int
    pieces_per_block: int
    threads: int
    ours_gbs: float
    limit_gbs: float
    memcpy_gbs: float
    ratio: float


class Rig:
    """Device memory and a host pool of `num_blocks` blocks each; a copy moves half of them."""

    def __init__(self, num_blocks: int, block_bytes: int, num_pieces: int, threads: int) -> None:
        rng = np.random.default_rng(block_bytes + num_pieces)
        self.num_blocks, self.block_bytes, self.num_pieces, self.threads = num_blocks, block_bytes, num_pieces, threads
        self.device = rng.integers(0, 256, num_blocks * block_bytes, dtype=np.uint8)
        self.pool = _core.HostPool(num_blocks, [block_bytes])
        assert self.pool.wait_prefaulted(num_blocks, PREFAULT_TIMEOUT_S)
        self.stride = self.pool.stride_bytes(0)
        for slot in range(num_blocks):
            self.pool.view(0, slot)[:] = rng.integers(0, 256, block_bytes, dtype=np.uint8)
        chunk = block_bytes // num_pieces
        bases = [self.device.ctypes.data + piece * num_blocks * chunk for piece in range(num_pieces)]
        self.planes = np.array([[base, chunk, chunk] for base in bases], np.uint64)
        self.slots: Ids = rng.permutation(num_blocks)[: num_blocks // 2]
        self.blocks: Ids = rng.permutation(num_blocks)[: num_blocks // 2]
        self.moved_bytes = num_blocks // 2 * block_bytes
        self._engine = _core.CopyEngine(threads)
        self._helpers = ThreadPoolExecutor(threads)

    @property
    def host_address(self) -> int:
        """Where slot 0 is."""
        return int(self.pool.view(0, 0).ctypes.data)

    def blocks_of(self, device: Bytes) -> Bytes:
        """The device's bytes by block. Shape: (blocks, block_bytes)."""
        by_piece = device.reshape(self.num_pieces, self.num_blocks, -1)
        return by_piece.swapaxes(0, 1).reshape(self.num_blocks, self.block_bytes)

    def host(self) -> Bytes:
        """A copy of the host's bytes by slot. Shape: (slots, block_bytes)."""
        return np.stack([self.pool.view(0, slot) for slot in range(self.num_blocks)])

    def copy(self, direction: int) -> None:
        """What is measured."""
        moved = self._engine.copy(
            self.planes,
            self.num_blocks,
            self.host_address,
            self.stride,
            self.num_blocks,
            direction,
            self.slots,
            self.blocks,
        )
        assert moved == self.moved_bytes

    def copy_in_one_piece(self, direction: int, copy: Callable[[int, int, int], object]) -> None:
        """The same bytes from and to the first halves, each thread a share of it."""
        ends = [self.host_address, self.device.ctypes.data]
        src, dst = ends if direction == LOAD else ends[::-1]
        share = self.moved_bytes // self.threads
        jobs = [self._helpers.submit(copy, dst + i * share, src + i * share, share) for i in range(1, self.threads)]
        copy(dst, src, share)
        for job in jobs:
            job.result()

    def check(self) -> None:
        """Store and load once more on fresh random bytes; every byte of both sides is compared."""
        rng = np.random.default_rng(1)
        for direction in (STORE, LOAD):
            self.device[:] = rng.integers(0, 256, self.device.size, dtype=np.uint8)
            host, device = self.host(), self.blocks_of(self.device).copy()
            if direction == STORE:
                host[self.slots] = device[self.blocks]
            else:
                device[self.blocks] = host[self.slots]
            self.copy(direction)
            assert np.array_equal(self.host(), host), "host bytes differ"
            assert np.array_equal(self.blocks_of(self.device), device), "device bytes differ"


def plain_memcpy(dst: int, src: int, num_bytes: int) -> None:
    ctypes.memmove(dst, src, num_bytes)


def seconds(work: Callable[[], object]) -> float:
    begin_ns = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - begin_ns) / 1e9


def measure(rig: Rig, direction: int, num_rounds: int) -> Row:
    ours, limit, memcpy = [], [], []
    for _ in range(num_rounds + 1):  # the first one warms up
        ours.append(seconds(lambda: rig.copy(direction)))
        limit.append(seconds(lambda: rig.copy_in_one_piece(direction, _core.copy_nontemporal)))
        memcpy.append(seconds(lambda: rig.copy_in_one_piece(direction, plain_memcpy)))
    rates = [[rig.moved_bytes / second / 1e9 for second in times[1:]] for times in (ours, limit, memcpy)]
    return Row(
        direction="H2D" if direction == LOAD else "D2H",
        block_kib=rig.block_bytes // KIB,
        pieces_per_block=rig.num_pieces,
        threads=rig.threads,
        ours_gbs=statistics.median(rates[0]),
        limit_gbs=statistics.median(rates[1]),
        memcpy_gbs=statistics.median(rates[2]),
        ratio=statistics.median(limit_s / ours_s for ours_s, limit_s in zip(ours[1:], limit[1:], strict=True)),
    )


def run(total_bytes: int, num_rounds: int, thread_counts: list[int]) -> Iterator[Row]:
    for block_bytes in (2 * MIB, 256 * KIB):
        for num_pieces in (1, block_bytes // CHUNK_BYTES):
            for threads in thread_counts:
                rig = Rig(max(2, 2 * total_bytes // block_bytes), block_bytes, num_pieces, threads)
                rows = [measure(rig, direction, num_rounds) for direction in (LOAD, STORE)]
                rig.check()
                yield from rows


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--threads", type=int, help="threads that copy; default: 1, and every processor")
    options.add_argument("--mib", type=int, default=128, help="MiB moved by one copy")
    options.add_argument("--rounds", type=int, default=9)
    arguments = options.parse_args()
    num_processors = len(os.sched_getaffinity(0))
    threads = [arguments.threads] if arguments.threads else sorted({1, num_processors})
    size = (8 * MIB, 2) if arguments.tiny else (arguments.mib * MIB, arguments.rounds)
    rows, figures = [], []
    for row in run(*size, threads):
        work = f"{row.direction}, blocks of {row.block_kib} KiB in {row.pieces_per_block}, {row.threads} threads"
        gbs = f"{row.ours_gbs:.1f} of {row.limit_gbs:.1f} GB/s, memcpy {row.memcpy_gbs:.1f}"
        say(f"{work}: {gbs}")
        rows.append(asdict(row))
        figures.append(
            Figure(
                question=work, unit="of the limit", ours=row.ratio, must=0.9, at_least=True, peer=f"{gbs}; raw copy",
                peers=1.0,
            )
        )  # fmt: skip
    emit("host_copy", arguments, figures, rows)


if __name__ == "__main__":
    main()
