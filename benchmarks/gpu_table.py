"""The results of bench_gpu_copy as tables, for a terminal or a document. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.gpu_rows import LIMITS, WAYS, Row, figures_of, must_of, name_of_bytes
from benchmarks.report import Figure, number, table, verdict

Grid = tuple[str, list[str], list[list[str]]]


def _judged(ours: float, must: float | None, *, at_least: bool) -> str:
    word = verdict(Figure(question="", unit="", ours=ours, must=must, at_least=at_least))
    return f" {word.split()[0]}" if word else ""


def copy_cell(row: Row | None) -> str:
    """Return `ours of DMA (ratio) met`, beside a load with `; engine + ours, + by DMA` and what that must be."""
    if row is None:
        return "-"
    ratio = f"{row['ratio']:.3f}{_judged(row['ratio'], must_of(row), at_least=True)}"
    text = f"{row['ours_gbs']:.1f} of {row['limit_gbs']:.1f} ({ratio})"
    if row["load"] == "idle":
        return text
    judged = _judged(row["points"], 2.0 if row["load"] == "product" else None, at_least=False)
    chance = f" +-{row['points_by_chance']:.1f}" if row.get("points_by_chance") else ""
    return (
        f"{text}; {100 * row['engine_slower']:+.1f} %, DMA {100 * row['engine_slower_by_limit']:+.1f} %{chance}{judged}"
    )


def _copies(rows: Sequence[Row]) -> list[Grid]:
    """One grid for each load: a line for each size and chunk, a column for each way."""
    grids = []
    for load in dict.fromkeys(row["load"] for row in rows):
        of_load = [row for row in rows if row["load"] == load]
        cells = {(row["size_bytes"], row["chunk_bytes"], row["way"]): row for row in of_load}
        lines = []
        for size, chunk in dict.fromkeys((row["size_bytes"], row["chunk_bytes"]) for row in of_load):
            line = [name_of_bytes(chunk), name_of_bytes(size), *(copy_cell(cells.get((size, chunk, w))) for w in WAYS)]
            if load != "idle":
                own = [row for row in of_load if (row["size_bytes"], row["chunk_bytes"]) == (size, chunk)]
                speeds = [row["engine_alone"] for row in own]
                line.append(f"{number(min(speeds))} to {number(max(speeds))} {own[0]['engine_unit']}")
                line.append(own[0]["sm_mhz"] or "unknown")
            lines.append(line)
        header = ["chunk", "size", *WAYS, *(["engine alone", "SM MHz"] if load != "idle" else [])]
        name = f"beside the {load}: how much longer its work takes, too"
        if load == "idle":
            name = "an idle GPU" + (", call by call" if of_load[0]["part"] == "calls" else "")
        grids.append((f"{name}: GB/s of contiguous DMA's", header, lines))
    return grids


def _pools(rows: Sequence[Row]) -> list[Grid]:
    cells = {(row["chunk_bytes"], row["slots"], row["way"]): row for row in rows}
    lines = []
    for chunk, slots in dict.fromkeys((row["chunk_bytes"], row["slots"]) for row in rows):
        line = [name_of_bytes(chunk), slots]
        for way in ("load", "store"):
            row = cells.get((chunk, slots, way))
            line += [copy_cell(row), number(row["mean_run"]) if row else "-"]
        lines.append(line)
    header = ["chunk", "slots", "load", "slots per run", "store", "slots per run"]
    return [("host slots of three pools: GB/s of contiguous DMA's", header, lines)]


def _latency(rows: Sequence[Row]) -> list[Grid]:
    lines = []
    for row in rows:
        block = Figure(question="", unit="", ours=row["ours_p50_us"] - row["spin_p50_us"])
        judged = next((verdict(each) for each in figures_of([row]) if each.must is not None), "")
        pairs = [f"{row[f'{who}_p50_us']:.1f} / {row[f'{who}_p99_us']:.1f}" for who in ("ours", "spin", "blocking")]
        lines.append([name_of_bytes(row["block_bytes"]), row["way"], *pairs, f"{block.ours:+.1f} {judged}".strip()])
    header = ["block", "way", "ours", "DMA, spinning", "DMA, blocking", "beyond DMA, spinning"]
    return [("one block, from the call to its end: us, p50 / p99", header, lines)]


def others_line(row: Row) -> str:
    """Return how long the engine's copy waited, and how fast ours were meanwhile."""
    waited = f"{row['ours_p50_us']:.0f} us, longest {row['ours_max_us']:.0f}; alone {row['alone_p50_us']:.0f}"
    beside = f"beside DMA {row['limit_p50_us']:.0f}, longest {row['limit_max_us']:.0f}"
    what = f"{name_of_bytes(row['chunk_bytes'])} {row['way']}, {row['mechanism']}: "
    what += f"{name_of_bytes(row['engine_bytes'])} of the engine's"
    return f"{what} {waited}, {beside}; {row['ours_gbs']:.1f} of {row['limit_gbs']:.1f} GB/s"


def _others(rows: Sequence[Row]) -> list[Grid]:
    lines = [
        [name_of_bytes(row["chunk_bytes"]), name_of_bytes(row["size_bytes"]), row["way"],
         row["mechanism"], name_of_bytes(row["engine_bytes"]), f"{row['alone_p50_us']:.0f}",
         f"{row['limit_p50_us']:.0f} / {row['limit_max_us']:.0f}",
         f"{row['ours_p50_us']:.0f} / {row['ours_max_us']:.0f}",
         f"{row['ours_gbs']:.1f} of {row['limit_gbs']:.1f}"]
        for row in rows
    ]  # fmt: skip
    header = [
        "chunk",
        "size",
        "way",
        "ours go",
        "the engine's copy",
        "alone",
        "beside DMA",
        "beside ours",
        "GB/s of DMA's",
    ]
    return [("small copies of the engine's beside long ones: us, p50 / longest", header, lines)]


def _cpu(rows: Sequence[Row]) -> list[Grid]:
    lines = []
    for row in rows:
        judged = next((f" {verdict(each)}" for each in figures_of([row]) if each.must is not None), "")
        share = f"{row['share']:.4f}{judged}"
        moving = row["way"] != "idle"
        lines.append([row["who"], row["way"], number(row["gbs"]) if moving else "-", share,
                      f"{row['s_per_gb']:.5f}" if moving else "-", row["detail"]])  # fmt: skip
    return [("CPU", ["who", "way", "GB/s", "share of a core", "s per GB", "what was counted"], lines)]


def _register(rows: Sequence[Row]) -> list[Grid]:
    lines = []
    for row in rows:
        gigabytes = row["size_bytes"] / 1e9
        judged = verdict(figures_of([row])[-1])
        lines.append([name_of_bytes(row["size_bytes"]), row["page_kind"],
                      f"{row['ours_s']:.3f} s, {gigabytes / row['ours_s']:.1f} GB/s",
                      f"{row['one_call_s']:.3f} s, {gigabytes / row['one_call_s']:.1f} GB/s",
                      f"{row['release_s']:.3f} s", f"{row['prefault_s']:.2f} s",
                      f"{row['gpu_memory_mib']:.0f} MiB {judged}"])  # fmt: skip
    header = ["host memory", "pages", "registered", "in one call", "released", "prefaulted", "GPU memory taken"]
    return [("registration", header, lines)]


GRIDS_OF = {
    "copies": _copies,
    "calls": _copies,
    "load": _copies,
    "pools": _pools,
    "latency": _latency,
    "others": _others,
    "cpu": _cpu,
    "register": _register,
}


def grids_of(rows: Sequence[Row]) -> list[Grid]:
    """Return (title, header, lines) of every part that has rows, in order of the parts."""
    grids: list[Grid] = []
    for part, make in GRIDS_OF.items():
        of_part = [row for row in rows if row.get("part") == part]
        grids += make(of_part) if of_part else []
    return grids


def head_lines(result: Mapping[str, Any]) -> list[str]:
    """Return where it was measured, what must be reached, how much of it is, and what was not measured."""
    device = result.get("device", {})
    figures = [figure for figure in figures_of(result["rows"]) if figure.must is not None]
    missed = [figure for figure in figures if figure.missed_by is not None]
    judged = "not judged at this size" if result.get("tiny") else f"met: {len(figures) - len(missed)} of {len(figures)}"
    facts = {name: device.get(name, "unknown") for name in ("name", "driver", "cuda", "torch", "sm_mhz", "max_sm_mhz")}
    lines = [
        "{name}, driver {driver}, CUDA {cuda}, torch {torch}; SM clock {sm_mhz} of {max_sm_mhz} MHz".format(**facts)
        + f", at the start; PCIe {device.get('pcie', 'unknown')}",
        f"{result['machine']['cpu']}, {result['machine']['cpus']} CPUs; commit {result['machine']['commit']}",
        LIMITS,
        judged + ("" if result.get("verified") else "; ENDED EARLY, not all was verified"),
    ]
    spreads = sorted(row["limit_spread"] for row in result["rows"] if row.get("limit_spread"))
    if spreads:
        usual, widest = 100 * spreads[len(spreads) // 2], 100 * spreads[-1]
        lines.append(
            f"how still the host was: half of the windows of contiguous DMA lay within {usual:.1f} % of each other in "
            f"the median row, within {widest:.1f} % in the worst; differences below that may be chance"
        )
    lines += [f"slots: {line}" for line in result.get("pools", [])]
    lines += [f"warning: {line}" for line in result.get("warnings", [])]
    if result.get("not_measured"):
        lines.append(f"not measured, the time was over: {'; '.join(result['not_measured'])}")
    return lines


def text(result: Mapping[str, Any]) -> str:
    """Return everything for a terminal, the tables last."""
    parts = ["\n".join(head_lines(result))]
    for title, header, lines in grids_of(result["rows"]):
        parts.append(f"{title}\n{table(header, lines)}")
    return "\n\n".join(parts)


def markdown(result: Mapping[str, Any]) -> str:
    """Return the same for a document."""
    parts = ["\n".join(f"- {line}" for line in head_lines(result))]
    for title, header, lines in grids_of(result["rows"]):
        body = [" | ".join(header), "|".join("---" for _ in header), *(" | ".join(line) for line in lines)]
        parts.append(f"**{title}**\n\n" + "\n".join(f"| {line} |" for line in body))
    return "\n\n".join(parts) + "\n"


def merged(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one result of several runs' parts; where two have the same row, the later one counts.

    Raises:
        ValueError: there is none, or they are of different GPUs or drivers, or one is of another benchmark.
    """
    if not results:
        raise ValueError("nothing to merge")
    for result in results:
        if result.get("benchmark") != "gpu_copy":
            raise ValueError(f"a result of {result.get('benchmark')!r} is not one of gpu_copy")
        if "skipped" in result:
            raise ValueError(f"a result has nothing measured: {result['skipped']}")
    places = {(result["device"].get("name"), result["device"].get("driver")) for result in results}
    if len(places) > 1:
        raise ValueError(f"the results are of different GPUs or drivers: {sorted(map(str, places))}")
    rows: dict[tuple[Any, ...], Row] = {}
    for result in results:
        for row in result["rows"]:
            rows[_key_of(row)] = row
    first = results[0]
    return {
        "benchmark": "gpu_copy",
        "tiny": any(result["tiny"] for result in results),
        "machine": first["machine"],
        "device": first["device"],
        "verified": all(result["verified"] for result in results),
        "pools": list(dict.fromkeys(line for result in results for line in result.get("pools", []))),
        "warnings": list(dict.fromkeys(line for result in results for line in result.get("warnings", []))),
        "not_measured": [what for result in results for what in result.get("not_measured", [])],
        "rows": list(rows.values()),
    }


def _key_of(row: Row) -> tuple[Any, ...]:
    names = ("part", "who", "way", "load", "slots", "chunk_bytes", "block_bytes", "size_bytes")
    return tuple(row.get(name) for name in names)
