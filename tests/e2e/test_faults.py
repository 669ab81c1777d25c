"""Preemption, failed loads, aborts and resets on a real vLLM, each held at a gate in the middle of a copy.

The GPU cache has 15 blocks, which two of these requests outgrow; the host tier 24, which four of them outgrow. Every
test runs with the worker in the scheduler's process, in one of its own, and with asynchronous scheduling.
"""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest

pytestmark = pytest.mark.vllm
BLOCK = 32
SEEDS = (50, 51, 52, 53)
PROMPT_TOKENS = 200
LOADED_TOKENS = 192
ANSWER_TOKENS = 150
SHORT = 12
TIMEOUT_S = 0.3
BOUND_S = 20.0
OPTIONS = {"block_size": BLOCK, "max_model_len": 448, "disable_log_stats": False}


@pytest.fixture(scope="module")
def texts(prompt):
    return [prompt(seed, PROMPT_TOKENS) for seed in SEEDS]


@pytest.fixture(scope="module")
def expected(model, texts):
    """The answers of a vLLM without FlexKV that has room for all."""
    from vllm import LLM, SamplingParams

    llm = LLM(
        model=str(model("llama")), dtype="float32", enforce_eager=True, num_gpu_blocks_override=96, seed=0, **OPTIONS
    )
    parameters = SamplingParams(temperature=0, max_tokens=ANSWER_TOKENS, ignore_eos=True)
    outputs = llm.generate([{"prompt_token_ids": text} for text in texts], parameters, use_tqdm=False)
    llm.llm_engine.engine_core.shutdown()
    return [list(output.outputs[0].token_ids) for output in outputs]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param({}, id="uni"),
        pytest.param({"executor": "mp"}, id="mp"),
        pytest.param({"asynchronous": True}, id="async"),
        pytest.param({"executor": "mp", "asynchronous": True}, id="async-mp", marks=pytest.mark.long),
    ],
)
def shared_engine(request, expected, make_engine):
    transfer = {
        "kv_connector": "FlexKVConnector",
        "kv_connector_module_path": "flexkv.integration.vllm.connector",
        "kv_connector_extra_config": {"num_cpu_blocks": 24},
    }
    return make_engine("llama", transfer, num_gpu_blocks_override=16, **OPTIONS, **request.param)


@pytest.fixture
def engine(shared_engine):
    assert shared_engine.llm.reset_prefix_cache(reset_connector=True)
    yield shared_engine
    shared_engine.check_nothing_is_held()


@pytest.fixture
def recompute(engine, monkeypatch):
    """What kv_load_failure_policy='recompute' sets."""
    monkeypatch.setattr(engine.scheduler, "recompute_kv_load_failures", True)


def tokens_of(output):
    return list(output.outputs[0].token_ids)


def keep(engine, *texts):
    """Have the prompts in the host tier only."""
    for text in texts:
        engine.answers([text], max_tokens=1)
    engine.drop_gpu_cache()


def start_load(engine, text, request_id="loading", max_tokens=SHORT):
    """Return once the request waits for its load, which is held."""
    engine.add(request_id, text, max_tokens)
    is_loading = lambda: engine.request(request_id).status.name == "WAITING_FOR_REMOTE_KVS"  # noqa: E731
    engine.until(is_loading, "the load", step=True)
    engine.until(lambda: engine.manager.num_running > 0, "its launch", step=True)


def block_ids(engine, request):
    return engine.scheduler.kv_cache_manager.get_block_ids(request.request_id)[0]


# ---- preemption


def test_preempted_requests_answer_as_without_flexkv(engine, texts, expected):
    before, failed = engine.num_preemptions(), engine.stats()["failed_tasks"]
    assert engine.answers(texts, max_tokens=ANSWER_TOKENS) == expected
    assert engine.num_preemptions() > before, "the GPU cache was large enough: the test shows nothing"
    engine.drop_gpu_cache()
    before, loaded = engine.num_preemptions(), engine.stats()["loaded_blocks"]
    assert engine.answers(texts, max_tokens=ANSWER_TOKENS) == expected
    assert engine.num_preemptions() > before
    assert engine.stats()["loaded_blocks"] > loaded
    assert engine.stats()["failed_tasks"] == failed


def test_a_store_whose_blocks_preemption_took_is_never_committed(engine, texts, expected):
    """The copy starts only after vLLM has filled the blocks with another request's tokens."""
    before, stored_blocks = engine.num_preemptions(), engine.stats()["put_blocks"]
    with engine.held():
        engine.add("first", texts[0], ANSWER_TOKENS)
        engine.add("second", texts[1], ANSWER_TOKENS)
        both = stored_blocks + 2 * LOADED_TOKENS // BLOCK
        engine.until(lambda: engine.stats()["put_blocks"] == both, "both stores", step=True)
        first, second = engine.request("first"), engine.request("second")
        stored = block_ids(engine, second)[: LOADED_TOKENS // BLOCK]

        def overwritten():
            full = first.num_computed_tokens // BLOCK
            return not set(stored).isdisjoint(block_ids(engine, first)[:full])

        engine.until(overwritten, "another request's tokens in the blocks", step=True)
        assert second.num_preemptions == 1
    outputs = engine.finish()
    assert engine.num_preemptions() == before + 1, "vLLM counts it with the request's next token"
    assert [tokens_of(outputs["first"]), tokens_of(outputs["second"])] == expected[:2]
    engine.settle()
    engine.drop_gpu_cache()
    again = engine.generate([texts[1]], max_tokens=ANSWER_TOKENS)
    assert tokens_of(again[0]) == expected[1]
    assert again[0].num_cached_tokens == LOADED_TOKENS, "stored again after it was computed again"


# ---- loads that fail


def test_a_load_that_fails_is_computed_again_if_the_engine_may(engine, recompute, texts, expected):
    keep(engine, texts[0])
    failed = engine.stats()["failed_tasks"]
    with engine.held(), engine.transfers_bounded_by(TIMEOUT_S):
        start_load(engine, texts[0])
        outputs = engine.finish()
    assert tokens_of(outputs["loading"]) == expected[0][:SHORT]
    assert engine.stats()["failed_tasks"] == failed + 1
    engine.settle()
    keep(engine, texts[0])
    assert engine.generate([texts[0]])[0].num_cached_tokens == LOADED_TOKENS


def test_a_load_that_fails_ends_its_request_by_default_and_only_that(engine, texts, expected):
    keep(engine, texts[0])
    start_s = time.monotonic()
    with engine.held(), engine.transfers_bounded_by(TIMEOUT_S):
        start_load(engine, texts[0])
        engine.add("other", texts[1])
        outputs = engine.finish()
    assert time.monotonic() - start_s < BOUND_S
    assert (outputs["loading"].outputs[0].finish_reason, tokens_of(outputs["loading"])) == ("error", [])
    assert tokens_of(outputs["other"]) == expected[1][:SHORT]
    engine.check_nothing_is_held()
    engine.drop_gpu_cache()
    again = engine.generate([texts[0]])[0]
    assert (again.num_cached_tokens, tokens_of(again)) == (LOADED_TOKENS, expected[0][:SHORT])


def test_what_was_offered_stays_in_the_host_tier_until_it_is_loaded(engine, texts, expected):
    """By default vLLM fails a request whose load fails; an offer is pinned, however much is stored meanwhile (D15)."""
    keep(engine, texts[0])
    failed, stored = engine.stats()["failed_tasks"], engine.stats()["put_blocks"]
    with engine.held():
        start_load(engine, texts[0])
        engine.add("second", texts[1])
        engine.until(lambda: engine.stats()["put_blocks"] > stored, "a store", step=True)
        task_id, room = engine.manager.put_match(np.arange(64 * BLOCK))
        assert not room.all(), "the tier had room: the test shows nothing"
        engine.manager.cancel(task_id)
    outputs = engine.finish()
    assert outputs["loading"].num_cached_tokens == LOADED_TOKENS
    assert tokens_of(outputs["loading"]) == expected[0][:SHORT]
    assert tokens_of(outputs["second"]) == expected[1][:SHORT]
    assert engine.stats()["failed_tasks"] == failed


def test_a_worker_frozen_for_longer_than_a_transfer_may_take(engine, recompute, texts, expected):
    if not hasattr(engine.core.model_executor, "workers"):
        pytest.skip("the worker is this process")
    keep(engine, texts[0])
    (worker,) = engine.core.model_executor.workers
    failed = engine.stats()["failed_tasks"]

    def thaw():
        try:
            engine.until(lambda: engine.stats()["slots_quarantined"] > 0, "the load to be late")
        finally:
            os.kill(worker.proc.pid, signal.SIGCONT)

    with engine.transfers_bounded_by(TIMEOUT_S):
        engine.add("loading", texts[0])
        os.kill(worker.proc.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, worker.proc.pid, os.WSTOPPED)  # until then its copy agent may still copy
        thread = threading.Thread(target=thaw)
        thread.start()
        outputs = engine.finish()
        thread.join(BOUND_S)
    assert tokens_of(outputs["loading"]) == expected[0][:SHORT]
    assert engine.stats()["failed_tasks"] == failed + 1


# ---- aborts


def test_an_abort_in_mid_load_holds_the_blocks_until_the_load_has_ended(engine, texts, expected):
    keep(engine, texts[0])
    num_free = engine.num_free_gpu_blocks()
    with engine.held():
        start_load(engine, texts[0])
        engine.llm.llm_engine.abort_request(["loading"])
        for _ in range(4):
            engine.llm.llm_engine.step()
        assert engine.num_free_gpu_blocks() == num_free - LOADED_TOKENS // BLOCK, "blocks were let go under a load"
    engine.check_nothing_is_held()
    assert engine.answers([texts[0]]) == [expected[0][:SHORT]]


def test_an_abort_in_mid_store_holds_the_blocks_until_the_store_has_ended(engine, texts, expected):
    with engine.held():
        engine.add("storing", texts[0], ANSWER_TOKENS)
        engine.until(lambda: engine.manager.num_running > 0, "the store", step=True)
        num_free = engine.num_free_gpu_blocks()
        engine.llm.llm_engine.abort_request(["storing"])
        for _ in range(4):
            engine.llm.llm_engine.step()
        assert engine.num_free_gpu_blocks() == num_free, "blocks were let go under a store"
    engine.check_nothing_is_held()
    engine.drop_gpu_cache()
    again = engine.generate([texts[0]])[0]
    assert (again.num_cached_tokens, tokens_of(again)) == (LOADED_TOKENS, expected[0][:SHORT])


def test_an_abort_while_waiting_lets_the_match_go(engine, texts, expected):
    """Its blocks are in the host tier, but the GPU has no room for it."""
    keep(engine, texts[2])
    engine.add("first", texts[0], ANSWER_TOKENS)
    engine.add("second", texts[1], ANSWER_TOKENS)
    engine.until(lambda: len(engine.scheduler.running) == 2, "two running requests", step=True)
    cancelled = engine.stats()["cancelled_tasks"]
    engine.add("waiting", texts[2])
    engine.until(lambda: engine.stats()["cancelled_tasks"] > cancelled, "a match without room", step=True)
    assert engine.request("waiting").status.name == "WAITING"
    engine.llm.llm_engine.abort_request(["waiting"])
    engine.manager.check_invariants()
    outputs = engine.finish()
    assert [tokens_of(outputs["first"]), tokens_of(outputs["second"])] == expected[:2]


# ---- resets


def test_a_reset_empties_the_host_tier_under_loads_and_stores_in_flight(engine, texts, expected):
    keep(engine, texts[0])
    with engine.held(), engine.transfers_bounded_by(TIMEOUT_S):
        with engine.transfers_bounded_by(BOUND_S):
            start_load(engine, texts[0])
            engine.add("storing", texts[1])
            engine.until(lambda: engine.manager.num_running > 1, "the store", step=True)
        start_s = time.monotonic()
        assert not engine.llm.reset_prefix_cache(reset_connector=True), "requests hold blocks of the GPU"
        assert time.monotonic() - start_s < BOUND_S / 2
    outputs = engine.finish()
    assert tokens_of(outputs["loading"]) == expected[0][:SHORT], "a running load runs on"
    assert tokens_of(outputs["storing"]) == expected[1][:SHORT]
    engine.check_nothing_is_held()
    engine.drop_gpu_cache()
    outputs = engine.generate([texts[0], texts[1]])
    assert [output.num_cached_tokens for output in outputs] == [0, 0]
    assert [tokens_of(output) for output in outputs] == [answer[:SHORT] for answer in expected[:2]]
