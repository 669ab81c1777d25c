"""How bench_gpu_copy takes rates and an engine's speed: several movers at once, windows of whole bundles."""

from __future__ import annotations

import threading

import pytest

from benchmarks.gpu_plan import Plan
from benchmarks.gpu_rate import LOAD, STORE, parts_of, rate
from benchmarks.gpu_timeline import LEAST_BUNDLES, MAX_WINDOWS, Timeline

WAIT_S = 20.0


def test_each_way_has_its_part_and_both_have_a_half() -> None:
    assert parts_of("load", 9) == {LOAD: (0, 9)}
    assert parts_of("store", 9) == {STORE: (0, 9)}
    assert parts_of("both", 9) == {LOAD: (0, 4), STORE: (4, 9)}


def test_movers_run_beside_each_other_and_all_go_on_until_all_have_had_enough() -> None:
    calls = [0, 0]
    far_beyond = threading.Event()

    def fast() -> int:
        calls[0] += 1
        if calls[0] == 50:
            far_beyond.set()
        return 1000

    def slow() -> int:
        calls[1] += 1
        assert far_beyond.wait(WAIT_S), "the fast one had stopped, or had not begun"
        return 1000

    found = rate([slow, fast], 0.0, warm_calls=0, least_calls=5)
    assert calls[0] >= 50
    assert calls[1] >= 5
    assert found.gbs > 0
    assert found.cpu_s_per_gb >= 0


def test_what_comes_after_the_time_is_over_is_left_out_and_told() -> None:
    plan = Plan(
        driver=None, sizes={}, chunks={}, ways=[], loads=[], rounds=1, seconds=0.1, samples=1, register_bytes=1,
        agent_blocks=1, is_tiny=True, budget_s=WAIT_S * 1000,
    )  # fmt: skip
    assert plan.has_time("the first part")
    plan.begin_s -= 2 * plan.budget_s
    assert not plan.has_time("copies: 4 KiB")
    assert not plan.has_time("copies: 8 KiB")
    assert plan.not_measured == ["copies: 4 KiB", "copies: 8 KiB"]


def test_a_mover_that_fails_ends_the_others_and_its_error_is_raised() -> None:
    has_failed = threading.Event()

    def good() -> int:
        assert has_failed.wait(WAIT_S)
        return 1

    def bad() -> int:
        has_failed.set()
        raise RuntimeError("the device is gone")

    with pytest.raises(RuntimeError, match="the device is gone"):
        rate([good, bad], 0.0, warm_calls=0, least_calls=1)


def test_a_window_counts_only_bundles_that_began_in_it() -> None:
    timeline = Timeline()
    timeline.add(1.0)
    first = timeline.begin()
    timeline.add(100.0)  # ran already when the window began
    for seconds in (2.0, 3.0, 4.0):
        timeline.add(seconds)
    assert timeline.since(first) == pytest.approx(3.0)
    assert timeline.wait(first, 2) == pytest.approx(2.5)


def test_a_window_with_too_few_bundles_is_an_error() -> None:
    timeline = Timeline()
    first = timeline.begin()
    for _ in range(LEAST_BUNDLES):
        timeline.add(1.0)
    with pytest.raises(RuntimeError, match="only 2 bundles"):
        timeline.since(first)


def test_what_hardly_lets_the_engine_go_on_is_measured_in_more_windows() -> None:
    timeline = Timeline()
    first = timeline.begin()
    timeline.add(1.0)  # ran already

    def measure() -> float:
        timeline.add(5.0)
        return 2.0

    assert timeline.windows(first, measure) == [2.0] * LEAST_BUNDLES
    assert timeline.since(first) == pytest.approx(5.0)
    assert timeline.windows(first, lambda: 3.0) == [3.0]
    assert len(timeline.windows(timeline.begin(), lambda: 3.0)) == MAX_WINDOWS


def test_who_waits_for_bundles_is_told_when_there_will_be_none() -> None:
    timeline = Timeline()
    first = timeline.begin()
    found: list[BaseException] = []
    begun = threading.Event()

    def wait() -> None:
        begun.set()
        try:
            timeline.wait(first, 3)
        except RuntimeError as error:
            found.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert begun.wait(WAIT_S)
    timeline.fail(ValueError("out of memory"))
    for call in (lambda: timeline.since(first), lambda: timeline.windows(first, lambda: 1.0)):
        with pytest.raises(RuntimeError, match="the engine's work ended"):
            call()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert isinstance(found[0].__cause__, ValueError)
