"""Counters of a task engine, and CacheStats, a frozen copy of them.

Counters are plain numbers, changed under the task engine's lock and never reset; who wants a rate subtracts two
snapshots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from flexkv.common.transfer import TransferType

__all__ = ["CacheStats", "Counters", "MissReason", "RouteCounters", "RouteStats", "SkipReason"]


class MissReason(Enum):
    """Why a GET loads nothing."""

    NO_MATCH = "no_match"  # the tier holds no block of it
    NOT_STORED_YET = "not_stored_yet"  # it is there, but its bytes are still on their way
    ON_GPU = "on_gpu"  # everything that matches is on the GPU already
    TOO_SHORT = "too_short"  # less than one block was asked for
    NOT_READY = "not_ready"  # ranks have not registered, or no slot is mapped
    QUARANTINE = "quarantine"  # too many slots are quarantined: the tier is off
    SHUT_DOWN = "shut_down"
    SLOWER_THAN_COMPUTE = "slower_than_compute"  # a slower tier has it, but computing it is faster (D11)


class SkipReason(Enum):
    """Why a PUT leaves out blocks."""

    ALREADY_STORED = "already_stored"
    NO_SLOTS = "no_slots"  # all slots are pinned or in use
    NOT_READY = "not_ready"
    QUARANTINE = "quarantine"
    DOOMED = "doomed"  # their GPU blocks were taken away before the copy was acknowledged
    FAILED = "failed"  # the op failed
    SHUT_DOWN = "shut_down"


@dataclass(frozen=True, slots=True)
class RouteStats:
    """What went along one route. `seconds` is copy time of the slowest rank, summed over ops.

    `bytes` are those of all ranks: what each of several replicas loads counts for each.
    """

    num_ops: int = 0
    num_blocks: int = 0
    bytes: int = 0
    seconds: float = 0.0
    num_failed: int = 0


@dataclass(slots=True)
class RouteCounters:
    """The counters behind a RouteStats."""

    num_ops: int = 0
    num_blocks: int = 0
    bytes: int = 0
    seconds: float = 0.0
    num_failed: int = 0

    def add(self, num_blocks: int, num_bytes: int, seconds: float, *, failed: bool = False) -> None:
        """Count one finished op."""
        self.num_ops += 1
        self.num_failed += failed
        if not failed:
            self.num_blocks += num_blocks
        self.bytes += num_bytes
        self.seconds += seconds

    def snapshot(self) -> RouteStats:
        """Return the present values."""
        return RouteStats(self.num_ops, self.num_blocks, self.bytes, self.seconds, self.num_failed)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """The counters at one moment. Names in `LEVEL_NAMES` are levels, the rest counts since the start."""

    routes: Mapping[TransferType, RouteStats]
    misses: Mapping[MissReason, int]
    skipped_blocks: Mapping[SkipReason, int]
    get_requests: int
    put_requests: int
    queried_blocks: int
    hit_blocks: int
    put_blocks: int
    loaded_blocks: int
    stored_blocks: int
    evicted_blocks: int
    failed_tasks: int
    timed_out_tasks: int
    cancelled_tasks: int
    dropped_results: int
    resets: int
    slots_total: int
    slots_used: int
    slots_quarantined: int
    tasks_running: int
    ssd_staged_blocks: int
    ssd_stored_blocks: int
    ssd_dropped_blocks: int
    ssd_not_offered_blocks: int
    ssd_bad_blocks: int
    ssd_evicted_blocks: int
    ssd_slots_total: int
    ssd_slots_used: int
    ssd_moves_running: int
    ssd_read_bytes_per_s: float
    ssd_write_bytes_per_s: float
    prefill_tokens_per_s: float

    def flat(self) -> dict[str, int | float]:
        """Return name -> number, e.g. ``h2d_bytes``, ``misses_no_match``, ``slots_used``."""
        numbers: dict[str, int | float] = {}
        for route, stats in self.routes.items():
            prefix = route.name.lower()
            numbers[f"{prefix}_ops"] = stats.num_ops
            numbers[f"{prefix}_blocks"] = stats.num_blocks
            numbers[f"{prefix}_bytes"] = stats.bytes
            numbers[f"{prefix}_seconds"] = stats.seconds
            numbers[f"{prefix}_failed"] = stats.num_failed
        numbers.update({f"misses_{reason.value}": count for reason, count in self.misses.items()})
        numbers.update({f"skipped_blocks_{reason.value}": count for reason, count in self.skipped_blocks.items()})
        numbers.update({name: getattr(self, name) for name in (*COUNT_NAMES, *LEVEL_NAMES)})
        return numbers


@dataclass(slots=True, kw_only=True)
class Counters:
    """Changed under the owner's lock. Levels are written by the owner before it takes a snapshot."""

    routes: dict[TransferType, RouteCounters] = field(
        default_factory=lambda: {route: RouteCounters() for route in TransferType if route is not TransferType.VIRTUAL}
    )
    misses: dict[MissReason, int] = field(default_factory=lambda: dict.fromkeys(MissReason, 0))
    skipped_blocks: dict[SkipReason, int] = field(default_factory=lambda: dict.fromkeys(SkipReason, 0))
    get_requests: int = 0
    put_requests: int = 0
    queried_blocks: int = 0  # whole blocks asked for by GETs that were launched, or found nothing
    hit_blocks: int = 0  # of these, held and ready
    put_blocks: int = 0  # blocks PUTs planned to write
    loaded_blocks: int = 0
    stored_blocks: int = 0
    evicted_blocks: int = 0
    failed_tasks: int = 0
    timed_out_tasks: int = 0
    cancelled_tasks: int = 0
    dropped_results: int = 0  # of finished tasks that nobody waited for, past a bound
    resets: int = 0
    slots_total: int = 0
    slots_used: int = 0
    slots_quarantined: int = 0
    tasks_running: int = 0
    ssd_staged_blocks: int = 0  # read from the SSD tier into the CPU tier, and checked
    ssd_stored_blocks: int = 0  # written to it
    ssd_dropped_blocks: int = 0  # not written: the queue was full, slots short, or the write failed
    ssd_not_offered_blocks: int = 0  # there, but slower to read than to compute
    ssd_bad_blocks: int = 0  # could not be read, or were not what was written
    ssd_evicted_blocks: int = 0
    ssd_slots_total: int = 0
    ssd_slots_used: int = 0
    ssd_moves_running: int = 0
    ssd_read_bytes_per_s: float = 0.0  # as measured; 0 before: what the cost model decides by
    ssd_write_bytes_per_s: float = 0.0
    prefill_tokens_per_s: float = 0.0

    def miss(self, reason: MissReason) -> None:
        """Count a GET that loads nothing."""
        self.misses[reason] += 1

    def skip(self, reason: SkipReason, num_blocks: int) -> None:
        """Count blocks a PUT leaves out."""
        self.skipped_blocks[reason] += num_blocks

    def snapshot(self) -> CacheStats:
        """Return a frozen copy of everything."""
        return CacheStats(
            routes={route: counters.snapshot() for route, counters in self.routes.items()},
            misses=dict(self.misses),
            skipped_blocks=dict(self.skipped_blocks),
            **{name: getattr(self, name) for name in (*COUNT_NAMES, *LEVEL_NAMES)},
        )


LEVEL_NAMES = (
    "slots_total",
    "slots_used",
    "slots_quarantined",
    "tasks_running",
    "ssd_slots_total",
    "ssd_slots_used",
    "ssd_moves_running",
    "ssd_read_bytes_per_s",
    "ssd_write_bytes_per_s",
    "prefill_tokens_per_s",
)
COUNT_NAMES = (
    "get_requests",
    "put_requests",
    "queried_blocks",
    "hit_blocks",
    "put_blocks",
    "loaded_blocks",
    "stored_blocks",
    "evicted_blocks",
    "failed_tasks",
    "timed_out_tasks",
    "cancelled_tasks",
    "dropped_results",
    "resets",
    "ssd_staged_blocks",
    "ssd_stored_blocks",
    "ssd_dropped_blocks",
    "ssd_not_offered_blocks",
    "ssd_bad_blocks",
    "ssd_evicted_blocks",
)
