"""What does the connector cost vLLM's scheduler, per step?

Unit: microseconds of CPU time of the scheduler's thread inside the connector's methods, per scheduler step: median,
p99, maximum. vLLM's own scheduler runs with 256 requests in blocks of 16 tokens, with its content hashes, and our
connector with a real copy agent that stores and loads tiny blocks. Only the model is missing: a step sleeps for a
forward pass and makes its tokens up (benchmarks/scheduler_rig.py). Beside it stands, in alternating runs, what a step
costs the scheduler with the connector and without.

    decode          256 requests generate; none comes, none ends
    no reuse        as each request ends (256 tokens on average) a new prompt comes that nobody has seen
    hits            the same with prompts the host tier holds and the engine has dropped
    chunked         while the others generate, prompts of 16,384 tokens come in chunks of 2,048

Stores are made on a thread of the connector's own while the model runs. What that thread takes per step, on average, is
a line of its own: it is no part of the scheduler's time, but of the host's.

The clock itself costs about 0.5 us a call, two of each timed method: that is counted as ours. The timer's own lock is
taken outside of what is counted.

    .venv/vllm/bin/python -m benchmarks.bench_scheduler_cost             a table
    .venv/vllm/bin/python -m benchmarks.bench_scheduler_cost --json FILE and JSON
    .venv/vllm/bin/python -m benchmarks.bench_scheduler_cost --verbs     and what the KVManager's verbs take of it
    .venv/vllm/bin/python -m benchmarks.bench_scheduler_cost --tiny      a smoke test
"""

from __future__ import annotations

import importlib.util
import os
import random
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.report import Figure, emit, parser, percentile, say

MUST_US = 100.0
MAX_FILL_STEPS = 2000
VERBS = ("misses", "get_span", "put_span", "launch", "cancel", "doom", "poll", "wait_any", "stats", "sequence")
SCENARIOS = ("decode", "no reuse", "hits", "chunked")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much to measure."""

    num_running: int = 256
    prompt_tokens: tuple[int, int] = (512, 1536)
    output_tokens: tuple[int, int] = (64, 448)
    long_prompt_tokens: int = 16_384
    num_steps: int = 400
    forward_s: float = 0.002
    num_rounds: int = 2


TINY = Size(
    num_running=8,
    prompt_tokens=(64, 128),
    output_tokens=(4, 28),
    long_prompt_tokens=2048,
    num_steps=40,
    forward_s=0.001,
    num_rounds=1,
)


@dataclass(slots=True)
class Result:
    """What the steps of one scenario cost, over all rounds, in microseconds."""

    ours_us: list[float] = field(default_factory=list)
    with_us: list[float] = field(default_factory=list)
    without_us: list[float] = field(default_factory=list)
    thread_us: list[float] = field(default_factory=list)
    """Of each round: per step, of the thread that makes stores."""
    shares: Counter[str] = field(default_factory=Counter)
    num_calls: Counter[str] = field(default_factory=Counter)
    num_loaded: int = 0
    num_stored: int = 0


class Traffic:
    """Makes the requests of one scenario, the same ones for the same seed."""

    def __init__(self, size: Size, scenario: str, engine: Any, seed: int) -> None:
        self._size, self._scenario, self._engine = size, scenario, engine
        self._random = random.Random(f"{scenario} {seed}")
        self._fresh = random.Random(f"{scenario} {seed} prompts")
        self._known: Iterator[list[int]] = iter(())

    def fill(self) -> None:
        """Bring the engine to where every request generates."""
        if self._scenario == "hits":
            self._known = iter(self._store_prompts())
        for _ in range(self._size.num_running):
            tokens = 10**4 if self._scenario in ("decode", "chunked") else self._output_tokens()
            self._engine.add(self._prompt(*self._size.prompt_tokens), tokens)
        for _ in range(MAX_FILL_STEPS):
            self._engine.step()
            requests = list(self._engine.requests())
            if all(request.num_output_tokens for request in requests):
                return
            if self._scenario not in ("decode", "chunked"):
                self.refill()
        raise SystemExit(f"the engine was not full after {MAX_FILL_STEPS} steps")

    def refill(self) -> None:
        """Add what comes before the next step."""
        if self._scenario in ("no reuse", "hits"):
            for _ in range(self._size.num_running - self._engine.num_unfinished):
                prompt = next(self._known, None) or self._prompt(*self._size.prompt_tokens)
                self._engine.add(prompt, self._output_tokens())
        elif self._scenario == "chunked" and self._engine.num_unfinished <= self._size.num_running:
            length = self._size.long_prompt_tokens
            self._engine.add(self._prompt(length, length), 1)

    def _store_prompts(self) -> list[list[int]]:
        """Run prompts to their end, and let the engine's own cache lose them."""
        size = self._size
        expected = size.num_running + 2 * size.num_steps * size.num_running // sum(size.output_tokens)
        prompts = [self._prompt(*size.prompt_tokens) for _ in range(2 * expected)]
        for prompt in prompts:
            self._engine.add(prompt, 1)
        for _ in range(MAX_FILL_STEPS):
            self._engine.step()
            if self._engine.num_unfinished == 0 and self._engine.drop_own_cache():
                return prompts
        raise SystemExit(f"the prompts were not stored after {MAX_FILL_STEPS} steps")

    def _prompt(self, least: int, most: int) -> list[int]:
        return [self._fresh.randrange(1, 128_000) for _ in range(self._fresh.randint(least, most))]

    def _output_tokens(self) -> int:
        return self._random.randint(*self._size.output_tokens)


def run(
    size: Size, scenario: str, seed: int, result: Result, *, connector: bool, verbs: Sequence[str] | None = None
) -> None:
    """Run one scenario once, with the connector or without it; `verbs`: time those, not the connector's methods."""
    from benchmarks.scheduler_rig import Engine

    longest = sum(most for _, most in (size.prompt_tokens, size.output_tokens))
    num_blocks = size.num_running * longest // 16 + 4 * size.long_prompt_tokens // 16
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(
            Path(folder),
            num_running=size.num_running + 1,
            step_tokens=2048 + size.num_running,
            num_blocks=num_blocks,
            num_slots=3 * num_blocks,
            connector=connector,
            forward_s=size.forward_s,
            verbs=verbs,
        )
        try:
            traffic = Traffic(size, scenario, engine, seed)
            traffic.fill()
            first = len(engine.timer.steps) if engine.timer else 0
            before = engine.counters()
            calls = Counter(engine.timer.num_calls) if engine.timer else Counter()
            spent_us = []
            thread_ns = engine.store_thread_ns()
            for _ in range(size.num_steps):
                traffic.refill()
                spent_us.append(1e6 * engine.step())
            if engine.timer is None:
                result.without_us += spent_us
                return
            result.with_us += spent_us
            result.thread_us.append((engine.store_thread_ns() - thread_ns) / 1000 / size.num_steps)
            for step in engine.timer.steps[first:]:
                result.ours_us.append(sum(step.values()) / 1000)
                result.shares.update(step)
            result.num_calls.update(engine.timer.num_calls - calls)
            after = engine.counters()
            result.num_stored += after.stored_blocks - before.stored_blocks
            result.num_loaded += after.loaded_blocks - before.loaded_blocks
            check(scenario, engine, result)
        finally:
            engine.close()


def check(scenario: str, engine: Any, result: Result) -> None:
    """Raise unless the scenario did what it is called, and nothing failed in it."""
    counters = engine.counters()
    if counters.failed_tasks or not counters.stored_blocks:
        raise SystemExit(f"{scenario}: {counters.failed_tasks} tasks failed, {counters.stored_blocks} blocks stored")
    if (scenario == "hits") != (result.num_loaded > 0):
        raise SystemExit(f"{scenario}: {result.num_loaded} blocks were loaded")


def row(scenario: str, result: Result) -> dict[str, Any]:
    """Return the figures of one scenario."""
    total_ns = sum(result.shares.values())
    return {
        "scenario": scenario,
        "num_steps": len(result.ours_us),
        "p50_us": statistics.median(result.ours_us),
        "p99_us": percentile(result.ours_us, 99),
        "max_us": max(result.ours_us),
        "store_thread_us": statistics.mean(result.thread_us),
        "step_with_us": statistics.median(result.with_us),
        "step_without_us": statistics.median(result.without_us),
        "blocks_stored": result.num_stored,
        "blocks_loaded": result.num_loaded,
        "shares": {name: round(spent_ns / total_ns, 3) for name, spent_ns in result.shares.most_common()},
    }


def verbs_line(size: Size, scenario: str) -> str:
    """Run the scenario once more, and return what each verb of the KVManager costs: calls per step, CPU per call."""
    result = Result()
    run(size, scenario, 0, result, connector=True, verbs=VERBS)
    num_steps = len(result.ours_us)
    return f"{scenario}, KVManager: " + ", ".join(
        f"{name} {result.num_calls[name] / num_steps:.2f} x {spent_ns / 1000 / result.num_calls[name]:.0f} us"
        for name, spent_ns in result.shares.most_common()
    )


def main() -> None:
    options_of = parser(__doc__)
    options_of.add_argument("--steps", type=int, help="steps of each run")
    options_of.add_argument("--scenario", choices=SCENARIOS, action="append", help="only this one; may be repeated")
    options_of.add_argument("--verbs", action="store_true", help="say what the KVManager's verbs take")
    options = options_of.parse_args()
    if importlib.util.find_spec("vllm") is None:
        say("bench_scheduler_cost: skipped, vLLM is not installed in this environment; run it with .venv/vllm")
        emit("scheduler_cost", options, [], [], skipped="vLLM is not installed in this environment")
        return
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    os.environ |= quiet | {"VLLM_LOGGING_LEVEL": "ERROR", "FLEXKV_LOG_LEVEL": "ERROR"}
    size = TINY if options.tiny else Size(**({"num_steps": options.steps} if options.steps else {}))
    rows, figures = [], []
    for scenario in options.scenario or SCENARIOS:
        result = Result()
        for seed in range(size.num_rounds):
            for connector in (True, False):
                run(size, scenario, seed, result, connector=connector)
        rows.append(row(scenario, result))
        figures += figures_of(size, rows[-1])
        shares = " ".join(f"{name}={share:.0%}" for name, share in rows[-1]["shares"].items())
        if options.verbs:
            say(verbs_line(size, scenario))
        say(f"{scenario}: {shares}; {rows[-1]['blocks_stored']} blocks stored, {rows[-1]['blocks_loaded']} loaded")
    emit(
        "scheduler_cost",
        options,
        figures,
        rows,
        verified=False,
        size={name: getattr(size, name) for name in Size.__slots__},
    )


def figures_of(size: Size, of: dict[str, Any]) -> list[Figure]:
    """Return the lines of the summary."""
    work = f"connector per step, {size.num_running} requests, {of['scenario']}"
    without_us = of["step_without_us"]
    return [
        Figure(question=f"{work}, p50", unit="us", ours=of["p50_us"]),
        Figure(
            question=f"{work}, p99",
            unit="us",
            ours=of["p99_us"],
            must=MUST_US if size.num_running >= Size().num_running else None,
            peer=f"the scheduler's own step, {of['step_with_us']:.0f} with us",
            peers=without_us,
        ),
        Figure(
            question=f"... beside it, of the thread that makes stores, mean: {of['scenario']}",
            unit="us",
            ours=of["store_thread_us"],
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
