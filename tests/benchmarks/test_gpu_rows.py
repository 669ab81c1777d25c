"""What bench_gpu_copy makes of its rows: verdicts, tables, the plot, results put together. No GPU is needed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import bench_gpu_copy, gpu_plot, gpu_table
from benchmarks.gpu_rows import (
    GIB,
    KIB,
    MIB,
    CopyRow,
    CpuRow,
    LatencyRow,
    OthersRow,
    RegisterRow,
    figures_of,
    must_of,
    name_of_bytes,
)  # fmt: skip
from benchmarks.report import spread


def copy_row(**changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "part": "copies", "chunk_bytes": 4 * KIB, "size_bytes": GIB, "way": "load", "load": "idle", "slots": "fresh",
        "mean_run": 4096.0, "ours_gbs": 54.0, "limit_gbs": 55.0, "ratio": 0.982, "ratio_low": 0.97, "ratio_high": 0.99,
    }  # fmt: skip
    return asdict(CopyRow(**(usual | changes)))


def loaded_row(points: float, **changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "part": "load", "load": "product", "ratio": 0.91, "engine_unit": "TFLOP/s", "engine_alone": 690.0,
        "engine_slower": 0.03, "engine_slower_by_limit": 0.02, "points": points, "sm_mhz": "1755",
    }  # fmt: skip
    return copy_row(**(usual | changes))


def latency_row(ours_us: float, block_bytes: int = 2 * MIB) -> dict[str, Any]:
    row = LatencyRow(
        block_bytes=block_bytes, chunk_bytes=32 * KIB, way="load", ours_p50_us=ours_us, ours_p99_us=90.0,
        spin_p50_us=46.0, spin_p99_us=50.0, blocking_p50_us=130.0, blocking_p99_us=160.0, samples=2000,
    )  # fmt: skip
    return asdict(row)


def others_row() -> dict[str, Any]:
    row = OthersRow(
        chunk_bytes=8 * KIB, size_bytes=GIB, way="store", engine_bytes=16 * KIB, alone_p50_us=10.0,
        limit_p50_us=19_000.0, limit_max_us=19_500.0, limit_gbs=54.0, ours_p50_us=50.0, ours_max_us=700.0,
        ours_gbs=53.0, mechanism="mixed", samples=100, limit_samples=25,
    )  # fmt: skip
    return asdict(row)


def cpu_row(who: str, way: str, share: float) -> dict[str, Any]:
    return asdict(CpuRow(who=who, way=way, gbs=0.0 if way == "idle" else 54.0, share=share, s_per_gb=0.004))


def register_row(gpu_memory_mib: float) -> dict[str, Any]:
    row = RegisterRow(
        size_bytes=8 * GIB, ours_s=0.5, one_call_s=0.3, release_s=0.2, prefault_s=3.0, page_kind="thp",
        gpu_memory_mib=gpu_memory_mib,
    )  # fmt: skip
    return asdict(row)


def result_of(*rows: dict[str, Any], **changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "benchmark": "gpu_copy", "tiny": False, "verified": True, "rows": list(rows), "pools": [], "warnings": [],
        "machine": {"cpu": "A CPU", "cpus": 16, "commit": "abc1234"}, "not_measured": [],
        "device": {"name": "A GPU", "driver": "580.1", "cuda": "13.0", "torch": "2.11", "sm_mhz": "1980",
                   "max_sm_mhz": "1980", "pcie": "gen 5 x16"},
    }  # fmt: skip
    return usual | changes


@pytest.mark.parametrize(
    ("changes", "must"),
    [
        ({}, 0.98),
        ({"way": "both"}, 0.95),
        ({"slots": "aged"}, 0.92),
        ({"slots": "random"}, None),
        ({"load": "product"}, 0.90),
        ({"load": "product", "way": "both"}, 0.90),
        ({"load": "decode"}, None),
    ],
)
def test_a_ratio_must_be_what_the_targets_say(changes: dict[str, str], must: float | None) -> None:
    assert must_of(copy_row(**changes)) == must


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (copy_row(ratio=0.98), copy_row(ratio=0.979)),
        (copy_row(way="both", ratio=0.95), copy_row(way="both", ratio=0.949)),
        (loaded_row(2.0), loaded_row(2.01)),
        (loaded_row(0.0, ratio=0.9), loaded_row(0.0, ratio=0.89)),
        (latency_row(66.0), latency_row(66.1)),
        (cpu_row("ours", "load", 0.2), cpu_row("ours", "load", 0.21)),
        (cpu_row("agent", "store", 0.2), cpu_row("agent", "store", 0.21)),
        (cpu_row("agent", "idle", 0.02), cpu_row("agent", "idle", 0.021)),
        (register_row(136.0), register_row(137.0)),
    ],
)
def test_a_figure_is_met_up_to_its_bound_and_missed_beyond_it(good: dict[str, Any], bad: dict[str, Any]) -> None:
    assert all(figure.missed_by is None for figure in figures_of([good]))
    assert [figure.missed_by is not None for figure in figures_of([bad])].count(True) == 1
    for row, missed in ((good, False), (bad, True)):
        told = gpu_table.text(result_of(row))
        tables = told.split("\n\n", 1)[1]
        assert ("MISSED" in tables) == missed
        assert "met" in tables or missed


@pytest.mark.parametrize(
    "row",
    [
        loaded_row(9.0, load="decode"),
        copy_row(slots="random", ratio=0.5),
        latency_row(900.0, 64 * KIB),
        others_row(),
        cpu_row("dma spin", "load", 1.0),
    ],
)
def test_what_has_no_target_is_only_stated(row: dict[str, Any]) -> None:
    assert all(figure.must is None for figure in figures_of([row]))
    assert "MISSED" not in gpu_table.text(result_of(row))


def test_how_long_the_engine_waits_is_told_beside_ours_and_beside_dma() -> None:
    ((_, header, lines),) = gpu_table.grids_of([others_row()])
    assert dict(zip(header, lines[0], strict=True)) == {
        "chunk": "8 KiB", "size": "1 GiB", "way": "store", "ours go": "mixed", "the engine's copy": "16 KiB",
        "alone": "10", "beside DMA": "19000 / 19500", "beside ours": "50 / 700", "GB/s of DMA's": "53.0 of 54.0",
    }  # fmt: skip
    assert gpu_table.others_line(others_row()).startswith(
        "8 KiB store, mixed: 16 KiB of the engine's 50 us, longest 700; "
    )


def test_a_row_of_no_known_part_is_refused() -> None:
    with pytest.raises(ValueError, match="'else'"):
        figures_of([{"part": "else"}])


def test_the_head_names_the_machine_the_limits_and_how_much_is_met() -> None:
    result = result_of(
        copy_row(), copy_row(way="store", ratio=0.5), latency_row(60.0), not_measured=["copies: 2 MiB"],
        pools=["aged by a trace"], warnings=["pageable"], verified=False,
    )  # fmt: skip
    head = "\n".join(gpu_table.head_lines(result))
    for part in ("A GPU", "580.1", "1980 of 1980 MHz", "gen 5 x16", "A CPU", "abc1234", "98 %", "20 us", "met: 2 of 3",
                 "copies: 2 MiB", "aged by a trace", "pageable", "ENDED EARLY"):  # fmt: skip
        assert part in head
    assert "ENDED EARLY" not in gpu_table.text(result_of(copy_row()))


def test_the_head_tells_how_still_the_host_was_where_that_is_known() -> None:
    rows = [copy_row(limit_spread=each) for each in (0.004, 0.012, 0.31)]
    told = [line for line in gpu_table.head_lines(result_of(*rows, latency_row(60.0))) if "still" in line]
    assert len(told) == 1
    assert "within 1.2 %" in told[0]
    assert "within 31.0 %" in told[0]
    assert not [line for line in gpu_table.head_lines(result_of(copy_row())) if "still" in line]


@pytest.mark.parametrize(("values", "expected"), [([50.0], 0.0), ([4.0, 1.0, 3.0, 2.0], 1.0), ([7.0] * 9, 0.0)])
def test_a_spread_is_the_middle_half_beside_the_median(values: list[float], expected: float) -> None:
    assert spread(values) == pytest.approx(expected)


def test_the_tables_have_a_line_for_each_chunk_and_a_column_for_each_way() -> None:
    rows = [copy_row(chunk_bytes=chunk, way=way) for chunk in (4 * KIB, 2 * MIB) for way in ("load", "store")]
    ((title, header, lines),) = gpu_table.grids_of(rows)
    assert "idle" in title
    assert header == ["chunk", "size", "load", "store", "both"]
    assert [line[:2] for line in lines] == [["4 KiB", "1 GiB"], ["2 MiB", "1 GiB"]]
    assert all(line[2] == "54.0 of 55.0 (0.982 met)" and line[4] == "-" for line in lines)


def test_beside_a_load_the_engines_own_speed_and_clock_stand_in_the_line() -> None:
    ((_, header, lines),) = gpu_table.grids_of([loaded_row(1.0), loaded_row(1.0, way="store", engine_alone=640.0)])
    assert header[-2:] == ["engine alone", "SM MHz"]
    assert lines[0][-2:] == ["640 to 690 TFLOP/s", "1755"]
    assert lines[0][2].endswith("; +3.0 %, DMA +2.0 % met")


def test_a_document_gets_every_table() -> None:
    rows = [copy_row(), loaded_row(1.0), copy_row(part="pools", slots="aged"), latency_row(60.0), others_row(),
            cpu_row("agent", "idle", 0.01), register_row(130.0)]  # fmt: skip
    document = gpu_table.markdown(result_of(*rows))
    assert sum(line.startswith("| ---") for line in document.splitlines()) == 7
    for line in document.splitlines():
        assert not line.startswith("|") or line.endswith("|")


def test_the_plot_draws_each_row_and_the_lines_that_must_be_reached() -> None:
    rows = [copy_row(chunk_bytes=chunk, way=way) for chunk in (4 * KIB, 32 * KIB) for way in ("load", "both")]
    rows += [loaded_row(1.0), loaded_row(1.0, way="store")]
    root = ElementTree.fromstring(gpu_plot.svg(result_of(*rows)))
    names = {"svg": "http://www.w3.org/2000/svg"}
    panels = root.findall("svg:g", names)
    assert len(panels) == 3, "one of copies; ratio and slowdown of the load"
    assert len(panels[0].findall("svg:circle", names)) == 4
    assert len(panels[0].findall("svg:polyline", names)) == 2
    assert len([line for line in panels[0].findall("svg:line", names) if line.get("stroke") == "#999"]) == 2
    dashed = [line for line in panels[2].findall("svg:polyline", names) if line.get("stroke-dasharray")]
    assert len(panels[2].findall("svg:polyline", names)) == 4
    assert len(dashed) == 2


def test_a_plot_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        gpu_plot.svg(result_of(latency_row(60.0)))


def write(folder: Path, name: str, result: dict[str, Any]) -> str:
    path = folder / name
    path.write_text(json.dumps(result), encoding="utf-8")
    return str(path)


def test_results_of_several_runs_become_one_and_the_later_of_two_equal_rows_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write(tmp_path, "first.json", result_of(copy_row(ratio=0.5), latency_row(60.0), not_measured=["cpu: ours"]))
    second = write(tmp_path, "second.json", result_of(copy_row(ratio=0.99), loaded_row(1.0)))
    names = {name: tmp_path / f"all.{name}" for name in ("json", "svg", "md")}
    assert bench_gpu_copy.main(
        ["--merge", first, second, "--json", str(names["json"]), "--markdown", str(names["md"])]
    ) == 0  # fmt: skip
    result = json.loads(names["json"].read_text(encoding="utf-8"))
    assert [row.get("ratio") for row in result["rows"] if row["part"] == "copies"] == [0.99]
    assert len(result["rows"]) == 3
    assert len(result["figures"]) == 1 + 2 + 2
    assert result["not_measured"] == ["cpu: ours"]
    assert "0.990 met" in names["md"].read_text(encoding="utf-8")
    assert ElementTree.parse(names["svg"]).getroot().tag.endswith("svg")
    assert "one block, from the call to its end" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (result_of(copy_row(), device={"name": "Another GPU", "driver": "580.1"}), "different GPUs"),
        (result_of(copy_row(), benchmark="ssd"), "'ssd'"),
        (result_of(skipped="no GPU is here"), "no GPU is here"),
    ],
)
def test_results_that_do_not_belong_together_are_refused(
    other: dict[str, Any], what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [write(tmp_path, "first.json", result_of(copy_row())), write(tmp_path, "other.json", other)]
    assert bench_gpu_copy.main(["--merge", *paths]) == 2
    assert what in capsys.readouterr().err


@pytest.mark.parametrize(("size", "name"), [(512, "512 B"), (18 * KIB, "18 KiB"), (3 * MIB, "3 MiB"), (GIB, "1 GiB")])
def test_sizes_are_named_as_people_do(size: int, name: str) -> None:
    assert name_of_bytes(size) == name


def test_single_calls_are_judged_like_copies_and_have_a_table_of_their_own() -> None:
    row = copy_row(part="calls", size_bytes=64 * MIB, ratio=0.979)
    (figure,) = figures_of([row])
    assert (figure.must, figure.missed_by is not None) == (0.98, True)
    (title, _, lines), *others = gpu_table.grids_of([row])
    assert "call by call" in title
    assert lines[0][:2] == ["4 KiB", "64 MiB"]
    assert not others
    assert "call by call" not in gpu_table.grids_of([copy_row()])[0][0]
