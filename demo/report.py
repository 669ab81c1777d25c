"""Turns the records of both phases into the demo's result: a value that is printed, drawn and written as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

RESTART = "with FlexKV, after a restart"
"""The phase whose engine finds what another one stored."""
_ROUTES = ("h2d", "d2h", "disk2h", "h2disk", "remote2h", "h2remote")


class HitClass(Enum):
    """Where most of a request's prompt came from."""

    COLD = "cold"  # computed
    ENGINE = "engine's own hit"
    FLEXKV = "FlexKV hit"
    SSD = "FlexKV hit, from SSD"


@dataclass(frozen=True, slots=True, kw_only=True)
class TtftRow:
    """Times to first token of the requests of one class in one phase."""

    phase: str
    hit_class: HitClass
    num_requests: int
    median_s: float
    p90_s: float
    speedup: float  # over the median cold request without FlexKV


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTotals:
    """One phase as a whole."""

    phase: str
    num_requests: int
    elapsed_s: float
    prompt_tokens: int
    output_tokens: int
    engine_hit_tokens: int
    flexkv_hit_tokens: int

    @property
    def requests_per_min(self) -> float:
        """Requests served in a minute."""
        return 60 * self.num_requests / self.elapsed_s

    @property
    def computed_tokens(self) -> int:
        """Prompt tokens that the engine computed."""
        return self.prompt_tokens - self.engine_hit_tokens - self.flexkv_hit_tokens

    @property
    def hit_rate(self) -> float:
        """Share of the prompt tokens that were not computed."""
        return 1.0 - self.computed_tokens / self.prompt_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRow:
    """What went along one route in one phase."""

    phase: str

    route: str
    num_ops: int
    num_bytes: int
    seconds: float

    @property
    def gb_per_s(self) -> float:
        """Rate while copying, in 10^9 bytes per second."""
        return self.num_bytes / self.seconds / 1e9 if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Everything the demo found out."""

    ttft: tuple[TtftRow, ...]
    totals: tuple[PhaseTotals, ...]
    routes: tuple[RouteRow, ...]
    num_requests: int
    different: tuple[str, ...]  # requests whose outputs differ between the phases
    num_flexkv_hits: int
    num_ssd_hits: int  # after the restart

    @property
    def failures(self) -> tuple[str, ...]:
        """What makes the demo a failure; empty when it went well."""
        problems = []
        if self.different:
            problems.append(
                f"outputs differ with FlexKV for {len(self.different)} requests: {', '.join(self.different)}"
            )
        if not self.num_ssd_hits:
            problems.append("no request after the restart was served from SSD: see the log of that phase")
        if not self.num_flexkv_hits:
            problems.append("no request was served from FlexKV: see the log of the phase with FlexKV")
        return tuple(problems)


def hit_class(record: Mapping[str, Any]) -> HitClass:
    """Return where most of a request's prompt came from."""
    if 2 * record["ssd_hit_tokens"] >= record["prompt_tokens"]:
        return HitClass.SSD
    if 2 * record["flexkv_hit_tokens"] >= record["prompt_tokens"]:
        return HitClass.FLEXKV
    if 2 * record["engine_hit_tokens"] >= record["prompt_tokens"]:
        return HitClass.ENGINE
    return HitClass.COLD


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of `values` do not exceed."""
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * round(share * 100) // 100))
    return ordered[rank - 1]


def _ttft_rows(phases: Mapping[str, Mapping[str, Any]]) -> list[TtftRow]:
    groups: dict[tuple[str, HitClass], list[float]] = {}
    for phase, result in phases.items():
        for record in result["requests"]:
            groups.setdefault((phase, hit_class(record)), []).append(record["ttft_s"])
    reference = groups.get((next(iter(phases)), HitClass.COLD))
    rows = []
    for phase in phases:
        for kind in HitClass:
            times = groups.get((phase, kind))
            if not times:
                continue
            median_s = statistics.median(times)
            rows.append(
                TtftRow(
                    phase=phase,
                    hit_class=kind,
                    num_requests=len(times),
                    median_s=median_s,
                    p90_s=percentile(times, 0.9),
                    speedup=statistics.median(reference) / median_s if reference else 0.0,
                )
            )
    return rows


def _totals(phase: str, result: Mapping[str, Any]) -> PhaseTotals:
    records = result["requests"]
    return PhaseTotals(
        phase=phase,
        num_requests=len(records),
        elapsed_s=result["elapsed_s"],
        prompt_tokens=sum(record["prompt_tokens"] for record in records),
        output_tokens=sum(len(record["output_token_ids"]) for record in records),
        engine_hit_tokens=sum(record["engine_hit_tokens"] for record in records),
        flexkv_hit_tokens=sum(record["flexkv_hit_tokens"] for record in records),
    )


def _routes(phase: str, counters: Mapping[str, float]) -> list[RouteRow]:
    return [
        RouteRow(
            phase=phase,
            route=route.upper(),
            num_ops=int(counters[f"{route}_ops"]),
            num_bytes=int(counters[f"{route}_bytes"]),
            seconds=counters[f"{route}_seconds"],
        )
        for route in _ROUTES
        if counters.get(f"{route}_ops")
    ]


def _different(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the requests whose outputs differ; `other` may have served the first ones only."""
    pairs = zip(one, other, strict=False)
    return [
        f"{a['user']} round {a['round_idx'] + 1}" for a, b in pairs if a["output_token_ids"] != b["output_token_ids"]
    ]


def build(phases: Mapping[str, Mapping[str, Any]]) -> Result:
    """Build the result from the phases: without FlexKV, with it, and after a restart."""
    without, with_flexkv, restarted = phases.values()
    return Result(
        ttft=tuple(_ttft_rows(phases)),
        totals=tuple(_totals(phase, result) for phase, result in phases.items()),
        routes=tuple(row for phase, result in phases.items() for row in _routes(phase, result["flexkv"])),
        num_requests=len(without["requests"]),
        different=tuple(
            f"{request} ({phase})"
            for phase, result in phases.items()
            for request in _different(without["requests"], result["requests"])
        ),
        num_flexkv_hits=sum(hit_class(record) is HitClass.FLEXKV for record in with_flexkv["requests"]),
        num_ssd_hits=sum(hit_class(record) is HitClass.SSD for record in restarted["requests"]),
    )


def as_json(result: Result) -> dict[str, Any]:
    """Return the result as plain values."""
    return {
        "ttft": [
            {
                "phase": row.phase,
                "class": row.hit_class.value,
                "requests": row.num_requests,
                "median_s": row.median_s,
                "p90_s": row.p90_s,
                "speedup": row.speedup,
            }
            for row in result.ttft
        ],
        "totals": [
            {
                "phase": row.phase,
                "elapsed_s": row.elapsed_s,
                "prompt_tokens": row.prompt_tokens,
                "output_tokens": row.output_tokens,
                "engine_hit_tokens": row.engine_hit_tokens,
                "flexkv_hit_tokens": row.flexkv_hit_tokens,
                "hit_rate": row.hit_rate,
                "requests_per_min": row.requests_per_min,
                "prompt_tokens_per_s": row.prompt_tokens / row.elapsed_s,
            }
            for row in result.totals
        ],
        "routes": [
            {
                "phase": row.phase,
                "route": row.route,
                "ops": row.num_ops,
                "bytes": row.num_bytes,
                "seconds": row.seconds,
                "gb_per_s": row.gb_per_s,
            }
            for row in result.routes
        ],
        "requests": result.num_requests,
        "flexkv_hit_requests": result.num_flexkv_hits,
        "ssd_hit_requests_after_restart": result.num_ssd_hits,
        "outputs_identical": not result.different,
        "failures": list(result.failures),
    }
