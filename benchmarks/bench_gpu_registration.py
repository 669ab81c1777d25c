"""How long until a GPU may use all of a host pool, and does the engine feel it?

Unit: GB/s (10^9 bytes) of pool from the call that begins to register it until the last slot is usable; how long it
takes to let it go again; and the longest time that one small kernel took meanwhile, from its launch until it was done,
beside the longest without (ms). Two pools: one that is prefaulted already, and one that its own threads prefault
meanwhile. Contents are compared: blocks are stored to slots from all over the pool, overwritten on the GPU, and loaded.

    python -m benchmarks.bench_gpu_registration             8 GiB each, under a minute
    python -m benchmarks.bench_gpu_registration --tiny      a smoke test; without a GPU it says so and does nothing
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from benchmarks.gpu_blocks import address_of, planes_in, usable_copies
from benchmarks.gpu_rate import LOAD, STORE, WAIT_S
from benchmarks.report import GIB, MIB, Figure, emit, emit_skipped, number, parser
from flexkv import _core

try:
    import torch
except ImportError:  # a benchmark of a machine that has no GPU either
    torch = None  # type: ignore[assignment]

SLOT_BYTES = 2 * MIB
NUM_BLOCKS = 64
PREFAULT_THREADS = 4


class Kernels:
    """Small kernels one after the other, on a thread: the longest from launch to end."""

    def __init__(self) -> None:
        self._memory = torch.zeros(1024, device="cuda")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.longest_ms = 0.0

    def __enter__(self) -> Kernels:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join(WAIT_S)

    def _run(self) -> None:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            while not self._stop.is_set():
                begin_ns = time.perf_counter_ns()
                self._memory += 1
                stream.synchronize()
                self.longest_ms = max(self.longest_ms, (time.perf_counter_ns() - begin_ns) / 1e6)


def verify(copies: _core.BlockCopies, memory: Any, num_slots: int) -> None:
    """Store to slots of all pieces, overwrite, load: every byte must be what it was."""
    ends = np.linspace(0, num_slots - 1, min(NUM_BLOCKS, num_slots)).astype(np.int64)
    slots = np.unique(ends)
    blocks = np.arange(len(slots), dtype=np.int64)
    memory.random_(0, 256)
    torch.cuda.synchronize()
    before = memory.clone()
    copies.copy(STORE, slots, blocks)
    memory[: len(slots) * SLOT_BYTES].fill_(0xA5)
    torch.cuda.synchronize()
    copies.copy(LOAD, slots, blocks)
    assert torch.equal(memory, before), "what was loaded is not what was stored"


def measure(total: int, memory: Any, *, is_prefaulted: bool) -> dict[str, Any]:
    """Register a pool of so many bytes and let it go."""
    num_slots = total // SLOT_BYTES
    planes = planes_in(memory.data_ptr(), 1, NUM_BLOCKS, SLOT_BYTES)
    pool = _core.HostPool(num_slots, [SLOT_BYTES], prefault_threads=PREFAULT_THREADS)
    if is_prefaulted:
        assert pool.wait_prefaulted(num_slots, WAIT_S)
    host, stride = address_of(pool), pool.stride_bytes(0)
    with Kernels() as kernels:
        begin_s = time.perf_counter()
        copies = usable_copies(planes, NUM_BLOCKS, host, stride, num_slots)
        taken_s = time.perf_counter() - begin_s
    assert pool.wait_prefaulted(num_slots, WAIT_S)
    assert pool.prefault_error == 0
    verify(copies, memory, num_slots)
    copies.wait_tuned(WAIT_S)
    begin_s = time.perf_counter()
    del copies
    return {
        "prefaulted": is_prefaulted,
        "gbs": total / taken_s / 1e9,
        "let_go_s": time.perf_counter() - begin_s,
        "longest_kernel_ms": kernels.longest_ms,
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--gib", type=float, default=8.0, help="of each pool")
    arguments = options.parse_args()
    if torch is None or not torch.cuda.is_available():
        emit_skipped("gpu_registration", arguments, "no GPU is here")
        return
    total = 64 * MIB if arguments.tiny else int(arguments.gib * GIB)
    memory = torch.empty(NUM_BLOCKS * SLOT_BYTES, dtype=torch.uint8, device="cuda")
    measure(64 * MIB, memory, is_prefaulted=True)  # what is made at first use is made
    with Kernels() as kernels:
        threading.Event().wait(0.02 if arguments.tiny else 1.0)
    rows = [measure(total, memory, is_prefaulted=is_prefaulted) for is_prefaulted in (True, False)]
    figures = [
        Figure(
            question=f"registering {number(total / GIB)} GiB "
            + ("that are there" if row["prefaulted"] else "while they are prefaulted"),
            unit="GB/s",
            ours=row["gbs"],
            at_least=True,
            peer=f"let go in {number(row['let_go_s'])} s; longest kernel {number(row['longest_kernel_ms'])} ms, alone",
            peers=kernels.longest_ms,
        )
        for row in rows
    ]
    emit("gpu_registration", arguments, figures, rows)


if __name__ == "__main__":
    main()
