"""Requests whose blocks are on a slower tier: kept waiting, within a bound, and offered what was read and checked."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flexkv.common.request import KVResponseStatus
from flexkv.integration.vllm import scheduler_connector
from flexkv.integration.vllm.request_state import LoadState

TIMEOUT_S = 5.0
WHOLE = 20  # tokens of five blocks


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def staging(make_connector, clock):
    """A connector that offers blocks once they were read."""
    connector = make_connector(has_slow_tier=True, stage_timeout_s=TIMEOUT_S)
    connector._staging._clock = clock
    return connector


@pytest.fixture
def on_disk(manager, staging, scheduler, make_request):
    """A document of which a slower tier has all blocks, and the CPU tier the first ones; they come when a test says."""
    scheduler.connector = staging

    def make(num_ready=0, num_blocks=5):
        keys_of = staging._requests.of(warm := make_request("warm", 22)).keys
        keys = [bytes(keys_of.key(warm, block)) for block in range(num_blocks)]
        staging._requests.drop("warm")
        manager.ready.update(keys[:num_ready])
        manager.arriving = keys[num_ready:]
        return keys

    return make


@pytest.fixture
def start_waiting(scheduler, make_request, on_disk):
    """A request that has been told to ask again, and the step after it."""

    def start(num_ready=0):
        on_disk(num_ready=num_ready)
        request = make_request("a", 22)
        assert scheduler.admit(request) is None
        scheduler.step()
        return request

    return start


def loads(manager):
    return [blocks for blocks, _ in manager.launched("get")]


def live(manager):
    return [task for task in manager.tasks.values() if task.kind == "get" and task.state == "matched"]


def test_a_request_is_asked_for_again_until_its_blocks_are_read_and_then_offered_them(
    manager, scheduler, make_request, on_disk
):
    on_disk(num_ready=2)
    request = make_request("a", 22)
    for _ in range(3):
        assert scheduler.admit(request) is None
        scheduler.step()
        manager.arrive(1)
    assert len(live(manager)) == 1, "one match survives the steps"
    assert scheduler.admit(request) == WHOLE
    scheduler.step()
    assert loads(manager) == [scheduler.tables["a"][:5]]
    manager.end()
    assert scheduler.step().finished_recving == {"a"}
    assert manager.num_matches == 1


def test_blocks_that_are_here_are_offered_at_once(manager, scheduler, make_request, on_disk):
    on_disk(num_ready=5)
    assert scheduler.admit(make_request("a", 22)) == WHOLE


def test_after_the_deadline_it_gets_what_the_cpu_tier_has(manager, scheduler, start_waiting, clock, caplog):
    request = start_waiting(num_ready=2)
    clock.now_s += TIMEOUT_S - 0.1
    assert scheduler.admit(request) is None
    scheduler.step()
    clock.now_s += 0.2
    assert scheduler.admit(request) == 8
    scheduler.step()
    assert loads(manager) == [scheduler.tables["a"][:2]]
    assert live(manager) == []
    (line,) = [message for message in caplog.messages if "come too late" in message]
    assert "request_id=a waited_s=5.0" in line


def test_after_the_deadline_a_request_that_finds_no_room_is_not_kept_waiting_again(
    manager, staging, scheduler, make_request, on_disk, clock
):
    on_disk(num_ready=2)
    request = make_request("a", 22)
    assert scheduler.admit(request) is None
    clock.now_s += TIMEOUT_S + 1
    for _ in range(2):
        assert staging.get_num_new_matched_tokens(request, 0) == (8, True)
        scheduler.step()
    manager.arrive()
    assert staging.get_num_new_matched_tokens(request, 0) == (WHOLE, True), "by now they are here"


def test_after_the_deadline_nothing_is_offered_when_the_cpu_tier_has_nothing(manager, scheduler, start_waiting, clock):
    request = start_waiting()
    clock.now_s += TIMEOUT_S
    assert scheduler.admit(request) == 0
    scheduler.step()
    assert live(manager) == []


@pytest.mark.parametrize(("num_good", "tokens"), [(3, 12), (0, 0)])
def test_a_bad_block_leaves_the_good_prefix(manager, scheduler, start_waiting, num_good, tokens):
    request = start_waiting()
    manager.arrive(num_good)
    manager.arriving = []
    assert scheduler.admit(request) == tokens
    scheduler.step()
    assert live(manager) == []


def test_what_is_read_anew_is_waited_for_but_the_deadline_stays(manager, scheduler, start_waiting, clock):
    request = start_waiting()
    clock.now_s += TIMEOUT_S - 1
    manager.arriving = manager.arriving[:4]  # the read has failed, and the rest is read once more
    assert scheduler.admit(request) is None
    scheduler.step()
    assert scheduler.admit(request) is None
    clock.now_s += 2
    assert scheduler.admit(request) == 0


@pytest.mark.parametrize("is_ready", [False, True])
def test_an_abort_while_it_waits_lets_go_of_everything(manager, staging, scheduler, start_waiting, is_ready):
    request = start_waiting()
    if is_ready:
        manager.arrive()
    assert not scheduler.finish(request), "it has no blocks"
    scheduler.step()
    assert live(manager) == []
    assert not staging._staging.is_anybody_waiting
    assert not scheduler.notice.outstanding
    assert len(staging._requests) == 0


def test_a_match_survives_steps_while_it_is_staged_and_is_cancelled_when_offered_and_not_scheduled(
    manager, staging, scheduler, make_request, on_disk
):
    on_disk()
    request = make_request("a", 22)
    for _ in range(4):
        assert staging.get_num_new_matched_tokens(request, 0) == (None, False)
        scheduler.step()
        assert staging._requests["a"].load.state is LoadState.STAGING
    manager.arrive()
    assert staging.get_num_new_matched_tokens(request, 0) == (WHOLE, True)
    scheduler.step()
    assert live(manager) == []
    assert staging.get_num_new_matched_tokens(request, 0) == (WHOLE, True)


def test_a_request_that_is_asked_from_another_block_is_matched_again(
    manager, staging, scheduler, make_request, on_disk
):
    on_disk()
    request = make_request("a", 22)
    assert staging.get_num_new_matched_tokens(request, 0) == (None, False)
    assert staging.get_num_new_matched_tokens(request, 8) == (None, False)
    scheduler.step()
    assert len(live(manager)) == 1
    manager.arrive()
    assert staging.get_num_new_matched_tokens(request, 8) == (12, True)
    assert staging.get_num_new_matched_tokens(request, WHOLE) == (0, False)
    scheduler.step()
    assert live(manager) == []


def test_two_requests_wait_each_with_its_own_match_and_deadline(manager, scheduler, make_request, on_disk, clock):
    on_disk(num_ready=1)
    first, second = make_request("a", 22), make_request("b", 22)
    assert scheduler.admit(first) is None
    clock.now_s += TIMEOUT_S - 1
    assert scheduler.admit(second) is None
    scheduler.step()
    clock.now_s += 2
    assert scheduler.admit(first) == 4
    assert scheduler.admit(second) is None
    manager.arrive()
    assert scheduler.admit(second) == WHOLE
    scheduler.step()
    assert sorted(len(blocks) for blocks in loads(manager)) == [1, 5]


def test_a_preempted_request_waits_anew_with_a_new_deadline(manager, scheduler, start_waiting, clock):
    request = start_waiting(num_ready=2)
    ready, arriving = set(manager.ready), list(manager.arriving)
    clock.now_s += TIMEOUT_S
    assert scheduler.admit(request) == 8
    scheduler.step()
    manager.end()
    scheduler.compute_rest(request)
    scheduler.preempt(request)
    scheduler.step()
    manager.end()
    manager.ready, manager.arriving = ready, arriving
    clock.now_s += 100
    assert scheduler.admit(request) is None
    scheduler.step()
    manager.arrive()
    assert scheduler.admit(request) == WHOLE
    scheduler.step()
    manager.end()
    assert scheduler.step().finished_recving == {"a"}


def test_a_match_whose_lease_is_over_is_made_again(manager, scheduler, start_waiting):
    request = start_waiting()
    manager.cancel([1])
    assert scheduler.admit(request) is None
    manager.arrive()
    assert scheduler.admit(request) == WHOLE


@pytest.mark.parametrize("num_blocks", [2, 4])
def test_fewer_blocks_allocated_than_were_offered_are_matched_again(
    manager, staging, scheduler, make_request, on_disk, num_blocks
):
    on_disk()
    request = make_request("a", 22)
    assert scheduler.admit(request) is None
    manager.arrive()
    assert staging.get_num_new_matched_tokens(request, 0) == (WHOLE, True)
    scheduler.requests["a"] = request
    scheduler._allocate(request, 4 * num_blocks)
    staging.update_state_after_alloc(
        request, SimpleNamespace(get_block_ids=lambda: (scheduler.tables["a"],)), 4 * num_blocks
    )
    scheduler.step()
    assert loads(manager) == [scheduler.tables["a"]]
    assert live(manager) == []


def test_a_reset_gives_up_what_is_staged(manager, staging, scheduler, start_waiting):
    request = start_waiting()
    manager.arriving = []
    assert staging.reset_cache()
    assert scheduler.admit(request) == 0
    scheduler.step()
    assert live(manager) == []


@pytest.mark.parametrize("drained", [True, False])
def test_who_waits_when_the_role_goes_off_computes(staging, scheduler, start_waiting, drained):
    request = start_waiting()
    staging.shutdown()
    scheduler.connector = staging.turn_off(drained=drained)
    assert scheduler.admit(request) == 0
    output = scheduler.step()
    assert (output.finished_recving, scheduler.notice.failed_block_ids) == (set(), frozenset())


def test_an_engine_that_has_nothing_else_to_do_rests_while_requests_wait(
    manager, staging, scheduler, make_request, on_disk, monkeypatch
):
    rests = []
    monkeypatch.setattr(manager, "wait_any", rests.append)
    on_disk()
    request = make_request("a", 22)
    for _ in range(4):
        assert scheduler.admit(request) is None
        scheduler.step()
    assert rests == [scheduler_connector.IDLE_WAIT_S] * 3, "but not in the first step without work"
    manager.arrive()
    assert scheduler.admit(request) == WHOLE
    scheduler.step()
    manager.end()
    scheduler.step()
    rests.clear()
    scheduler.step()
    assert rests == []


# --- pipelined: blocks are offered while they are being read


@pytest.fixture
def pipelined(make_connector, scheduler):
    scheduler.connector = make_connector(has_slow_tier=True, stage_timeout_s=None)
    return scheduler.connector


def test_pipelined_blocks_are_offered_at_once(manager, scheduler, make_request, on_disk, pipelined):
    on_disk(num_ready=2)
    scheduler.connector = pipelined
    assert scheduler.admit(make_request("a", 22)) == WHOLE
    scheduler.step()
    assert loads(manager) == [scheduler.tables["a"][:5]]
    manager.arrive()
    manager.end()
    assert scheduler.step().finished_recving == {"a"}


def test_a_pipelined_load_whose_read_fails_is_reported_by_block_ids(
    manager, scheduler, make_request, on_disk, pipelined
):
    on_disk(num_ready=2)
    scheduler.connector = pipelined
    request = make_request("a", 22)
    assert scheduler.admit(request) == WHOLE
    scheduler.step()
    manager.arriving = []
    manager.end(KVResponseStatus.FAILED)
    scheduler.step()
    scheduler.step()
    assert not scheduler.loading
    request.num_computed_tokens = 0
    assert pipelined.get_num_new_matched_tokens(request, 0) == (0, False), "not tried again"


def test_the_blocks_of_a_pipelined_load_that_failed_are_named_before_its_end(
    manager, scheduler, make_request, on_disk, pipelined
):
    on_disk()
    scheduler.connector = pipelined
    assert scheduler.admit(make_request("a", 22)) == WHOLE
    scheduler.step(come_back=False)
    manager.end(KVResponseStatus.FAILED)
    assert scheduler.come_back(scheduler.notice).finished_recving == set()
    assert scheduler.step().finished_recving == {"a"}
    assert scheduler.notice.failed_block_ids == frozenset(scheduler.tables["a"][:5])
