"""Our counters as vLLM's KVConnectorStats, for its log lines and Prometheus.

Imports vLLM: only the adapter imports this module. A stats object holds what happened in one interval: counts are
differences, which `aggregate` adds; levels are the last ones seen. An object without a count is empty, and its
payload is {}, which vLLM passes over in silence. The worker side returns one to keep the engine stepping, and to tell
the scheduler side which step an output is of (flexkv/integration/vllm).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorStats

from flexkv.common.debug import flexkv_logger
from flexkv.common.metrics import LEVEL_NAMES, CacheStats

__all__ = ["FlexKVConnectorStats", "StatsInterval", "StatsLog", "named_step"]

logger = flexkv_logger(__name__)
LOG_INTERVAL_S = 10.0
_SAID_WHEN_COUNTED = (
    "evicted_blocks",
    "failed_tasks",
    "timed_out_tasks",
    "ssd_staged_blocks",
    "ssd_stored_blocks",
    "ssd_dropped_blocks",
    "ssd_not_offered_blocks",
    "ssd_bad_blocks",
)
_MAY_BE_ABSENT = ("ssd_", "prefill_")  # levels that are 0 without an SSD tier
Numbers = dict[str, int | float]


class FlexKVConnectorStats(KVConnectorStats):  # type: ignore[misc]  # vLLM has no types for mypy here
    """Counts and levels by name (`CacheStats.flat`); only numbers, so that it travels between processes."""

    data: dict[str, Any]
    step: int | None = None  # a worker's: the step it was made in; no part of the payload

    @classmethod
    def naming(cls, step: int) -> FlexKVConnectorStats:
        """Return an empty one that names a step."""
        stats = cls()
        stats.step = step
        return stats

    def reset(self) -> None:
        """Forget everything."""
        self.data = {}

    def is_empty(self) -> bool:
        """Return True when nothing was counted."""
        return not any(value for name, value in self.data.items() if name not in LEVEL_NAMES)

    def aggregate(self, other: KVConnectorStats) -> KVConnectorStats:
        """Add another interval, or another worker's; the levels of the later one hold."""
        for name, value in other.data.items():
            self.data[name] = value if name in LEVEL_NAMES else self.data.get(name, 0) + value
        return self

    def reduce(self) -> Numbers:
        """Return a summary for the log: hit rate, and bytes and GB/s of each route that was used."""
        numbers = self.data
        queried = numbers.get("queried_blocks", 0)
        summary: Numbers = {
            "hit_blocks": numbers.get("hit_blocks", 0),
            "queried_blocks": queried,
            "hit_rate": round(numbers.get("hit_blocks", 0) / queried, 3) if queried else 0.0,
            "stored_blocks": numbers.get("stored_blocks", 0),
        }
        for name, num_bytes in numbers.items():
            route = name.removesuffix("_bytes")
            seconds = numbers.get(f"{route}_seconds", 0)
            if route == name or not num_bytes:
                continue
            summary[f"{route}_mb"] = round(num_bytes / 1e6, 1)
            if seconds:
                summary[f"{route}_gb_per_s"] = round(num_bytes / seconds / 1e9, 2)
        for name in _SAID_WHEN_COUNTED:
            if numbers.get(name):
                summary[name] = numbers[name]
        for name in LEVEL_NAMES:
            value = numbers.get(name)
            if value is not None and (value or not name.startswith(_MAY_BE_ABSENT)):
                summary[name] = round(value)
        return summary


def named_step(stats: KVConnectorStats | None) -> int | None:
    """Return the step that a worker's stats name, if they do. Among several connectors' stats ours are looked up."""
    parts = () if stats is None else (stats, *stats.data.values())
    return next((part.step for part in parts if isinstance(part, FlexKVConnectorStats)), None)


class StatsInterval:
    """Makes the stats of an interval out of snapshots that count since the start."""

    def __init__(self) -> None:
        self._last: Numbers = {}

    def take(self, stats: CacheStats) -> FlexKVConnectorStats | None:
        """Return what changed since the last call, or None when nothing was counted."""
        now = stats.flat()
        changed: Numbers = {
            name: value - self._last.get(name, 0)
            for name, value in now.items()
            if name not in LEVEL_NAMES and value != self._last.get(name, 0)
        }
        self._last = now
        if not changed:
            return None
        changed.update({name: now[name] for name in LEVEL_NAMES})
        return FlexKVConnectorStats(data=changed)


class StatsLog:
    """Logs what was counted, one line an interval, for engines whose connector class reports no counters.

    `clock`: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._interval = StatsInterval()
        self._due_s = clock() + LOG_INTERVAL_S

    def tick(self, stats: Callable[[], CacheStats | None], *, is_last: bool = False) -> None:
        """Log a line if one is due, or at the end; nothing when nothing was counted. Cheap when none is due."""
        now_s = self._clock()
        if now_s < self._due_s and not is_last:
            return
        self._due_s = now_s + LOG_INTERVAL_S
        snapshot = stats()
        counted = None if snapshot is None else self._interval.take(snapshot)
        if counted is not None:
            logger.info("counted %s", " ".join(f"{name}={value}" for name, value in counted.reduce().items()))
