"""How do hashing, matching, inserting and evicting compare with vLLM's, LMCache's and SGLang's own code?

Unit: microseconds per call, median (evict: per block). A prompt is 131,072 tokens in blocks of 16; the caches hold 100
such prompts. Each peer runs in a process of its own environment (benchmarks/peer_worker.py), on the same tokens, with
ours measured again before each of them. A peer that is not installed is named. Figures of other projects are quoted as
such. Unlike in bench_deciding the CPU caches are not flushed, for anybody.

    .venv/dev/bin/python -m benchmarks.bench_peers                 a table; `make setup-peers` prepares the peers
    .venv/dev/bin/python -m benchmarks.bench_peers --json FILE     and JSON
    .venv/dev/bin/python -m benchmarks.bench_peers --tiny          a smoke test, without the peers
"""

from __future__ import annotations

import statistics
from dataclasses import asdict

from benchmarks import peers
from benchmarks.bench_deciding import ROOT, TOKENS_PER_BLOCK, chain_with_hashlib, split
from benchmarks.bench_index_growth import Resident
from benchmarks.report import Figure, emit, parser, times_us
from flexkv import _core

MUST_US = {"hash": 1000.0, "match": 30.0, "insert": 300.0, "evict": 1.0}


class Ours:
    """Our side, measured again and again."""

    def __init__(self, num_prompts: int, prompt_blocks: int, num_rounds: int) -> None:
        self._tokens = peers.prompts(0, num_prompts, prompt_blocks)
        self._num_rounds = num_rounds
        self._resident = Resident(num_prompts, prompt_blocks, 1)
        self._resident.forget_times()
        self._hash_us: list[float] = []
        keys = _core.hash_token_blocks(self._tokens[0], TOKENS_PER_BLOCK, ROOT)
        if split(keys) != chain_with_hashlib(self._tokens[0]):
            raise AssertionError("our keys are not hashlib's")

    def measure(self) -> None:
        """Measure one more time."""
        self._hash_us += times_us(
            lambda: _core.hash_token_blocks(self._tokens[0], TOKENS_PER_BLOCK, ROOT), self._num_rounds
        )
        for _ in range(self._num_rounds):
            self._resident.match()
        for _ in range(self._num_rounds // 2 + 1):
            self._resident.replace()

    def median_us(self, work: str) -> float:
        """Return the median over all that was measured."""
        return statistics.median(self._hash_us if work == "hash" else self._resident.spent_us[work])


def main() -> None:
    options = parser(__doc__).parse_args()
    num_prompts, prompt_blocks, num_rounds = (4, 64, 3) if options.tiny else (100, 8192, 15)
    ours = Ours(num_prompts, prompt_blocks, num_rounds)
    found, absent = [], []
    for name in () if options.tiny else peers.NAMES:
        ours.measure()
        figures, reasons = peers.measure(name, 0, num_prompts, prompt_blocks, num_rounds)
        found += figures
        absent += reasons
    ours.measure()
    beside = sorted([*found, *peers.quoted()], key=lambda each: list(MUST_US).index(each.work))
    figures = [
        Figure(
            question=f"{each.work}, {prompt_blocks} blocks" if each.work != "evict" else "evict, per block",
            unit="us",
            ours=ours.median_us(each.work),
            must=MUST_US[each.work],
            peer=each.name,
            peers=each.spent_us,
            quoted=each.quoted,
        )
        for each in beside
    ]
    emit("peers", options, figures, [asdict(each) for each in beside], absent=absent)


if __name__ == "__main__":
    main()
