"""Draws the demo's result as one self-contained HTML page: an inline SVG, no script, nothing to fetch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from demo.report import HitClass, Result, hit_class

_COLORS = {HitClass.COLD: "#c8553d", HitClass.ENGINE: "#8d99ae", HitClass.FLEXKV: "#2a9d5c", HitClass.SSD: "#2a6f9d"}
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 960, 260, 60, 34, 40

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0 2rem; } td, th { padding: .25rem .9rem; text-align: right; }
td:first-child, th:first-child { text-align: left; } thead th { border-bottom: 1px solid #999; }
svg { width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: #444; }
.key i { display: inline-block; width: .8em; height: .8em; margin: 0 .35em 0 1em; }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #ddd; } svg text { fill: #bbb; } }
"""


def _nice_top(value: float) -> float:
    step = 10.0 ** len(str(int(value))) / 10
    for factor in (1, 2, 2.5, 5, 10):
        if factor * step >= value:
            return factor * step
    return value


def _bars(records: list[Mapping[str, Any]], name: str, top_s: float) -> str:
    plot = _HEIGHT - _TOP - _BOTTOM
    slot = (_WIDTH - _LEFT) / len(records)
    parts = [f'<text x="0" y="16" font-weight="600">{escape(name)}: time to first token of each request, s</text>']
    for tick in range(5):
        value = top_s * tick / 4
        y = _HEIGHT - _BOTTOM - plot * tick / 4
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#8884" stroke-width="1"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for idx, record in enumerate(records):
        height = plot * record["ttft_s"] / top_s
        x, y = _LEFT + slot * idx + slot * 0.15, _HEIGHT - _BOTTOM - height
        title = (
            f"{record['user']}, round {record['round_idx'] + 1}: {record['ttft_s']:.3f} s, {hit_class(record).value}"
        )
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{slot * 0.7:.1f}" height="{max(height, 1.0):.1f}" rx="2" '
            f'fill="{_COLORS[hit_class(record)]}"><title>{escape(title)}</title></rect>'
        )
        middle = x + slot * 0.35
        parts.append(f'<text x="{middle:.1f}" y="{y - 4:.1f}" text-anchor="middle">{record["ttft_s"]:.2f}</text>')
        parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - 22}" text-anchor="middle">{escape(record["user"])}</text>')
        parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - 7}" text-anchor="middle">{record["round_idx"] + 1}</text>')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _tables(result: Result) -> str:
    ttft = [
        (
            f"{row.phase}, {row.hit_class.value}",
            str(row.num_requests),
            f"{row.median_s:.3f}",
            f"{row.p90_s:.3f}",
            f"{row.speedup:.1f} x",
        )
        for row in result.ttft
    ]
    totals = [
        (
            row.phase,
            f"{row.elapsed_s:.1f}",
            f"{row.requests_per_min:.1f}",
            f"{row.prompt_tokens / row.elapsed_s:,.0f}",
            f"{row.hit_rate:.0%}",
        )
        for row in result.totals
    ]
    routes = [
        (f"{row.phase}, {row.route}", str(row.num_ops), f"{row.num_bytes / 1e6:,.0f}", f"{row.gb_per_s:.1f}")
        for row in result.routes
    ]
    return (
        _table(("Time to first token", "requests", "median, s", "p90, s", "against cold"), ttft)
        + _table(("The whole workload", "took, s", "requests/min", "prompt tokens/s", "hit rate"), totals)
        + (_table(("Bytes moved by FlexKV", "ops", "MB", "GB/s"), routes) if routes else "")
    )


def page(result: Result, phases: Mapping[str, Mapping[str, Any]], machine: Mapping[str, Any]) -> str:
    """Return the page."""
    slowest_s = max(record["ttft_s"] for phase in phases.values() for record in phase["requests"])
    top_s = _nice_top(slowest_s)
    charts = "".join(_bars(list(phase["requests"]), name, top_s) for name, phase in phases.items())
    key = "".join(f'<i style="background:{color}"></i>{escape(kind.value)}' for kind, color in _COLORS.items())
    compared = sum(row.num_requests for row in result.totals[1:])
    same = compared - len(result.different)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>FlexKV demo</title>'
        f"<style>{_STYLE}</style></head><body><h1>The same requests without FlexKV and with it</h1>"
        f"<p>{result.num_requests} requests on {machine['cores']} cores of {escape(str(machine['cpu']))}. "
        f"{same} of {compared} answers are token-identical (greedy, float32).</p>"
        f'<p class="key">{key}</p>{charts}{_tables(result)}</body></html>\n'
    )
