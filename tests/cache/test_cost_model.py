"""The cost model: what is measured, what it makes of it, and that all or nothing is never beaten."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flexkv.cache.cost_model import PROBE_BLOCKS, CostModel, LoadDecision, LoadReason
from flexkv.common.transfer import TransferType
from flexkv.errors import ConfigError

DISK2H, H2D = TransferType.DISK2H, TransferType.H2D
GIB = 1 << 30
MIB = 1 << 20
BLOCK_BYTES, TPB = 2 * MIB, 16

rates = st.floats(1e6, 1e12)
seconds = st.floats(1e-6, 1e3)
amounts = st.integers(1, 1 << 40)


def model(disk: float = 1e9, h2d: float = 1e12, prefill: float | None = None, **settings: float) -> CostModel:
    made = CostModel(start_bytes_per_s={DISK2H: disk, H2D: h2d}, **settings)  # type: ignore[arg-type]
    if prefill is not None:
        made.prefilled(10**6, 10**6 / prefill, now_s=0.0)
    return made


def decide(of: CostModel, num_blocks: int, queued_bytes: int = 0, now_s: float = 0.0) -> LoadDecision:
    return of.decide(num_blocks, BLOCK_BYTES, TPB, queued_bytes, now_s=now_s)


def test_a_load_that_is_here_sooner_than_computed_is_made() -> None:
    decision = decide(model(disk=1e9, prefill=1000.0), 100)
    assert (decision.num_blocks, decision.reason) == (100, LoadReason.WORTH_IT)
    assert decision.load_s == pytest.approx(0.21, rel=0.01)
    assert decision.compute_s == pytest.approx(1.6)


def test_a_load_that_is_slower_than_computing_is_not_made() -> None:
    decision = decide(model(disk=1e8, prefill=1000.0), 100)
    assert (decision.num_blocks, decision.reason) == (0, LoadReason.SLOWER_THAN_COMPUTE)
    assert decision.load_s is not None
    assert decision.compute_s is not None
    assert decision.load_s > decision.compute_s


def test_a_load_that_takes_as_long_is_not_made() -> None:
    made = CostModel(start_bytes_per_s={H2D: 1024.0})
    made.prefilled(1024, 1.0, now_s=0.0)
    for block_bytes, expected in ((15, 4), (16, 0)):
        assert made.decide(4, block_bytes, 16, now_s=0.0, routes=[H2D]).num_blocks == expected


def test_a_queue_before_it_makes_a_load_not_worth_it() -> None:
    made = model(disk=1e9, prefill=1000.0)
    assert decide(made, 100, queued_bytes=GIB).num_blocks == 100
    assert decide(made, 100, queued_bytes=2 * GIB).num_blocks == 0


def test_a_fixed_latency_sets_the_number_of_blocks_from_which_a_load_is_worth_it() -> None:
    made = model(disk=1e9, prefill=1000.0, latency_s=0.1)  # a block: 2.1 ms to load, 16 ms to compute
    assert [decide(made, n).num_blocks for n in (1, 7, 8, 100)] == [0, 0, 8, 100]


def test_without_a_measurement_of_prefill_or_of_a_route_a_load_is_made() -> None:
    decision = decide(model(), 10)
    assert (decision.num_blocks, decision.compute_s, decision.reason) == (10, None, LoadReason.NO_ESTIMATE)
    made = CostModel(start_bytes_per_s={H2D: 1e9})
    made.prefilled(1000, 1e-9, now_s=0.0)
    decision = decide(made, 10)
    assert (decision.num_blocks, decision.load_s, decision.reason) == (10, None, LoadReason.NO_ESTIMATE)
    made.transferred(DISK2H, 1000, 1.0, now_s=0.0)
    assert decide(made, 10).reason == LoadReason.SLOWER_THAN_COMPUTE


def test_few_blocks_are_not_worth_the_detour_whatever_they_cost() -> None:
    for made in (model(min_blocks=4), model(disk=1e15, prefill=1.0, min_blocks=4)):
        assert decide(made, 3).reason == LoadReason.TOO_FEW
        assert decide(made, 3).num_blocks == 0
        assert decide(made, 4).num_blocks == 4
    assert decide(model(), 0).reason == LoadReason.TOO_FEW


def test_a_route_that_looked_too_slow_is_tried_again_with_a_few_blocks_now_and_then() -> None:
    made = model(prefill=1e6, probe_after_s=10.0)
    made.transferred(DISK2H, GIB, 1000.0, now_s=100.0)
    reasons = [decide(made, 100, now_s=now_s).reason for now_s in (100.0, 109.9, 110.0, 110.1, 119.9, 120.0)]
    slow, probe = LoadReason.SLOWER_THAN_COMPUTE, LoadReason.PROBE
    assert reasons == [slow, slow, probe, slow, slow, probe]
    assert decide(made, 100, now_s=130.0).num_blocks == PROBE_BLOCKS
    assert decide(made, 3, now_s=140.0).num_blocks == 3
    made.transferred(DISK2H, 100 * GIB, 1e-3, now_s=141.0)  # it is fast again
    assert decide(made, 100, now_s=141.0).reason == LoadReason.WORTH_IT


def test_a_start_value_that_makes_loads_too_slow_is_tried_too() -> None:
    made = model(disk=1.0, prefill=1e6, probe_after_s=10.0)
    reasons = [decide(made, 100, now_s=now_s).reason for now_s in (5.0, 14.9, 15.0)]
    assert reasons == [LoadReason.SLOWER_THAN_COMPUTE] * 2 + [LoadReason.PROBE]


def test_a_start_value_gives_way_to_measurements() -> None:
    made = model(disk=1e9)
    assert made.estimates().routes[DISK2H].per_s == pytest.approx(1e9)
    assert (made.estimates().routes[DISK2H].num_samples, made.estimates().routes[DISK2H].updated_s) == (0, None)
    for step in range(40):
        made.transferred(DISK2H, GIB, GIB / 5e9, now_s=float(step))
    estimate = made.estimates().routes[DISK2H]
    assert estimate.per_s == pytest.approx(5e9, rel=0.01)
    assert (estimate.num_samples, estimate.updated_s) == (40, 39.0)
    assert made.estimates().prefill is None


def test_many_small_copies_count_like_one_of_their_bytes() -> None:
    small, large = model(disk=1e9), model(disk=1e9)
    for _ in range(1024):
        small.transferred(DISK2H, MIB, MIB / 4e9, now_s=0.0)
    large.transferred(DISK2H, GIB, GIB / 4e9, now_s=0.0)
    assert small.estimates().routes[DISK2H].per_s == pytest.approx(large.estimates().routes[DISK2H].per_s, rel=0.1)


def test_what_moved_nothing_is_no_sample() -> None:
    made = model()
    made.transferred(DISK2H, 0, 1.0, now_s=0.0)
    made.transferred(DISK2H, 100, 0.0, now_s=0.0)
    made.prefilled(0, 1.0, now_s=0.0)
    assert made.estimates().routes[DISK2H].num_samples == 0
    assert made.estimates().prefill is None


def test_a_snapshot_does_not_change() -> None:
    made = model()
    before = made.estimates()
    made.transferred(DISK2H, GIB, 1e-3, now_s=1.0)
    assert before.routes[DISK2H].num_samples == 0
    assert before != made.estimates()


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_numbers_that_cannot_be_are_refused_by_name(bad: float) -> None:
    made = model()
    with pytest.raises(ValueError, match="seconds is"):
        made.transferred(DISK2H, 1, bad, now_s=0.0)
    with pytest.raises(ValueError, match="seconds is"):
        made.prefilled(1, bad, now_s=0.0)
    for key in ("latency_s", "probe_after_s"):
        with pytest.raises(ConfigError, match=key):
            CostModel(**{key: bad})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"start_bytes_per_s\[DISK2H\]"):
        CostModel(start_bytes_per_s={DISK2H: bad})
    assert made.estimates() == model().estimates()


def test_sizes_that_cannot_be_are_refused_by_name() -> None:
    made = model()
    for name in ("num_blocks", "block_bytes", "tokens_per_block", "queued_bytes"):
        arguments = {"num_blocks": 1, "block_bytes": 1, "tokens_per_block": 1, "queued_bytes": 0} | {name: -1}
        with pytest.raises(ValueError, match=name):
            made.decide(**arguments, now_s=0.0)
    with pytest.raises(ValueError, match="routes is empty"):
        made.decide(1, 1, 1, now_s=0.0, routes=[])
    with pytest.raises(ValueError, match="num_bytes"):
        made.transferred(DISK2H, -1, 1.0, now_s=0.0)
    for key in ("min_blocks", "memory_bytes", "memory_tokens"):
        with pytest.raises(ConfigError, match=key):
            CostModel(**{key: 0})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="start_bytes_per_s"):
        CostModel(start_bytes_per_s={DISK2H: 0})


@given(start=rates, samples=st.lists(st.tuples(amounts, seconds), min_size=1, max_size=30))
def test_a_rate_lies_between_the_lowest_and_the_highest_seen(start: float, samples: list[tuple[int, float]]) -> None:
    made = model(disk=start)
    for amount, took_s in samples:
        made.transferred(DISK2H, amount, took_s, now_s=0.0)
    seen = [start, *(amount / took_s for amount, took_s in samples)]
    estimate = made.estimates().routes[DISK2H]
    assert min(seen) * (1 - 1e-9) <= estimate.per_s <= max(seen) * (1 + 1e-9)
    assert estimate.num_samples == len(samples)


@given(
    disk=rates,
    h2d=rates,
    prefill=st.floats(1.0, 1e7),
    latency_s=st.floats(0.0, 1.0),
    queued_bytes=st.integers(0, 1 << 40),
    num_blocks=st.integers(1, 300),
)
def test_no_prefix_of_the_blocks_would_have_been_better(
    disk: float, h2d: float, prefill: float, latency_s: float, queued_bytes: int, num_blocks: int
) -> None:
    made = model(disk, h2d, prefill, latency_s=latency_s)
    decision = decide(made, num_blocks, queued_bytes)
    fixed_s = latency_s + queued_bytes / disk
    load_block_s, compute_block_s = BLOCK_BYTES / disk + BLOCK_BYTES / h2d, TPB / prefill

    def total_s(num_loaded: int) -> float:
        load_s = fixed_s + num_loaded * load_block_s if num_loaded else 0.0
        return load_s + (num_blocks - num_loaded) * compute_block_s

    best_s = min(total_s(num_loaded) for num_loaded in range(num_blocks + 1))
    assert total_s(decision.num_blocks) == pytest.approx(best_s, rel=1e-9)
    assert decision.num_blocks in (0, num_blocks)
    assert decision.load_s == pytest.approx(total_s(num_blocks), rel=1e-9)
    assert decision.compute_s == pytest.approx(total_s(0), rel=1e-9)


@given(
    disk=rates, prefill=st.floats(1.0, 1e7), latency_s=st.floats(0.0, 1.0), queued=st.integers(0, 1 << 36), n=amounts
)
def test_what_is_worth_it_stays_so_with_more_blocks_a_faster_route_or_a_shorter_queue(
    disk: float, prefill: float, latency_s: float, queued: int, n: int
) -> None:
    n %= 10_000
    assume(n > 0)
    if decide(model(disk, prefill=prefill, latency_s=latency_s), n, queued).num_blocks == 0:
        return
    better = [
        decide(model(disk, prefill=prefill, latency_s=latency_s), n * 2, queued),
        decide(model(disk * 2, prefill=prefill, latency_s=latency_s), n, queued),
        decide(model(disk, prefill=prefill, latency_s=latency_s), n, queued // 2),
        decide(model(disk, prefill=prefill / 2, latency_s=latency_s), n, queued),
    ]
    assert all(decision.reason == LoadReason.WORTH_IT for decision in better)
