"""One worker: runs steps on its rank's KV memory, as a model would, and checks every byte that attention would read.

A step reads all earlier tokens of its requests from their blocks and compares them with what they have to have, writes
its own tokens there, layer by layer, and in the end reads everything again. On a GPU all of that is kernels on torch's
current stream, held back by kernels that do nothing for a while: the host is far ahead, as with a real model, and what
is copied too early or overwritten too early shows. A count of wrong tokens comes back with the step's output.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from flexkv.integration.vllm.worker_connector import FlexKVWorkerConnector
from tests.replay.memory import Memory
from tests.replay.scheduler import Plan
from tests.rig import eventually

MAX_STEP_TOKENS = 8192
MAX_IN_FLIGHT = 4
STEP_TIMEOUT_S = 60.0
Array = npt.NDArray[np.int64]


class WrongBytesError(AssertionError):
    """A token's bytes in its request's blocks are not what the model wrote there."""


class Rank:
    """tests.replay.loop.Rank on a CPU, where a step has run when `run` returns.

    Args:
        worker: of this rank, registered.
        contents: what all requests' tokens have, an array [tokens, H, C] a layer.
        first_rows: where a request's tokens begin in them.
    """

    def __init__(
        self,
        worker: FlexKVWorkerConnector,
        memory: Memory,
        contents: Sequence[Any],
        first_rows: Sequence[int],
        tokens_per_block: int,
    ) -> None:
        self._worker, self._memory = worker, memory
        self._layer_names = list(memory.registered)
        self._rows = contents
        self._first_rows = first_rows
        self._size = tokens_per_block
        self._wrong: dict[int, list[Any]] = {}  # by step: of each check, which tokens are wrong

    # ---- what the loop calls

    def run(self, plan: Plan, order: list[str]) -> None:
        """Make the calls of one step in a recorded order, and the model's work between them."""
        with self._device():
            index, num_old = self._indices(plan)
            old, new = tuple(part[:num_old] for part in index), tuple(part[num_old:] for part in index)
            checks: list[Any] = []
            for call in order:
                if call == "S":
                    self._worker.bind_step(plan.notice)
                elif call == "E":
                    assert self._worker.failed_block_ids() == set(), "a load failed"
                elif call.startswith("w"):
                    layer = int(call[1:])
                    if layer < len(self._memory.layers):
                        if self._worker.computes_on_load:
                            self._worker.wait_for_layer(self._layer_names[layer])
                        checks.append(self._check(layer, old))
                        self._write(layer, new)
                elif call == "R":
                    if plan.parts:
                        self._wait_a_while()
                        checks += [self._check(layer, index) for layer in range(len(self._memory.layers))]
                    self._wrong[plan.notice.step] = checks
                    self._submitted(plan.notice.step, checks)
                    self._worker.record_step()

    def finish(self, plan: Plan) -> None:
        """Wait until the step has run, and raise WrongBytesError if it read something wrong."""
        checks = self._wrong.pop(plan.notice.step)
        if self._num_wrong(plan.notice.step, checks):
            self._raise(plan, checks)

    def drop(self) -> None:
        """No request has a block: overwrite them all. What is hit from now on must have been loaded."""
        self._memory.poison()

    # ---- the model

    def _indices(self, plan: Plan) -> tuple[tuple[Any, Any, Any], int]:
        """Return blocks, places in them, and rows of `contents`, of the earlier tokens and then of the step's own."""
        if plan.parts:
            self._wait_a_while()
        parts = [(part, 0, part.start) for part in plan.parts]
        num_old = sum(end for _, _, end in parts)
        parts += [(part, part.start, part.start + part.num_tokens) for part in plan.parts]
        columns: list[list[Array]] = [[], [], []]
        for part, start, end in parts:
            tokens = np.arange(start, end)
            columns[0].append(np.array(part.table, dtype=np.int64)[tokens // self._size])
            columns[1].append(tokens % self._size)
            columns[2].append(tokens + self._first_rows[part.request.number])
        joined = [np.concatenate(column) if column else np.empty(0, np.int64) for column in columns]
        return self._sent(plan.notice.step, joined), num_old

    def _check(self, layer: int, index: tuple[Any, Any, Any]) -> Any:
        """Return which of these tokens have wrong bytes."""
        blocks, places, rows = index
        found = self._memory.layers[layer][blocks, :, places]
        wrong = found != self._rows[layer][rows]
        return wrong.reshape(len(blocks), wrong.shape[1] * wrong.shape[2]).any(1)

    def _write(self, layer: int, index: tuple[Any, Any, Any]) -> None:
        blocks, places, rows = index
        self._memory.layers[layer][blocks, :, places] = self._rows[layer][rows]

    def _raise(self, plan: Plan, checks: list[Any]) -> None:
        owners: list[str] = []
        for name, start in (("read", lambda part: 0), ("written", lambda part: part.start)):
            for part in plan.parts:
                end = part.start if name == "read" else part.start + part.num_tokens
                owners += [f"request {part.request.number} token {i} ({name})" for i in range(start(part), end)]
        num_layers = len(self._memory.layers)
        places = [
            f"{'before' if number < num_layers else 'after'} layer {number % num_layers}: {owners[token]}"
            for number, check in enumerate(checks)
            for token in np.flatnonzero(self._on_host(check)).tolist()
        ]
        raise WrongBytesError(f"step {plan.notice.step}: {len(places)} wrong, the first: {places[:3]}")

    # ---- the device

    def _device(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def settle(self) -> None:
        """Wait until the device has done what was submitted."""

    def _sent(self, step: int, arrays: list[Array]) -> tuple[Any, Any, Any]:
        return arrays[0], arrays[1], arrays[2]

    def _wait_a_while(self) -> None:
        """Let the device's stream stand still."""

    def _submitted(self, step: int, checks: list[Any]) -> None:
        """All work of the step is on its way."""

    def _num_wrong(self, step: int, checks: list[Any]) -> int:
        return sum(int(check.sum()) for check in checks)

    def _on_host(self, check: Any) -> Any:
        return check


class CudaRank(Rank):
    """A rank on a GPU. Nothing waits for the device but `finish` and `drop`.

    Args:
        sleep_cycles: how long the stream stands still at the begin of each step, and again before its last check.
    """

    def __init__(self, *args: Any, sleep_cycles: int) -> None:
        import torch

        super().__init__(*args)
        self._torch = torch
        self._name = torch.device(self._memory.whole.device)
        self._sleep_cycles = sleep_cycles
        self._rows = [torch.from_numpy(layer).to(self._name) for layer in self._rows]
        self._pinned = torch.empty((MAX_IN_FLIGHT, 3 * MAX_STEP_TOKENS), dtype=torch.int64, pin_memory=True)
        self._counts = torch.zeros((MAX_IN_FLIGHT,), dtype=torch.int64, pin_memory=True)
        self._events = [torch.cuda.Event() for _ in range(MAX_IN_FLIGHT)]

    def _device(self) -> contextlib.AbstractContextManager[Any]:
        context: contextlib.AbstractContextManager[Any] = self._torch.cuda.device(self._name)
        return context

    def _sent(self, step: int, arrays: list[Array]) -> tuple[Any, Any, Any]:
        count = len(arrays[0])
        assert count <= MAX_STEP_TOKENS
        flat = self._pinned[step % MAX_IN_FLIGHT, : 3 * count]
        flat.numpy()[:] = np.concatenate(arrays)
        sent = flat.to(self._name, non_blocking=True).view(3, count)
        return sent[0], sent[1], sent[2]

    def _wait_a_while(self) -> None:
        self._torch.cuda._sleep(self._sleep_cycles)

    def _submitted(self, step: int, checks: list[Any]) -> None:
        slot = step % MAX_IN_FLIGHT
        count = sum(
            (check.sum() for check in checks), self._torch.zeros((), dtype=self._torch.int64, device=self._name)
        )
        self._counts[slot].copy_(count, non_blocking=True)
        self._events[slot].record()

    def _num_wrong(self, step: int, checks: list[Any]) -> int:
        slot = step % MAX_IN_FLIGHT
        assert eventually(self._events[slot].query, STEP_TIMEOUT_S), f"step {step} does not end"
        return int(self._counts[slot])

    def _on_host(self, check: Any) -> Any:
        return check.cpu().numpy()

    def settle(self) -> None:
        self._torch.cuda.synchronize(self._name)

    def drop(self) -> None:
        with self._device():
            super().drop()
            self.settle()
