from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from flexkv.common.request import KVResponseStatus
from flexkv.integration.vllm.scheduler_connector import MAX_STORES_PER_STEP


@pytest.fixture
def fail_load_in_flight(manager, scheduler, make_request, run_to_end):
    """Load request a, and find that it failed when a step that cannot say so comes back; returns both."""

    def fail():
        run_to_end(20)
        request = make_request("a", 22)
        scheduler.admit(request)
        scheduler.step()
        scheduler.step(come_back=False)
        earlier = scheduler.notice
        manager.end(KVResponseStatus.FAILED)
        scheduler.come_back(earlier)
        return request, earlier

    return fail


def test_nothing_is_offered_from_an_empty_cache(scheduler, make_request):
    assert scheduler.admit(make_request("a", 20)) == 0


def test_whole_blocks_are_offered_and_a_token_is_left(scheduler, make_request, run_to_end):
    run_to_end(20)
    assert scheduler.admit(make_request("whole", 20)) == 16
    assert scheduler.admit(make_request("more", 21)) == 20
    assert scheduler.admit(make_request("less", 11)) == 8
    assert scheduler.admit(make_request("short", 4)) == 0


def test_only_blocks_beyond_the_computed_ones_are_loaded(manager, scheduler, make_request, run_to_end):
    run_to_end(20)
    request = make_request("a", 22)
    assert scheduler.admit(request, local_tokens=8) == 12
    scheduler.step()
    assert manager.launched("get") == [(scheduler.tables["a"][2:5], scheduler.notice.step - 1)]


def test_a_hit_that_is_not_block_aligned_or_must_not_be_read_is_passed_over(connector, make_request, run_to_end):
    run_to_end(20)
    assert connector.get_num_new_matched_tokens(make_request("a", 22), 6) == (0, False)
    secret = make_request("b", 22)
    secret.skip_reading_prefix_cache = True
    assert connector.get_num_new_matched_tokens(secret, 0) == (0, False)


def test_asking_again_within_a_step_is_one_match_and_a_match_not_scheduled_is_cancelled(
    manager, connector, scheduler, make_request, run_to_end
):
    run_to_end(20)
    request = make_request("a", 22)
    before = manager.num_matches
    assert {connector.get_num_new_matched_tokens(request, 0) for _ in range(5)} == {(20, True)}
    assert manager.num_matches == before + 1
    scheduler.step()
    assert "matched" not in manager.states()
    assert connector.get_num_new_matched_tokens(request, 4) == (16, True)
    assert connector.get_num_new_matched_tokens(request, 8) == (12, True)
    scheduler.step()
    assert "matched" not in manager.states()
    assert manager.launched("get") == []


def test_a_miss_that_waits_for_room_is_a_repeat_until_it_hits_or_is_preempted(
    manager, connector, scheduler, make_request, run_to_end
):
    request = make_request("a", 22)

    def ask(start: int) -> bool:
        connector.get_num_new_matched_tokens(request, start)
        scheduler.step()
        return manager.repeats[-1]

    assert [ask(0), ask(0), ask(4), ask(4), ask(0)] == [False, True, False, True, False]
    run_to_end(20)
    assert [ask(0), ask(0)] == [True, False], "a hit is no miss to repeat"
    manager.ready.clear()
    assert [ask(0), ask(0)] == [False, True]
    scheduler.admit(request)
    scheduler.preempt(request)
    scheduler.step()
    assert not ask(0)


def test_a_store_runs_after_the_step_that_computes_it(manager, scheduler, make_request):
    request = make_request("a", 18)
    scheduler.admit(request)
    scheduler.step()
    assert manager.launched("put") == [(scheduler.tables["a"][:4], scheduler.notice.step)]


def test_a_long_prompt_is_stored_chunk_by_chunk_and_answers_block_by_block(manager, scheduler, make_request):
    request = make_request("a", 18)
    scheduler.admit(request, chunk=9)
    scheduler.step()
    scheduler.advance(request, 9)
    scheduler.step()
    table = scheduler.tables["a"]
    assert manager.launched("put") == [(table[:2], 1), (table[2:4], 2)]
    request.append(7)
    scheduler.advance(request)  # token 18: the block has three tokens
    scheduler.step()
    request.append(8)
    scheduler.advance(request)  # token 19 fills it
    scheduler.step()
    assert manager.launched("put")[2:] == [(scheduler.tables["a"][4:5], 4)]


def test_a_block_is_stored_only_when_all_its_tokens_are_confirmed(manager, scheduler, make_request):
    """Speculative and asynchronous scheduling count tokens as computed before they are known."""
    request = make_request("a", 14)
    scheduler.admit(request)
    scheduler.step()
    scheduler.advance(request, 4)
    scheduler.step()
    assert len(manager.launched("put")) == 1
    request.append(1, 2)
    scheduler.advance(request, 1)
    scheduler.step()
    assert manager.launched("put")[1:] == [(scheduler.tables["a"][3:4], 3)]


def test_blocks_held_already_are_not_stored_again(manager, scheduler, make_request, run_to_end):
    run_to_end(12)
    request = make_request("a", 26)
    assert scheduler.admit(request) == 12
    scheduler.step()
    manager.end()
    scheduler.compute_rest(request)
    assert manager.launched("put")[-1] == (scheduler.tables["a"][3:6], scheduler.notice.step)


def test_blocks_there_was_no_room_for_are_offered_with_the_next_chunk(manager, scheduler, make_request):
    manager.room = 1
    request = make_request("a", 18)
    scheduler.admit(request, chunk=9)
    scheduler.step()
    manager.room = None
    scheduler.advance(request, 9)
    scheduler.step()
    table = scheduler.tables["a"]
    assert manager.launched("put") == [(table[:1], 1), (table[1:4], 2)]


def test_a_finished_request_is_held_until_its_stores_have_ended_and_heard_of_once(manager, scheduler, make_request):
    request = make_request("a", 18)
    scheduler.admit(request)
    scheduler.step()
    assert scheduler.finish(request)
    assert scheduler.connector.has_pending_block_frees()
    scheduler.step()
    assert scheduler.held == {"a"}
    assert scheduler.notice.outstanding
    manager.end()
    scheduler.step(come_back=False)
    output = scheduler.come_back(scheduler.notice, as_none=True)
    assert output.finished_sending == {"a"}
    assert output.finished_recving is None
    scheduler.step()
    assert not scheduler.notice.outstanding
    assert not scheduler.connector.has_pending_block_frees()


def test_the_last_blocks_are_stored_when_the_request_ends(manager, scheduler, make_request):
    request = make_request("a", 15)
    scheduler.admit(request)
    scheduler.step()
    manager.end()
    request.append(5)
    scheduler.advance(request)  # computes token 15 of 16; its hash is known only with the answer
    request.block_hashes.pop()
    scheduler.step()
    request.update_hashes()
    request.append(6)
    assert scheduler.finish(request)
    scheduler.come_back(scheduler.notice)
    assert manager.launched("put")[-1] == (scheduler.tables["a"][3:4], scheduler.notice.step)


def test_a_request_with_nothing_in_flight_is_not_held(manager, scheduler, make_request):
    request = make_request("a", 3)
    scheduler.admit(request)
    scheduler.step()
    assert not scheduler.finish(request)
    assert not scheduler.finish(make_request("never seen", 30))


def test_a_loaded_request_is_heard_of_once(manager, scheduler, make_request, run_to_end):
    run_to_end(20)
    request = make_request("a", 22)
    scheduler.admit(request)
    scheduler.step()
    assert scheduler.loading == {"a"}
    manager.end()
    scheduler.compute_rest(request)
    assert not scheduler.loading


def test_an_abort_while_loading_is_heard_of_as_received_and_only_after_the_load(
    manager, scheduler, make_request, run_to_end
):
    run_to_end(20)
    request = make_request("a", 22)
    scheduler.admit(request)
    scheduler.step()
    assert scheduler.finish(request)
    scheduler.step()
    assert scheduler.held == {"a"}
    manager.end()
    output = scheduler.step()
    assert (output.finished_recving, output.finished_sending) == ({"a"}, set())
    assert not scheduler.held


@pytest.mark.parametrize("abort", [False, True])
def test_failed_blocks_are_reported_before_the_end_of_the_load(
    manager, scheduler, make_request, run_to_end, caplog, abort
):
    run_to_end(20)
    request = make_request("a", 22)
    scheduler.admit(request)
    scheduler.step()
    scheduler.step(come_back=False)
    with caplog.at_level(logging.ERROR, logger="flexkv"):
        manager.end(KVResponseStatus.FAILED)
        scheduler.come_back(scheduler.notice)
    assert "load failed" in caplog.text
    assert scheduler.loading == {"a"}, "the workers have not reported the blocks yet"
    if abort:
        scheduler.finish(request)
    output = scheduler.step()
    assert scheduler.notice.failed_block_ids == (frozenset() if abort else frozenset(scheduler.tables["a"][:5]))
    assert output.finished_recving == {"a"}
    scheduler.step()
    assert scheduler.notice.failed_block_ids == frozenset()
    if not abort:
        request.num_computed_tokens = 0
        assert scheduler.connector.get_num_new_matched_tokens(request, 0) == (0, False), "not tried again"


def test_a_failure_found_while_steps_are_in_flight_waits_for_the_step_that_carries_it(scheduler, fail_load_in_flight):
    fail_load_in_flight()
    assert scheduler.loading == {"a"}
    scheduler.step()
    assert scheduler.loading == set()


def test_stores_of_a_preempted_request_are_doomed_and_it_starts_over(manager, scheduler, make_request):
    request = make_request("a", 18)
    scheduler.admit(request)
    scheduler.step()
    scheduler.preempt(request)
    scheduler.step()
    assert [task.doomed for task in manager.tasks.values() if task.kind == "put"] == [True]
    manager.end()
    scheduler.step()
    assert not manager.ready
    scheduler.admit(request)
    scheduler.step()
    assert manager.launched("put")[-1] == (scheduler.tables["a"][:4], scheduler.notice.step)
    manager.end()
    assert len(manager.ready) == 4


def test_a_request_preempted_and_scheduled_again_in_one_step_keeps_its_new_load(
    manager, scheduler, make_request, run_to_end
):
    run_to_end(20)
    request = make_request("a", 23)
    scheduler.admit(request)
    scheduler.step()
    manager.end()
    scheduler.compute_rest(request)
    scheduler.preempt(request)
    assert scheduler.admit(request) == 20
    scheduler.step()
    assert manager.launched("get")[-1] == (scheduler.tables["a"][:5], scheduler.notice.step - 1)
    manager.end()
    assert scheduler.step().finished_recving == {"a"}


def test_after_a_reset_blocks_computed_before_it_are_not_stored(manager, connector, scheduler, make_request):
    request = make_request("a", 18)
    scheduler.admit(request, chunk=9)
    scheduler.step()
    assert connector.reset_cache()
    scheduler.advance(request, 9)
    scheduler.step()
    assert len(manager.launched("put")) == 1
    scheduler.preempt(request)
    scheduler.step()
    scheduler.admit(request)
    scheduler.step()
    assert len(manager.launched("put")) == 2
    assert not scheduler.finish(make_request("b", 3))


@pytest.mark.parametrize("when", ["loading", "loaded"])
def test_after_a_reset_blocks_loaded_from_before_it_are_not_stored(
    manager, connector, scheduler, make_request, run_to_end, when
):
    run_to_end(20)
    puts = len(manager.launched("put"))
    request = make_request("a", 22)
    scheduler.admit(request)
    scheduler.step()
    if when == "loading":
        assert connector.reset_cache()
    manager.end()
    assert "a" in scheduler.step().finished_recving
    if when == "loaded":
        assert connector.reset_cache()
    scheduler.continue_loaded(request)
    scheduler.step()
    scheduler.finish(request)
    assert len(manager.launched("put")) == puts, "they hold what was valid before the reset"


def test_a_load_of_part_of_a_block_is_refused_whole(manager, connector, scheduler, make_request, run_to_end):
    run_to_end(20)
    request = make_request("a", 22)
    assert connector.get_num_new_matched_tokens(request, 0) == (20, True)
    scheduler._allocate(request, 20)
    scheduler.loading.add("a")
    blocks = SimpleNamespace(get_block_ids=lambda: (scheduler.tables["a"],))
    connector.update_state_after_alloc(request, blocks, 18)
    scheduler.step()
    assert manager.launched("get") == []
    assert scheduler.notice.failed_block_ids == frozenset(scheduler.tables["a"])
    assert "matched" not in manager.states()
    assert not scheduler.loading


def test_blocks_of_an_aborted_request_are_pending_until_vllm_is_told(
    manager, connector, scheduler, make_request, run_to_end
):
    run_to_end(20)
    request = make_request("a", 22)
    scheduler.admit(request)
    scheduler.step()
    assert not connector.has_pending_block_frees()
    assert scheduler.finish(request)
    assert connector.has_pending_block_frees()
    manager.end()
    assert connector.has_pending_block_frees()
    scheduler.step()
    assert not connector.has_pending_block_frees()


def test_fewer_blocks_allocated_than_offered_are_matched_again(manager, connector, scheduler, make_request, run_to_end):
    run_to_end(20)
    request = make_request("a", 22)
    scheduler.requests["a"] = request
    assert connector.get_num_new_matched_tokens(request, 0) == (20, True)
    scheduler._allocate(request, 8)
    blocks = SimpleNamespace(get_block_ids=lambda: (scheduler.tables["a"],))
    connector.update_state_after_alloc(request, blocks, 8)
    scheduler.step()
    assert [blocks for blocks, _ in manager.launched("get")] == [scheduler.tables["a"]]
    assert "matched" not in manager.states()


def test_a_load_that_cannot_be_planned_any_more_is_a_failed_load(
    manager, connector, scheduler, make_request, run_to_end
):
    run_to_end(20)
    request = make_request("a", 22)
    assert connector.get_num_new_matched_tokens(request, 0) == (20, True)
    manager.ready.clear()
    scheduler._allocate(request, 8)
    scheduler.loading.add("a")
    connector.update_state_after_alloc(request, SimpleNamespace(get_block_ids=lambda: (scheduler.tables["a"],)), 8)
    scheduler.step()
    assert scheduler.notice.failed_block_ids == frozenset(scheduler.tables["a"])
    assert not scheduler.loading


def test_roles_decide_what_is_done(make_connector, make_request, run_to_end):
    run_to_end(20)
    request = make_request("a", 22)
    producer = make_connector(decode_store_blocks=16, may_load=False)
    assert producer.get_num_new_matched_tokens(request, 0) == (0, False)
    consumer = make_connector(decode_store_blocks=16, may_store=False)
    assert consumer.get_num_new_matched_tokens(request, 0) == (20, True)


def test_salts_and_changed_tokens_are_misses(scheduler, make_request, run_to_end):
    run_to_end(20, salt="a")
    assert scheduler.admit(make_request("other", 22, salt="b")) == 0
    assert scheduler.admit(make_request("none", 22)) == 0
    assert scheduler.admit(make_request("same", 22, salt="a")) == 20


def test_going_off_winds_up_what_was_promised(manager, connector, scheduler, make_request, run_to_end):
    run_to_end(20)
    loading, aborted, storing = make_request("l", 22), make_request("x", 22), make_request("s", 18, seed=3)
    for request in (loading, aborted, storing):
        scheduler.admit(request)
    scheduler.step()
    scheduler.finish(aborted)
    scheduler.finish(storing)
    connector.shutdown()
    assert manager.is_shut_down
    scheduler.connector = connector.turn_off(drained=True)
    output = scheduler.step()
    assert scheduler.notice.failed_block_ids == frozenset(scheduler.tables["l"][:5])
    assert output.finished_recving == {"l", "x"}
    assert output.finished_sending == {"s"}
    assert not scheduler.held
    assert scheduler.admit(make_request("later", 22)) == 0
    scheduler.step()
    assert not scheduler.notice.outstanding


def test_a_failed_load_is_told_once_however_many_steps_are_in_flight(manager, scheduler, make_request, run_to_end):
    run_to_end(20)
    request = make_request("a", 22)
    scheduler.admit(request)
    scheduler.step()
    manager.end(KVResponseStatus.FAILED)
    scheduler.connector.update_connector_output(
        SimpleNamespace(finished_sending=set(), finished_recving=set(), invalid_block_ids=set()), step=None
    )
    scheduler.step(come_back=False)
    told = scheduler.notice
    scheduler.step(come_back=False)
    later = scheduler.notice
    assert told.failed_block_ids
    assert later.failed_block_ids == frozenset()
    assert scheduler.come_back(told).finished_recving == {"a"}
    assert scheduler.come_back(later).finished_recving == set()


def test_an_abort_waits_for_the_step_that_names_its_failed_blocks(scheduler, fail_load_in_flight):
    request, earlier = fail_load_in_flight()
    scheduler.step(come_back=False)
    told = scheduler.notice
    assert told.failed_block_ids
    scheduler.finish(request)
    assert scheduler.come_back(earlier).finished_recving == set(), (
        "its blocks would be somebody else's when they are named"
    )
    assert scheduler.come_back(told).finished_recving == {"a"}


def test_blocks_there_was_no_room_for_are_offered_once_more_when_the_request_ends(manager, scheduler, make_request):
    manager.room = 0
    request = make_request("a", 18)
    scheduler.admit(request)
    scheduler.step()
    assert not manager.launched("put")
    manager.room = None
    assert scheduler.finish(request)
    scheduler.come_back(scheduler.notice)
    assert manager.launched("put") == [(scheduler.tables["a"][:4], scheduler.notice.step)]


def test_going_off_with_copies_that_did_not_end_lets_no_block_go(
    manager, connector, scheduler, make_request, run_to_end
):
    run_to_end(20)
    loading, storing = make_request("l", 22), make_request("s", 18, seed=3)
    for request in (loading, storing):
        scheduler.admit(request)
    scheduler.step()
    scheduler.finish(storing)
    scheduler.connector = connector.turn_off(drained=False)
    for _ in range(3):
        output = scheduler.step()
        assert (output.finished_recving, output.finished_sending) == (set(), set())
        assert not scheduler.notice.failed_block_ids


def test_a_running_request_stores_what_it_generates_in_groups(manager, make_connector, scheduler, make_request):
    scheduler.connector = make_connector(decode_store_blocks=3)
    request = make_request("a", 8)
    scheduler.admit(request)
    scheduler.step()
    for token in range(12):
        request.append(token)
        scheduler.advance(request)
        scheduler.step()
    table = scheduler.tables["a"]
    assert manager.launched("put") == [(table[:2], 1), (table[2:5], 13)]


def test_stores_beyond_a_steps_share_wait_for_the_next_steps(manager, scheduler, make_request):
    requests = [make_request(f"r{index}", 8, seed=index) for index in range(2 * MAX_STORES_PER_STEP + 1)]
    for request in requests:
        scheduler.admit(request)
    stored = []
    for _ in range(3):
        scheduler.step()
        stored.append(len(manager.launched("put")))
    assert stored == [MAX_STORES_PER_STEP, 2 * MAX_STORES_PER_STEP, len(requests)]


def test_a_request_that_ends_while_its_store_waits_for_its_turn_is_stored_and_held(manager, scheduler, make_request):
    requests = [make_request(f"r{index}", 8, seed=index) for index in range(MAX_STORES_PER_STEP + 1)]
    for request in requests:
        scheduler.admit(request)
    scheduler.step()
    assert scheduler.finish(requests[-1])
    scheduler.step()
    assert len(manager.launched("put")) == len(requests)
    manager.end()
    scheduler.step()
    assert not scheduler.held


def test_a_preemption_dooms_its_batch_and_others_hear_of_its_end(manager, scheduler, make_request):
    first, second = make_request("a", 8), make_request("b", 8, seed=1)
    for request in (first, second):
        scheduler.admit(request)
    scheduler.step()
    assert scheduler.finish(second)
    scheduler.preempt(first)
    scheduler.step()
    assert any(task.doomed for task in manager.tasks.values())
    assert scheduler.held == {"b"}, "copies may still read its blocks"
    manager.end()
    scheduler.step()
    assert not scheduler.held
    assert not manager.ready


def test_the_answers_to_empty_matches_are_taken(manager, make_connector, scheduler, make_request):
    """A consumer has no stores with which results would be taken."""
    scheduler.connector = consumer = make_connector(may_store=False)
    request = make_request("a", 18)
    manager.unready.add(bytes(consumer._requests.of(request).keys.key(request, 0)))
    assert scheduler.admit(request) == 0
    assert len(manager.ended) == 1
    scheduler.step()
    assert manager.ended == {}


def test_blocks_that_somebody_else_was_still_writing_are_offered_again(manager, scheduler, make_request):
    first, second = make_request("a", 18), make_request("b", 22)
    scheduler.admit(first)
    scheduler.step()
    scheduler.admit(second)
    scheduler.step()
    (_, task) = [task for task in manager.tasks.values() if task.kind == "put"]
    assert len(task.keys) == 1, "the rest of the prompt is on its way"
    scheduler.preempt(first)
    scheduler.step()
    manager.end()
    scheduler.step()
    assert manager.ready == set(task.keys), "a block without its prefix, in this simple cache"
    assert scheduler.finish(second)
    scheduler.step()
    manager.end()
    scheduler.step()
    assert len(manager.ready) == 5
    assert scheduler.held == set()
