"""How fast a real vLLM computes prompts, as the scheduler role measures it beside what the worker measures itself."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import IN_TREE, OURS

pytestmark = pytest.mark.vllm
PROMPT_TOKENS = (300, 500, 301, 502)


def time_steps(worker):
    """Have the worker note (tokens, seconds) of each step it runs."""
    import time

    runner, noted = worker.model_runner, []
    real = runner.execute_model

    def timed(scheduler_output, *args, **options):
        begin_s = time.perf_counter()
        output = real(scheduler_output, *args, **options)
        noted.append((scheduler_output.total_num_scheduled_tokens, time.perf_counter() - begin_s))
        return output

    runner.execute_model, runner.noted = timed, noted


def noted_steps(worker):
    return list(worker.model_runner.noted)


@pytest.mark.parametrize(
    ("transfer", "options"),
    [(OURS, {}), (IN_TREE, {"asynchronous": True}), (OURS, {"executor": "mp", "asynchronous": True})],
    ids=["uni", "async, in-tree class", "async-mp"],
)
def test_each_prompt_is_timed_and_takes_no_less_time_than_the_worker_says(
    make_engine, prompt, tmp_path, monkeypatch, transfer, options
):
    settings = {"ssd_cache_dir": str(tmp_path), "ssd_cache_gb": "64MiB"}
    engine = make_engine("llama", transfer | {"kv_connector_extra_config": settings}, block_size=32, **options)
    samples = []
    clock = engine.connector.scheduler._prefill_clock
    monkeypatch.setattr(clock, "_note", lambda num_tokens, seconds: samples.append((num_tokens, seconds)))
    engine.llm.collective_rpc(time_steps)
    for seed, num_tokens in enumerate(PROMPT_TOKENS):  # after each come steps without tokens, whose output may be late
        engine.answers([prompt(80 + seed, num_tokens)], max_tokens=3)
    (steps,) = engine.llm.collective_rpc(noted_steps)
    prefills = [(num_tokens, seconds) for num_tokens, seconds in steps if num_tokens in PROMPT_TOKENS]
    assert [num_tokens for num_tokens, _ in samples] == [num_tokens for num_tokens, _ in prefills]
    assert [num_tokens for num_tokens, _ in samples] == list(PROMPT_TOKENS)
    for (num_tokens, seconds), (_, worker_s) in zip(samples, prefills, strict=True):
        # A busy machine may take the output before late, and time this step from then. Another step's output, taken
        # for this one's, is there at once.
        assert seconds >= worker_s / 4, f"a step of {num_tokens} tokens"
    engine.check_nothing_is_held()
