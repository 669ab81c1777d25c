"""One engine with FlexKV's own connector class: what is stored comes back, and only that."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.vllm
BLOCK = 32


@pytest.fixture(scope="module")
def engine(make_engine):
    return make_engine("llama", block_size=BLOCK)


@pytest.fixture(autouse=True)
def empty_caches(engine):
    assert engine.llm.reset_prefix_cache(reset_connector=True)
    yield
    engine.settle()
    engine.manager.check_invariants()


def cached_tokens(outputs):
    return [output.num_cached_tokens for output in outputs]


def test_a_prompt_dropped_by_the_engine_comes_back_with_the_same_answer(engine, prompt):
    prompts = [prompt(seed, 300) for seed in range(3)]
    cold = engine.answers(prompts)
    engine.drop_gpu_cache()
    before = engine.stats()["loaded_blocks"]
    outputs = engine.generate(prompts)
    assert [list(output.outputs[0].token_ids) for output in outputs] == cold
    assert cached_tokens(outputs) == [288] * 3
    assert engine.stats()["loaded_blocks"] - before == 27


def test_wrong_bytes_in_the_host_pool_would_be_noticed(engine, prompt):
    prompts = [prompt(seed, 300) for seed in range(3)]
    cold = engine.answers(prompts)
    engine.drop_gpu_cache()
    engine.poison_host_blocks()
    poisoned = engine.answers(prompts)
    assert all(answer != expected for answer, expected in zip(poisoned, cold, strict=True))


def test_a_prompt_of_whole_blocks_leaves_one_block_to_compute(engine, prompt):
    cold = engine.answers([prompt(1, 10 * BLOCK)])
    engine.drop_gpu_cache()
    outputs = engine.generate([prompt(1, 10 * BLOCK)])
    assert cached_tokens(outputs) == [9 * BLOCK]
    assert list(outputs[0].outputs[0].token_ids) == cold[0]


def test_blocks_filled_while_answering_are_kept_too(engine, prompt):
    first = prompt(2, 100)
    (answer,) = engine.answers([first], max_tokens=100)
    engine.drop_gpu_cache()
    outputs = engine.generate([first + answer + prompt(3, 5)])
    assert cached_tokens(outputs) == [6 * BLOCK]  # 199 tokens were computed: the last of the 200 was only sampled


def test_part_of_a_prompt_comes_from_the_gpu_and_the_rest_from_the_host(engine, prompt):
    long = prompt(4, 300)
    cold = engine.answers([long])
    engine.drop_gpu_cache()
    engine.answers([long[:140]])
    outputs = engine.generate([long])
    assert cached_tokens(outputs) == [288]
    assert [list(outputs[0].outputs[0].token_ids)] == cold


def test_salts_do_not_share_blocks(engine, prompt):
    text = prompt(5, 300)
    cold = engine.answers([text], salt="tenant-a")
    engine.drop_gpu_cache()
    assert cached_tokens(engine.generate([text], salt="tenant-b")) == [0]
    assert cached_tokens(engine.generate([text])) == [0]
    engine.drop_gpu_cache()
    outputs = engine.generate([text], salt="tenant-a")
    assert cached_tokens(outputs) == [288]
    assert [list(outputs[0].outputs[0].token_ids)] == cold


def test_a_reset_with_the_connector_empties_the_host_tier(engine, prompt):
    engine.answers([prompt(6, 300)])
    assert engine.llm.reset_prefix_cache(reset_connector=True)
    assert cached_tokens(engine.generate([prompt(6, 300)])) == [0]


def test_requests_that_share_a_prefix_run_at_once(engine, prompt):
    shared = prompt(7, 256)
    prompts = [shared + prompt(seed, 40) for seed in (71, 72, 73)]
    alone = []
    for text in prompts:
        alone += engine.answers([text])
        engine.llm.reset_prefix_cache(reset_connector=True)
    assert engine.answers(prompts) == alone
    engine.drop_gpu_cache()
    outputs = engine.generate(prompts)
    assert [list(output.outputs[0].token_ids) for output in outputs] == alone
    # The first loads 9 blocks; whoever is asked after its load has ended finds the shared ones on the GPU.
    assert all(count >= 256 for count in cached_tokens(outputs))


def test_blocks_whose_store_has_not_ended_are_not_offered(engine, prompt):
    text = prompt(8, 300)
    engine.hold(True)
    try:
        engine.add("first", text)
        engine.until(lambda: not engine.scheduler.running and not engine.scheduler.waiting, "the answer", step=True)
        assert engine.request("first") is not None, "its blocks are held while their store has not ended"
        assert engine.connector.get_num_new_matched_tokens(engine.request("first"), 0) == (0, False)
        assert not engine.llm.reset_prefix_cache(), "held blocks cannot be dropped"
    finally:
        engine.hold(False)
    engine.settle()
    engine.drop_gpu_cache()
    assert cached_tokens(engine.generate([text])) == [288]


def test_asking_twice_costs_no_second_match_and_a_match_not_scheduled_is_released(engine, prompt):
    text = prompt(9, 300)
    engine.answers([text])
    engine.drop_gpu_cache()
    engine.add("again", text)
    request = engine.request("again")
    before = engine.stats()
    answers = {engine.connector.get_num_new_matched_tokens(request, 0) for _ in range(3)}
    assert answers == {(288, True)}
    engine.llm.llm_engine.abort_request(["again"])
    engine.settle()
    after = engine.stats()
    assert after["cancelled_tasks"] == before["cancelled_tasks"] + 1
    assert (after["get_requests"], after["hit_blocks"]) == (before["get_requests"], before["hit_blocks"])
    engine.manager.check_invariants()
    assert engine.stats()["tasks_running"] == 0


def test_an_abort_while_loading_holds_the_blocks_until_the_load_has_ended(engine, prompt):
    text, other = prompt(10, 300), prompt(11, 300)
    cold = engine.answers([text, other])
    engine.drop_gpu_cache()
    num_free = engine.num_free_gpu_blocks()
    engine.hold(True)
    try:
        engine.add("loading", text)
        for _ in range(4):
            engine.llm.llm_engine.step()
        assert engine.request("loading").status.name == "WAITING_FOR_REMOTE_KVS"
        engine.llm.llm_engine.abort_request(["loading"], internal=False)
        for _ in range(4):
            engine.llm.llm_engine.step()
        assert engine.num_free_gpu_blocks() == num_free - 9, "blocks were let go under a load"
    finally:
        engine.hold(False)
    engine.settle()
    assert engine.num_free_gpu_blocks() == num_free
    assert engine.answers([text, other]) == cold
