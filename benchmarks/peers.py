"""Peers from PyPI, measured in the same run as ours: each in a process of the environment that has it.

A peer that is not installed is named with the reason, never guessed at. QUOTED figures are other projects' own, of
other machines; they are marked as such.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass

import numpy as np

from benchmarks.report import ROOT, say

BLOCK_TOKENS = 16
TIMEOUT_S = 300.0
NAMES = ("vllm", "lmcache", "sglang")
QUOTED_US = {
    "hash: upstream FlexKV, 64-bit unkeyed XXH64, not cryptographic": 100.0,
    "match: upstream FlexKV, C++": 27.0,
    "insert: upstream FlexKV, C++": 100.0,
    "match: LMCache, server over ZMQ": 45_000.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerFigure:
    """One figure: `work` is the part before the colon of a name (hash, match, insert, evict)."""

    work: str
    name: str
    spent_us: float
    quoted: bool = False


def prompts(seed: int, num_prompts: int, prompt_blocks: int) -> np.ndarray:
    """Return prompts of random tokens. Shape: (num_prompts, prompt_blocks * 16), int64."""
    shape = (num_prompts, prompt_blocks * BLOCK_TOKENS)
    return np.random.default_rng(seed).integers(0, 152_000, shape, dtype=np.int64)


def measure(
    name: str, seed: int, num_prompts: int, prompt_blocks: int, num_rounds: int
) -> tuple[list[PeerFigure], list[str]]:
    """Run one peer. Returns its figures, or a line that says why there are none."""
    answer = _run(name, [str(number) for number in (seed, num_prompts, prompt_blocks, num_rounds)])
    if isinstance(answer, str):
        say(f"{name}: not installed: {answer}")
        return [], [f"{name}: not installed: {answer}"]
    return [_figure(key, spent_us) for key, spent_us in answer.items()], []


def quoted() -> list[PeerFigure]:
    """Return what others publish."""
    return [_figure(key, spent_us, quoted=True) for key, spent_us in QUOTED_US.items()]


def _figure(key: str, spent_us: float, *, quoted: bool = False) -> PeerFigure:
    work, _, name = key.partition(": ")
    return PeerFigure(work=work, name=name, spent_us=spent_us, quoted=quoted)


def _run(name: str, arguments: list[str]) -> dict[str, float] | str:
    """Return what a peer's process measured, or why there is nothing."""
    folders = ("vllm", "peers") if name == "vllm" else ("peers",)
    pythons = [ROOT / ".venv" / folder / "bin" / "python" for folder in folders]
    python = next((path for path in pythons if path.exists()), None)
    if python is None:
        return f"there is no .venv/{folders[-1]}; `make setup-peers` prepares it"
    command = [str(python), "-W", "ignore", "-m", "benchmarks.peer_worker", name, *arguments]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"did not end within {TIMEOUT_S:.0f} s"
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return f"exit code {done.returncode}: {last}"
    answer = json.loads(lines[-1])
    return answer.get("times_us") or str(answer["reason"])
