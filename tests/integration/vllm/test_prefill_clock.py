"""PrefillClock: what it notes of steps, against an engine that works them off as vLLM does."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexkv.integration.vllm.prefill_clock import MAX_STEPS, MIN_TOKENS, PrefillClock


class Engine:
    """Steps, worked off first come first served, and a scheduler that plans up to `max_in_flight` of them at once.

    Args:
        merges_outputs: whether every step has an output, as with workers in processes of their own; else a step without
            tokens has one only if it reports something.
    """

    def __init__(self, max_in_flight=1, *, merges_outputs=False):
        self.now_s = 100.0
        self.prefill = PrefillClock(self._note, lambda: self.now_s)
        self.noted = []  # (tokens, seconds)
        self.steps = []  # all, with the seconds they took; `late_s`: by how much the output before was taken late
        self._max_in_flight = max_in_flight
        self._merges_outputs = merges_outputs
        self._in_flight = deque()
        self._end_s = self._late_s = 0.0
        self._taken = None

    def plan(self, num_tokens, seconds=0.0, *, num_requests=1, reports=False, names=True):
        """`reports`: something is outstanding. `names`: false when the workers' role is off."""
        if len(self._in_flight) == self._max_in_flight:
            self.take_output()
        is_timed = self.prefill.planned(len(self.steps), num_tokens, num_requests)
        self._end_s = max(self._end_s, self.now_s) + seconds
        step = SimpleNamespace(
            number=len(self.steps), num_tokens=num_tokens, seconds=seconds, end_s=self._end_s, is_timed=is_timed,
            has_output=bool(num_tokens) or self._merges_outputs or (reports and names),
            is_named=(is_timed or reports) and names,
        )  # fmt: skip
        self.steps.append(step)
        self._in_flight.append(step)

    def take_output(self):
        """Wait for the oldest step, and take its output if it has one."""
        step = self._in_flight.popleft()
        self.now_s = max(self.now_s, step.end_s)
        step.late_s, self._late_s = self._late_s, self.now_s - step.end_s
        if step.has_output:
            self._taken = step
            self.prefill.came_back(step.number if step.is_named else None)
            self._taken = None

    def drain(self):
        while self._in_flight:
            self.take_output()

    def _note(self, num_tokens, seconds):
        assert self._taken is not None
        assert num_tokens == self._taken.num_tokens, "the sample is of the step whose output it is"
        assert seconds >= self._taken.seconds - self._taken.late_s - 1e-9
        self.noted.append((num_tokens, round(seconds, 6)))


@pytest.fixture
def engine():
    return Engine()


def test_a_step_of_prompt_tokens_is_timed_from_its_plan(engine):
    engine.plan(1000, 0.5, num_requests=2)
    engine.drain()
    assert engine.noted == [(1000, 0.5)]


@pytest.mark.parametrize("merges_outputs", [False, True])
def test_overlapping_steps_are_timed_from_when_the_one_before_came_back(merges_outputs):
    engine = Engine(max_in_flight=2, merges_outputs=merges_outputs)
    engine.plan(1000, 0.5)
    engine.now_s += 0.1
    engine.plan(2000, 0.6)
    engine.plan(10, 0.2, num_requests=10)
    engine.plan(3000, 0.25)
    engine.drain()
    assert engine.noted == [(1000, 0.5), (2000, 0.6), (3000, 0.25)]


@pytest.mark.parametrize("max_in_flight", [1, 2, 3])
@pytest.mark.parametrize("merges_outputs", [False, True])
@pytest.mark.parametrize("reports", [False, True])
def test_a_step_without_tokens_takes_no_other_steps_place(max_in_flight, merges_outputs, reports):
    engine = Engine(max_in_flight, merges_outputs=merges_outputs)
    for num_empty in range(2 * max_in_flight):
        for _ in range(num_empty):
            engine.plan(0, num_requests=0, reports=reports)
        engine.plan(1000 + num_empty, 0.5)
        engine.plan(2000 + num_empty, 0.25)
    engine.drain()
    assert engine.noted == [
        sample
        for num_empty in range(2 * max_in_flight)
        for sample in ((1000 + num_empty, 0.5), (2000 + num_empty, 0.25))
    ]


@pytest.mark.parametrize(
    ("num_tokens", "num_requests", "counts"),
    [(MIN_TOKENS, 1, False), (MIN_TOKENS + 1, 1, True), (MIN_TOKENS + 99, 100, False), (0, 0, False)],
)
def test_a_step_counts_when_it_is_mostly_prompt(engine, num_tokens, num_requests, counts):
    engine.plan(num_tokens, 0.5, num_requests=num_requests, reports=True)
    assert engine.steps[0].is_timed is counts
    engine.drain()
    assert bool(engine.noted) is counts


def test_an_output_that_names_no_step_is_no_sample_and_neither_is_one_of_an_unknown_step(engine):
    engine.plan(1000, 0.5, names=False)
    engine.drain()
    engine.prefill.came_back(7)
    engine.prefill.came_back(0)
    assert engine.noted == []


def test_no_time_that_the_clock_could_tell_is_no_sample(engine):
    engine.plan(1000, 0.0)
    engine.drain()
    assert engine.noted == []


def test_steps_whose_output_names_them_never_do_not_pile_up(engine):
    for _ in range(3 * MAX_STEPS):
        engine.plan(1000, 0.5, names=False)
    assert len(engine.prefill._planned) == MAX_STEPS
    engine.plan(2000, 0.5)
    engine.drain()
    assert engine.noted == [(2000, 0.5)]
    assert not engine.prefill._planned


SECONDS = st.sampled_from([0.0, 0.125, 1.0, 3.0])
PLANS = st.tuples(
    st.sampled_from([0, 0, 8, MIN_TOKENS + 8, 4000]), SECONDS, SECONDS, st.booleans(), st.booleans(), st.booleans()
)


@given(
    max_in_flight=st.integers(1, 4),
    merges_outputs=st.booleans(),
    may_be_late=st.booleans(),
    plans=st.lists(PLANS, max_size=40),
)
def test_a_sample_is_of_its_step_and_is_not_shorter_than_it(max_in_flight, merges_outputs, may_be_late, plans):
    engine = Engine(max_in_flight, merges_outputs=merges_outputs)
    for base_tokens, seconds, pause_s, reports, names, takes_output in plans:
        num_tokens = base_tokens + len(engine.steps) if base_tokens else 0
        if may_be_late or not engine._in_flight:
            engine.now_s += pause_s
        engine.plan(num_tokens, seconds if num_tokens else 0.0, reports=reports, names=names)
        if takes_output:
            engine.take_output()
    engine.drain()
    wanted = [
        step.num_tokens for step in engine.steps if step.is_timed and step.is_named and step.seconds > step.late_s
    ]
    assert [num_tokens for num_tokens, _ in engine.noted if num_tokens in wanted] == wanted


def test_the_connector_notes_prefills_when_there_is_a_slow_tier(manager, make_connector, scheduler, make_request):
    scheduler.connector = make_connector(has_slow_tier=True, stage_timeout_s=5.0)
    scheduler.admit(make_request("a", 400))
    scheduler.step(come_back=False)
    assert scheduler.notice.is_timed
    prefill_notice = scheduler.notice
    scheduler.step(come_back=False)
    assert not scheduler.notice.is_timed
    scheduler.come_back(prefill_notice)
    scheduler.come_back(scheduler.notice)
    ((num_tokens, seconds),) = manager.prefills
    assert num_tokens == 400
    assert seconds > 0
    scheduler.connector = make_connector()
    scheduler.admit(make_request("b", 400, seed=5))
    scheduler.step()
    assert not scheduler.notice.is_timed
    assert len(manager.prefills) == 1


def test_a_step_that_waits_for_its_load_is_no_sample(manager, make_connector, scheduler, make_request):
    scheduler.connector = make_connector(has_slow_tier=True, stage_timeout_s=5.0, by_layers=True)
    request = make_request("a", 800)
    keys = scheduler.connector._requests.of(request).keys
    manager.ready.update(keys.key(request, index) for index in range(50))
    assert scheduler.admit(request) == 200
    scheduler.step()
    assert scheduler.notice.layer_load
    assert not scheduler.notice.is_timed
    assert manager.prefills == []
