"""The parts of bench_gpu_copy that measure: each takes a Plan and adds rows to it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from benchmarks import gpu_agent, gpu_load
from benchmarks.gpu_blocks import address_of, planes_in, prefaulted_pool, usable_copies
from benchmarks.gpu_plan import Plan
from benchmarks.gpu_rate import DIRECTION, LOAD, STORE, WAIT_S, Mover, rate
from benchmarks.gpu_rig import Arena, Dma, Rig, check_room
from benchmarks.gpu_rows import CopyRow, CpuRow, LatencyRow, RegisterRow, name_of_bytes
from benchmarks.gpu_slots import Aged, fresh, mean_run, random_slots
from benchmarks.gpu_table import copy_cell
from benchmarks.report import GIB, KIB, MIB, percentile, spread

NUM_PLANES, LONG_CHUNK_BYTES = 64, MIB
BUNDLES_IN_WINDOW = 8
CALLS_BYTES, LEAST_CALLS = 32 * GIB, 20
SHORT_BYTES, SPLIT_OF_SHORT = 64 * MIB, 5
"""Up to how many bytes windows are shorter and more by this factor: a host that is not still drifts within one."""
LATENCY_BLOCKS = ((2 * MIB, 64), (64 * KIB, 16))
"""Bytes of a block, and its chunks."""


def device_facts() -> dict[str, str]:
    """Return what the figures depend on, of the GPU."""
    asked = ("driver_version", "clocks.sm", "clocks.max.sm", "pcie.link.gen.current", "pcie.link.width.current")
    found = _asked(asked) or ["unknown"] * len(asked)
    return {
        "name": torch.cuda.get_device_name(),
        "driver": found[0],
        "cuda": str(torch.version.cuda),
        "torch": torch.__version__,
        "sm_mhz": found[1],
        "max_sm_mhz": found[2],
        "pcie": "unknown" if found[3] == "unknown" else f"gen {found[3]} x{found[4]}",
        "memory_gib": f"{torch.cuda.mem_get_info()[1] / GIB:.1f}",
    }


def _asked(names: Sequence[str]) -> list[str] | None:
    """Return what nvidia-smi says of the first GPU; None where there is none or it does not answer."""
    command = ["nvidia-smi", "--id=0", f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = [each.strip() for each in done.stdout.strip().split(",")]
    return found if done.returncode == 0 and len(found) == len(names) else None


def planes_of(chunk_bytes: int) -> int:
    """Return how many chunks a block has: 64, as a model of 32 layers; one where they are long."""
    return NUM_PLANES if chunk_bytes < LONG_CHUNK_BYTES else 1


@contextmanager
def _rig(plan: Plan, arena: Arena, chunk: int, planes: int | None = None, slots: Any = None) -> Iterator[Rig]:
    with Rig(arena, chunk, planes_of(chunk) if planes is None else planes, slots) as rig:
        if not rig.is_registered:
            plan.warn("the driver has not registered the host memory: copies are of pageable memory")
        yield rig


def _median(rounds: Sequence[dict[str, float]], name: str) -> float:
    return percentile([each[name] for each in rounds], 50)


def _row(part: str, rig: Rig, size: int, way: str, rounds: Sequence[dict[str, float]], **more: Any) -> CopyRow:
    ratios = [each["ours_gbs"] / each["limit_gbs"] for each in rounds]
    return CopyRow(
        part=part, chunk_bytes=rig.chunk_bytes, size_bytes=size, way=way, mean_run=mean_run(rig.slots),
        ours_gbs=_median(rounds, "ours_gbs"), limit_gbs=_median(rounds, "limit_gbs"),
        ratio=percentile(ratios, 50), ratio_low=min(ratios), ratio_high=max(ratios),
        limit_spread=spread([each["limit_gbs"] for each in rounds]), **({"mechanism": rig.moved_by(way)} | more),
    )  # fmt: skip


def _told(row: CopyRow) -> str:
    what = f"{row.part}: {name_of_bytes(row.chunk_bytes)} {name_of_bytes(row.size_bytes)} {row.way} {row.load}"
    return f"{what} {row.slots}, {row.mechanism}: {copy_cell(asdict(row))}"


def _idle_rounds(plan: Plan, size: int, limit: list[Mover], ours: list[Mover]) -> list[dict[str, float]]:
    """Take turns with the limit, who begins as well. Short copies take more and shorter turns in the same time."""
    split = SPLIT_OF_SHORT if size <= SHORT_BYTES else 1
    rounds = []
    for number in range(split * plan.rounds):
        of_round = {}
        for is_ours in (number % 2 == 1, number % 2 == 0):
            movers = ours if is_ours else limit
            of_round["ours_gbs" if is_ours else "limit_gbs"] = rate(movers, plan.seconds / split).gbs
        rounds.append(of_round)
    return rounds


def copies(plan: Plan) -> None:
    """Idle GPU: every size, chunk and way."""
    for size in plan.sizes["copies"]:
        if not plan.has_time(f"copies of {name_of_bytes(size)}"):
            continue
        with Arena(plan.driver, size, size) as arena:
            for chunk in plan.chunks[size]:
                what = f"copies: {name_of_bytes(chunk)}, {name_of_bytes(size)}"
                if not plan.has_time(what):
                    continue
                with _rig(plan, arena, chunk) as rig:
                    for way in plan.ways:
                        if plan.has_time(f"{what}, {way}"):
                            rounds = _idle_rounds(plan, size, arena.dma.movers(way), rig.movers(way))
                            rig.verify(way)
                            row = _row("copies", rig, size, way, rounds, load="idle", slots="fresh")
                            plan.add(row, _told(row))


def calls(plan: Plan) -> None:
    """Single calls one way on an idle GPU, in turns with the limit's."""
    for size in plan.sizes["calls"]:
        samples = int(min(max(plan.samples // 8, LEAST_CALLS), max(CALLS_BYTES // size, LEAST_CALLS)))
        with Arena(plan.driver, size, size) as arena:
            for chunk in plan.chunks[size]:
                with _rig(plan, arena, chunk) as rig:
                    for way in DIRECTION:
                        if way in plan.ways and plan.has_time(f"calls: {name_of_bytes(chunk)}, {way}"):
                            movers_of = {"ours": rig.movers(way), "limit": arena.dma.movers(way)}
                            row = _calls_row(rig, size, way, _in_turns(movers_of, samples))
                            rig.verify(way)
                            plan.add(row, _told(row))


def _calls_row(rig: Rig, size: int, way: str, taken: dict[str, list[float]]) -> CopyRow:
    limit_gbs = size / percentile(taken["limit"], 50) / 1e3
    ours_gbs, slow_gbs, fast_gbs = (
        rig.num_blocks * rig.slot_bytes / percentile(taken["ours"], quartile) / 1e3 for quartile in (50, 75, 25)
    )
    return CopyRow(
        part="calls", chunk_bytes=rig.chunk_bytes, size_bytes=size, way=way, mean_run=mean_run(rig.slots), load="idle",
        slots="fresh", ours_gbs=ours_gbs, limit_gbs=limit_gbs, ratio=ours_gbs / limit_gbs,
        ratio_low=slow_gbs / limit_gbs, ratio_high=fast_gbs / limit_gbs, limit_spread=spread(taken["limit"]),
        mechanism=rig.moved_by(way),
    )  # fmt: skip


def engine_of(name: str, *, is_tiny: bool) -> gpu_load.Engine:
    """Return a load by its name."""
    if name == "product":
        return gpu_load.product(1024, 64) if is_tiny else gpu_load.product()
    if name == "prefill":
        return gpu_load.prefill(1, 512, 256) if is_tiny else gpu_load.prefill()
    return gpu_load.decode(2, 512) if is_tiny else gpu_load.decode()


def load(plan: Plan) -> None:
    """The same beside each load."""
    for name in plan.loads:
        engine = engine_of(name, is_tiny=plan.is_tiny)
        for size in plan.sizes["load"]:
            if not plan.has_time(f"load: {name}, {name_of_bytes(size)}"):
                continue
            with Arena(plan.driver, size, size) as arena:
                for chunk in plan.chunks[size]:
                    what = f"load: {name}, {name_of_bytes(chunk)}, {name_of_bytes(size)}"
                    if not plan.has_time(what):
                        continue
                    clock = ""
                    with _rig(plan, arena, chunk) as rig:
                        for way in plan.ways:
                            if plan.has_time(f"{what}, {way}"):
                                clock = _beside(plan, arena, rig, engine, way, clock)
        del engine
        torch.cuda.empty_cache()


def _beside(plan: Plan, arena: Arena, rig: Rig, engine: gpu_load.Engine, way: str, clock: str) -> str:
    """Measure one way. Returns the SM clock under the load; `clock`: it, where it is known: asking is slow."""
    limit, ours = arena.dma.movers(way), rig.movers(way)
    with gpu_load.Running(engine, rig.record_step) as running:
        clock = clock or (_asked(["clocks.sm"]) or ["unknown"])[0]
        seconds = window_s(running, plan.seconds / 2)
        mechanism = rig.moved_by(way)
        rounds = [
            gpu_load.beside(running, movers_of, seconds, 2 if plan.is_tiny else 6)
            for movers_of in turns({"limit": limit, "ours": ours, "again": limit}, 2 * plan.rounds)
        ]
        if not rig.verify_beside_work(way, mechanism):
            plan.warn(not_beside(rig, way, mechanism, engine.name))
    for each in rounds:
        each["limit_gbs"] = (each["limit_gbs"] + each["again_gbs"]) / 2
        each["by_limit"] = (each["limit_slower"] + each["again_slower"]) / 2
    points = [100 * (each["ours_slower"] - each["by_limit"]) for each in rounds]
    by_chance = [100 * abs(each["limit_slower"] - each["again_slower"]) for each in rounds]
    row = _row(
        "load", rig, arena.device_bytes, way, rounds, load=engine.name, slots="fresh", engine_unit=engine.unit,
        engine_alone=_median(rounds, "alone"), engine_slower=_median(rounds, "ours_slower"),
        engine_slower_by_limit=_median(rounds, "by_limit"), points=percentile(points, 50),
        points_by_chance=percentile(by_chance, 50), sm_mhz=clock,
        mechanism=mechanism,
    )  # fmt: skip
    plan.add(row, f"{_told(row)}; alone {row.engine_alone:.1f} {row.engine_unit}, SM {row.sm_mhz} MHz")
    return clock


def not_beside(rig: Rig, way: str, mechanism: str, work: str) -> str:
    """Return what to tell when bytes were compared, but perhaps not beside the work or as they were timed."""
    what = f"{name_of_bytes(rig.chunk_bytes)} chunks, {way}, {mechanism}, beside {work}"
    return f"{what}: bytes are right, but when they were compared the engine paused, or others were chosen"


def window_s(running: gpu_load.Running, least_s: float) -> float:
    """Return how long a window must be in which an engine's speed is measured."""
    return max(least_s, BUNDLES_IN_WINDOW * running.timeline.wait(running.timeline.begin(), 2))


def turns(movers_of: dict[str, list[Mover]], rounds: int) -> Iterator[dict[str, list[Mover]]]:
    """Yield all of them for each round, each one first in its turn."""
    names = list(movers_of)
    for number in range(rounds):
        order = [names[(number + place) % len(names)] for place in range(len(names))]
        yield {name: movers_of[name] for name in order}


def pools(plan: Plan, aged: Aged) -> None:
    """Host slots of a fresh pool, of an aged one, and in random order, one way each."""
    for size in plan.sizes["pools"]:
        if not plan.has_time(f"pools: {name_of_bytes(size)}"):
            continue
        with Arena(plan.driver, size, 2 * size) as arena:
            for chunk in plan.chunks[size]:
                num_blocks = size // (planes_of(chunk) * chunk)
                for way in ("load", "store"):
                    for name, slots in (
                        ("fresh", fresh(num_blocks)),
                        ("aged", aged.take(way, num_blocks)),
                        ("random", random_slots(num_blocks, 2 * num_blocks, chunk)),
                    ):
                        if not plan.has_time(f"pools: {name_of_bytes(chunk)}, {name}, {way}"):
                            continue
                        with _rig(plan, arena, chunk, slots=slots) as rig:
                            rounds = _idle_rounds(plan, size, arena.dma.movers(way), rig.movers(way))
                            rig.verify(way)
                            row = _row("pools", rig, size, way, rounds, load="idle", slots=name)
                            plan.add(row, f"{_told(row)}, {row.mean_run:.1f} slots per run")


def latency(plan: Plan) -> None:
    """One block after the other: ours, a DMA that spins, one that waits by interrupt, in turns."""
    size = 16 * MIB if plan.is_tiny else 64 * MIB
    with Arena(plan.driver, size, size) as arena:
        for block_bytes, planes in LATENCY_BLOCKS:
            with _rig(plan, arena, block_bytes // planes, planes) as rig:
                for way, direction in (("load", LOAD), ("store", STORE)):
                    if plan.has_time(f"latency: {name_of_bytes(block_bytes)}, {way}"):
                        taken = _latencies(arena.dma, rig, direction, block_bytes, plan.samples)
                        rig.verify(way)
                        row = LatencyRow(
                            block_bytes=block_bytes, chunk_bytes=rig.chunk_bytes, way=way, samples=plan.samples,
                            **{f"{who}_p{p}_us": percentile(us, p) for who, us in taken.items() for p in (50, 99)},
                        )  # fmt: skip
                        told = ", ".join(f"{who} {percentile(us, 50):.1f} us" for who, us in taken.items())
                        plan.add(row, f"latency: {name_of_bytes(block_bytes)} {way}: {told}")


def _latencies(dma: Dma, rig: Rig, direction: int, block_bytes: int, samples: int) -> dict[str, list[float]]:
    """Time single calls, the three in turns; each call takes the next block."""
    count = min(rig.num_blocks, dma.total_bytes // block_bytes, 32)
    ours = [rig.mover(direction, at, at + 1) for at in range(count)]
    extents = [(at * block_bytes, (at + 1) * block_bytes) for at in range(count)]
    movers: dict[str, list[Mover]] = {
        "ours": ours,
        "spin": [dma.mover(direction, *extent) for extent in extents],
        "blocking": [dma.mover(direction, *extent, is_blocking=True) for extent in extents],
    }
    return _in_turns(movers, samples)


def _in_turns(movers: dict[str, list[Mover]], samples: int) -> dict[str, list[float]]:
    """Time single calls, us, those of each name by turns over its movers. Each name is first as often as the others."""
    names = list(movers)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for sample in range(-min(32, samples), samples):
        for turn in range(len(names)):
            name = names[(sample + turn) % len(names)]
            mover = movers[name][sample % len(movers[name])]
            begin_ns = time.perf_counter_ns()
            mover()
            passed_us = (time.perf_counter_ns() - begin_ns) / 1e3
            if sample >= 0:
                taken[name].append(passed_us)
    return taken


def cpu(plan: Plan) -> None:
    """What copies at full rate cost the process; what the agent's threads cost, idle, busy, and beside a product."""
    size = plan.sizes["cpu"][0]
    with Arena(plan.driver, size, size) as arena, _rig(plan, arena, 32 * KIB) as rig:
        for way in plan.ways:
            kinds: tuple[tuple[str, Callable[[], list[Mover]]], ...] = (
                ("ours", lambda way=way: rig.movers(way)),
                ("dma blocking", lambda way=way: arena.dma.movers(way, is_blocking=True)),
                ("dma spin", lambda way=way: arena.dma.movers(way)),
            )
            for who, make in kinds:
                if not plan.has_time(f"cpu: {who}, {way}"):
                    continue
                movers = make()
                found = [rate(movers, 2 * plan.seconds) for _ in range(plan.rounds)]
                row = CpuRow(
                    who=who, way=way, gbs=percentile([each.gbs for each in found], 50),
                    share=percentile([each.cpu_share for each in found], 50),
                    s_per_gb=percentile([each.cpu_s_per_gb for each in found], 50),
                    detail=f"the process, chunks of 32 KiB, {name_of_bytes(size)} a call",
                )  # fmt: skip
                plan.add(row, f"cpu: {who} {way}: {row.gbs:.1f} GB/s, {row.share:.3f} of a core")
            rig.verify(way)
    if plan.has_time("cpu: the agent"):
        ops, idle_s = (2, 0.2) if plan.is_tiny else (3 * plan.rounds, 1.0)
        engine = engine_of("product", is_tiny=plan.is_tiny)
        for row in gpu_agent.measure(plan.agent_blocks, ops, idle_s, engine):
            plan.add(row, f"cpu: agent {row.way}: {row.gbs:.1f} GB/s, {row.share:.4f} of a core; {row.detail}")


def register(plan: Plan) -> None:
    """Host memory made usable for the GPU, beside one call of the driver for all of it; GPU memory taken."""
    size = plan.register_bytes
    check_room(16 * MIB, size)
    begin_s = time.perf_counter()
    num_slots = size // (2 * MIB)
    pool = prefaulted_pool(num_slots, 2 * MIB, threads=16)
    prefault_s = time.perf_counter() - begin_s
    base = address_of(pool)
    memory = torch.empty(16 * MIB, dtype=torch.uint8, device="cuda")
    taken: dict[str, list[float]] = {"ours": [], "one_call": [], "release": []}
    gpu_bytes = [_gpu_bytes(memory, base) for _ in range(2)][-1]  # the first one loads the kernels
    for _ in range(max(1, plan.rounds // 2)):
        _one_registration(plan, memory, base, num_slots, taken)
    row = RegisterRow(
        size_bytes=size, prefault_s=prefault_s, page_kind=pool.page_kind, ours_s=percentile(taken["ours"], 50),
        one_call_s=percentile(taken["one_call"], 50), release_s=percentile(taken["release"], 50),
        gpu_memory_mib=gpu_bytes / MIB,
    )  # fmt: skip
    plan.add(row, f"register: {name_of_bytes(size)}: ours {row.ours_s:.3f} s, in one call {row.one_call_s:.3f} s")


def _copier(memory: Any, base: int, num_slots: int) -> Any:
    num_blocks = len(memory) // (2 * MIB)
    return usable_copies(planes_in(memory.data_ptr(), 1, num_blocks, 2 * MIB), num_blocks, base, 2 * MIB, num_slots)


def _gpu_bytes(memory: Any, base: int) -> int:
    """Return what both directions take of the GPU, once there are copies of a block."""
    torch.cuda.synchronize()
    free_before = torch.cuda.mem_get_info()[0]
    copier = _copier(memory, base, 1)
    copier.wait_tuned(WAIT_S)  # it takes memory meanwhile
    ids = np.zeros(1, dtype=np.int64)
    for direction in (STORE, LOAD):
        copier.copy(direction, ids, ids)
    taken = []
    for _ in range(25):  # what was taken for measuring is given back a moment later
        taken.append(int(free_before - torch.cuda.mem_get_info()[0]))
        time.sleep(0.02)
    return min(taken)


def _one_registration(plan: Plan, memory: Any, base: int, num_slots: int, taken: dict[str, list[float]]) -> None:
    """Time ours and the driver's, one after the other. Ours: from the call that makes it until all slots are usable."""
    begin_s = time.perf_counter()
    copier = _copier(memory, base, num_slots)
    taken["ours"].append(time.perf_counter() - begin_s)
    copier.wait_tuned(WAIT_S)
    begin_s = time.perf_counter()
    del copier
    taken["release"].append(time.perf_counter() - begin_s)
    begin_s = time.perf_counter()
    plan.driver.call("cuMemHostRegister_v2", base, num_slots * 2 * MIB, 1)
    taken["one_call"].append(time.perf_counter() - begin_s)
    plan.driver.call("cuMemHostUnregister", base)
