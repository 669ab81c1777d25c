"""A recording of the connector calls of a real vLLM, both roles, and the file it lies in. Needs no vLLM.

Calls of the scheduler role, in their order, as lists; a request is its number in order of arrival:

    ["new", request]                                                     on_new_request; the prompt is in `requests`
    ["ask", request, computed, num_tokens, answer, is_async]             get_num_new_matched_tokens
    ["alloc", request, block ids, external tokens]                       update_state_after_alloc
    ["build", step, new, cached, scheduled, preempted, finished, sync]   build_connector_meta
         new: [request, block ids, computed]     cached: [request, new block ids or null, computed, was preempted]
         scheduled: [request, tokens]            sync: whether a load must end before the forward pass
    ["output", sending, receiving, invalid blocks, named step, sending', receiving']   update_connector_output; ': after
    ["finish", request, block ids, computed, reason, holds]              request_finished
    ["pending", answer]                                                  has_pending_block_frees
    ["drop"]                                                             vLLM forgot its own prefix cache (no call)

Calls of a worker role: one row a step, ``[order, lag, named]``. `order` is an index into `orders`, where letters name
the calls of a step: P handle_preemptions, B bind_connector_metadata, S start_load_kv, w0 wait_for_layer_load and s0
save_kv_layer of layer 0, R wait_for_save, F get_finished, E get_block_ids_with_load_errors, T get_kv_connector_stats, C
clear_connector_metadata. `lag`: how many more steps the scheduler had built when this one was at R. `named`: whether T
answered something.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "recordings"
Call = list[Any]


@dataclass(frozen=True, kw_only=True)
class RequestRecord:
    """One request: its prompt, what the model answered, and how it ended."""

    prompt: list[int]
    output: list[int]
    max_tokens: int
    reason: str  # LENGTH_CAPPED, STOPPED, ABORTED


@dataclass(frozen=True, kw_only=True)
class Recording:
    """All calls of one engine, from its first request to its last step."""

    name: str
    vllm: str
    is_apart: bool  # the scheduler is in a process of its own (VLLM_ENABLE_V1_MULTIPROCESSING=1)
    executor: str  # uni: the worker is in the scheduler's process; mp: in one of its own
    asynchronous: bool
    num_ranks: int
    tokens_per_block: int
    num_blocks: int
    max_tokens_a_step: int
    max_requests: int
    max_model_len: int
    num_layers: int
    requests: list[RequestRecord]
    calls: list[Call]
    orders: list[list[str]]
    workers: list[list[list[int]]] = field(default_factory=list)

    def write(self, path: Path) -> int:
        """Write the file; returns its bytes. The same recording makes the same bytes."""
        text = json.dumps(asdict(self), separators=(",", ":")).encode()
        path.write_bytes(gzip.compress(text, mtime=0))
        return path.stat().st_size

    @classmethod
    def read(cls, path: Path) -> Recording:
        """Read what `write` wrote."""
        content = json.loads(gzip.decompress(path.read_bytes()))
        content["requests"] = [RequestRecord(**request) for request in content["requests"]]
        return cls(**content)

    @property
    def num_loads(self) -> int:
        """Loads that were accepted."""
        return sum(call[0] == "alloc" and call[3] > 0 for call in self.calls)

    def order_of(self, rank: int, step: int) -> tuple[list[str], int]:
        """Return the calls of a rank in a step that was recorded (1, ...), and its lag."""
        order, lag, _ = self.workers[rank % len(self.workers)][step - 1]
        return self.orders[order], lag


def names() -> list[str]:
    """Return the names of the recordings there are."""
    return sorted(path.name.removesuffix(".json.gz") for path in FOLDER.glob("*.json.gz"))


def load(name: str) -> Recording:
    """Return a recording by its name."""
    return Recording.read(FOLDER / f"{name}.json.gz")


# ---- from what the recorder wrote


def fold(paths: Sequence[Path], geometry: dict[str, Any]) -> Recording:
    """Make a recording out of the files of all roles."""
    lines = {path: [json.loads(line) for line in path.read_text().splitlines()] for path in paths}
    scheduler = next(events for path, events in lines.items() if path.name.startswith("scheduler"))
    workers = [events for path, events in lines.items() if path.name.startswith("worker")]
    assert len(workers) == geometry["num_ranks"]
    built_ns = [event[0] for event in scheduler if event[1] == "build"]
    orders: list[list[str]] = []
    return Recording(
        **geometry,
        num_layers=len(workers[0][0][2]),
        requests=_requests(scheduler),
        calls=_calls(scheduler),
        orders=orders,
        workers=[_rows(events[1:], built_ns, orders) for events in workers],
    )


def _requests(events: list[Call]) -> list[RequestRecord]:
    ends = {event[2]: event for event in events if event[1] == "finish"}
    return [
        RequestRecord(prompt=event[3], output=ends[event[2]][5], max_tokens=event[4], reason=ends[event[2]][6])
        for event in events
        if event[1] == "new"
    ]


def _calls(events: list[Call]) -> list[Call]:
    number: dict[str, int] = {}

    def numbers(ids: list[str]) -> list[int]:
        return [number[request_id] for request_id in ids]

    def maybe(ids: list[str] | None) -> list[int] | None:
        return None if ids is None else numbers(ids)

    def rows(of: list[list[Any]]) -> list[list[Any]]:
        return [[number[request_id], *rest] for request_id, *rest in of]

    calls: list[Call] = []
    for _, name, *fields in events:
        if name == "new":
            number[fields[0]] = len(number)
            calls.append([name, number[fields[0]]])
        elif name in ("ask", "alloc"):
            calls.append([name, number[fields[0]], *fields[1:]])
        elif name == "build":
            step, new, cached, scheduled, preempted, finished, sync = fields
            parts = (rows(new), rows(cached), rows(scheduled), sorted(numbers(preempted)), sorted(numbers(finished)))
            calls.append([name, step, *parts, sync])
        elif name == "output":
            sending, receiving, invalid, step, sending_after, receiving_after = fields
            before, after = [maybe(sending), maybe(receiving)], [maybe(sending_after), maybe(receiving_after)]
            calls.append([name, *before, invalid, step, *after])
        elif name == "finish":
            request_id, blocks, computed, _, reason, holds = fields
            calls.append([name, number[request_id], blocks, computed, reason, holds])
        elif name == "drop":
            if fields == [True]:  # else blocks were in use, and nothing was forgotten
                calls.append([name])
        else:
            calls.append([name, *fields])
    return calls


def _rows(events: list[Call], built_ns: list[int], orders: list[list[str]]) -> list[list[int]]:
    """Return a row for each step of a worker; fills `orders`."""
    rows: list[list[int]] = []
    order: list[str] = []
    lag = named = 0
    for time_ns, name, *fields in events:
        assert re.fullmatch(r"[PBSRFETC]|[ws]\d+", name), name
        order.append(name)
        if name == "B":
            assert fields == [len(rows) + 1], "steps are numbered from 1 without a gap"
        elif name == "R":
            lag = sum(built < time_ns for built in built_ns) - len(rows) - 1
        elif name == "E":
            assert fields == [[]], "a load failed"
        elif name == "T":
            named = fields[0]
        elif name == "C":
            if order not in orders:
                orders.append(order)
            rows.append([orders.index(order), lag, named])
            order = []
    assert not order, f"the last step did not end: {order}"
    return rows
