"""Does the cache layer stay as it was made: slots in long runs, operations O(1), memory flat?

Two questions, two tables.

Runs: a trace of prompts is replayed into a slot pool that is kept filled to a level, evicting as the index says. The
mean run is what matters: a run of adjacent slots is one copy. Given are, over the second half of the trace, the blocks
per run of what was stored and of what was hit, beside the same blocks in a plain FIFO free list, aged in the same run,
and the blocks per run if every store had lain in one. Unit: blocks per run.

Endurance: 100 million operations on an index of 1M blocks, as full as a tier is by default (DEFAULT_EVICT_RATIO of the
slots stay free): prompts of random length arrive, half of them branching off a resident one, and the oldest go; an
operation is one block inserted or evicted. Given for each tenth: time per operation, time of a match, blocks per run of
what is stored, and the memory of the process. The limits: the last tenth within 1.25 times the first in both times,
memory within 1 %. Invariants are checked at the end. Unit: nanoseconds, microseconds, blocks per run, MiB.

    .venv/dev/bin/python -m benchmarks.bench_ageing [TRACE.jsonl] [--json FILE] [--operations N]
    .venv/dev/bin/python -m benchmarks.bench_ageing --tiny     a smoke test on a small made trace
"""

from __future__ import annotations

import random
import statistics
import time
from collections import deque
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.bench_trace_replay import BLOCKS_PER_ID, keys_of, made_trace, num_runs, read_trace
from benchmarks.report import Figure, emit, parser, say, table
from flexkv import _core
from flexkv.common.config import DEFAULT_EVICT_RATIO

FILL_PERCENTS = (50, 75, 90, 95, 100)
POOL_PERCENT_OF_FOOTPRINT = 10
NOW_S = 0

Slots = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint8]


class FifoFreeList:
    """The peer: free slots in the order in which they were freed; tells nothing of runs."""

    def __init__(self, capacity: int) -> None:
        self._free = deque(range(capacity))
        self._slot_of: Slots = np.full(capacity, -1, dtype=np.int64)  # by our slot for the same block

    def store(self, ours: Slots) -> Slots:
        """Give a slot to each block that we put into `ours`."""
        self._slot_of[ours] = [self._free.popleft() for _ in range(len(ours))]
        return self._slot_of[ours]

    def where(self, ours: Slots) -> Slots:
        """Its slots of the blocks that are in `ours`."""
        return self._slot_of[ours]

    def drop(self, ours: Slots) -> None:
        """Free what we freed."""
        self._free.extend(self._slot_of[ours].tolist())


class Tier:
    """A slot pool and its index, holding at most `limit` blocks."""

    def __init__(self, capacity: int, limit: int) -> None:
        self.pool = _core.SlotPool(capacity, capacity)
        self.index = _core.PrefixIndex(capacity)
        self.limit = limit

    def access(self, keys: Keys) -> tuple[Slots, Slots, Slots]:
        """Hold the whole chain. Returns the slots that were hit, those evicted, and those stored."""
        found = self.index.match(keys, NOW_S)
        missing = len(keys) - found.num_visible
        pinned = found.deepest_visible
        if pinned >= 0:
            self.index.pin(pinned)
        evicted = np.empty(0, dtype=np.int64)
        excess = self.pool.num_used + missing - self.limit
        if excess > 0:
            evicted = self.index.evict(excess)
            self.pool.free(evicted)
        missing = min(missing, self.limit - self.pool.num_used)
        stored = self.pool.allocate(missing)
        if missing > 0:
            chain = keys[: found.num_visible + missing]
            if self.index.insert(chain, found.num_visible, stored) != _core.InsertStatus.INSERTED:
                raise AssertionError("insert failed")
            self.index.mark_ready(stored)
        if pinned >= 0:
            self.index.unpin(pinned)
        return found.slots(), evicted, stored

    def check(self) -> None:
        """Raise unless every slot is in the pool or in the index, and both are sound."""
        self.pool.check_invariants()
        self.index.check_invariants()
        if self.pool.num_used != self.index.num_blocks:
            raise AssertionError(f"{self.pool.num_used} slots used, {self.index.num_blocks} blocks held")


def per_run(num_blocks: int, runs: int) -> float:
    return num_blocks / runs if runs else 0.0


def age(prompts: list[list[int]], capacity: int, fill_percent: int) -> dict[str, float]:
    tier, peer = Tier(capacity, max(BLOCKS_PER_ID, capacity * fill_percent // 100)), FifoFreeList(capacity)
    hit = stored = stores = 0
    runs = dict.fromkeys(("hit", "store", "fifo_hit", "fifo_store"), 0)
    for i, prompt in enumerate(prompts):
        hit_slots, evicted, stored_slots = tier.access(keys_of(prompt))
        peer_hit = peer.where(hit_slots)
        peer.drop(evicted)
        peer_stored = peer.store(stored_slots)
        if 2 * i < len(prompts):
            continue
        hit += len(hit_slots)
        stored += len(stored_slots)
        stores += len(stored_slots) > 0
        runs["hit"] += num_runs(hit_slots)
        runs["store"] += num_runs(stored_slots)
        runs["fifo_hit"] += num_runs(peer_hit)
        runs["fifo_store"] += num_runs(peer_stored)
    tier.check()
    return {
        "fill_percent": fill_percent,
        "capacity_blocks": capacity,
        "blocks_per_store_run": per_run(stored, runs["store"]),
        "fifo_blocks_per_store_run": per_run(stored, runs["fifo_store"]),
        "blocks_per_store": per_run(stored, stores),
        "blocks_per_hit_run": per_run(hit, runs["hit"]),
        "fifo_blocks_per_hit_run": per_run(hit, runs["fifo_hit"]),
        "mean_free_run": tier.pool.mean_free_run(),
    }


def resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise OSError("no VmRSS in /proc/self/status")


class Arrivals:
    """Prompts of 256 to 8192 blocks; half of them take over the first part of one of the last 64."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(1)
        self._picks = random.Random(1)
        self._recent: deque[Keys] = deque(maxlen=64)

    def next(self, most_blocks: int) -> Keys:
        """Return the keys of the next prompt. Shape: [blocks, 16]."""
        num_blocks = self._picks.randrange(most_blocks // 32, most_blocks)
        keys = np.frombuffer(self._rng.bytes(16 * num_blocks), dtype=np.uint8).reshape(num_blocks, 16)
        if self._recent and self._picks.random() < 0.5:
            parent = self._picks.choice(self._recent)
            keys = np.concatenate([parent[: self._picks.randrange(len(parent))], keys])[:most_blocks]
        self._recent.append(keys)
        return keys


def endure(num_operations: int, capacity: int, most_blocks: int) -> list[dict[str, float]]:
    tier, arrivals = Tier(capacity, capacity - int(DEFAULT_EVICT_RATIO * capacity)), Arrivals()
    while tier.pool.num_used + most_blocks < tier.limit:
        tier.access(arrivals.next(most_blocks))
    rows = []
    for tenth in range(1, 11):
        operations = blocks = runs = access_ns = 0
        match_ns = []
        while operations < num_operations // 10:
            keys = arrivals.next(most_blocks)
            start_ns = time.perf_counter_ns()
            _, evicted, stored = tier.access(keys)
            access_ns += time.perf_counter_ns() - start_ns
            operations += len(evicted) + len(stored)
            blocks += len(stored)
            runs += num_runs(stored)
            start_ns = time.perf_counter_ns()
            found = tier.index.match(keys, NOW_S)
            match_ns.append(time.perf_counter_ns() - start_ns)
            if found.num_ready != len(keys):
                raise AssertionError("what was just stored is not all there")
        rows.append(
            {
                "operations": tenth * num_operations // 10,
                "ns_per_operation": access_ns / operations,
                "match_us": statistics.median(match_ns) / 1000,
                "blocks_per_store_run": per_run(blocks, runs),
                "memory_mib": resident_bytes() / (1 << 20),
            }
        )
    tier.check()
    return rows


def figures_of(runs: list[dict[str, float]], endurance: list[dict[str, float]]) -> list[Figure]:
    first, last = endurance[0], endurance[-1]
    return [
        *(
            Figure(
                question=f"blocks per run of a store, pool {row['fill_percent']} % full",
                unit="blocks",
                ours=row["blocks_per_store_run"],
                peer="a plain FIFO free list",
                peers=row["fifo_blocks_per_store_run"],
            )
            for row in runs
        ),
        Figure(
            question=f"{last['operations']:,} operations: time of one, last tenth / first",
            unit="ratio",
            ours=last["ns_per_operation"] / first["ns_per_operation"],
            must=1.25,
            peer="ns, first tenth",
            peers=first["ns_per_operation"],
        ),
        Figure(
            question="... time of a match, last tenth / first",
            unit="ratio",
            ours=last["match_us"] / first["match_us"],
            must=1.25,
            peer="us, first tenth",
            peers=first["match_us"],
        ),
        Figure(
            question="... memory of the process, last tenth / first",
            unit="ratio",
            ours=last["memory_mib"] / first["memory_mib"],
            must=1.01,
            peer="MiB, first tenth",
            peers=first["memory_mib"],
        ),
    ]


def main() -> None:
    made = parser(__doc__)
    made.add_argument("trace", type=Path, nargs="?", help="the trace; without one a made one is replayed")
    made.add_argument("--operations", type=int, default=100_000_000)
    options = made.parse_args()
    prompts = read_trace(options.trace, None) if options.trace else made_trace(200 if options.tiny else 4000)
    footprint = len({unit for prompt in prompts for unit in prompt}) * BLOCKS_PER_ID
    capacity = max(2 * BLOCKS_PER_ID, footprint * POOL_PERCENT_OF_FOOTPRINT // 100)
    runs = [age(prompts, capacity, fill) for fill in FILL_PERCENTS]
    endurance = endure(20_000, 4096, 256) if options.tiny else endure(options.operations, 1 << 20, 8192)
    for rows in (runs, endurance):
        say(table(list(rows[0]), [[f"{value:,.1f}" for value in row.values()] for row in rows]))
    emit("ageing", options, figures_of(runs, endurance), runs, endurance=endurance)


if __name__ == "__main__":
    main()
