"""How long until a GPU may use all of a host pool, and does the engine feel it?

Unit: GB/s (10^9 bytes) of pool from the call that begins to register it until the last slot is usable; how long it
takes to let it go again; and the longest time that one small kernel took meanwhile, from its launch until it was done,
beside the longest without (ms). Three pools: one that is prefaulted already, one that its own threads prefault
meanwhile, and one of the first kind beside an engine that works: steps of a few ms, launched one ahead or each behind
the end of the last, whose times are compared with those alone. Contents are compared: blocks are stored to slots from
all over the pool, overwritten on the GPU, and loaded.

    python -m benchmarks.bench_gpu_registration             8 GiB each, under a minute
    python -m benchmarks.bench_gpu_registration --tiny      a smoke test; without a GPU it says so and does nothing
"""

from __future__ import annotations

import threading
import time
from typing import Any, Self

import numpy as np

from benchmarks.gpu_blocks import address_of, planes_in, prefaulted_pool, usable_copies
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


class Background:
    """What runs in a thread of its own until the block ends; the end of the block raises what it raised."""

    def __init__(self) -> None:
        self._memory = torch.zeros(1024, device="cuda")
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run_and_tell)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join(WAIT_S)
        if self._thread.is_alive():
            raise RuntimeError(f"kernels did not end within {WAIT_S:.0f} s")
        if self._error is not None:
            raise self._error

    def _run_and_tell(self) -> None:
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                self._run(torch.cuda.current_stream())
        except BaseException as error:  # noqa: BLE001  raised by __exit__
            self._error = error

    def _run(self, stream: Any) -> None:
        raise NotImplementedError


class Kernels(Background):
    """Small kernels one after the other: the longest from launch to end."""

    longest_ms = 0.0

    def _run(self, stream: Any) -> None:
        while not self._stop.is_set():
            begin_ns = time.perf_counter_ns()
            self._memory += 1
            stream.synchronize()
            self.longest_ms = max(self.longest_ms, (time.perf_counter_ns() - begin_ns) / 1e6)


class Steps(Background):
    """Steps of an engine: a long kernel and some short ones; `ahead`: the next one is launched before one has ended."""

    CYCLES = 10_000_000  # 5 ms
    SHORT_KERNELS = 20

    def __init__(self, *, ahead: bool) -> None:
        super().__init__()
        self._ahead = ahead
        self._copies: _core.BlockCopies | None = None
        self._taken_ms: list[float] = []

    def tell(self, copies: _core.BlockCopies) -> None:
        """Tell copies of each step from now on."""
        self._copies = copies

    def begin(self) -> None:
        """Forget the steps so far."""
        self._taken_ms = []

    def taken(self) -> tuple[float, float]:
        """Return mean and longest of the steps since `begin`, ms; waits for one. Raises RuntimeError when none ends."""
        limit_s = time.monotonic() + WAIT_S
        while not self._taken_ms:
            if not self._thread.is_alive() or time.monotonic() > limit_s:
                raise RuntimeError(f"no step of the engine's ended within {WAIT_S:.0f} s") from self._error
            self._stop.wait(0.01)
        taken = list(self._taken_ms)
        return sum(taken) / len(taken), max(taken)

    def _run(self, stream: Any) -> None:
        ends = [torch.cuda.Event(), torch.cuda.Event()]
        step, begin_ns = 0, time.perf_counter_ns()
        while not self._stop.is_set():
            step += 1
            torch.cuda._sleep(self.CYCLES)
            for _ in range(self.SHORT_KERNELS):
                self._memory += 1
            if self._copies is not None:
                self._copies.record_step(step, stream.cuda_stream)
            ends[step % 2].record(stream)
            if not self._ahead:
                ends[step % 2].synchronize()
            elif step > 1:
                ends[(step - 1) % 2].synchronize()
            now_ns = time.perf_counter_ns()
            self._taken_ms.append((now_ns - begin_ns) / 1e6)
            begin_ns = now_ns


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


def measure_beside_steps(total: int, memory: Any, *, ahead: bool) -> dict[str, Any]:
    """Register a prefaulted pool and let it go while an engine's steps run."""
    num_slots = total // SLOT_BYTES
    planes = planes_in(memory.data_ptr(), 1, NUM_BLOCKS, SLOT_BYTES)
    pool = prefaulted_pool(num_slots, SLOT_BYTES, PREFAULT_THREADS)
    host, stride = address_of(pool), pool.stride_bytes(0)
    with Steps(ahead=ahead) as steps:
        steps.taken()  # what is made at first use is made
        steps.begin()
        threading.Event().wait(0.05 if total < GIB else 1.0)
        alone_ms, alone_longest_ms = steps.taken()
        steps.begin()
        begin_s = time.perf_counter()
        copies = _core.BlockCopies("cuda", NUM_BLOCKS, planes, host, stride, num_slots)
        steps.tell(copies)
        assert copies.wait_usable(WAIT_S)
        taken_s = time.perf_counter() - begin_s
        mean_ms, longest_ms = steps.taken()
        assert copies.wait_tuned(WAIT_S)
        steps.begin()
        begin_s = time.perf_counter()
        copies.release_host()
        let_go_s = time.perf_counter() - begin_s
        let_go_ms, let_go_longest_ms = steps.taken()
    return {
        "gbs": total / taken_s / 1e9, "let_go_s": let_go_s,
        "step_alone_ms": alone_ms, "longest_step_alone_ms": alone_longest_ms,
        "step_ms": mean_ms, "longest_step_ms": longest_ms,
        "step_let_go_ms": let_go_ms, "longest_step_let_go_ms": let_go_longest_ms,
    }  # fmt: skip


def step_figures(row: dict[str, Any], step: str, gib: str) -> list[Figure]:
    """Return how long steps took, beside those alone."""
    registered = f"registered, {number(row['gbs'])} GB/s"
    return [
        Figure(
            question=f"{step} while {gib} GiB are {what}", unit="ms", ours=row[name],
            peer=f"longest {number(row[f'longest_{name}'])}; alone {number(row['step_alone_ms'])}, longest",
            peers=row["longest_step_alone_ms"],
        )
        for what, name in ((registered, "step_ms"), (f"let go, {number(row['let_go_s'])} s", "step_let_go_ms"))
    ]  # fmt: skip


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
    for ahead in (True, False):
        beside = measure_beside_steps(total, memory, ahead=ahead)
        figures += step_figures(beside, "a step launched ahead" if ahead else "a step", number(total / GIB))
        rows.append({"ahead": ahead} | beside)
    emit("gpu_registration", arguments, figures, rows)


if __name__ == "__main__":
    main()
