"""A load that fails, or an error of ours in the middle of one, never ends in wrong bytes: vLLM computes them again."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.vllm
BLOCK = 32
TIMEOUT_S = 0.5


@pytest.fixture
def engine(make_engine):
    transfer = {
        "kv_connector": "FlexKVConnector",
        "kv_connector_module_path": "flexkv.integration.vllm.connector",
        "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": {"transfer_timeout_s": TIMEOUT_S},
    }
    engine = make_engine("llama", transfer, block_size=BLOCK)
    engine.answers([[5] * 40])  # the first step of an engine is slow: its store would time out
    return engine


def start_held_load(engine, text):
    """Returns with the request waiting for a load that cannot start."""
    engine.hold(True)
    engine.add("loading", text)
    for _ in range(3):
        engine.llm.llm_engine.step()
    assert engine.request("loading").status.name == "WAITING_FOR_REMOTE_KVS"


def finish(engine):
    """Steps until the only request has its answer; returns its tokens."""
    answers = []

    def step():
        answers.extend(output for output in engine.llm.llm_engine.step() if output.finished)
        return bool(answers)

    engine.until(step, "the answer")
    return list(answers[0].outputs[0].token_ids)


def test_a_load_that_times_out_is_computed_again(engine, prompt):
    text = prompt(20, 300)
    (cold,) = engine.answers([text])
    engine.drop_gpu_cache()
    start_held_load(engine, text)
    assert finish(engine) == cold
    assert engine.stats()["failed_tasks"] >= 1
    engine.hold(False)
    engine.settle()
    engine.manager.check_invariants()
    engine.drop_gpu_cache()
    outputs = engine.generate([text])
    assert (outputs[0].num_cached_tokens, list(outputs[0].outputs[0].token_ids)) == (288, cold)


def test_an_error_of_ours_in_the_middle_of_a_load_is_computed_again(engine, prompt, monkeypatch):
    text = prompt(21, 300)
    (cold,) = engine.answers([text])
    engine.drop_gpu_cache()
    engine.poison_host_blocks()
    start_held_load(engine, text)

    def broken():
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(engine.connector.scheduler, "_note_results", broken)
    assert finish(engine) == cold
    engine.settle()
    assert engine.answers([text]) == [cold]


def test_an_error_of_ours_turns_the_cache_off_and_the_engine_serves_on(engine, prompt, monkeypatch, caplog):
    text = prompt(12, 300)
    cold = engine.answers([text])
    engine.drop_gpu_cache()

    def broken(*args, **kwargs):
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(engine.connector.scheduler, "_match", broken)
    with caplog.at_level("WARNING", logger="flexkv"):
        assert engine.answers([text]) == cold
        assert engine.answers([prompt(13, 300)])
    assert len([record for record in caplog.records if "turned off" in record.message]) == 1
    assert engine.connector.scheduler.stats() is None
