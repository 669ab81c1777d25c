"""What does the index cost as it grows, from 1M blocks to 16M?

Unit: microseconds per call, by percentile (evict: per block; memory: bytes per block). Prompts of 8192 blocks; both
indices are full and measured in alternating rounds, with the CPU caches flushed before each call. Matches are full hits
of a random resident prompt, pinned and unpinned, the slots taken as runs. What stands beside the large index is the
small one; what must hold is the growth of the match. 16M blocks take 13 s and 2 GB.

    .venv/dev/bin/python -m benchmarks.bench_index_growth                  a table
    .venv/dev/bin/python -m benchmarks.bench_index_growth --json FILE      and JSON
    .venv/dev/bin/python -m benchmarks.bench_index_growth --tiny           a smoke test
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from benchmarks.bench_deciding import FLUSH_BYTES, Keys, match_and_pin
from benchmarks.report import Figure, emit, parser, percentile, say, table
from flexkv import _core

MUST_US = {"match": 30.0, "insert": 300.0, "evict": 1.0}
MUST_GROW = 2.0
MUST_BYTES = 96.0
PERCENTILES = (50, 90, 99)


class Resident:
    """A full index of `num_prompts` prompts of random keys."""

    def __init__(self, num_prompts: int, prompt_blocks: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.num_blocks = num_prompts * prompt_blocks
        self.prompt_blocks = prompt_blocks
        self.spent_us: dict[str, list[float]] = {"match": [], "insert": [], "evict": []}
        self._pool = _core.SlotPool(self.num_blocks, self.num_blocks)
        self.index = _core.PrefixIndex(self.num_blocks)
        self._prompts = [self._insert() for _ in range(num_prompts)]

    def _insert(self) -> tuple[Keys, int]:
        """Insert a new prompt; returns its keys and their last slot."""
        keys = self._rng.integers(0, 256, (self.prompt_blocks, 16), dtype=np.uint8)
        slots = self._pool.allocate(self.prompt_blocks)
        start_ns = time.perf_counter_ns()
        status = self.index.insert(keys, 0, slots)
        self.spent_us["insert"].append((time.perf_counter_ns() - start_ns) / 1000)
        self.index.mark_ready(slots)
        if status != _core.InsertStatus.INSERTED:
            raise AssertionError("insert failed")
        return keys, int(slots[-1])

    def forget_times(self) -> None:
        """Drop what filling took."""
        for spent_us in self.spent_us.values():
            spent_us.clear()

    def match(self) -> None:
        """Time a full hit of any resident prompt, and check it."""
        keys, last_slot = self._prompts[int(self._rng.integers(len(self._prompts)))]
        start_ns = time.perf_counter_ns()
        found, runs = match_and_pin(self.index, keys)
        self.spent_us["match"].append((time.perf_counter_ns() - start_ns) / 1000)
        if found.num_ready != self.prompt_blocks or int(runs[:, 1].sum()) != self.prompt_blocks:
            raise AssertionError("not a full hit")
        if found.deepest_ready != last_slot:
            raise AssertionError("not the slots of the prompt")

    def replace(self) -> None:
        """Time the eviction of as many blocks as a prompt has, and the insertion of a new one."""
        start_ns = time.perf_counter_ns()
        gone = self.index.evict(self.prompt_blocks)
        self.spent_us["evict"].append((time.perf_counter_ns() - start_ns) / 1000 / self.prompt_blocks)
        if len(gone) != self.prompt_blocks:
            raise AssertionError("evict failed")
        self._pool.free(gone)
        kept = [prompt for prompt in self._prompts if self.index.find(prompt[0][-1].tobytes()) >= 0]
        self._prompts = [*kept, self._insert()]


def measure(sizes: tuple[int, ...], prompt_blocks: int, num_rounds: int) -> list[Resident]:
    """Fill one index of each size, then measure them in turns."""
    flush = np.zeros(FLUSH_BYTES, dtype=np.uint8)
    made = []
    for num_prompts in sizes:
        start_s = time.monotonic()
        made.append(Resident(num_prompts, prompt_blocks, num_prompts))
        say(f"{made[-1].num_blocks} blocks filled in {time.monotonic() - start_s:.1f} s")
    for resident in made:
        resident.forget_times()
    for _ in range(num_rounds):
        for resident in made:
            flush += 1
            resident.match()
    for _ in range(max(2, num_rounds // 10)):
        for resident in made:
            flush += 1
            resident.replace()
    for resident in made:
        resident.index.check_invariants()
    return made


def rows_of(made: list[Resident]) -> list[dict[str, Any]]:
    """Return the percentiles of each kind of work at each size."""
    return [
        {"work": work, "num_blocks": resident.num_blocks, "num_calls": len(spent_us)}
        | {f"p{percent}_us": percentile(spent_us, percent) for percent in PERCENTILES}
        for work in MUST_US
        for resident in made
        for spent_us in (resident.spent_us[work],)
    ]


def figures_of(made: list[Resident]) -> list[Figure]:
    """Return the lines of the summary: the large index beside the small one."""
    small, large = made
    beside = f"{small.num_blocks} blocks"
    figures = [
        Figure(
            question=f"{work}{', per block' if work == 'evict' else f' {large.prompt_blocks} blocks'}, "
            f"{large.num_blocks} resident, median",
            unit="us",
            ours=statistics.median(large.spent_us[work]),
            must=None if work == "insert" else must_us,  # that one is set at 1M
            peer=beside,
            peers=statistics.median(small.spent_us[work]),
        )
        for work, must_us in MUST_US.items()
    ]
    growth = statistics.median(large.spent_us["match"]) / statistics.median(small.spent_us["match"])
    memory = [resident.index.memory_bytes / resident.num_blocks for resident in made]
    times = f"times the blocks of {small.num_blocks}"
    return [
        *figures,
        Figure(
            question="match grows, median", unit="times", ours=growth, must=MUST_GROW, peer=times,
            peers=large.num_blocks / small.num_blocks,
        ),
        Figure(
            question=f"index memory per block, {large.num_blocks} resident", unit="bytes", ours=memory[1],
            must=MUST_BYTES, peer=beside, peers=memory[0],
        ),
    ]  # fmt: skip


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--prompts", type=int, nargs=2, default=(128, 2048), help="prompts of 8192 blocks, both sizes")
    made.add_argument("--rounds", type=int, default=201, help="matches of each index")
    options = made.parse_args()
    residents = measure((2, 8), 256, 10) if options.tiny else measure(tuple(options.prompts), 8192, options.rounds)
    rows = rows_of(residents)
    names = ("work", "num_blocks", "num_calls", *(f"p{percent}_us" for percent in PERCENTILES))
    say(table(names, [[str(row[name]) if isinstance(row[name], str | int) else f"{row[name]:.2f}" for name in names]
                      for row in rows]))  # fmt: skip
    emit("index_growth", options, figures_of(residents), rows)


if __name__ == "__main__":
    main()
