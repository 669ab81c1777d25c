"""Puts the results of all benchmarks together: one table for the terminal, one for a document, one chart. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from benchmarks.report import Figure, number, table, verdict

HEADER = ("question", "ours", "must", "met?", "limit or peer", "its figure")
_BEGIN, _END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
_WIDTH, _LEFT, _LINE, _TOP = 1100, 520, 20, 64
_FONT = 'font-family="system-ui, sans-serif" font-size="12" fill="#333"'
_RATIOS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)


def figures_of(result: Mapping[str, Any]) -> list[Figure]:
    """Return the figures of one benchmark's JSON; none when it has none."""
    return [Figure(**each) for each in result.get("figures", ())]


def cells(figure: Figure) -> list[str]:
    """Return one line of the table."""
    must = "" if figure.must is None else f"{'>=' if figure.at_least else '<='} {number(figure.must)}"
    beside = figure.peer + (" (quoted)" if figure.quoted else "")
    ours = f"{number(figure.ours)} {figure.unit}"
    return [figure.question, ours, must, verdict(figure), beside, number(figure.peers)]


def text(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the table for a terminal."""
    return table(HEADER, [cells(figure) for result in results for figure in figures_of(result)])


def machine_line(result: Mapping[str, Any], date: str) -> str:
    """Return where and when it was measured."""
    of = result["machine"]
    return (
        f"{of['cpu']}, {of['cpus']} CPUs, {of['memory_gib']} GiB, Linux {of['kernel']}, Python {of['python']}; "
        f"commit {of['commit']}, {date}"
    )


def markdown(results: Sequence[Mapping[str, Any]], date: str, notes: Sequence[str]) -> str:
    """Return the tables for a document, one for each benchmark."""
    parts = [machine_line(results[0], date)] if results else []
    for result in results:
        lines = [" | ".join(HEADER), "|".join("---" for _ in HEADER)]
        lines += [" | ".join(cell.replace("|", "/") for cell in cells(figure)) for figure in figures_of(result)]
        parts.append(f"### {result['benchmark']}\n\n" + "\n".join(f"| {line} |" for line in lines))
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts)


def insert(document: str, tables: str) -> str:
    """Return the document with what stands between its markers replaced. Raises ValueError when it has none."""
    if _BEGIN not in document or _END not in document:
        raise ValueError(f"the document has no lines {_BEGIN!r} and {_END!r}; add them where the tables belong")
    head, rest = document.split(_BEGIN, 1)
    return f"{head}{_BEGIN}\n\n{tables}\n\n{_END}{rest.split(_END, 1)[1]}"


def chart(results: Sequence[Mapping[str, Any]], title: str) -> str:
    """Return an SVG: each figure as a share of what it must be, and what stands beside it, on a logarithmic axis."""
    figures = [
        figure
        for result in results
        for figure in figures_of(result)
        if figure.must is not None and figure.must > 0 and figure.ours > 0
    ]
    height = _TOP + _LINE * len(figures) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" {_FONT}>',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="10" y="20" font-size="15">{escape(title)}</text>',
        '<text x="10" y="40">times what it must be, left of 1 is met; dots: ours, rings: what is beside it</text>',
    ]
    for ratio in _RATIOS:
        x = _x(ratio)
        color = "#222" if ratio == 1 else "#ddd"
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6}" y2="{height - 14}" stroke="{color}"/>')
        parts.append(f'<text x="{x:.1f}" y="{_TOP - 10}" text-anchor="middle">{ratio:g}</text>')
    for index, figure in enumerate(figures):
        parts += _line(figure, _TOP + _LINE * index + 12)
    return "".join(parts) + "</svg>\n"


def _x(ratio: float) -> float:
    low, high = math.log10(_RATIOS[0]), math.log10(_RATIOS[-1])
    share = (min(max(math.log10(ratio), low), high) - low) / (high - low)
    return _LEFT + share * (_WIDTH - _LEFT - 30)


def _line(figure: Figure, y: float) -> list[str]:
    """Draw one figure; a figure of which more is better is turned over, so that left is good everywhere."""
    assert figure.must is not None
    ours, peers = ((figure.must / value if figure.at_least else value / figure.must) if value else None
                   for value in (figure.ours, figure.peers))  # fmt: skip
    name = re.sub(r"\s+", " ", figure.question)
    parts = [f'<text x="{_LEFT - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>']
    if peers is not None:
        label = f"{figure.peer}: {number(figure.peers)} {figure.unit}"
        parts.append(
            f'<circle cx="{_x(peers):.1f}" cy="{y:.1f}" r="4" fill="none" stroke="#8d99ae" stroke-width="2">'
            f"<title>{escape(label)}</title></circle>"
        )
    assert ours is not None
    color = "#c8553d" if figure.missed_by is not None else "#2a9d5c"
    label = f"ours: {number(figure.ours)} {figure.unit}, must {number(figure.must)}"
    parts.append(
        f'<circle cx="{_x(ours):.1f}" cy="{y:.1f}" r="4.5" fill="{color}"><title>{escape(label)}</title></circle>'
    )
    return parts
