"""Does the cache layer hold what it should, and do slot pools stay in long runs, on real traffic?

Replays a trace of prompts (one JSON object a line with `hash_ids`, one integer per 512 tokens; equal ids mean equal
prefix) through the cache engine, in blocks of 16 tokens, with the pool holding 1, 2, 5, 10, 20 and 50 % of the trace's
footprint. Beside the hit rate stands a textbook LRU over single units that evicts a prompt's end first, in the same
run: the figure to be within 0.5 points of. Runs: slots that a matched prompt lies in, and slots handed out to a store;
the longer, the fewer copies.

    .venv/dev/bin/python -m benchmarks.bench_trace_replay TRACE.jsonl [--json FILE] [--requests N]
    .venv/dev/bin/python -m benchmarks.bench_trace_replay --tiny     a smoke test on a small made trace
"""

from __future__ import annotations

import json
import random
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np

from benchmarks.report import Figure, emit, parser, say, table
from flexkv import _core
from flexkv.cache.cache_engine import GlobalCacheEngine
from flexkv.common.block import SequenceMeta
from flexkv.common.config import CacheConfig, ModelConfig

TOKENS_PER_BLOCK = 16
BLOCKS_PER_ID = 512 // TOKENS_PER_BLOCK
ROOT = bytes(16)


def read_trace(path: Path, num_requests: int | None) -> list[list[int]]:
    with path.open() as lines:
        prompts = [json.loads(line)["hash_ids"] for line in lines]
    return prompts[:num_requests]


def made_trace(num_requests: int) -> list[list[int]]:
    """Sessions over a few shared documents, in turns."""
    rng, next_id = random.Random(0), 1000
    sessions: list[list[int]] = [[document * 10 + i for i in range(8)] for document in range(5) for _ in range(8)]
    prompts = []
    for _ in range(num_requests):
        session = rng.choice(sessions)
        prompts.append(list(session))
        session.extend(range(next_id, next_id + 2))
        next_id += 2
        if len(session) > 40:
            del session[8:]
    return prompts


def keys_of(prompt: list[int]) -> np.ndarray:
    """16 bytes a block: the id names prefix and content, so that equal ids give equal keys."""
    ids = np.repeat(np.array(prompt, dtype=np.uint64), BLOCKS_PER_ID)
    place = np.tile(np.arange(BLOCKS_PER_ID, dtype=np.uint64), len(prompt))
    plain = np.stack([ids, place], axis=1).view(np.uint8).reshape(len(ids), 16)
    return _core.mix_engine_hashes(np.ascontiguousarray(plain), ROOT)


class TextbookLru:
    """One entry a unit of 512 tokens; a use makes every unit of the prompt the newest, its first unit newest of all."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._units: OrderedDict[int, None] = OrderedDict()

    def access(self, prompt: list[int]) -> int:
        """Return how many units of the prompt were held, and hold it."""
        hit = 0
        while hit < len(prompt) and prompt[hit] in self._units:
            hit += 1
        for unit in reversed(prompt):
            self._units[unit] = None
            self._units.move_to_end(unit)
        while len(self._units) > self._capacity:
            self._units.popitem(last=False)
        return hit


def num_runs(slots: np.ndarray) -> int:
    return 0 if len(slots) == 0 else 1 + int(np.count_nonzero(np.diff(slots) != 1))


def replay(prompts: list[list[int]], capacity_units: int) -> dict[str, float]:
    capacity = capacity_units * BLOCKS_PER_ID
    config = CacheConfig(tokens_per_block=TOKENS_PER_BLOCK, num_cpu_blocks=capacity)
    cache = GlobalCacheEngine(config, ModelConfig(1, 1, 4))
    textbook = TextbookLru(capacity_units)
    asked = hit = textbook_hit = hit_runs = stored = store_runs = 0
    engine_s = 0.0
    for prompt in prompts:
        keys = keys_of(prompt)
        sequence = SequenceMeta(None, TOKENS_PER_BLOCK, block_hashes=keys, root=ROOT, prefix_keys=keys)
        start_s = time.perf_counter()
        get = cache.prepare_get(sequence)
        get.commit()
        put = cache.prepare_put(sequence)
        put.commit()
        engine_s += time.perf_counter() - start_s
        asked += len(keys)
        hit += get.num_blocks
        hit_runs += num_runs(get.slots)
        stored += put.num_blocks
        store_runs += num_runs(put.slots)
        textbook_hit += textbook.access(prompt) * BLOCKS_PER_ID
    cache.check_invariants()
    return {
        "capacity_blocks": capacity,
        "hit_percent": 100 * hit / asked,
        "lru_percent": 100 * textbook_hit / asked,
        "blocks_per_hit_run": hit / hit_runs if hit_runs else 0.0,
        "blocks_per_store_run": stored / store_runs if store_runs else 0.0,
        "mean_free_run": cache.cpu_cache_engine.mempool.mean_free_run(),
        "us_per_request": 1e6 * engine_s / len(prompts),
    }


def main() -> None:
    made = parser(__doc__)
    made.add_argument("trace", type=Path, nargs="?", help="the trace; without one a small made one is replayed")
    made.add_argument("--requests", type=int, help="only the first so many")
    options = made.parse_args()
    prompts = (
        read_trace(options.trace, options.requests) if options.trace else made_trace(200 if options.tiny else 4000)
    )
    footprint = len({unit for prompt in prompts for unit in prompt})
    rows = [
        {"percent_of_footprint": percent, **replay(prompts, max(1, footprint * percent // 100))}
        for percent in ((10, 50) if options.tiny else (1, 2, 5, 10, 20, 50))
    ]
    say(f"{len(prompts)} requests, footprint {footprint * BLOCKS_PER_ID} blocks of {TOKENS_PER_BLOCK} tokens")
    names = ("percent_of_footprint", "hit_percent", "lru_percent", "blocks_per_hit_run", "blocks_per_store_run",
             "mean_free_run", "us_per_request")  # fmt: skip
    say(table(names, [[f"{row[name]:.2f}" for name in names] for row in rows]))
    figures = [
        Figure(
            question=f"hit rate above a textbook LRU, pool of {row['percent_of_footprint']} % of the footprint",
            unit="points",
            ours=row["hit_percent"] - row["lru_percent"],
            must=-0.5,
            at_least=True,
            peer="LRU, hit rate in percent",
            peers=row["lru_percent"],
        )
        for row in rows
    ]
    emit("trace_replay", options, figures, rows, requests=len(prompts), footprint_units=footprint)


if __name__ == "__main__":
    main()
