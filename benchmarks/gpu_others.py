"""The part `others` of bench_gpu_copy: how long the engine's own small copies wait beside long ones."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from types import TracebackType
from typing import Any, TypeVar

import torch

from benchmarks.gpu_parts import not_beside
from benchmarks.gpu_plan import Plan
from benchmarks.gpu_rate import rate
from benchmarks.gpu_rig import Arena, Driver, Rig
from benchmarks.gpu_rows import OthersRow, name_of_bytes
from benchmarks.gpu_table import others_line
from benchmarks.report import KIB, percentile

Result, T = TypeVar("Result"), TypeVar("T")
ENGINE_BYTES = {"load": 128 * KIB, "store": 16 * KIB}
"""To the GPU, as block tables are beside loads; from it, as sampled tokens are beside stores."""
BETWEEN_S = 0.0005
PLANES, LONG_CHUNK_BYTES = 64, 1 << 20
STEP_CYCLES, STEPS_AHEAD = 4_000_000, 4
"""Of a GPU, about 2 ms; so many steps of the engine's are in its stream at a time."""


class EngineCopy:
    """A copy of pinned memory in a stream of its own, the way of the long ones."""

    def __init__(self, driver: Driver, way: str) -> None:
        self._driver, self._way = driver, way
        self.num_bytes = ENGINE_BYTES[way]
        self._device = torch.zeros(self.num_bytes, dtype=torch.uint8, device="cuda")
        self._host = torch.zeros(self.num_bytes, dtype=torch.uint8, pin_memory=True)
        self._stream = torch.cuda.Stream()
        self._event = driver.event(is_blocking=False)
        torch.cuda.synchronize()

    def waited_us(self) -> float:
        """Copy, and return how long that took."""
        to, host, stream = self._device.data_ptr(), self._host.data_ptr(), self._stream.cuda_stream
        self._driver.enter()
        begin_ns = time.perf_counter_ns()
        if self._way == "load":
            self._driver.call("cuMemcpyHtoDAsync_v2", to, host, self.num_bytes, stream)
        else:
            self._driver.call("cuMemcpyDtoHAsync_v2", host, to, self.num_bytes, stream)
        self._driver.call("cuEventRecord", self._event, stream)
        self._driver.call("cuEventSynchronize", self._event)
        return (time.perf_counter_ns() - begin_ns) / 1e3

    def __enter__(self) -> EngineCopy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._driver.call("cuEventDestroy_v2", self._event)


class Work:
    """Steps of an engine that do nothing, but are there: ours copy as they do beside its work."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._stream = torch.cuda.Stream()
        self._ends: deque[Any] = deque()

    def go_on(self) -> None:
        """Put steps into the stream, unless so many are in it."""
        while self._ends and self._ends[0].query():
            self._ends.popleft()
        while len(self._ends) < STEPS_AHEAD:
            with torch.cuda.stream(self._stream):
                torch.cuda._sleep(STEP_CYCLES)
                self._ends.append(torch.cuda.Event())
                self._ends[-1].record(self._stream)
            self._rig.record_step(self._stream.cuda_stream)


def _beside(run: Callable[[], Result], meanwhile: Callable[[], T]) -> tuple[Result, list[T]]:
    """Run something, and something else again and again meanwhile; return what came of each."""
    taken: list[T] = []
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        while not running.done():
            taken.append(meanwhile())
            time.sleep(BETWEEN_S)
        return running.result(), taken


def others(plan: Plan) -> None:
    """Each way: a small copy alone, beside contiguous DMA, and beside ours while the engine works."""
    for size in plan.sizes["others"]:
        with Arena(plan.driver, size, size) as arena:
            for chunk in plan.chunks[size]:
                with Rig(arena, chunk, PLANES if chunk < LONG_CHUNK_BYTES else 1) as rig:
                    for way in ENGINE_BYTES:
                        if way in plan.ways and plan.has_time(f"others: {name_of_bytes(chunk)}, {way}"):
                            row = _measure(plan, arena, rig, way)
                            plan.add(row, f"others: {others_line(asdict(row))}")


def _measure(plan: Plan, arena: Arena, rig: Rig, way: str) -> OthersRow:
    work = Work(rig)
    with EngineCopy(plan.driver, way) as engine:

        def beside_ours() -> float:
            work.go_on()
            return engine.waited_us()

        alone = [engine.waited_us() for _ in range(100)]
        limit_movers, our_movers = arena.dma.movers(way), rig.movers(way)
        limit, by_limit = _beside(lambda: rate(limit_movers, 2 * plan.seconds), engine.waited_us)
        work.go_on()
        mechanism = rig.moved_by(way)
        ours, by_ours = _beside(lambda: rate(our_movers, 2 * plan.seconds), beside_ours)
        work.go_on()
        was_beside, _ = _beside(lambda: rig.verify_beside_work(way, mechanism), work.go_on)
    if not was_beside:
        plan.warn(not_beside(rig, way, mechanism, "steps"))
    return OthersRow(
        chunk_bytes=rig.chunk_bytes, size_bytes=arena.device_bytes, way=way, engine_bytes=engine.num_bytes,
        alone_p50_us=percentile(alone, 50),
        limit_p50_us=percentile(by_limit, 50), limit_max_us=max(by_limit), limit_gbs=limit.gbs,
        ours_p50_us=percentile(by_ours, 50), ours_max_us=max(by_ours), ours_gbs=ours.gbs, mechanism=mechanism,
        samples=len(by_ours), limit_samples=len(by_limit),
    )  # fmt: skip
