"""The demo's verdict: what counts as a hit, what the tables say, and what makes it fail."""

from __future__ import annotations

import json
from typing import Any

import pytest

from demo import chart, report
from demo.report import HitClass


def record(
    ttft_s: float, *, engine: int = 0, flexkv: int = 0, ssd: int = 0, output: tuple[int, ...] = (1, 2), **others: Any
) -> dict[str, Any]:
    values = {
        "round_idx": 0,
        "user": "Ana",
        "document": "project",
        "prompt_tokens": 1000,
        "engine_hit_tokens": engine,
        "flexkv_hit_tokens": flexkv,
        "ssd_hit_tokens": ssd,
        "ttft_s": ttft_s,
        "total_s": ttft_s + 1,
        "output_token_ids": list(output),
        "answer": "<yes>",
    }
    return values | others


def phases(
    with_flexkv: list[dict[str, Any]],
    counters: dict[str, float] | None = None,
    restarted: list[dict[str, Any]] | None = None,
) -> dict[str, dict[str, Any]]:
    without = [record(8.0), record(0.5, engine=900)]
    return {
        "without FlexKV": {"requests": without, "elapsed_s": 10.0, "flexkv": {}},
        "with FlexKV": {"requests": with_flexkv, "elapsed_s": 4.0, "flexkv": counters or {}},
        report.RESTART: {"requests": restarted or [AFTER_RESTART], "elapsed_s": 1.0, "flexkv": {}},
    }


AFTER_RESTART = record(0.4, flexkv=900, ssd=900)
GOOD = [record(0.25, flexkv=900), record(0.5, engine=900)]


@pytest.mark.parametrize(
    ("engine", "flexkv", "expected"),
    [(0, 0, HitClass.COLD), (400, 0, HitClass.COLD), (900, 0, HitClass.ENGINE), (300, 600, HitClass.FLEXKV)],
)
def test_a_request_belongs_to_where_most_of_its_prompt_came_from(engine: int, flexkv: int, expected: HitClass) -> None:
    assert report.hit_class(record(1.0, engine=engine, flexkv=flexkv)) is expected


def test_a_hit_is_compared_with_the_median_cold_request_without_flexkv() -> None:
    rows = {(row.phase, row.hit_class): row for row in report.build(phases(GOOD)).ttft}
    assert rows["with FlexKV", HitClass.FLEXKV].speedup == pytest.approx(32.0)
    assert rows["without FlexKV", HitClass.COLD].speedup == pytest.approx(1.0)


def test_equal_outputs_and_a_flexkv_hit_are_a_success() -> None:
    assert report.build(phases(GOOD)).failures == ()


def test_an_output_that_differs_fails_the_demo_and_names_the_request() -> None:
    changed = [record(0.25, flexkv=900, output=(1, 3), user="Ben", round_idx=2), GOOD[1]]
    assert any("1 requests" in failure for failure in report.build(phases(changed)).failures)


def test_an_output_that_differs_after_the_restart_fails_the_demo_too() -> None:
    changed = [record(0.4, flexkv=900, ssd=900, output=(9,))]
    (failure,) = report.build(phases(GOOD, restarted=changed)).failures
    assert report.RESTART in failure


def test_no_hit_from_ssd_after_the_restart_fails_the_demo() -> None:
    (failure,) = report.build(phases(GOOD, restarted=[record(8.0)])).failures
    assert "served from SSD" in failure


def test_a_hit_of_which_most_was_read_from_ssd_is_one_of_its_own() -> None:
    assert report.hit_class(AFTER_RESTART) is HitClass.SSD
    assert report.hit_class(record(0.4, flexkv=900, ssd=100)) is HitClass.FLEXKV


def test_no_flexkv_hit_fails_the_demo() -> None:
    failures = report.build(phases([record(8.0), record(0.5, engine=900)])).failures
    assert any("no request was served from FlexKV" in failure for failure in failures)


def test_a_route_that_was_used_has_a_row_with_its_rate_while_copying() -> None:
    counters = {"h2d_ops": 3, "h2d_bytes": 2 * 10**9, "h2d_seconds": 0.5, "disk2h_ops": 0, "slots_used": 7}
    counters |= {"d2h_ops": 1, "d2h_bytes": 5, "d2h_seconds": 0.0}
    rows = {row.route: row for row in report.build(phases(GOOD, counters)).routes}
    assert set(rows) == {"H2D", "D2H"}
    assert (rows["H2D"].num_ops, rows["H2D"].num_bytes, rows["H2D"].gb_per_s) == (3, 2 * 10**9, pytest.approx(4.0))
    assert rows["D2H"].gb_per_s == 0.0


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(n) for n in range(1, 11)]
    assert (report.percentile(values, 0.9), report.percentile(values[:1], 0.9)) == (9.0, 1.0)


def test_the_result_can_be_written_as_json() -> None:
    written = json.loads(json.dumps(report.as_json(report.build(phases(GOOD)))))
    assert written["outputs_identical"] is True
    assert written["flexkv_hit_requests"] == 1


def test_the_chart_is_one_page_that_fetches_nothing_and_escapes_what_it_shows() -> None:
    measured = phases([record(0.25, flexkv=900, user="<Ana>"), GOOD[1]])
    page = chart.page(report.build(measured), measured, {"cpu": "a <fast> one", "cores": 2})
    assert "<Ana>" not in page
    assert "<fast>" not in page
    assert not any(word in page for word in ("http", "<script", "src=", "@import"))
    assert page.count("<rect") == 5
