"""Makes the recordings of `tests/replay/recordings/`: a real vLLM on this machine's CPU, a tiny model, one workload.

    python -m tests.replay.record [--out DIR] [NAME ...]        in an environment with vLLM; about 20 s each

The workload: long prompts in chunks, prompts that repeat (from the GPU's own cache, from ours, from both), so little
room that requests are preempted, arrivals while others run, aborts of requests that compute, load and wait. The
recording is folded into `Recording`'s form. Needs what `tests/e2e` needs.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.replay.recorder import DIRECTORY
from tests.replay.recording import FOLDER, Recording, fold

BLOCK = 32
NUM_BLOCKS = 26
MAX_TOKENS_A_STEP = 128
MAX_REQUESTS = 6
MAX_MODEL_LEN = 512
SETTLE_S = 30.0
TRANSFER = {
    "kv_connector": "RecordingConnector",
    "kv_connector_module_path": "tests.replay.recorder",
    "kv_load_failure_policy": "recompute",
}
SETTINGS = {
    "block_size": BLOCK,
    "num_gpu_blocks_override": NUM_BLOCKS,
    "max_num_batched_tokens": MAX_TOKENS_A_STEP,
    "max_num_seqs": MAX_REQUESTS,
    "max_model_len": MAX_MODEL_LEN,
    "disable_log_stats": False,
}
NAMES: dict[str, dict[str, Any]] = {
    "uni": {},
    "mp": {"executor": "mp"},
    "uni-async": {"asynchronous": True},
    "mp-async": {"executor": "mp", "asynchronous": True},
    "mp-apart": {"apart": True},
    "mp-async-tp2": {"executor": "mp", "asynchronous": True, "tensor_parallel_size": 2},
}


class EngineApart:
    """An engine in a process of its own, as `vllm serve` has it (VLLM_ENABLE_V1_MULTIPROCESSING=1): cannot be stepped.

    Its worker is in one more process.
    """

    is_apart = True

    def __init__(self, model: Path, transfer: dict[str, Any], *, apart: bool, **settings: Any) -> None:
        from vllm import LLM
        from vllm.config import KVTransferConfig

        assert apart
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
        config = KVTransferConfig(kv_role="kv_both", **transfer)
        common = {"dtype": "float32", "enforce_eager": True, "seed": 0}
        self._llm = LLM(model=str(model), kv_transfer_config=config, **common, **settings)

    def generate(self, prompts: list[list[int]], max_tokens: int, **sampling: Any) -> list[Any]:
        from vllm import SamplingParams

        parameters = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True, **sampling)
        inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
        outputs: list[Any] = self._llm.generate(inputs, parameters, use_tqdm=False)
        return outputs

    def settle(self) -> None:
        """It steps by itself."""

    def drop_gpu_cache(self) -> None:
        deadline_s = time.monotonic() + SETTLE_S
        while not self._llm.reset_prefix_cache():  # stores hold blocks
            assert time.monotonic() < deadline_s

    def num_preemptions(self) -> float:
        return float(sum(metric.value for metric in self._llm.get_metrics() if metric.name == "vllm:num_preemptions"))

    def close(self) -> None:
        self._llm.llm_engine.engine_core.shutdown()


class Workload:
    """Runs on one engine (tests/e2e/conftest.py: Engine); on one that cannot be stepped without arrivals and aborts."""

    def __init__(self, engine: Any, prompt: Any) -> None:
        self._engine, self._prompt = engine, prompt
        self._count = 0

    def run(self) -> None:
        one, other = self._prompt(1, 150), self._prompt(1, 64) + self._prompt(2, 116)
        cold = self._ask([one, other], 6)
        self._drop()
        self._ask([one, other, self._prompt(3, 200)], 6)
        self._ask([one, other + self._prompt(4, 70)], 6)
        self._ask([one], 8, stop_token_ids=cold[0][3:4])
        self._drop()
        self._ask([one + cold[0]], 8, stop_token_ids=cold[0][3:4])
        self._preemptions()
        if not getattr(self._engine, "is_apart", False):
            self._arrivals(one)
            self._aborts(one, other)
        self._engine.settle()

    def _preemptions(self) -> None:
        prompts = [self._prompt(seed, 130) for seed in (10, 11, 12, 13)]
        answers = self._ask(prompts, 90)
        self._ask([text + answer + self._prompt(14, 20) for text, answer in zip(prompts, answers, strict=True)], 4)
        self._drop()
        self._ask(prompts, 70)

    def _arrivals(self, text: list[int]) -> None:
        """Prompts with one beginning, a few steps apart, beside a long answer."""
        self._drop()
        self._add(self._prompt(20, 90), 40)
        for seed in (21, 22, 23, 24):
            self._add(text + self._prompt(seed, 50), 5)
            self._step(3)
        self._finish()

    def _aborts(self, one: list[int], other: list[int]) -> None:
        """Of loads, of prompts that are being computed, of answers; what comes next loads into their blocks."""
        self._drop()
        beside = self._add(self._prompt(30, 100), 90)
        for text, num_steps in ((one, 1), (other, 2), (self._prompt(31, 100), 5)):
            aborted = self._add(text, 50)
            self._step(num_steps)
            self._abort(aborted)
            self._step(1)
        for seed in (10, 11, 12):
            aborted = self._add(self._prompt(seed + 30, 200), 50)
            self._step(2)
            self._abort(aborted)
            self._add(self._prompt(seed, 130), 3)
            self._step(4)
        for seed, num_tokens in ((13, 130), (3, 200)):  # the last block of an answer in flight is handed out first
            aborted = self._add(self._prompt(seed + 50, 100), 50)
            self._step(10)
            self._abort(aborted)
            self._add(self._prompt(seed, num_tokens), 3)
            self._step(4)
        self._abort(beside)
        self._finish()
        self._drop()
        self._ask([one, other], 4)

    def _abort(self, request_id: str) -> None:
        self._engine.llm.llm_engine.abort_request([request_id])

    def _ask(self, prompts: list[list[int]], max_tokens: int, **sampling: Any) -> list[list[int]]:
        outputs = self._engine.generate(prompts, max_tokens=max_tokens, **sampling)
        return [list(output.outputs[0].token_ids) for output in outputs]

    def _add(self, prompt: list[int], max_tokens: int) -> str:
        self._count += 1
        self._engine.add(f"added-{self._count}", prompt, max_tokens)
        return f"added-{self._count}"

    def _step(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self._engine.llm.llm_engine.step()

    def _finish(self) -> None:
        self._engine.finish()
        self._engine.settle()

    def _drop(self) -> None:
        self._engine.settle()
        self._engine.drop_gpu_cache()


def record(engine: Any, prompt: Any, folder: Path, name: str) -> Recording:
    """Run the workload on an engine that writes to `folder`, close it, and return the recording."""
    import vllm

    try:
        Workload(engine, prompt).run()
        assert engine.num_preemptions() > 0
    finally:
        engine.close()
    options = NAMES[name]
    geometry = {
        "name": name,
        "vllm": vllm.__version__,
        "is_apart": options.get("apart", False),
        "executor": "mp" if options.get("apart") else options.get("executor", "uni"),
        "asynchronous": options.get("asynchronous", False),
        "num_ranks": options.get("tensor_parallel_size", 1),
        "tokens_per_block": BLOCK,
        "num_blocks": NUM_BLOCKS,
        "max_tokens_a_step": MAX_TOKENS_A_STEP,
        "max_requests": MAX_REQUESTS,
        "max_model_len": MAX_MODEL_LEN,
    }
    return fold(sorted(folder.glob("*.jsonl")), geometry)


def write(name: str, out: Path) -> None:
    """Make one recording and its file."""
    from tests.e2e.conftest import MODELS, Engine, random_prompt
    from tests.models import make_model

    with tempfile.TemporaryDirectory() as folder:
        os.environ[DIRECTORY] = folder
        engine_type = EngineApart if NAMES[name].get("apart") else Engine
        engine = engine_type(make_model("llama", MODELS), TRANSFER, **SETTINGS, **NAMES[name])
        recording = record(engine, random_prompt, Path(folder), name)
    out.mkdir(parents=True, exist_ok=True)
    print(f"{name}: {recording.write(out / f'{name}.json.gz')} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    arguments = parser.parse_args()
    for name in arguments.names or NAMES:
        write(name, arguments.out)


if __name__ == "__main__":
    main()
