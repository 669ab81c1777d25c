"""Real vLLM engines on tiny models with their scheduler in this process, and with it FlexKV's scheduler role.

The worker is in this process too (executor "uni"), or in one of its own (executor="mp").
"""

from __future__ import annotations

import contextlib
import fcntl
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
MODELS = Path(os.environ.get("TEST_MODELS_DIR", TESTS.parent / ".cache" / "test-models"))
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
    """An LLM whose scheduler is in this process. `connector` is the scheduler role's Impl.

    Args:
        executor: "uni" has the worker here, "mp" in a process of its own.
        asynchronous: schedule a step before the last one has come back; what vLLM does by default, but not on a CPU.
    """

    def __init__(
        self,
        model: Path,
        transfer: dict[str, Any],
        *,
        caches: bool = True,
        executor: str = "uni",
        asynchronous: bool = False,
        **options: Any,
    ) -> None:
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
        self._is_closed = False
        self._watch_host_pool()
        with scheduled_asynchronously() if asynchronous else contextlib.nullcontext():
            self.llm = LLM(
                model=str(model),
                kv_transfer_config=config,
                distributed_executor_backend=executor,
                **{**settings, **options},
            )
        self.core = self.llm.llm_engine.engine_core.engine_core
        self.is_asynchronous = self.core.batch_queue is not None
        assert self.is_asynchronous == asynchronous
        self.scheduler = self.core.scheduler
        self.connector = self._impl(self.scheduler.connector)
        if caches:
            self.until(self.manager.is_ready, "the ranks to register")

    @staticmethod
    def _impl(connector: Any) -> Any:
        return connector.impl if hasattr(connector, "impl") else connector._flexkv_connector

    @property
    def manager(self) -> Any:
        return self.connector.scheduler._manager

    def hold(self, held: bool) -> None:
        """While held, no copy starts; on every rank, wherever it is."""

        def hold_agent(_worker: Any, held: bool) -> None:
            from vllm.distributed.kv_transfer import get_kv_transfer_group

            connector = get_kv_transfer_group()
            impl = connector.impl if hasattr(connector, "impl") else connector._flexkv_connector
            impl.worker._client.hold(held)

        self.llm.collective_rpc(hold_agent, args=(held,))

    def agent_reports(self) -> list[Any]:
        """What the copy agent of each rank has done."""

        def report(_worker: Any) -> Any:
            from vllm.distributed.kv_transfer import get_kv_transfer_group

            return get_kv_transfer_group().impl.worker._client.stats()

        return self.llm.collective_rpc(report)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        self.hold(True)
        try:
            yield
        finally:
            self.hold(False)

    @contextlib.contextmanager
    def transfers_bounded_by(self, timeout_s: float) -> Iterator[None]:
        """Loads launched within, and resets, wait this long for copies."""
        config = self.manager.cache_config
        usual_s = config.transfer_timeout_s
        object.__setattr__(config, "transfer_timeout_s", timeout_s)
        try:
            yield
        finally:
            object.__setattr__(config, "transfer_timeout_s", usual_s)

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

    def finish(self) -> dict[str, Any]:
        """Step until every request has its answer; returns the outputs by the ids given to `add`."""
        outputs: dict[str, Any] = {}

        def step() -> bool:
            outputs.update((output.request_id, output) for output in self.llm.llm_engine.step() if output.finished)
            return not self.llm.llm_engine.has_unfinished_requests()

        self.until(step, "the answers")
        return outputs

    def check_nothing_is_held(self) -> None:
        """No request, no device block, no pin, no reservation, no slot that is neither free nor a block's."""
        self.settle()
        cache = self.manager._engine._tier.cache

        def is_idle() -> bool:
            self.manager.check_invariants()
            return self.manager.num_running == 0 and cache.num_live_reservations == 0

        self.until(is_idle, "reservations to end")
        index = cache.cpu_cache_engine.index
        assert (index.num_pinned, index.num_unready, cache.num_quarantined_blocks) == (0, 0, 0)
        assert len(self.connector.scheduler._requests) == 0
        pool = self.scheduler.kv_cache_manager.block_pool
        assert self.num_free_gpu_blocks() == pool.num_gpu_blocks - 1, "one block is vLLM's own"

    def num_preemptions(self) -> int:
        """Return vLLM's own counter. The engine needs disable_log_stats=False."""
        return sum(m.value for m in self.llm.get_metrics() if m.name == "vllm:num_preemptions")

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
        """Shut the engine down. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._patches.undo()
        self._pools.clear()
        self.llm.llm_engine.engine_core.shutdown()


@contextlib.contextmanager
def scheduled_asynchronously() -> Iterator[None]:
    """Undo that vLLM turns asynchronous scheduling off on a CPU; its runner there can do it."""
    from vllm.platforms.cpu import CpuPlatform

    real = CpuPlatform.check_and_update_config

    def keep_on(_cls: type, vllm_config: Any) -> None:
        real(vllm_config)
        vllm_config.scheduler_config.async_scheduling = True

    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(CpuPlatform, "check_and_update_config", classmethod(keep_on))
        yield


@pytest.fixture(scope="session")
def model() -> Callable[[str], Path]:
    """Return the folder of a tiny model, made at the first use."""

    def make(name: str) -> Path:
        folder = MODELS / name
        MODELS.mkdir(parents=True, exist_ok=True)
        with (MODELS / ".lock").open("w") as lock:  # tests of other processes make the same ones
            fcntl.flock(lock, fcntl.LOCK_EX)
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
