"""Loads by layers, the scheduler role: what is offered so, what becomes of it, and whom it keeps from being stored."""

from __future__ import annotations

import pytest

from flexkv.common.request import KVResponseStatus

FAILED = KVResponseStatus.FAILED


@pytest.fixture
def connector(make_connector):
    return make_connector(by_layers=True)


@pytest.fixture
def warm(run_to_end):
    """Five blocks that a prompt of 22 tokens can load; the request that had them is gone."""
    return run_to_end(20)


@pytest.fixture
def loading(warm, scheduler, make_request):
    """A request whose load is launched and whose step is built, but has not come back."""
    request = make_request("a", 31)
    assert scheduler.admit(request) == 20
    scheduler.step(come_back=False)
    assert scheduler.loading == set(), "vLLM does not wait for it"
    return request


def check_nothing_is_left(manager, scheduler, request):
    """The request ends, its stores too: vLLM has its blocks, and nobody waits for anything."""
    scheduler.finish(request)
    for _ in range(3):
        scheduler.step()
        manager.end()
    scheduler.step()
    assert not scheduler.held
    assert not scheduler.notice.outstanding
    assert len(scheduler.connector._requests) == 0
    assert {"matched", "running"}.isdisjoint(manager.states())


# ---- what is offered


def test_a_match_goes_by_layers_only_where_that_is_enabled(make_connector, manager, make_request):
    for by_layers in (False, True):
        connector = make_connector(by_layers=by_layers)
        request = make_request("a", 22)
        manager.ready.update(connector._requests.of(request).keys.key(request, index) for index in range(5))
        assert connector.get_num_new_matched_tokens(request, 0) == (20, not by_layers)
        assert connector.get_num_new_matched_tokens(request, 8) == (12, not by_layers)


def test_one_goes_by_layers_in_a_step_and_the_next_one_as_a_whole(warm, manager, scheduler, make_request):
    first, second = make_request("a", 22), make_request("b", 22)
    assert scheduler.admit(first) == 20
    assert scheduler.admit(second) == 20
    assert scheduler.loading == {"b"}
    scheduler.step()
    assert manager.tickets == [scheduler.notice.step]
    assert scheduler.notice.layer_load == set(scheduler.tables["a"][:5])


@pytest.mark.parametrize("when", ["the step before", "the same step"])
def test_none_goes_by_layers_while_another_request_runs(warm, connector, scheduler, make_request, when):
    other = make_request("other", 6, seed=7)
    scheduler.admit(other)
    if when == "the step before":
        scheduler.step()
    request = make_request("a", 22)
    assert connector.get_num_new_matched_tokens(request, 0) == (20, True)
    scheduler.step()
    scheduler.finish(other)
    assert connector.get_num_new_matched_tokens(request, 0) == (20, False)


def test_a_load_that_another_request_waits_for_does_not_count(warm, manager, connector, scheduler, make_request):
    scheduler.admit(make_request("b", 6, seed=7))
    whole, request = make_request("whole", 22), make_request("a", 22)
    assert scheduler.admit(whole) == 20
    assert scheduler.loading == {"whole"}
    scheduler.finish(scheduler.requests["b"])
    assert connector.get_num_new_matched_tokens(request, 0) == (20, False)


def test_blocks_that_are_not_in_host_memory_yet_do_not_go_by_layers(warm, manager, connector, make_request):
    request = make_request("a", 22)
    manager.arriving = [bytes(key) for key in sorted(manager.ready)][:1]
    manager.ready.difference_update(manager.arriving)
    assert connector.get_num_new_matched_tokens(request, 0) == (20, True)
    manager.arrive()
    assert connector.get_num_new_matched_tokens(request, 4) == (16, False)


# ---- how it is launched, and how it ends


def test_it_is_launched_behind_the_step_before_with_its_step_as_ticket(loading, manager, scheduler):
    step, blocks = scheduler.notice.step, scheduler.tables["a"][:5]
    assert manager.launched("get") == [(blocks, step - 1)]
    assert manager.tickets == [step]
    assert (scheduler.notice.layer_load, scheduler.notice.failed_block_ids) == (set(blocks), set())
    assert scheduler.notice.outstanding, "its output must come back, and say which step it is of"
    scheduler.step()
    assert scheduler.notice.layer_load == set()


def test_it_ends_quietly(loading, manager, scheduler):
    scheduler.come_back(scheduler.notice)
    manager.end()
    output = scheduler.step()
    assert (output.finished_recving, output.finished_sending) == (set(), set())
    scheduler.step()
    assert not scheduler.notice.outstanding
    check_nothing_is_left(manager, scheduler, loading)


@pytest.mark.parametrize("first", ["the step comes back", "the task ends"])
def test_nothing_is_stored_before_the_load_is_known_to_be_whole(loading, manager, scheduler, first):
    before = len(manager.launched("put"))
    step = scheduler.notice
    if first == "the task ends":
        manager.end()
    else:
        scheduler.come_back(step)
    scheduler.advance(loading)
    scheduler.step(come_back=first == "the step comes back")
    assert len(manager.launched("put")) == before
    if first == "the task ends":
        scheduler.come_back(step)
    else:
        manager.end()
    scheduler.step()
    scheduler.step()
    ((blocks, after_step),) = manager.launched("put")[before:]
    assert blocks == scheduler.tables["a"][5:7]
    assert after_step > step.step
    check_nothing_is_left(manager, scheduler, loading)


def test_a_request_that_ends_with_its_first_step_is_stored_when_the_load_is_known(loading, manager, scheduler):
    before = len(manager.launched("put"))
    assert scheduler.finish(loading), "its blocks are held"
    output = scheduler.come_back(scheduler.notice)
    assert output.finished_sending == set()
    manager.end()
    output = scheduler.step()
    assert output.finished_sending == set(), "its store reads them"
    scheduler.step()
    assert [blocks for blocks, _ in manager.launched("put")[before:]] == [scheduler.tables["a"][5:7]]
    manager.end()
    output = scheduler.step()
    assert (output.finished_sending, output.finished_recving) == ({"a"}, set())
    check_nothing_is_left(manager, scheduler, loading)


@pytest.mark.parametrize("who", ["the workers", "the task", "both"])
def test_a_request_whose_load_failed_is_not_stored_and_loads_nothing_more(
    loading, manager, connector, scheduler, make_request, who
):
    before = len(manager.launched("put"))
    blocks = set(scheduler.tables["a"][:5])
    scheduler.lost = blocks if who != "the task" else set()
    manager.end(KVResponseStatus.SUCCESS if who == "the workers" else FAILED)
    output = scheduler.come_back(scheduler.notice)
    scheduler.lost = set()
    assert output.finished_recving == set()
    for _ in range(3):
        scheduler.advance(loading)
        scheduler.step()
        assert scheduler.notice.failed_block_ids == set(), "the workers have told"
    assert manager.launched("put")[before:] == []
    assert connector.get_num_new_matched_tokens(loading, 0) == (0, False)
    assert not scheduler.finish(loading)
    check_nothing_is_left(manager, scheduler, loading)
    assert manager.launched("put")[before:] == []


@pytest.mark.parametrize("is_lost", [False, True])
@pytest.mark.parametrize("step", ["the same", "the next"])
def test_whoever_shares_its_blocks_is_not_stored_unless_it_is_whole(
    warm, manager, scheduler, make_request, step, is_lost
):
    """VLLM's own prefix cache has the blocks as soon as the load is accepted."""
    before = len(manager.launched("put"))
    request, other = make_request("a", 22), make_request("b", 29)
    assert scheduler.admit(request) == 20
    if step == "the next":
        scheduler.step(come_back=False)
    first = scheduler.notice
    scheduler.tables["b"] = scheduler.tables["a"][:5]
    scheduler._allocate(other, 29)
    other.num_computed_tokens = 20
    scheduler.requests["b"] = other
    scheduler.connector.get_num_new_matched_tokens(other, 20)
    scheduler._schedule_new(other, 9)
    scheduler.step(come_back=False)
    if step == "the same":
        first = scheduler.notice
    assert manager.launched("put")[before:] == []
    if is_lost:
        manager.end(FAILED)
        scheduler.lost = set(scheduler.tables["a"][:5])
    else:
        manager.end()
    scheduler.come_back(first)
    scheduler.lost = set()
    for _ in range(2):
        scheduler.step()
    scheduler.finish(other)
    scheduler.step()
    assert [blocks for blocks, _ in manager.launched("put")[before:]] == (
        [] if is_lost else [scheduler.tables["b"][5:7]]
    )


def test_whoever_hits_lost_blocks_before_they_are_computed_again_is_not_stored(
    loading, manager, scheduler, make_request
):
    before = len(manager.launched("put"))
    manager.end(FAILED)
    scheduler.lost = set(scheduler.tables["a"][:5])
    loading.num_computed_tokens = 0  # vLLM computes it again
    scheduler.come_back(scheduler.notice)
    scheduler.lost = set()

    def hit(name):
        other = make_request(name, 29)
        scheduler.tables[name] = scheduler.tables["a"][:5]
        scheduler._allocate(other, 29)
        other.num_computed_tokens = 20
        scheduler.requests[name] = other
        scheduler.connector.get_num_new_matched_tokens(other, 20)
        scheduler._schedule_new(other, 9)
        scheduler.step()
        return scheduler.tables[name][5:7]

    hit("early")
    assert manager.launched("put")[before:] == []
    loading.num_computed_tokens = 31
    scheduler.step()
    scheduler.finish(scheduler.requests["early"])
    late = hit("late")
    assert [blocks for blocks, _ in manager.launched("put")[before:]] == [late]


def test_one_that_was_accepted_with_fewer_blocks_is_matched_again(warm, manager, connector, scheduler, make_request):
    request = make_request("a", 22)
    real = connector.get_num_new_matched_tokens
    connector.get_num_new_matched_tokens = lambda *args: (real(*args)[0] - 8, False)
    assert scheduler.admit(request) == 12
    scheduler.step()
    assert manager.tickets == [scheduler.notice.step]
    assert scheduler.notice.layer_load == set(scheduler.tables["a"][:3])
    assert "matched" not in manager.states()
    manager.end()
    scheduler.step()
    check_nothing_is_left(manager, scheduler, request)


@pytest.mark.parametrize("tokens", [10, 24], ids=["part of a block", "more than there is"])
def test_one_that_cannot_be_had_as_it_was_accepted_is_lost_in_its_own_step(
    warm, manager, connector, scheduler, make_request, tokens
):
    before = len(manager.launched("put"))
    request = make_request("a", 31)
    real = connector.get_num_new_matched_tokens
    connector.get_num_new_matched_tokens = lambda *args: (real(*args) and tokens, False)
    assert scheduler.admit(request) == tokens
    output = scheduler.step()
    assert manager.tickets == []
    assert (scheduler.notice.failed_block_ids, scheduler.notice.layer_load) == (
        set(scheduler.tables["a"][: -(-tokens // 4)]),
        set(),
    )
    assert (output.finished_recving, output.finished_sending) == (set(), set())
    scheduler.step()
    assert scheduler.notice.failed_block_ids == set()
    assert not scheduler.notice.outstanding
    check_nothing_is_left(manager, scheduler, request)
    assert manager.launched("put")[before:] == []


# ---- what else may happen to the request meanwhile


@pytest.mark.parametrize("end", [KVResponseStatus.SUCCESS, FAILED])
def test_aborted_while_it_runs_its_blocks_are_held_until_the_load_has_ended(loading, manager, scheduler, end):
    assert scheduler.finish(loading)
    output = scheduler.come_back(scheduler.notice)
    assert output.finished_sending == set()
    scheduler.step()
    assert scheduler.held == {"a"}
    assert scheduler.notice.outstanding
    assert scheduler.connector.has_pending_block_frees()
    manager.end(end)
    for _ in range(3):
        scheduler.step()
        manager.end()
    assert scheduler.held == set()
    check_nothing_is_left(manager, scheduler, loading)


def test_aborted_after_it_was_accepted_it_is_launched_with_its_step(warm, manager, scheduler, make_request):
    request = make_request("a", 22)
    scheduler.admit(request)
    assert scheduler.finish(request)
    scheduler.step()
    assert manager.tickets == [scheduler.notice.step]
    manager.end()
    scheduler.step()
    check_nothing_is_left(manager, scheduler, request)


@pytest.mark.parametrize("end", [KVResponseStatus.SUCCESS, FAILED])
def test_preempted_while_it_runs_it_begins_anew(loading, manager, scheduler, end):
    scheduler.come_back(scheduler.notice)
    scheduler.preempt(loading)
    scheduler.step()
    assert scheduler.admit(loading) == 20, "its load may be asked for again"
    manager.end(end)
    output = scheduler.step()
    assert (output.finished_recving, output.finished_sending) == (set(), set())
    before = len(manager.launched("put"))
    manager.end()
    scheduler.step()
    scheduler.step()
    assert [blocks for blocks, _ in manager.launched("put")[before:]] == [scheduler.tables["a"][5:7]]
    check_nothing_is_left(manager, scheduler, loading)


def test_preempted_and_resumed_in_one_step_its_new_load_is_still_looked_after(loading, manager, scheduler):
    """As vLLM does when its prefix cache is reset while requests run."""
    scheduler.come_back(scheduler.notice)
    manager.end()
    scheduler.step()
    manager.end()
    scheduler.step()
    before = len(manager.launched("put"))
    manager.ready.difference_update(list(manager.tasks.values())[-1].keys)
    scheduler.preempt(loading)
    assert scheduler.admit(loading) == 20
    scheduler.step()
    assert scheduler.notice.layer_load == set(scheduler.tables["a"][:5])
    manager.end(FAILED)
    scheduler.step()
    assert scheduler.connector.reset_cache()
    scheduler.step()
    assert manager.launched("put")[before:] == [], "on blocks that were lost"
    check_nothing_is_left(manager, scheduler, loading)


def test_after_a_reset_what_was_loaded_before_it_is_not_stored(loading, manager, scheduler):
    before = len(manager.launched("put"))
    scheduler.come_back(scheduler.notice)
    assert scheduler.connector.reset_cache()
    manager.end()
    for _ in range(3):
        scheduler.step()
    assert manager.launched("put")[before:] == []
    check_nothing_is_left(manager, scheduler, loading)
    assert manager.launched("put")[before:] == []


# ---- turned off


def turned_off(connector, scheduler, *, drained=True):
    connector.shutdown()
    scheduler.connector = connector.turn_off(drained=drained)


@pytest.mark.parametrize("is_finished", [False, True])
def test_turned_off_while_it_runs_the_workers_see_to_it(loading, connector, scheduler, is_finished):
    notice = scheduler.notice
    if is_finished:
        assert scheduler.finish(loading)
    turned_off(connector, scheduler)
    output = scheduler.come_back(notice)
    assert (output.finished_sending, output.finished_recving) == ({"a"} if is_finished else set(), set())
    output = scheduler.step()
    assert (scheduler.notice.failed_block_ids, scheduler.notice.layer_load) == (set(), set())
    assert (output.finished_sending, output.finished_recving) == (set(), set())
    assert not scheduler.finish(loading)


@pytest.mark.parametrize("drained", [False, True])
@pytest.mark.parametrize("when", ["accepted", "launched"])
def test_turned_off_before_the_workers_were_told_its_blocks_are_lost_in_that_step(
    warm, manager, connector, scheduler, make_request, when, drained
):
    request = make_request("a", 22)
    scheduler.admit(request)
    if when == "launched":
        connector._layer_loads.launch(9, {"a": 2})
    turned_off(connector, scheduler, drained=drained)
    output = scheduler.step()
    assert scheduler.notice.failed_block_ids == set(scheduler.tables["a"][:5])
    assert (output.finished_sending, output.finished_recving) == (set(), set())
    output = scheduler.step()
    assert scheduler.notice.failed_block_ids == set()
    assert (output.finished_sending, output.finished_recving) == (set(), set())
    assert not scheduler.finish(request)


def test_turned_off_between_the_offer_and_its_acceptance_its_blocks_are_lost_in_that_step(
    warm, connector, scheduler, make_request
):
    request = make_request("a", 22)
    real = connector.get_num_new_matched_tokens

    def ask_and_fail(*args):
        answer = real(*args)
        turned_off(connector, scheduler)
        return answer

    connector.get_num_new_matched_tokens = ask_and_fail
    assert scheduler.admit(request) == 20
    output = scheduler.step()
    assert scheduler.notice.failed_block_ids == set(scheduler.tables["a"][:5])
    assert (output.finished_sending, output.finished_recving) == (set(), set())
    assert not scheduler.finish(request)
