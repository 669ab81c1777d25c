"""How fast does the CopyEngine move scattered blocks between a CPU device and the host pool?

Unit: GB/s (10^9 bytes), median of alternating rounds. Blocks of 2 MiB and of 256 KiB at random places on both sides, in
one piece each and in 32 KiB chunks (one plane for each layer's K and V). The limit in the same rounds, on the same
memory: a non-temporal memcpy of as many bytes in one piece by as many threads; the peer: the same with plain memcpy.
`ratio` is the median over rounds of ours / limit; the target is 0.90. All bytes are random, and after the last round
every byte of both sides is compared.

    python benchmarks/bench_host_copy.py                 a table
    python benchmarks/bench_host_copy.py --json FILE     and JSON
    python benchmarks/bench_host_copy.py --threads 4     as many threads; default: every processor
    python benchmarks/bench_host_copy.py --tiny          a smoke test: JSON to standard output
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flexkv import _core

KIB, MIB = 1 << 10, 1 << 20
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


def print_row(row: Row) -> None:
    print(
        f"{row.direction:4} {row.block_kib:5} KiB {row.pieces_per_block:7} {row.threads:8} {row.ours_gbs:7.1f} "
        f"{row.limit_gbs:7.1f} {row.memcpy_gbs:7.1f} {row.ratio:6.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--threads", type=int, help="threads that copy; default: 1, and every processor")
    parser.add_argument("--mib", type=int, default=128, help="MiB moved by one copy")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tiny", action="store_true", help="a smoke test: JSON to standard output")
    arguments = parser.parse_args()
    num_processors = len(os.sched_getaffinity(0))
    threads = [arguments.threads] if arguments.threads else sorted({1, num_processors})
    rows = []
    if not arguments.tiny:
        print(
            f"{'':4} {'block':>9} {'pieces':>7} {'threads':>8} {'ours':>7} {'limit':>7} {'memcpy':>7}  ratio   (GB/s)"
        )
    size = (8 * MIB, 2) if arguments.tiny else (arguments.mib * MIB, arguments.rounds)
    for row in run(*size, threads):
        rows.append(row)
        if not arguments.tiny:
            print_row(row)
    result = {
        "benchmark": "host_copy",
        "machine": {"cpu": platform.processor() or platform.machine(), "processors": num_processors},
        "target_ratio": 0.9,
        "verified": True,
        "rows": [asdict(row) for row in rows],
    }
    if arguments.tiny:
        json.dump(result, sys.stdout, indent=2)
    elif arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
