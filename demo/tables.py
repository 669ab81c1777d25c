"""Prints the demo's result as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from demo.phase import PhaseConfig
from demo.report import HitClass, Result


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for idx, column in enumerate(columns):
        table.add_column(column, justify="left" if idx == 0 else "right", no_wrap=True)
    return table


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


def _ttft(result: Result) -> Table:
    table = _table("Time to first token", "", "requests", "median", "p90", "against cold")
    previous = ""
    for row in result.ttft:
        if previous and row.phase != previous:
            table.add_section()
        previous = row.phase
        style = "bold green" if row.hit_class in (HitClass.FLEXKV, HitClass.SSD) else None
        speedup = f"{row.speedup:.1f} x"
        cells = (
            f"{row.phase}, {row.hit_class.value}",
            str(row.num_requests),
            _time(row.median_s),
            _time(row.p90_s),
            speedup,
        )
        table.add_row(*cells, style=style)
    return table


def _totals(result: Result) -> Table:
    table = _table("The whole workload", "", *(row.phase for row in result.totals))
    rows = result.totals
    table.add_row("took", *(_time(row.elapsed_s) for row in rows))
    table.add_row("requests", *(str(row.num_requests) for row in rows))
    table.add_row("requests per minute", *(f"{row.requests_per_min:.1f}" for row in rows))
    table.add_row("prompt tokens per second", *(f"{row.prompt_tokens / row.elapsed_s:,.0f}" for row in rows))
    table.add_row("prompt tokens computed", *(f"{row.computed_tokens:,}" for row in rows))
    table.add_row("... found in the engine's own cache", *(f"{row.engine_hit_tokens:,}" for row in rows))
    table.add_row("... brought back by FlexKV", *(f"{row.flexkv_hit_tokens:,}" for row in rows))
    table.add_row("hit rate", *(f"{row.hit_rate:.0%}" for row in rows))
    return table


def _routes(result: Result) -> Table:
    table = _table("Bytes moved by FlexKV", "route", "ops", "bytes", "copying", "GB/s")
    for row in result.routes:
        table.add_row(
            f"{row.phase}, {row.route}",
            str(row.num_ops),
            _size(row.num_bytes),
            _time(row.seconds),
            f"{row.gb_per_s:.1f}",
        )
    return table


def show(console: Console, result: Result, config: PhaseConfig, machine: Mapping[str, Any]) -> None:
    """Print what was served, the tables and whether the outputs agree."""
    cache_tokens = (config.engine_blocks - 1) * config.block_tokens
    console.print()
    console.print(
        f"{result.num_requests} requests, prompts of about {config.document_tokens + 100:,} tokens over two documents; "
        f"the engine's own cache holds {cache_tokens:,} tokens. {machine['cores']} cores of {machine['cpu']}."
    )
    console.print()
    console.print(_ttft(result))
    console.print(_totals(result))
    if result.routes:
        console.print(_routes(result))
    compared = sum(row.num_requests for row in result.totals[1:])
    same = compared - len(result.different)
    style = "bold red" if result.different else "bold green"
    console.print(
        f"Outputs: {same} of {compared} answers token-identical with those without FlexKV (greedy, float32)",
        style=style,
    )
