"""The copy agent as a worker has it: what its threads cost at rest and at full rate, without and beside an engine.

A KVManager and a KVTPClient with tensors on the GPU, in one process; the CPU time is that of the agent's own threads,
told apart by their names.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_load import Engine, Running
from benchmarks.gpu_rate import WAIT_S, cpu_s
from benchmarks.gpu_rows import CpuRow
from flexkv import CacheConfig, KVManager, ModelConfig
from flexkv.server.client import KVTPClient
from flexkv.server.registration import LEGACY_STREAM, AgentReport

AGENT_THREADS = frozenset({"flexkv-load", "flexkv-store", "flexkv-agent"})
REGISTERING_THREADS = frozenset({"fkv-register"})
"""They end when all host memory is registered and the mechanisms are measured; nothing is counted before."""
TOKENS_PER_BLOCK, NUM_HEADS, HEAD_SIZE = 16, 8, 128
_PER_THREAD_CLOCK = 6
"""Bits of a clock's number: the CPU time of one thread (clock_gettime(2), as glibc makes it of a thread)."""


def thread_ids(names: frozenset[str]) -> list[int]:
    """Return the threads of this process that have one of these names."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        try:
            name = (task / "comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        if name in names:
            found.append(int(task.name))
    return sorted(found)


def threads_cpu_s(threads: list[int]) -> float:
    """Return the CPU time of threads of this process so far."""
    return sum(time.clock_gettime((~thread << 3) | _PER_THREAD_CLOCK) for thread in threads)


class Worker:
    """A cache with one rank, whose KV tensors lie on `device`. A context manager."""

    def __init__(self, num_blocks: int, num_layers: int = 32, device: str = "cuda") -> None:
        self.num_blocks = num_blocks
        shape = (2, num_blocks, TOKENS_PER_BLOCK, NUM_HEADS, HEAD_SIZE)
        self.tensors = [torch.randn(shape, dtype=torch.bfloat16, device=device) for _ in range(num_layers)]
        self.bytes_per_op = sum(tensor.nbytes for tensor in self.tensors)
        model = ModelConfig(num_layers, NUM_HEADS, HEAD_SIZE, dtype="bfloat16")
        config = CacheConfig(tokens_per_block=TOKENS_PER_BLOCK, num_cpu_blocks=4 * num_blocks)
        self._blocks = np.random.default_rng(1).permutation(num_blocks).astype(np.int64)
        self._manager = KVManager(model, config)
        self._client: KVTPClient | None = None
        self._last_step = 0

    def __enter__(self) -> Worker:
        self._manager.start()
        self._client = KVTPClient(self._manager.gpu_register_port, tokens_per_block=TOKENS_PER_BLOCK)
        self._client.register_to_server(self.tensors)
        if not self._manager.wait_ready(WAIT_S):
            raise RuntimeError(f"the cache did not serve within {WAIT_S:.0f} s")
        self._await_registered()
        self.record_step(torch.cuda.current_stream().cuda_stream or LEGACY_STREAM)
        torch.cuda.synchronize()
        self.threads = thread_ids(AGENT_THREADS)
        if len(self.threads) != len(AGENT_THREADS):
            raise RuntimeError(f"{len(self.threads)} threads have the agent's names, not {len(AGENT_THREADS)}")
        return self

    def _await_registered(self) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while not self._report().is_registration_complete or thread_ids(REGISTERING_THREADS):
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"host memory was not registered within {WAIT_S:.0f} s: {self._report()}")
            threading.Event().wait(0.01)

    def record_step(self, stream: int) -> None:
        """An engine has put a step into its stream."""
        assert self._client is not None, "the worker is registered"
        self._last_step += 1
        self._client.record_step(self._last_step, stream)

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.shutdown()
        self._manager.shutdown()

    def _tokens(self, prompt: int) -> Any:
        num_tokens = self.num_blocks * TOKENS_PER_BLOCK
        return np.arange(num_tokens, dtype=np.int64) + prompt * num_tokens

    def _wait(self, task: int) -> None:
        status = self._manager.wait(task, timeout=WAIT_S)[task].status.name
        if status != "SUCCESS":
            raise RuntimeError(f"a task ended as {status}: {self._report()}")

    def _report(self) -> AgentReport:
        report = self._client.stats() if self._client else None
        assert report is not None, "the worker is registered"
        return report

    def copied(self, way: str) -> tuple[float, float]:
        """Return the bytes that the agent has moved so far, and the seconds in which it did."""
        report = self._report()
        if way == "load":
            return report.bytes_loaded, report.load_ns / 1e9
        return report.bytes_stored, report.store_ns / 1e9

    def store(self, prompt: int) -> None:
        """Put all blocks of the tensors, as this prompt's; those that are held already are not moved again."""
        deadline_s = time.monotonic() + WAIT_S
        while True:
            task, mask = self._manager.put_match(self._tokens(prompt))
            is_held = self._is_held(prompt) if not mask.any() else False
            if is_held or mask.all():
                break
            self._manager.cancel(task)  # host memory is still being made ready
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"slots for {self.num_blocks} blocks were not there within {WAIT_S:.0f} s")
            threading.Event().wait(0.05)
        if is_held:
            self._manager.cancel(task)
            return
        self._manager.launch(task, block_ids=[self._blocks], after_step=1)
        self._wait(task)

    def _is_held(self, prompt: int) -> bool:
        task, mask = self._manager.get_match(self._tokens(prompt))
        self._manager.cancel(task)
        return bool(mask.all())

    def load(self, prompt: int) -> None:
        """Bring all blocks of a prompt back to where they were."""
        task, mask = self._manager.get_match(self._tokens(prompt))
        if not mask.all():
            raise RuntimeError(f"only {int(mask.sum())} of {len(mask)} tokens of what was put are there")
        self._manager.launch(task, block_ids=[self._blocks], after_step=1)
        self._wait(task)

    def verify(self) -> None:
        """Store, poison, load, and compare every byte. Raises AssertionError."""
        before = [tensor.clone() for tensor in self.tensors]
        self.store(0)
        for tensor in self.tensors:
            tensor.zero_()
        torch.cuda.synchronize()
        self.load(0)
        if not all(torch.equal(tensor, expected) for tensor, expected in zip(self.tensors, before, strict=True)):
            raise AssertionError("the agent brought back other bytes than it took")


def idle(worker: Worker, seconds: float) -> CpuRow:
    """Measure an agent that nothing is asked of."""
    threads_begin_s, process_begin_s, begin_s = threads_cpu_s(worker.threads), cpu_s(), time.perf_counter()
    threading.Event().wait(seconds)
    elapsed_s = time.perf_counter() - begin_s
    process_share = (cpu_s() - process_begin_s) / elapsed_s
    return CpuRow(
        who="agent", way="idle", gbs=0.0, share=(threads_cpu_s(worker.threads) - threads_begin_s) / elapsed_s,
        s_per_gb=0.0, detail=f"its {len(worker.threads)} threads over {elapsed_s:.1f} s; process {process_share:.5f}",
    )  # fmt: skip


def busy(worker: Worker, way: str, num_ops: int, first_prompt: int = 1, who: str = "agent") -> CpuRow:
    """Measure the agent's threads over ops of all blocks, one after the other: their CPU time while it copies.

    Stores are of the prompts from the first one on, which must be new; loads of prompt 0.
    """
    threads_begin_s, (bytes_begin, copying_begin_s) = threads_cpu_s(worker.threads), worker.copied(way)
    for op in range(num_ops):
        if way == "store":
            worker.store(first_prompt + op)
        else:
            worker.load(0)
    taken_s = threads_cpu_s(worker.threads) - threads_begin_s
    bytes_end, copying_end_s = worker.copied(way)
    gigabytes, copying_s = (bytes_end - bytes_begin) / 1e9, copying_end_s - copying_begin_s
    if bytes_end - bytes_begin != num_ops * worker.bytes_per_op:
        raise AssertionError(f"{num_ops} ops moved {gigabytes} GB, not {worker.bytes_per_op} bytes each")
    return CpuRow(
        who=who, way=way, gbs=gigabytes / copying_s, share=taken_s / copying_s, s_per_gb=taken_s / gigabytes,
        detail=f"its threads, over the time of {num_ops} copies of {worker.bytes_per_op / 1e9:.2f} GB",
    )  # fmt: skip


def measure(num_blocks: int, num_ops: int, idle_s: float, engine: Engine) -> list[CpuRow]:
    """Return what the agent costs idle, and busy without and beside an engine; content verified before and after."""
    beside = f"agent beside a {engine.name}"
    with Worker(num_blocks) as worker:
        worker.verify()
        # The prompt that is loaded is put first of all; loads come before the stores that drive it out.
        rows = [idle(worker, idle_s), busy(worker, "load", num_ops)]
        with Running(engine, worker.record_step):
            rows.append(busy(worker, "load", num_ops, who=beside))
        rows.append(busy(worker, "store", num_ops))
        with Running(engine, worker.record_step):
            rows.append(busy(worker, "store", num_ops, first_prompt=1 + num_ops, who=beside))
            worker.verify()
    return rows
