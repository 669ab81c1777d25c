"""The results of bench_gpu_copy as one SVG: how near each chunk comes to contiguous DMA. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from benchmarks.gpu_rows import WAYS, Row, must_of, name_of_bytes

_COLORS = {"load": "#2a6f9d", "store": "#c8553d", "both": "#2a9d5c"}
_WIDTH, _HEIGHT, _COLUMNS = 400, 250, 3
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 24, 34, 40
_HEAD = 62
_FONT = 'font-family="system-ui, sans-serif" font-size="11" fill="#333"'
_DASHES = {"ours": "", "DMA": ' stroke-dasharray="5 4"'}

Line = tuple[str, str, list[tuple[int, float]]]
"""Way, ours or DMA, and (chunk, value)."""


def svg(result: Mapping[str, Any]) -> str:
    """Return the picture; panels of what was measured only. Raises ValueError when there is nothing to draw."""
    panels = _panels(result["rows"])
    if not panels:
        raise ValueError("no row has a rate by chunk: there is nothing to draw")
    width = _COLUMNS * _WIDTH
    height = _HEAD + _HEIGHT * -(-len(panels) // _COLUMNS)
    device = result.get("device", {})
    title = f"Copies of scattered blocks: {device.get('name', 'unknown GPU')}, driver {device.get('driver', 'unknown')}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {_FONT}>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="22" font-size="15">{escape(title)}</text>',
    ]
    for index, way in enumerate(WAYS):
        x = 12 + 110 * index
        parts.append(f'<circle cx="{x + 5}" cy="42" r="4" fill="{_COLORS[way]}"/>')
        parts.append(f'<text x="{x + 14}" y="46">{way}</text>')
    parts.append('<text x="350" y="46">grey: what it must be; dashed: the same by contiguous DMA</text>')
    for index, panel in enumerate(panels):
        parts.append(
            f'<g transform="translate({_WIDTH * (index % _COLUMNS)} {_HEAD + _HEIGHT * (index // _COLUMNS)})">'
        )
        parts += panel
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panels(rows: Sequence[Row]) -> list[list[str]]:
    panels = []
    for part in ("copies", "calls", "load", "pools"):
        of_part = [row for row in rows if row.get("part") == part]
        groups = dict.fromkeys((row["load"], row["slots"], row["size_bytes"]) for row in of_part)
        for load, slots, size in groups:
            own = [row for row in of_part if (row["load"], row["slots"], row["size_bytes"]) == (load, slots, size)]
            where = f"{part}: {load}, {slots} slots, {name_of_bytes(size)}"
            musts = sorted({must for row in own if (must := must_of(row)) is not None})
            panels.append(_panel(f"{where}, share of DMA", _lines(own, _ratio, "ours"), musts, "{:.2f}"))
            if load != "idle":
                lines = _lines(own, _slower, "ours") + _lines(own, _slower_by_limit, "DMA")
                panels.append(_panel(f"{where}, engine slower by %", lines, [], "{:.1f}"))
    return panels


def _ratio(row: Row) -> float:
    return float(row["ratio"])


def _slower(row: Row) -> float:
    return 100 * float(row["engine_slower"])


def _slower_by_limit(row: Row) -> float:
    return 100 * float(row["engine_slower_by_limit"])


def _lines(rows: Sequence[Row], value: Callable[[Row], float], who: str) -> list[Line]:
    found = []
    for way in WAYS:
        points = sorted((row["chunk_bytes"], value(row)) for row in rows if row["way"] == way)
        if points:
            found.append((way, who, points))
    return found


def _panel(title: str, lines: list[Line], musts: Sequence[float], label: str) -> list[str]:
    chunks = sorted({chunk for _, _, points in lines for chunk, _ in points})
    values = [value for _, _, points in lines for _, value in points] + list(musts)
    low, high = min(values), max(values)
    margin = max(0.1 * (high - low), 0.02 if high < 2 else 1.0)
    low, high = low - margin, high + margin

    def x_of(chunk: int) -> float:
        place = chunks.index(chunk) / max(1, len(chunks) - 1) if len(chunks) > 1 else 0.5
        return _LEFT + place * (_WIDTH - _LEFT - _RIGHT)

    def y_of(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def level(value: float, style: str) -> str:
        y = y_of(value)
        return f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" {style}/>'

    parts = [f'<text x="{_LEFT}" y="20" font-weight="600">{escape(title)}</text>']
    for tick in range(5):
        value = low + (high - low) * tick / 4
        parts.append(level(value, 'stroke="#eee"'))
        parts.append(f'<text x="{_LEFT - 6}" y="{y_of(value) + 4:.1f}" text-anchor="end">{label.format(value)}</text>')
    parts += [level(must, 'stroke="#999" stroke-width="1.5"') for must in musts]
    y = _HEIGHT - _BOTTOM + 16
    parts += [f'<text x="{x_of(at):.1f}" y="{y}" text-anchor="middle">{name_of_bytes(at)}</text>' for at in chunks]
    for way, who, points in lines:
        places = " ".join(f"{x_of(chunk):.1f},{y_of(value):.1f}" for chunk, value in points)
        style = f'fill="none" stroke="{_COLORS[way]}" stroke-width="1.5"{_DASHES[who]}'
        parts.append(f'<polyline points="{places}" {style}/>')
        for chunk, value in points:
            note = escape(f"{name_of_bytes(chunk)}, {way}, {who}: {value:.3f}")
            place = f'cx="{x_of(chunk):.1f}" cy="{y_of(value):.1f}" r="3" fill="{_COLORS[way]}"'
            parts.append(f"<circle {place}><title>{note}</title></circle>")
    return parts
