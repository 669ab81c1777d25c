"""Which host slots blocks lie in: those of a fresh pool, of one aged by a trace, and random ones. Pure.

An aged pool is made by the cache engine itself: a trace of prompts is replayed through GlobalCacheEngine, with a CPU
tier that holds a part of the trace's footprint and evicts as it does in service. What is moved then is what the last
prompts found there (loads) and what they were given (stores).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.bench_trace_replay import BLOCKS_PER_ID, ROOT, TOKENS_PER_BLOCK, keys_of, num_runs
from flexkv.cache.cache_engine import GlobalCacheEngine
from flexkv.common.block import SequenceMeta
from flexkv.common.config import CacheConfig, ModelConfig

POOL_PERCENT_OF_FOOTPRINT = 10

Slots = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Aged:
    """Slots of the last prompts, in the order in which they are moved, each once."""

    hit: Slots
    stored: Slots
    pool_slots: int
    mean_free_run: float
    requests: int

    def take(self, direction: str, num_blocks: int) -> Slots:
        """Return so many slots, of what was hit ("load") or stored ("store"), numbered anew by `compact`.

        Raises:
            ValueError: there are not so many.
        """
        slots = self.hit if direction == "load" else self.stored
        if len(slots) < num_blocks:
            message = f"the trace gives {len(slots)} slots for a {direction}, {num_blocks} are needed: a longer trace"
            raise ValueError(message)
        return compact(slots[:num_blocks])


def mean_run(slots: Slots) -> float:
    """Return how many adjacent slots go as one copy, on average."""
    return len(slots) / num_runs(slots) if len(slots) else 0.0


def compact(slots: Slots) -> Slots:
    """Number distinct slots anew, below twice their number: adjacent ones stay adjacent, others stay apart."""
    ordered = np.sort(slots)
    new = np.zeros(len(ordered), dtype=np.int64)
    np.cumsum(np.where(np.diff(ordered) == 1, 1, 2), out=new[1:])
    return new[np.searchsorted(ordered, slots)]


def fresh(num_blocks: int) -> Slots:
    """Return the slots that an empty pool gives: one run."""
    return np.arange(num_blocks, dtype=np.int64)


def random_slots(num_blocks: int, num_slots: int, seed: int) -> Slots:
    """Return distinct slots of a pool in random order: hardly two are adjacent."""
    return np.random.default_rng(seed).permutation(num_slots)[:num_blocks].astype(np.int64)


def age(prompts: Sequence[list[int]], num_blocks: int, pool_percent: float = POOL_PERCENT_OF_FOOTPRINT) -> Aged:
    """Replay the prompts (see bench_trace_replay), and keep `num_blocks` slots of the last ones, or what there is.

    The pool holds `pool_percent` of all the blocks that the prompts name.

    Raises:
        ValueError: the trace is too short to fill the pool.
    """
    footprint = len({unit for prompt in prompts for unit in prompt}) * BLOCKS_PER_ID
    capacity = int(footprint * pool_percent / 100)
    if capacity < BLOCKS_PER_ID:
        raise ValueError(f"the trace has {footprint} blocks in all; {pool_percent:g} % of them are no pool")
    config = CacheConfig(tokens_per_block=TOKENS_PER_BLOCK, num_cpu_blocks=capacity)
    cache = GlobalCacheEngine(config, ModelConfig(1, 1, 4))
    hit, stored = _Last(num_blocks), _Last(num_blocks)
    for prompt in prompts:
        keys = keys_of(prompt)
        sequence = SequenceMeta(None, TOKENS_PER_BLOCK, block_hashes=keys, root=ROOT, prefix_keys=keys)
        get = cache.prepare_get(sequence)
        hit.add(get.slots)
        get.commit()
        put = cache.prepare_put(sequence)
        stored.add(put.slots)
        put.commit()
    cache.check_invariants()
    return Aged(
        hit=hit.distinct(),
        stored=stored.distinct(),
        pool_slots=capacity,
        mean_free_run=cache.cpu_cache_engine.mempool.mean_free_run(),
        requests=len(prompts),
    )


class _Last:
    """The last slots of many prompts; keeps several times `num_blocks`, since some come again."""

    def __init__(self, num_blocks: int) -> None:
        self._num_blocks = num_blocks
        self._kept: deque[Slots] = deque()
        self._num_kept = 0

    def add(self, slots: Slots) -> None:
        if len(slots) == 0:
            return
        self._kept.append(np.array(slots, dtype=np.int64))
        self._num_kept += len(slots)
        while self._num_kept - len(self._kept[0]) >= 16 * self._num_blocks:
            self._num_kept -= len(self._kept.popleft())

    def distinct(self) -> Slots:
        """Return `num_blocks` slots, the newest prompt's first, each prompt's in its order, each slot once."""
        if not self._kept:
            return np.empty(0, dtype=np.int64)
        slots = np.concatenate([*reversed(self._kept)])
        _, first = np.unique(slots, return_index=True)
        return slots[np.sort(first)][: self._num_blocks]
