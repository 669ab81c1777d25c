"""One phase of the demo, in a process of its own: an engine serves the workload, without FlexKV or with it.

Reads its settings as one JSON object from standard input. Writes one JSON object per line to standard output: events
`ready`, `request` (one measured request each) and `done`. Everything the engine prints goes to standard error.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from typing import IO, Any

from demo.workload import Conversation, Turn, documents, turns

_PR_SET_PDEATHSIG = 1
_REQUEST_LIMIT_S = 120.0
_WARM_UP_TOKENS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseConfig:
    """What a phase needs to know; the same in all phases except for `flexkv` and `num_turns`.

    `num_turns`: how many of the workload's requests it serves, from the first.
    """

    flexkv: bool
    num_turns: int
    model: str
    num_rounds: int
    document_tokens: int
    block_tokens: int
    engine_blocks: int
    max_model_tokens: int
    answer_tokens: int
    cpu_cache_gb: float
    ssd_cache_gb: float
    ssd_cache_dir: str


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """One measured request."""

    round_idx: int
    user: str
    document: str
    prompt_tokens: int
    engine_hit_tokens: int
    flexkv_hit_tokens: int
    ssd_hit_tokens: int
    ttft_s: float
    total_s: float
    output_token_ids: list[int]
    answer: str


@dataclass(slots=True)
class Counters:
    """What the engine's own statistics said since the last `take_hits`."""

    engine_hit_tokens: int = 0
    flexkv_hit_tokens: int = 0

    def take_hits(self) -> tuple[int, int]:
        """Return and clear the tokens found in the engine's own cache and those that a connector brought."""
        hits = (self.engine_hit_tokens, self.flexkv_hit_tokens)
        self.engine_hit_tokens = self.flexkv_hit_tokens = 0
        return hits


def _recorder(counters: Counters) -> Any:
    """Return a vLLM stat logger class that adds up into `counters`."""
    from vllm.v1.metrics.loggers import StatLoggerBase

    class Recorder(StatLoggerBase):
        def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
            pass

        def record(self, scheduler_stats: Any, iteration_stats: Any, *args: Any, **kwargs: Any) -> None:
            if iteration_stats is not None:
                counters.engine_hit_tokens += iteration_stats.prompt_token_stats.local_cache_hit
                counters.flexkv_hit_tokens += iteration_stats.prompt_token_stats.external_kv_transfer

        def log_engine_initialized(self) -> None:
            pass

    return Recorder


def _start_engine(config: PhaseConfig, counters: Counters) -> Any:
    from vllm import EngineArgs
    from vllm.config import KVTransferConfig
    from vllm.v1.engine.llm_engine import LLMEngine

    transfer = None
    if config.flexkv:
        transfer = KVTransferConfig(
            kv_connector="FlexKVConnectorV1", kv_role="kv_both", kv_load_failure_policy="recompute"
        )
    args = EngineArgs(
        model=config.model,
        dtype="float32",
        max_model_len=config.max_model_tokens,
        max_num_seqs=4,
        block_size=config.block_tokens,
        num_gpu_blocks_override=config.engine_blocks,
        enable_prefix_caching=True,
        enforce_eager=True,
        seed=0,
        disable_log_stats=False,
        kv_transfer_config=transfer,
    )
    return LLMEngine.from_engine_args(args, stat_loggers=[_recorder(counters)])


def _flexkv_counters(engine: Any) -> dict[str, int | float]:
    """Return FlexKV's own counters, from the engine in this process; vLLM's connector class does not report them."""
    connector = engine.engine_core.engine_core.scheduler.connector
    stats = connector._flexkv_connector.scheduler.stats() if connector is not None else None
    return dict(stats.flat()) if stats is not None else {}


def _staged_tokens(engine: Any, block_tokens: int) -> int:
    """Return the tokens that FlexKV has read from SSD since it started."""
    return int(_flexkv_counters(engine).get("ssd_staged_blocks", 0)) * block_tokens


def _serve(engine: Any, counters: Counters, request_id: str, prompt: list[int], answer_tokens: int) -> dict[str, Any]:
    """Run one request to its end, greedily; return its timings, hits and output."""
    from vllm import SamplingParams

    params = SamplingParams(temperature=0.0, max_tokens=answer_tokens)
    counters.take_hits()
    start_s = time.perf_counter()
    engine.add_request(request_id, {"prompt_token_ids": prompt}, params)
    ttft_s = 0.0
    while True:
        now_s = time.perf_counter()
        if now_s - start_s > _REQUEST_LIMIT_S:
            raise TimeoutError(f"request {request_id} took more than {_REQUEST_LIMIT_S:.0f} s")
        for output in engine.step():
            completion = output.outputs[0]
            if completion.token_ids and not ttft_s:
                ttft_s = time.perf_counter() - start_s
            if output.finished:
                engine_hit, flexkv_hit = counters.take_hits()
                return {
                    "prompt_tokens": len(prompt),
                    "engine_hit_tokens": engine_hit,
                    "flexkv_hit_tokens": flexkv_hit,
                    "ttft_s": ttft_s,
                    "total_s": time.perf_counter() - start_s,
                    "output_token_ids": list(completion.token_ids),
                    "answer": completion.text,
                }


def _run_turn(
    engine: Any, tokenizer: Any, counters: Counters, config: PhaseConfig, turn: Turn, talk: Conversation
) -> RequestRecord:
    prompt = talk.prompt(tokenizer, turn.question)
    request_id = f"{turn.user}-{turn.round_idx}"
    staged_before = _staged_tokens(engine, config.block_tokens)
    served = _serve(engine, counters, request_id, prompt, config.answer_tokens)
    staged = min(_staged_tokens(engine, config.block_tokens) - staged_before, served["flexkv_hit_tokens"])
    talk.add(turn.question, served["answer"])
    return RequestRecord(
        round_idx=turn.round_idx, user=turn.user, document=turn.document, ssd_hit_tokens=staged, **served
    )


def run_phase(config: PhaseConfig, events: IO[str]) -> None:
    """Serve the workload and report each request to `events`."""

    def send(event: str, **values: Any) -> None:
        events.write(json.dumps({"event": event, **values}) + "\n")
        events.flush()

    counters = Counters()
    engine = _start_engine(config, counters)
    tokenizer = engine.get_tokenizer()
    texts = documents(tokenizer, config.document_tokens)
    # The first long request of an engine pays for buffers made when they are needed; none of the measured ones should.
    hello = tokenizer("Say hello to the reader. ")["input_ids"]
    warm_up = (hello * _WARM_UP_TOKENS)[: min(_WARM_UP_TOKENS, config.document_tokens)]
    _serve(engine, counters, "warm-up", warm_up, 4)
    before = _flexkv_counters(engine)
    send("ready")
    talks: dict[str, Conversation] = {}
    start_s = time.perf_counter()
    for turn in turns(config.num_rounds)[: config.num_turns]:
        talk = talks.setdefault(turn.user, Conversation(texts[turn.document]))
        record = _run_turn(engine, tokenizer, counters, config, turn, talk)
        send("request", record=asdict(record))
    elapsed_s = time.perf_counter() - start_s
    # The last stores end while one more request is served.
    _serve(engine, counters, "closing", tokenizer("Say goodbye to the reader.")["input_ids"], 4)
    moved = {name: value - before.get(name, 0) for name, value in _flexkv_counters(engine).items()}
    send("done", elapsed_s=elapsed_s, flexkv=moved)
    engine.engine_core.shutdown()


def main() -> None:
    """Entry of the phase's process."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit("demo: the parent process is gone")
    config = PhaseConfig(**json.loads(sys.stdin.read()))
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    run_phase(config, events)
