"""What an engine does on the GPU meanwhile, and how much longer it takes beside copies.

    product  bf16 matrix products of 8192 x 8192 x 8192 back to back: the GPU never has room
    decode   decode steps of a small batch, as one CUDA graph each: a stream of many kernels of some microseconds
    prefill  layers over a long prompt, attention included: kernels of many lengths, which leave more room or less

The engine runs without a pause, two bundles ahead of the device. Its speed is measured in windows: alone, beside
contiguous DMA, alone, beside ours, alone. Each window beside copies is compared with the mean of the two around it,
since the clocks of a GPU drift by 10 % with its heat. DMA takes part twice: how much its two windows differ is how
much may be chance.
"""

from __future__ import annotations

import statistics
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch

from benchmarks.gpu_rate import WAIT_S, Mover, rate
from benchmarks.gpu_timeline import LEAST_BUNDLES, Timeline
from flexkv.server.registration import LEGACY_STREAM

BUNDLES_AHEAD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Work that can be put into the current stream again and again."""

    name: str
    submit: Callable[[], None]
    """Puts one bundle into the stream; returns at once."""
    per_bundle: float
    """Work in a bundle, in `unit` times seconds."""
    unit: str
    keeps: object = None
    """What its kernels read."""


def product(size: int = 8192, per_bundle: int = 8) -> Engine:
    """Return square bf16 products back to back."""
    one = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    other = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    out = torch.empty_like(one)

    def submit() -> None:
        for _ in range(per_bundle):
            torch.matmul(one, other, out=out)

    submit()
    torch.cuda.synchronize()
    return Engine(name="product", submit=submit, per_bundle=per_bundle * 2 * size**3 / 1e12, unit="TFLOP/s")


@dataclass(frozen=True, slots=True)
class _Layer:
    """Weights in the shape of a layer of Llama-3-8B, where hidden is 4096."""

    qkv: Any
    out: Any
    up: Any
    down: Any


def _layers(num_layers: int, hidden: int) -> list[_Layer]:
    inner = hidden * 7 // 2

    def weight(rows: int, columns: int) -> Any:
        return torch.randn(rows, columns, device="cuda", dtype=torch.bfloat16) / rows**0.5

    return [
        _Layer(
            weight(hidden, hidden * 3 // 2), weight(hidden, hidden), weight(hidden, 2 * inner), weight(inner, hidden)
        )
        for _ in range(num_layers)
    ]


def _normed(x: Any) -> Any:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)


def _gated(layer: _Layer, x: Any) -> Any:
    both = _normed(x) @ layer.up
    inner = layer.down.shape[0]
    return (torch.nn.functional.silu(both[:, :inner]) * both[:, inner:]) @ layer.down


def _checked(result: Any) -> None:
    torch.cuda.synchronize()
    if not torch.isfinite(result).all():
        raise RuntimeError("the engine's layers give numbers that are none")


def prefill(num_layers: int = 2, hidden: int = 4096, tokens: int = 8192, head_dim: int = 128) -> Engine:
    """Return layers of the shape of Llama-3-8B's over a prompt."""
    layers = _layers(num_layers, hidden)
    start = torch.randn(tokens, hidden, device="cuda", dtype=torch.bfloat16)
    kv = hidden // 4

    def heads(x: Any) -> Any:
        return x.view(1, tokens, -1, head_dim).transpose(1, 2)

    def run() -> Any:
        x = start
        for layer in layers:
            q, k, v = (_normed(x) @ layer.qkv).split([hidden, kv, kv], dim=-1)
            attended = torch.nn.functional.scaled_dot_product_attention(
                heads(q), heads(k), heads(v), is_causal=True, enable_gqa=True
            )
            x = x + attended.transpose(1, 2).reshape(tokens, hidden) @ layer.out
            x = x + _gated(layer, x)
        return x

    def submit() -> None:
        with torch.inference_mode():
            run()

    with torch.inference_mode():
        _checked(run())
    return Engine(name="prefill", submit=submit, per_bundle=num_layers, unit="layers/s")


def decode(num_layers: int = 8, hidden: int = 4096, batch: int = 32, per_bundle: int = 8) -> Engine:
    """Return decode steps of a model with layers of the shape of Llama-3-8B's, without attention, as CUDA graphs."""
    layers = _layers(num_layers, hidden)
    start = torch.randn(batch, hidden, device="cuda", dtype=torch.bfloat16)

    def step() -> Any:
        x = start
        for layer in layers:
            x = x + (_normed(x) @ layer.qkv)[:, :hidden] @ layer.out
            x = x + _gated(layer, x)
        return x

    with torch.inference_mode():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # a capture must not be the first time
                step()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = step()
    graph.replay()
    _checked(result)

    def submit() -> None:
        for _ in range(per_bundle):
            graph.replay()

    return Engine(name="decode", submit=submit, per_bundle=per_bundle, unit="steps/s", keeps=(layers, start))


class Running:
    """An engine that runs in a thread of its own until the block ends.

    `record_step` is told after each bundle, as an engine's worker tells after each step: the stream.
    """

    def __init__(self, engine: Engine, record_step: Callable[[int], None]) -> None:
        self.engine = engine
        self._record_step = record_step
        self.timeline = Timeline()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine")

    def __enter__(self) -> Running:
        self._thread.start()
        self.timeline.wait(self.timeline.begin(), LEAST_BUNDLES)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(WAIT_S)
        if self._thread.is_alive():
            raise RuntimeError(f"the engine did not stop within {WAIT_S:.0f} s")
        torch.cuda.synchronize()

    def speed(self, seconds: float) -> float:
        """Return the work a second of bundles that take so long each."""
        return self.engine.per_bundle / seconds

    def _run(self) -> None:
        try:
            ahead: deque[tuple[Any, Any]] = deque()
            before = _event()
            before.record()
            while not self._stop.is_set():
                self.engine.submit()
                self._record_step(torch.cuda.current_stream().cuda_stream or LEGACY_STREAM)
                after = _event()
                after.record()
                ahead.append((before, after))
                before = after
                if len(ahead) > BUNDLES_AHEAD:
                    begin, end = ahead.popleft()
                    end.synchronize()
                    self.timeline.add(begin.elapsed_time(end) / 1e3)
        except BaseException as error:  # noqa: BLE001  raised by the timeline
            self.timeline.fail(error)


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True, blocking=True)


def beside(
    running: Running,
    movers_of: Mapping[str, list[Mover]],
    seconds: float,
    alone_bundles: int,
) -> dict[str, float]:
    """Measure one round: in this order, each one's rate, and how much slower the engine is beside it.

    `NAME_gbs`: 10^9 bytes a second; `NAME_slower`: a share; `alone`: the engine's speed in its unit.
    """
    timeline = running.timeline
    alone_s = [timeline.wait(timeline.begin(), alone_bundles)]
    result: dict[str, float] = {}
    for name, movers in movers_of.items():
        for mover in movers:
            mover()
        first = timeline.begin()
        rates = timeline.windows(first, lambda movers=movers: rate(movers, seconds, warm_calls=0).gbs)
        result[f"{name}_gbs"] = statistics.median(rates)
        try:
            beside_s = timeline.since(first)
        except RuntimeError as error:
            raise RuntimeError(f"beside {name}: {error}") from error
        alone_s.append(timeline.wait(timeline.begin(), alone_bundles))
        result[f"{name}_slower"] = beside_s / statistics.fmean(alone_s[-2:]) - 1
    result["alone"] = running.speed(statistics.median(alone_s))
    return result
