"""Recorded calls of a real vLLM, replayed: the same calls from the same answers, right bytes with our own answers."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.replay.live import Live
from tests.replay.memory import ORDERS, Geometry
from tests.replay.rank import WrongBytesError
from tests.replay.recording import FOLDER, load, names
from tests.replay.script import check_conforms

NAMES = ("mp", "mp-apart", "mp-async", "mp-async-tp2", "uni", "uni-async")
MAX_RECORDED_BYTES = 200_000


def check_replay(live: Live) -> None:
    """Where a store comes after the question, or an abort before the load, there are fewer loads than were recorded."""
    live.run()
    assert live.connector.num_loads >= live.recording.num_loads // 2
    assert live.connector.num_held > 0
    assert live.scheduler.num_preemptions > 0


def test_there_is_a_small_recording_for_each_executor_and_way_of_scheduling() -> None:
    assert tuple(names()) == NAMES
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < MAX_RECORDED_BYTES
    kinds = {(one.executor, one.is_apart, one.asynchronous, one.num_ranks) for one in map(load, NAMES)}
    assert len(kinds) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_has_what_it_is_for(name: str) -> None:
    recording = load(name)
    asks = [call for call in recording.calls if call[0] == "ask"]
    assert any(computed and answer for _, _, computed, _, answer, _ in asks), "a load behind blocks vLLM has"
    assert any(not computed and answer for _, _, computed, _, answer, _ in asks)
    assert any(one[1:4] == other[1:4] for one, other in pairwise(asks)), "a question asked again for lack of room"
    builds = [call for call in recording.calls if call[0] == "build"]
    assert any(preempted for *_, preempted, _, _ in builds)
    assert any(row[3] for build in builds for row in build[3]), "a preempted request comes back"
    assert any(not build[4] for build in builds), "a step without tokens"
    ends = {(call[4], call[5]) for call in recording.calls if call[0] == "finish"}
    wanted = {("LENGTH_CAPPED", True), ("STOPPED", False)}
    if not recording.is_apart:
        wanted |= {("ABORTED", True), ("ABORTED", False)}
    assert wanted <= ends
    assert sorted("s0" in order for order in recording.orders) == [False, True]
    assert len(recording.workers) == recording.num_ranks
    lags = {lag for rows in recording.workers for _, lag, _ in rows}
    assert lags == ({0, 1} if recording.executor == "mp" and recording.asynchronous else {0})


@pytest.mark.parametrize("name", NAMES)
def test_the_scheduler_of_the_replay_makes_the_recorded_calls_from_the_recorded_answers(name: str) -> None:
    check_conforms(load(name))


@pytest.mark.parametrize("is_late", [False, True], ids=["as recorded", "late"])
@pytest.mark.parametrize("name", NAMES)
def test_every_step_reads_what_was_computed_or_loaded(name: str, is_late: bool) -> None:
    with Live(load(name), Geometry(), is_late=is_late) as live:
        check_replay(live)


@pytest.mark.parametrize("order", ORDERS)
def test_both_shards_of_every_layout_come_back(order: str) -> None:
    dtype = "bf16" if order.startswith("B") else "int8"
    with Live(load("mp-async-tp2"), Geometry(order=order, dtype=dtype)) as live:
        check_replay(live)


@pytest.mark.parametrize("name", ["uni", "mp-async-tp2"])
def test_latent_vectors_come_back(name: str) -> None:
    with Live(load(name), Geometry.mla(num_layers=2)) as live:
        check_replay(live)


@pytest.mark.parametrize("name", ["mp-async", "uni-async"])
def test_fences_keep_loads_from_blocks_of_steps_in_flight(name: str) -> None:
    with Live(load(name), Geometry(), is_late=True, defers_frees=False) as live:
        check_replay(live)


@pytest.mark.parametrize("is_late", [False, True], ids=["as recorded", "late"])
@pytest.mark.parametrize("name", NAMES)
def test_layers_wait_for_their_blocks(name: str, is_late: bool) -> None:
    with Live(load(name), Geometry(), is_late=is_late, by_layers=True) as live:
        check_replay(live)
        assert live.connector.num_by_layers > live.connector.num_loads // 3


@pytest.mark.parametrize("order", ORDERS)
def test_layers_wait_for_their_blocks_in_every_layout(order: str) -> None:
    dtype = "bf16" if order.startswith("B") else "int8"
    with Live(load("mp-async-tp2"), Geometry(order=order, dtype=dtype), by_layers=True) as live:
        check_replay(live)


def test_a_full_cache_evicts_what_nobody_loads() -> None:
    with Live(load("mp-async-tp2"), Geometry(), num_host_blocks=30) as live:
        live.run()
        assert live.connector.num_loads > 0
        assert live.manager.stats().flat()["evicted_blocks"] > 0


# ---- what the checks find


@pytest.mark.parametrize("name", NAMES)
def test_loads_of_zeros_are_found(name: str) -> None:
    with Live(load(name), Geometry()) as live:
        live.connector.on_drop = live.zero_host_blocks
        with pytest.raises(WrongBytesError, match="request 2 token 0"):
            live.run()


@pytest.mark.parametrize("name", NAMES)
def test_stores_that_do_not_wait_for_their_step_are_found(name: str) -> None:
    with (
        Live(load(name), Geometry(), own_thread=False, unfenced=("loads", "stores")) as live,
        pytest.raises(WrongBytesError, match="request 2 token 0"),
    ):
        live.run()


@pytest.mark.parametrize("name", ["mp-async", "uni-async"])
def test_loads_that_do_not_wait_for_the_step_before_are_found(name: str) -> None:
    """Without vLLM's own care: it hands blocks of a step in flight out only after it."""
    with (
        Live(load(name), Geometry(), own_thread=False, is_late=True, defers_frees=False, unfenced=("loads",)) as live,
        pytest.raises(WrongBytesError),
    ):
        live.run()


@pytest.mark.parametrize("name", NAMES)
def test_layers_that_do_not_wait_are_found(name: str) -> None:
    with (
        Live(load(name), Geometry(), by_layers=True, unfenced=("layers",)) as live,
        pytest.raises(WrongBytesError, match="before layer 0"),
    ):
        live.run()
