"""What does a question to the KVManager cost an engine, per request?

Unit: microseconds per call, median and p99. A prompt is 32,768 tokens in blocks of 16, so 2048 blocks, all held by the
CPU tier; the manager runs in this process, over tiny blocks of real memory. `get_match` is a full hit, cancelled
afterwards; `put_match` is of a prompt that is held already, and of a new one. Three forms of input: an int64 array, a
Python list, and the engine's own block hashes (a list of bytes). Beside each figure: our limit, and as the peer the
time that hashing the same blocks takes with hashlib, block by block in Python, which is what engines do by themselves.

    .venv/dev/bin/python -m benchmarks.bench_manager                 a table
    .venv/dev/bin/python -m benchmarks.bench_manager --json FILE     and JSON
    .venv/dev/bin/python -m benchmarks.bench_manager --tiny          a smoke test: JSON to standard output
"""

from __future__ import annotations

import functools
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np

from benchmarks.report import Figure, emit, parser, percentile, times_us
from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.kvmanager import KVManager
from flexkv.server.client import KVTPClient

TOKENS_PER_BLOCK = 16
READY_TIMEOUT_S = 30.0


class Bench:
    """A manager whose CPU tier holds `num_prompts` prompts."""

    def __init__(self, folder: str, num_prompts: int, prompt_blocks: int) -> None:
        self.prompt_blocks = prompt_blocks
        rng = np.random.default_rng(0)
        tokens = rng.integers(0, 128_000, (num_prompts + 1, prompt_blocks * TOKENS_PER_BLOCK), dtype=np.int64)
        self.prompts, self.new_prompt = tokens[:-1], tokens[-1]
        self.hashes = [self._engine_hashes(prompt) for prompt in self.prompts]
        slots = 2 * num_prompts * prompt_blocks + prompt_blocks
        model = ModelConfig(1, 1, 4, dtype="uint8")
        address = f"ipc://{folder}/register"
        self.manager = KVManager(
            model,
            CacheConfig(tokens_per_block=TOKENS_PER_BLOCK, num_cpu_blocks=slots, evict_ratio=0.0),
            gpu_register_port=address,
        )
        self.manager.start()
        self.gpu = rng.integers(0, 255, (prompt_blocks, 1, TOKENS_PER_BLOCK, 8), dtype=np.uint8)
        self.client = KVTPClient(address, tokens_per_block=TOKENS_PER_BLOCK)
        self.client.register_to_server({"layer": self.gpu})
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while not self.manager.is_ready():
            if time.monotonic() > deadline_s:
                raise SystemExit(f"the manager was not ready within {READY_TIMEOUT_S} s")
            time.sleep(0.01)
        while not self._fill():  # slots follow the prefaulting; until then stores evict one another
            if time.monotonic() > deadline_s:
                raise SystemExit(f"the prompts could not be stored within {READY_TIMEOUT_S} s")

    def close(self) -> None:
        """Stop the manager."""
        self.client.shutdown()
        self.manager.shutdown()

    @staticmethod
    def _engine_hashes(prompt: np.ndarray) -> list[bytes]:
        hashes, parent = [], b""
        for block in prompt.reshape(-1, TOKENS_PER_BLOCK):
            parent = hashlib.sha256(parent + block.tobytes()).digest()
            hashes.append(parent)
        return hashes

    def _fill(self) -> bool:
        """Store every prompt; True when nothing was missing."""
        num_missing = 0
        for prompt, hashes in zip(self.prompts, self.hashes, strict=True):
            for arguments in ({"token_ids": prompt}, {"block_hashes": hashes, "num_tokens": len(prompt)}):
                task_id, held = self.manager.get_match(**arguments)
                self.manager.cancel(task_id)
                num_missing += int(np.count_nonzero(~held))
                task_id, missing = self.manager.put_match(**arguments)
                self.manager.launch(task_id, block_ids=[np.flatnonzero(missing[::TOKENS_PER_BLOCK])])
                self.manager.wait(task_id)
        return num_missing == 0

    def rows(self, num_rounds: int) -> list[dict[str, object]]:
        """Time each form of question; what came back is checked."""
        order = iter(np.random.default_rng(1).integers(0, len(self.prompts), 100 * num_rounds))
        full = self.prompt_blocks * TOKENS_PER_BLOCK
        lists = [prompt.tolist() for prompt in self.prompts]

        def drop(name: str, expected: int, result: object) -> None:
            task_id, mask = result
            if int(mask.sum()) != expected:
                raise SystemExit(f"{name}: {int(mask.sum())} tokens in the mask, {expected} expected")
            self.manager.cancel(task_id)

        manager, rows = self.manager, []
        forms: list[tuple[str, float | None, Callable[[], object], int]] = [
            ("get_match, int64 array", 350.0, lambda: manager.get_match(self.prompts[next(order)]), full),
            ("get_match, list of int", None, lambda: manager.get_match(lists[next(order)]), full),
            ("get_match, engine hashes", 150.0,
             lambda: manager.get_match(block_hashes=self.hashes[next(order)], num_tokens=full), full),
            ("put_match of what is held, int64 array", 350.0, lambda: manager.put_match(self.prompts[next(order)]), 0),
            ("put_match of what is held, engine hashes", 150.0,
             lambda: manager.put_match(block_hashes=self.hashes[next(order)], num_tokens=full), 0),
            ("put_match of a new prompt, int64 array", None, lambda: manager.put_match(self.new_prompt), full),
        ]  # fmt: skip
        hashing_us = statistics.median(times_us(lambda: self._engine_hashes(self.prompts[0]), max(3, num_rounds // 20)))
        for name, limit_us, work, expected in forms:
            spent_us = times_us(work, num_rounds, after=functools.partial(drop, name, expected))
            figures = {"median_us": statistics.median(spent_us), "p99_us": percentile(spent_us, 99)}
            rows.append({"work": name, **figures, "limit_us": limit_us, "peer": "hashlib", "peer_us": hashing_us})
        self.manager.check_invariants()
        return rows


def main() -> None:
    options = parser(__doc__).parse_args()
    os.environ.setdefault("FLEXKV_LOG_LEVEL", "WARNING")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder, *((2, 64) if options.tiny else (32, 2048)))
        try:
            rows = bench.rows(20 if options.tiny else 400)
        finally:
            bench.close()
    peer = "hashlib, a call per block"
    figures = [
        Figure(
            question=f"{row['work']}, median",
            unit="us",
            ours=row["median_us"],
            must=row["limit_us"],
            peer=peer,
            peers=row["peer_us"],
        )
        for row in rows
    ]
    emit("manager", options, figures, rows)


if __name__ == "__main__":
    main()
