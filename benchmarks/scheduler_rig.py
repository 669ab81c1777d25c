"""A vLLM engine without a model: its real scheduler, our real connector, a real copy agent, sampled tokens made up.

What vLLM's EngineCore does between two steps is done here in the same order. The worker role is ours too: KV memory of
tiny blocks in numpy arrays, registered with the agent, whose native threads copy and acknowledge; what it loads and
stores are real bytes. A step takes as long as `forward_s` says, in which the agent works. Needs vLLM.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import vllm.v1.core.kv_cache_utils as kv_cache_utils
from vllm import SamplingParams
from vllm.config import KVTransferConfig, VllmConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.utils.gc_utils import freeze_gc_heap
from vllm.utils.hashing import get_hash_fn_by_name
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import KVConnectorOutput, ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from flexkv.common.metrics import CacheStats
from flexkv.integration.config import FlexKVConfig
from flexkv.integration.vllm.worker_connector import FlexKVWorkerConnector
from flexkv.server.client import KVTPClient

BLOCK_TOKENS = 16
BLOCK_BYTES = 64
MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128_256,
    "max_position_embeddings": 131_072,
    "dtype": "float32",
}
METHODS = (
    "on_new_request",
    "get_num_new_matched_tokens",
    "update_state_after_alloc",
    "build_connector_meta",
    "update_connector_output",
    "request_finished",
    "has_pending_block_frees",
    "get_kv_connector_stats",
    "take_events",
)


def engine_config(folder: Path, *, num_running: int, step_tokens: int, num_slots: int, connector: bool) -> VllmConfig:
    """Return the configuration of an engine of a made-up model; `num_slots`: capacity of the host tier in blocks."""
    (folder / "config.json").write_text(json.dumps(MODEL), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"weights")
    os.utime(folder / "model.safetensors", ns=(10**18, 10**18))
    transfer = KVTransferConfig(
        kv_connector="FlexKVConnector",
        kv_role="kv_both",
        kv_connector_module_path="flexkv.integration.vllm.connector",
        kv_connector_extra_config={"num_cpu_blocks": num_slots},
        kv_load_failure_policy="recompute",
    )
    return EngineArgs(
        model=str(folder),
        dtype="float32",
        skip_tokenizer_init=True,
        max_num_seqs=num_running,
        max_num_batched_tokens=step_tokens,
        max_model_len=32_768,
        async_scheduling=False,
        kv_transfer_config=transfer if connector else None,
    ).create_engine_config()


class Timer:
    """CPU time inside methods of `owner`, of whichever thread calls them, by step; wraps the methods in place."""

    def __init__(self, owner: Any, methods: Sequence[str]) -> None:
        self.steps: list[dict[str, int]] = []
        self.num_calls: Counter[str] = Counter()
        self._current: dict[str, int] = {}
        self._lock = threading.Lock()
        for name in methods:
            setattr(owner, name, self._timed(name, getattr(owner, name)))

    def _timed(self, name: str, method: Any) -> Any:
        clock = time.thread_time_ns

        def timed(*args: Any, **kwargs: Any) -> Any:
            start_ns = clock()
            answer = method(*args, **kwargs)
            spent_ns = clock() - start_ns
            with self._lock:
                self._current[name] = self._current.get(name, 0) + spent_ns
                self.num_calls[name] += 1
            return answer

        return timed

    def end_step(self) -> None:
        """Book what was spent since the last call as one step."""
        with self._lock:
            self.steps.append(self._current)
            self._current = {}


class Engine:
    """One engine. `step` runs one scheduler step and returns the CPU seconds vLLM and we spent in it.

    `verbs`: time these methods of the KVManager in place of the connector's.
    """

    def __init__(
        self,
        folder: Path,
        *,
        num_running: int,
        step_tokens: int,
        num_blocks: int,
        num_slots: int,
        connector: bool,
        forward_s: float,
        verbs: Sequence[str] | None = None,
    ) -> None:
        config = engine_config(
            folder, num_running=num_running, step_tokens=step_tokens, num_slots=num_slots, connector=connector
        )
        config.cache_config.block_size = BLOCK_TOKENS
        config.cache_config.num_gpu_blocks = num_blocks
        config.cache_config.enable_prefix_caching = True
        hash_fn = get_hash_fn_by_name(config.cache_config.prefix_caching_hash_algo)
        kv_cache_utils.init_none_hash(hash_fn)
        self.block_hasher = kv_cache_utils.get_request_block_hasher(BLOCK_TOKENS, hash_fn)
        self.memory = np.random.default_rng(0).integers(0, 256, (num_blocks, BLOCK_BYTES), dtype=np.uint8)
        self.worker: FlexKVWorkerConnector | None = None
        self.timer: Timer | None = None
        self._forward_s = forward_s
        self._ids = itertools.count()
        if connector:
            address = FlexKVConfig.from_env().post_init_from_vllm_config(config).gpu_register_port
            self.worker = FlexKVWorkerConnector(KVTPClient(address, tokens_per_block=BLOCK_TOKENS), num_blocks)
            self.worker.register_to_server({"layer": self.memory})
        spec = FullAttentionSpec(block_size=BLOCK_TOKENS, num_kv_heads=2, head_size=16, dtype=np.dtype("float32"))
        self.scheduler = Scheduler(
            vllm_config=config,
            kv_cache_config=KVCacheConfig(num_blocks, [], [KVCacheGroupSpec(["layer"], spec)]),
            structured_output_manager=StructuredOutputManager(config),
            block_size=BLOCK_TOKENS,
            log_stats=True,
        )
        if connector:
            owner = self.scheduler.connector if verbs is None else self.scheduler.connector.impl.scheduler._manager
            self.timer = Timer(owner, METHODS if verbs is None else verbs)
        freeze_gc_heap()  # as vLLM's EngineCore does: else a collection of all it has loaded falls into some step

    def add(self, prompt: list[int], num_output: int) -> Request:
        """Queue a request that ends after `num_output` tokens."""
        sampling = SamplingParams(max_tokens=num_output, ignore_eos=True, temperature=0.0)
        sampling.update_from_generation_config({}, 2)
        request = Request(f"request-{next(self._ids)}", prompt, sampling, None, block_hasher=self.block_hasher)
        self.scheduler.add_request(request)
        return request

    @property
    def num_unfinished(self) -> int:
        """Requests that wait or run."""
        return self.scheduler.get_num_unfinished_requests()

    def counters(self) -> CacheStats | None:
        """Return our counters; None without the connector."""
        return self.scheduler.connector.impl.scheduler.stats() if self.worker is not None else None

    def store_thread_ns(self) -> int:
        """Return the CPU time that our thread beside the scheduler's has had; 0 without the connector."""
        if self.worker is None:
            return 0
        thread = self.scheduler.connector.impl.scheduler._store_thread.thread
        return time.clock_gettime_ns(time.pthread_getcpuclockid(thread.ident))

    def drop_own_cache(self) -> bool:
        """Empty the engine's own prefix cache; False while a finished request's blocks are held."""
        return self.scheduler.reset_prefix_cache()

    def step(self) -> float:
        """Run one step. Returns the scheduler's CPU seconds, the forward pass left out."""
        start_ns = time.thread_time_ns()
        output = self.scheduler.schedule()
        spent_ns = time.thread_time_ns() - start_ns
        result = self._forward(output)
        start_ns = time.thread_time_ns()
        self.scheduler.update_from_output(output, result)
        spent_ns += time.thread_time_ns() - start_ns
        if self.timer is not None:
            self.timer.end_step()
        return spent_ns / 1e9

    def _forward(self, output: SchedulerOutput) -> ModelRunnerOutput:
        """Take the step as the workers do: submit, record its number, and come back with one token a request."""
        kv_output = None
        if self.worker is not None:
            self.worker.bind_step(output.kv_connector_metadata.notice)
            self.worker.record_step()
            kv_output = KVConnectorOutput(invalid_block_ids=self.worker.failed_block_ids())
        time.sleep(self._forward_s)
        req_ids = list(output.num_scheduled_tokens)
        return ModelRunnerOutput(
            req_ids=req_ids,
            req_id_to_index={req_id: index for index, req_id in enumerate(req_ids)},
            sampled_token_ids=[self._sampled(req_id) for req_id in req_ids],
            kv_connector_output=kv_output,
        )

    def _sampled(self, req_id: str) -> list[int]:
        """Return a token unless the request's prompt goes on in the next step."""
        request = self.scheduler.requests[req_id]
        return [1 + next(self._ids) % 100_000] if request.num_computed_tokens >= request.num_tokens else []

    def requests(self) -> Iterator[Request]:
        """Return the requests that are not finished."""
        return iter(self.scheduler.requests.values())

    def close(self) -> None:
        """Stop scheduler and worker."""
        gc.unfreeze()
        self.scheduler.shutdown()
        if self.worker is not None:
            self.worker.shutdown()
