"""Real vLLM engines on tiny models, in this process (executor "uni"), with their connector in reach."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parents[1]
MODELS = Path(os.environ.get("FLEXKV_TEST_MODELS", TESTS.parent / ".cache" / "test-models"))
SETTLE_S = 30.0
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    # Threads of a tiny model only wait for each other, for long when the machine is busy.
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
OURS = {"kv_connector": "FlexKVConnector", "kv_connector_module_path": "flexkv.integration.vllm.connector"}
IN_TREE = {"kv_connector": "FlexKVConnectorV1"}

os.environ.update(ENVIRONMENT, VLLM_ENABLE_V1_MULTIPROCESSING="0")
os.environ.setdefault("FLEXKV_CPU_CACHE_GB", "64MiB")


def random_prompt(seed: int, num_tokens: int) -> list[int]:
    """Return token ids that no other seed shares a block with."""
    source = random.Random(seed)
    return [source.randrange(4, 260) for _ in range(num_tokens)]


class Engine:
    """An LLM in this process. `connector` is the scheduler role's Impl, `worker_connector` the worker role's."""

    def __init__(self, model: Path, transfer: dict[str, Any], *, caches: bool = True, **options: Any) -> None:
        from vllm import LLM
        from vllm.config import KVTransferConfig

        settings: dict[str, Any] = {
            "dtype": "float32",
            "enforce_eager": True,
            "max_model_len": 1024,
            "num_gpu_blocks_override": 96,
            "max_num_batched_tokens": 1024,
            "seed": 0,
        }
        config = KVTransferConfig(kv_role="kv_both", **transfer)
        self._watch_host_pool()
        self.llm = LLM(model=str(model), kv_transfer_config=config, **{**settings, **options})
        self.core = self.llm.llm_engine.engine_core.engine_core
        self.scheduler = self.core.scheduler
        self.connector = self._impl(self.scheduler.connector)
        from vllm.distributed.kv_transfer import get_kv_transfer_group

        self.worker_connector = self._impl(get_kv_transfer_group())
        if caches:
            self.until(self.manager.is_ready, "the ranks to register")

    @staticmethod
    def _impl(connector: Any) -> Any:
        return connector.impl if hasattr(connector, "impl") else connector._flexkv_connector

    @property
    def manager(self) -> Any:
        return self.connector.scheduler._manager

    @property
    def agent(self) -> Any:
        """The only rank's end: `hold(True)` keeps copies from starting."""
        return self.worker_connector.worker._client

    def until(self, condition: Callable[[], bool], what: str, *, step: bool = False) -> None:
        deadline_s = time.monotonic() + SETTLE_S
        while not condition():
            assert time.monotonic() < deadline_s, f"waited {SETTLE_S} s for {what}"
            if step:
                self.llm.llm_engine.step()
            else:
                time.sleep(0.002)

    def settle(self) -> None:
        """Step until no request holds anything: all stores have ended."""
        self.until(lambda: not self.scheduler.has_requests(), "stores to end", step=True)

    def generate(
        self, prompts: Sequence[list[int]], max_tokens: int = 12, salt: str | None = None, **sampling: Any
    ) -> list[Any]:
        """Return the greedy answers; stores have ended when it returns."""
        from vllm import SamplingParams

        parameters = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True, **sampling)
        inputs = [{"prompt_token_ids": prompt, **({"cache_salt": salt} if salt else {})} for prompt in prompts]
        outputs = self.llm.generate(inputs, parameters, use_tqdm=False)
        self.settle()
        return outputs

    def answers(self, prompts: Sequence[list[int]], **options: Any) -> list[list[int]]:
        return [list(output.outputs[0].token_ids) for output in self.generate(prompts, **options)]

    def drop_gpu_cache(self) -> None:
        """Forget vLLM's own prefix cache, not ours."""
        assert self.llm.reset_prefix_cache()

    def add(self, request_id: str, prompt: list[int], max_tokens: int = 12) -> None:
        """Queue a request without running it."""
        from vllm import SamplingParams

        parameters = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)
        self.llm.llm_engine.add_request(request_id, {"prompt_token_ids": prompt}, parameters)

    def request(self, prefix: str) -> Any:
        """Return vLLM's request whose id starts with `prefix`, or None. (vLLM may append to ids.)"""
        return next((value for key, value in self.scheduler.requests.items() if key.startswith(prefix)), None)

    def num_free_gpu_blocks(self) -> int:
        return int(self.scheduler.kv_cache_manager.block_pool.get_num_free_blocks())

    def stats(self) -> dict[str, int | float]:
        return self.manager.stats().flat()

    def poison_host_blocks(self, value: int = 0) -> None:
        """Overwrite every host slot: what is loaded from now on is wrong."""
        pool = self._pools[-1]
        for shard in range(pool.num_shards):
            for slot in range(pool.num_slots):
                pool.view(shard, slot)[:] = value

    def _watch_host_pool(self) -> None:
        """Get hold of the pool, which is made once the ranks have registered."""
        from flexkv.storage.storage_engine import StorageEngine

        self._pools: list[Any] = []
        self._patches = pytest.MonkeyPatch()
        real = StorageEngine.allocate_host_pool

        def allocate(storage: Any, *args: Any, **options: Any) -> Any:
            self._pools.append(real(storage, *args, **options))
            return self._pools[-1]

        self._patches.setattr(StorageEngine, "allocate_host_pool", allocate)

    def close(self) -> None:
        self._patches.undo()
        self._pools.clear()
        self.llm.llm_engine.engine_core.shutdown()


@pytest.fixture(scope="session")
def model() -> Callable[[str], Path]:
    """Return the folder of a tiny model, made at the first use."""

    def make(name: str) -> Path:
        folder = MODELS / name
        if not (folder / "config.json").exists():
            command = [sys.executable, "-W", "ignore", str(TESTS / "models.py"), str(MODELS), name]
            subprocess.run(command, check=True, timeout=120, capture_output=True)
        return folder

    return make


@pytest.fixture(scope="module")
def make_engine(model: Callable[[str], Path]) -> Iterator[Callable[..., Engine]]:
    """Return a factory of engines; one at a time, the last one is closed by the next and at the end."""
    engines: list[Engine] = []

    def make(name: str, transfer: dict[str, Any] = OURS, **options: Any) -> Engine:
        while engines:
            engines.pop().close()
        engines.append(Engine(model(name), transfer, **options))
        return engines[0]

    yield make
    while engines:
        engines.pop().close()


@pytest.fixture(scope="session")
def prompt() -> Callable[[int, int], list[int]]:
    return random_prompt
