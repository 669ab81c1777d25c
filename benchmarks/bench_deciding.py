"""What does deciding cost: hash a prompt, match it, insert it, evict for it?

Unit: microseconds per call, median (evict: per block; memory: bytes per block). A prompt is 131,072 tokens in blocks of
16, so 8192 blocks; the index holds 200 such prompts and is full. Matches are full hits of a random resident prompt, and
before each call on the index the CPU caches are flushed and a small other index warms the code up: the index is cold,
the interpreter is not. Beside each figure stand the limit we set ourselves and a peer measured in the same run: the
plain Python way with hashlib, dict and OrderedDict. What is timed is also checked.

    .venv/dev/bin/python -m benchmarks.bench_deciding                   a table
    .venv/dev/bin/python -m benchmarks.bench_deciding --json FILE       and JSON; to standard output without FILE
    .venv/dev/bin/python -m benchmarks.bench_deciding --prompts 2048    another fill: 2048 prompts are 16M blocks
    .venv/dev/bin/python -m benchmarks.bench_deciding --tiny            a smoke test: JSON to standard output
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
import statistics
import sys
import time
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from benchmarks.report import Figure, emit, parser, times_us
from flexkv import _core

TOKENS_PER_BLOCK = 16
ROOT = bytes(range(16))
FLUSH_BYTES = 96 << 20  # more than a last-level cache

Keys = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much to measure."""

    num_prompts: int
    prompt_blocks: int
    num_rounds: int
    num_leaves: tuple[int, ...]

    @property
    def prompt_tokens(self) -> int:
        """Length of a prompt."""
        return self.prompt_blocks * TOKENS_PER_BLOCK


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    work: str
    unit: str
    ours: float
    limit: float | None
    peer: str
    peers: float


def median_us(work: Callable[[], object], num_rounds: int, before: Callable[[], object] = lambda: None) -> float:
    return statistics.median(times_us(work, num_rounds, before))


def split(keys: Keys) -> list[bytes]:
    data, width = keys.tobytes(), keys.shape[1]
    return [data[at : at + width] for at in range(0, len(data), width)]


def chain_with_hashlib(tokens: npt.NDArray[np.int64]) -> list[bytes]:
    data, step = tokens.astype("<u4").tobytes(), 4 * TOKENS_PER_BLOCK
    keys, parent = [], ROOT
    for at in range(0, len(data), step):
        parent = hashlib.sha256(data[at : at + step] + parent).digest()[:16]
        keys.append(parent)
    return keys


def bench_hash(size: Size, rng: np.random.Generator) -> list[Row]:
    tokens = rng.integers(0, 152_000, size.prompt_tokens, dtype=np.int64)
    if split(_core.hash_token_blocks(tokens, TOKENS_PER_BLOCK, ROOT)) != chain_with_hashlib(tokens):
        raise AssertionError("our keys are not hashlib's")
    message = rng.bytes(4 * size.prompt_tokens + 16 * size.prompt_blocks)
    ours_us = median_us(lambda: _core.hash_token_blocks(tokens, TOKENS_PER_BLOCK, ROOT), size.num_rounds)
    peers_us = median_us(lambda: chain_with_hashlib(tokens), max(3, size.num_rounds // 10))
    one_call_us = median_us(lambda: hashlib.sha256(message).digest(), size.num_rounds)
    work = f"hash {size.prompt_tokens} tokens"
    return [
        Row(work=work, unit="us", ours=ours_us, limit=1000, peer="hashlib, a call per block", peers=peers_us),
        Row(work=work, unit="us", ours=ours_us, limit=1000, peer="hashlib, one call of all bytes", peers=one_call_us),
    ]


def bench_mix(size: Size, rng: np.random.Generator) -> list[Row]:
    rows = rng.integers(0, 256, (size.prompt_blocks, 32), dtype=np.uint8)
    hashes = split(rows)

    def with_hashlib() -> list[bytes]:
        return [hashlib.sha256(ROOT + each).digest()[:16] for each in hashes]

    if split(_core.mix_engine_hashes(hashes, ROOT)) != with_hashlib():
        raise AssertionError("our keys are not hashlib's")
    peers_us = median_us(with_hashlib, max(3, size.num_rounds // 10))
    ours_us = {
        "list": median_us(lambda: _core.mix_engine_hashes(hashes, ROOT), size.num_rounds),
        "array": median_us(lambda: _core.mix_engine_hashes(rows, ROOT), size.num_rounds),
    }
    work, peer = f"mix {size.prompt_blocks} engine hashes", "hashlib, a call per hash"
    return [
        Row(work=f"{work}, {form}", unit="us", ours=figure, limit=150, peer=peer, peers=peers_us)
        for form, figure in ours_us.items()
    ]


class Resident:
    """A full index of `num_prompts` prompts, and the same in a dict."""

    def __init__(self, size: Size, rng: np.random.Generator) -> None:
        self.size = size
        self.num_blocks = size.num_prompts * size.prompt_blocks
        self.pool = _core.SlotPool(self.num_blocks, self.num_blocks)
        self.index = _core.PrefixIndex(self.num_blocks)
        self.prompts = [self.new_prompt(rng) for _ in range(size.num_prompts)]
        self.split_prompts: list[list[bytes]] = []
        self.by_key: OrderedDict[bytes, int] = OrderedDict()
        for keys in self.prompts:
            slots = self.pool.allocate(size.prompt_blocks)
            self.insert(keys, slots)
            self.split_prompts.append(split(keys))
            self.by_key.update(zip(self.split_prompts[-1], slots.tolist(), strict=True))
        self._flush = np.zeros(FLUSH_BYTES, dtype=np.uint8)
        self._warm_keys = self.new_prompt(rng)[:4]
        self._warm_slots = np.arange(4)

    def new_prompt(self, rng: np.random.Generator) -> Keys:
        """Return the keys of a prompt of random tokens."""
        tokens = rng.integers(0, 152_000, self.size.prompt_tokens, dtype=np.int64)
        return _core.hash_token_blocks(tokens, TOKENS_PER_BLOCK, ROOT)

    def insert(self, keys: Keys, slots: npt.NDArray[np.int64]) -> None:
        """Insert a prompt, ready."""
        if self.index.insert(keys, 0, slots) != _core.InsertStatus.INSERTED:
            raise AssertionError("insert failed")
        self.index.mark_ready(slots)

    def make_cold(self) -> None:
        """Push the index out of the CPU caches; run the code that is timed on another one."""
        self._flush += 1
        index = _core.PrefixIndex(4)
        index.insert(self._warm_keys, 0, self._warm_slots)
        index.mark_ready(self._warm_slots)
        match_and_pin(index, self._warm_keys)
        index.evict(4)


def match_and_pin(index: _core.PrefixIndex, keys: Keys) -> tuple[_core.Match, npt.NDArray[np.int64]]:
    found = index.match(keys, 0)
    index.pin(found.deepest_ready)
    runs = found.runs
    index.unpin(found.deepest_ready)
    return found, runs


def bench_match(resident: Resident) -> list[Row]:
    size, index = resident.size, resident.index
    picks = random.Random(1)
    chosen = 0

    def choose() -> None:
        nonlocal chosen
        chosen = picks.randrange(size.num_prompts)
        resident.make_cold()

    found, runs = match_and_pin(index, resident.prompts[-1])
    expected = [resident.by_key[key] for key in resident.split_prompts[-1]]
    if found.num_ready != size.prompt_blocks or found.slots().tolist() != expected or runs[:, 1].sum() != len(expected):
        raise AssertionError("not the slots of a full hit")

    def ours() -> None:
        match_and_pin(index, resident.prompts[chosen])

    def theirs() -> None:
        slots = []
        for key in resident.split_prompts[chosen]:
            slot = resident.by_key.get(key)
            if slot is None:
                raise AssertionError("not a full hit")
            slots.append(slot)

    unknown = resident.new_prompt(np.random.default_rng(9))
    work = f"match and pin {size.prompt_blocks} blocks of {resident.num_blocks}"
    peer = "dict, a look-up per block"
    peers_us = median_us(theirs, size.num_rounds, choose)
    miss_us = median_us(lambda: index.match(unknown, 0), size.num_rounds, choose)
    first_key = split(unknown[:1])[0]
    peers_miss_us = median_us(lambda: resident.by_key.get(first_key), size.num_rounds, choose)
    return [
        Row(work=work, unit="us", ours=median_us(ours, size.num_rounds, choose), limit=30, peer=peer, peers=peers_us),
        Row(work="match, nothing there", unit="us", ours=miss_us, limit=30, peer=peer, peers=peers_miss_us),
    ]


class Laps:
    """Times of steps that follow each other, in microseconds."""

    def __init__(self) -> None:
        self._times_us: dict[str, list[float]] = {}
        self._last_ns = 0

    def start(self) -> None:
        """Begin a round."""
        self._last_ns = time.perf_counter_ns()

    def end(self, step: str) -> None:
        """Book the time since the last call on `step`."""
        now_ns = time.perf_counter_ns()
        self._times_us.setdefault(step, []).append((now_ns - self._last_ns) / 1000)
        self._last_ns = time.perf_counter_ns()

    def median_us(self, step: str) -> float:
        """Return the median over the rounds."""
        return statistics.median(self._times_us[step])


def bench_insert(resident: Resident, rng: np.random.Generator) -> list[Row]:
    size, index, pool, blocks = resident.size, resident.index, resident.pool, resident.size.prompt_blocks
    laps = Laps()
    for _ in range(min(size.num_rounds, size.num_prompts)):
        keys = resident.new_prompt(rng)
        keys_split = split(keys)
        resident.make_cold()
        laps.start()
        gone = index.evict(blocks)
        laps.end("evict")
        pool.free(gone)
        slots = pool.allocate(blocks)
        laps.end("allocate")
        status = index.insert(keys, 0, slots)
        laps.end("insert")
        index.mark_ready(slots)
        laps.end("ready")
        for _ in range(blocks):
            resident.by_key.popitem(last=False)
        laps.end("peer evicts")
        for key, slot in zip(keys_split, slots.tolist(), strict=True):
            resident.by_key[key] = slot
        laps.end("peer inserts")
        if len(gone) != blocks or status != _core.InsertStatus.INSERTED:
            raise AssertionError("evict or insert failed")
    index.check_invariants()
    pool.check_invariants()
    steps = (("insert", "insert", 300.0), ("mark ready", "ready", None), ("free and allocate", "allocate", None))
    peers_us = laps.median_us("peer inserts")
    rows = [
        Row(
            work=f"{name} {blocks} blocks",
            unit="us",
            ours=laps.median_us(step),
            limit=limit,
            peer="dict",
            peers=peers_us,
        )
        for name, step, limit in steps
    ]
    evict_us, peers_us = laps.median_us("evict") / blocks, laps.median_us("peer evicts") / blocks
    work = "evict, per block of whole prompts"
    return [*rows, Row(work=work, unit="us", ours=evict_us, limit=1, peer="OrderedDict.popitem", peers=peers_us)]


def bench_leaves(num_leaves: int, rng: np.random.Generator) -> Row:
    """Evict among chains of one block each, in the order of use, which is not the order of slots."""
    index = _core.PrefixIndex(num_leaves)
    keys = rng.integers(0, 256, (num_leaves, 16), dtype=np.uint8)
    slots = rng.permutation(num_leaves)
    by_key: OrderedDict[bytes, int] = OrderedDict()
    for each, key in enumerate(split(keys)):
        index.insert(keys[each : each + 1], 0, slots[each : each + 1])
        by_key[key] = each
    index.mark_ready(slots)
    num_victims = min(num_leaves // 10, 20_000)
    ours_us = median_us(lambda: index.evict(num_victims), 5) / num_victims
    peers_us = median_us(lambda: [by_key.popitem(last=False) for _ in range(num_victims)], 5) / num_victims
    if index.num_blocks != num_leaves - 5 * num_victims:
        raise AssertionError("evict failed")
    work = f"evict, per block of {num_leaves} leaves"
    return Row(work=work, unit="us", ours=ours_us, limit=1, peer="OrderedDict.popitem", peers=peers_us)


def bench_memory(resident: Resident) -> Row:
    ours = resident.index.memory_bytes / resident.num_blocks
    peers = (sys.getsizeof(dict(resident.by_key)) + sys.getsizeof(ROOT) * resident.num_blocks) / resident.num_blocks
    return Row(work="index memory per block", unit="bytes", ours=ours, limit=96, peer="dict of bytes", peers=peers)


def measure(size: Size) -> list[Row]:
    rng = np.random.default_rng(0)
    rows = bench_hash(size, rng) + bench_mix(size, rng)
    resident = Resident(size, rng)
    rows += [*bench_match(resident), *bench_insert(resident, rng), bench_memory(resident)]
    del resident
    return rows + [bench_leaves(num_leaves, rng) for num_leaves in size.num_leaves]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--prompts", type=int, default=200, help="resident prompts of 8192 blocks (default 200)")
    options.add_argument("--rounds", type=int, default=101, help="repetitions of each call (default 101)")
    args = options.parse_args()
    if args.prompts < 1 or args.rounds < 1:
        options.error("--prompts and --rounds must be positive")
    size = Size(num_prompts=args.prompts, prompt_blocks=8192, num_rounds=args.rounds, num_leaves=(10_000, 1_000_000))
    if args.tiny:
        size = Size(num_prompts=4, prompt_blocks=256, num_rounds=3, num_leaves=(1000,))
    rows = measure(size)
    figures = [
        Figure(question=row.work, unit=row.unit, ours=row.ours, must=row.limit, peer=row.peer, peers=row.peers)
        for row in rows
    ]
    kind = "used" if _core.hash_uses_sha_ni() else "not used"
    records = [dataclasses.asdict(row) for row in rows]
    emit("deciding", args, figures, records, size=dataclasses.asdict(size), sha_instructions=kind)


if __name__ == "__main__":
    main()
