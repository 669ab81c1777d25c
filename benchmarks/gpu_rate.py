"""Rates of movers: functions that move something once, wait until it is there, and return the bytes. No GPU in here."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

WAIT_S = 120.0
LOAD, STORE = 0, 1
DIRECTION = {"load": LOAD, "store": STORE}

Mover = Callable[[], int]


def parts_of(way: str, length: int) -> dict[int, tuple[int, int]]:
    """Return the part [begin, end) of each direction."""
    if way == "both":
        return {LOAD: (0, length // 2), STORE: (length // 2, length)}
    return {DIRECTION[way]: (0, length)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What movers that ran beside each other did."""

    gbs: float
    cpu_s_per_gb: float
    cpu_share: float
    """Of a core, by the whole process."""


@dataclass(slots=True)
class _Lane:
    mover: Mover
    moved: int = 0
    calls: int = 0
    taken_s: float = 0.0
    is_enough: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None


def cpu_s() -> float:
    """Return the CPU time of the process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def rate(movers: Sequence[Mover], seconds: float, *, warm_calls: int = 1, least_calls: int | None = None) -> Rate:
    """Run movers beside each other, again and again until each has had its seconds and its least calls (3 each, or 6).

    All go on until all have had enough, so that none is alone for longer than the other's last call.
    Raises what a mover raised.
    """
    for mover in movers:
        for _ in range(warm_calls):
            mover()
    least = 3 * len(movers) if least_calls is None else least_calls
    lanes = [_Lane(mover) for mover in movers]
    barrier = threading.Barrier(len(lanes))
    threads = [threading.Thread(target=_run, args=(lane, lanes, barrier, seconds, least)) for lane in lanes]
    cpu_begin_s, begin_s = cpu_s(), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
        if thread.is_alive():
            raise RuntimeError(f"copies did not end within {WAIT_S:.0f} s")
    cpu_taken_s, elapsed_s = cpu_s() - cpu_begin_s, time.perf_counter() - begin_s
    for lane in lanes:
        if lane.error is not None:
            raise lane.error
    moved = sum(lane.moved for lane in lanes)
    return Rate(
        gbs=sum(lane.moved / lane.taken_s for lane in lanes) / 1e9,
        cpu_s_per_gb=cpu_taken_s / (moved / 1e9),
        cpu_share=cpu_taken_s / elapsed_s,
    )


def _run(lane: _Lane, lanes: list[_Lane], barrier: threading.Barrier, seconds: float, least_calls: int) -> None:
    try:
        barrier.wait(WAIT_S)
        begin_s = time.perf_counter()
        while True:
            lane.moved += lane.mover()
            lane.calls += 1
            lane.taken_s = time.perf_counter() - begin_s
            if lane.calls >= least_calls and lane.taken_s >= seconds:
                lane.is_enough.set()
            if all(each.is_enough.is_set() for each in lanes) or lane.taken_s > WAIT_S:
                return
    except BaseException as error:  # noqa: BLE001  raised by rate
        lane.error = error
    finally:
        lane.is_enough.set()
