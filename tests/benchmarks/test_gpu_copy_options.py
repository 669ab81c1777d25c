"""What bench_gpu_copy is asked for: parts, sizes, chunks; and what it says where there is no GPU."""

from __future__ import annotations

import json
import math

import pytest

from benchmarks import bench_gpu_copy
from benchmarks.gpu_rows import PARTS
from benchmarks.report import GIB, KIB, MIB


def test_the_grid_is_that_of_the_targets_unless_told_otherwise() -> None:
    options = bench_gpu_copy.options_of([])
    assert tuple(options.parts) == PARTS
    assert options.size_bytes["copies"] == [64 * MIB, GIB, 8 * GIB]
    assert options.size_bytes["load"] == [GIB, 64 * MIB]
    for size in (64 * MIB, GIB, 8 * GIB):
        assert options.chunk_bytes[size] == [chunk * KIB for chunk in (4, 8, 18, 32, 64, 256, 2048)]
    assert (options.rounds, options.register_gib, options.budget_s) == (5, 8, math.inf)


def test_chunks_that_are_named_are_measured_at_every_size() -> None:
    options = bench_gpu_copy.options_of(["--sizes", "64", "8192", "--chunks", "4", "2048", "--rounds", "3"])
    sized = ("copies", "calls", "load", "pools", "others", "cpu")
    assert options.size_bytes == {part: [64 * MIB, 8 * GIB] for part in sized}
    assert options.chunk_bytes == {size: [4 * KIB, 2 * MIB] for size in (64 * MIB, 8 * GIB)}
    assert options.rounds == 3


def test_quick_measures_less_of_everything() -> None:
    quick, usual = bench_gpu_copy.options_of(["--quick"]), bench_gpu_copy.options_of([])
    assert quick.size_bytes["copies"] == [64 * MIB]
    assert len(quick.chunk_bytes[64 * MIB]) < len(usual.chunk_bytes[64 * MIB])
    for name in ("rounds", "seconds", "samples", "register_gib"):
        assert getattr(quick, name) < getattr(usual, name)
    assert bench_gpu_copy.options_of(["--quick", "--rounds", "9"]).rounds == 9


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--parts", "everything"], "everything"),
        (["--sizes", "0"], "--sizes 0"),
        (["--sizes", "8"], "must hold 4 blocks"),
        (["--chunks", "-4"], "--chunks -4"),
        (["--chunks", "131072", "--sizes", "64"], "must hold 4 blocks"),
        (["--rounds", "0"], "--rounds is 0"),
        (["--budget-s", "nan"], "--budget-s is nan"),
        (["--pool-percent", "0"], "--pool-percent is 0"),
        (["--trace", "/nowhere/trace.jsonl"], "/nowhere/trace.jsonl"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    arguments: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        bench_gpu_copy.options_of(arguments)
    assert ended.value.code == 2
    assert what in capsys.readouterr().err.splitlines()[-1]


def test_without_a_gpu_there_is_one_line_and_a_result_that_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_gpu_copy, "why_not", lambda: "no GPU is here")
    assert bench_gpu_copy.main(["--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines() == ["no GPU is here: nothing is measured"]
    result = json.loads(printed.out)
    assert result["skipped"] == "no GPU is here"
    assert not result["verified"]
    assert result["rows"] == []
