"""A paged model with a FlexKV cache behind it, in one process, and the link to the device, for bench_gpu_model.

Needs torch and transformers. Not thread-safe.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import LlamaForCausalLM

from benchmarks.block_table import BlockTable
from benchmarks.paged_model import PagedModel, Tokens
from benchmarks.report import MIB
from flexkv import CacheConfig, KVManager, KVResponseStatus, ModelConfig
from flexkv.server.client import KVTPClient

WAIT_S, STOP_S = 120.0, 10.0


class WrongResultError(Exception):
    """What was brought back is not what was kept, or what was computed from it differs."""


def check(holds: bool, what: str) -> None:
    """Raise WrongResultError unless it holds."""
    if not holds:
        raise WrongResultError(what)


class Rig:
    """The model with its pages, and a cache behind it, in one process."""

    def __init__(self, model: LlamaForCausalLM, config: CacheConfig, num_blocks: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.model = PagedModel(model, num_blocks, config.tokens_per_block, self._after_step)
        shape = ModelConfig(
            self.model.num_layers, self.model.num_kv_heads, self.model.head_size,
            dtype=str(self.model.dtype).removeprefix("torch."),
        )  # fmt: skip
        self.manager = KVManager(shape, config)
        self.manager.start()
        self.client = KVTPClient(self.manager.gpu_register_port, tokens_per_block=config.tokens_per_block)
        self.client.register_to_server(self.model.pages, num_blocks=num_blocks, block_dim=0)
        self.ticket = 0
        check(self.manager.wait_ready(WAIT_S), "the cache did not become ready")
        self._wait_for_slots(config)
        blocks = self.rng.permutation(num_blocks).astype(np.int64)
        half = num_blocks // 2
        self.kept, self.other = (
            BlockTable(part, config.tokens_per_block) for part in (blocks[:half], blocks[half : 2 * half])
        )

    def _after_step(self, step: int) -> None:
        self.client.record_step(step)

    def _wait_for_slots(self, config: CacheConfig) -> None:
        """Wait until every host slot is touched and registered with the device: a copy at rest is measured."""
        assert config.num_cpu_blocks is not None
        probe = np.zeros(config.num_cpu_blocks * config.tokens_per_block, dtype=np.int64)
        tick, deadline_s = threading.Event(), time.monotonic() + WAIT_S
        while True:
            task, mask = self.manager.put_match(probe, namespace=("probe",))
            self.manager.cancel(task)
            if mask.all():
                return
            check(time.monotonic() < deadline_s, f"only {mask.sum()} of {len(mask)} slots are there after {WAIT_S} s")
            tick.wait(0.05)

    def close(self) -> None:
        """Stop everything."""
        stopped = [self.client.shutdown(STOP_S), self.manager.shutdown(STOP_S)]
        check(all(stopped), "copies still run")

    def synchronize(self) -> None:
        """Wait until the device is at rest."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()

    def put(self, tokens: Tokens, blocks: BlockTable) -> float:
        """Keep the whole blocks of the tokens; returns the seconds. They were computed by the step recorded last."""
        begin_s = time.perf_counter()
        task, mask = self.manager.put_match(tokens)
        check(bool(mask.all()), f"only {mask.sum()} of {len(mask)} tokens can be kept; give more --host-gib")
        self._run(task, blocks.whole_blocks(len(tokens)))
        return time.perf_counter() - begin_s

    def match(self, tokens: Tokens, num_loaded: int) -> int:
        """Ask for a prompt as an engine does, all of it; what is held must be just that part. Returns the task."""
        task, mask = self.manager.get_match(tokens)
        check(int(mask.sum()) == num_loaded and bool(mask[:num_loaded].all()), f"{mask.sum()} tokens were found")
        return task

    def load(self, task: int, block_ids: Tokens) -> None:
        """Bring what was found to these blocks, and wait until all is there."""
        self._run(task, block_ids)

    def _run(self, task: int, block_ids: Tokens) -> None:
        self.manager.launch(task, block_ids=[block_ids], after_step=self.model.step)
        status = self.manager.wait(task, timeout=WAIT_S)[task].status
        check(status is KVResponseStatus.SUCCESS, f"the transfer ended as {status.name}")

    def begin_layerwise(self, task: int, block_ids: Tokens) -> Callable[[int], None]:
        """Begin a load; returns what makes the stream wait for a layer of it."""
        self.ticket += 1
        self.client.expect_load(self.ticket, WAIT_S)
        self.manager.launch(
            [task], block_ids=[block_ids], after_step=self.model.step, layerwise_transfer=True, counter_id=self.ticket
        )
        return lambda layer: self.client.wait_for_layer(self.ticket, self.model.layer_names[layer])

    def end_layerwise(self, task: int) -> None:
        """Wait until the load has ended, as a worker does."""
        check(self.client.finish_load(self.ticket), "the load failed")
        status = self.manager.wait(task, timeout=WAIT_S)[task].status
        check(status is KVResponseStatus.SUCCESS, f"the load ended as {status.name}")


class Link:
    """The limit: contiguous copies of pinned memory to the device."""

    def __init__(self, device: torch.device, num_bytes: int) -> None:
        self.is_gpu = device.type == "cuda"
        self.host = torch.ones(num_bytes, dtype=torch.uint8, pin_memory=self.is_gpu)
        self.to = torch.empty(num_bytes, dtype=torch.uint8, device=device)

    def gbs(self, rounds: int = 5) -> float:
        """Return GB/s (10^9 bytes), the median of rounds."""
        rates = []
        for _ in range(rounds):
            begin_s = time.perf_counter()
            for start in range(0, len(self.to), 64 * MIB):
                part = slice(start, start + 64 * MIB)
                self.to[part].copy_(self.host[part], non_blocking=True)
            if self.is_gpu:
                torch.cuda.synchronize()
            rates.append(len(self.to) / 1e9 / (time.perf_counter() - begin_s))
        return statistics.median(rates)
