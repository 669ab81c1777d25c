"""Long prompts in chunks, and a GPU cache so small that requests are preempted."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.vllm
BLOCK = 32


def test_a_long_prompt_is_stored_chunk_by_chunk_and_comes_back(make_engine, prompt):
    engine = make_engine("llama", block_size=BLOCK, max_num_batched_tokens=128, max_num_seqs=4)
    prompts = [prompt(seed, 700) for seed in (30, 31)]
    engine.add("probe", prompts[0])
    stored = []
    while engine.request("probe").num_computed_tokens < 600:
        engine.llm.llm_engine.step()
        stored.append(engine.stats()["put_blocks"])
    assert stored[0] == 4
    assert stored == sorted(stored)
    assert len(set(stored)) > 3, "blocks were not stored while the prompt was computed"
    engine.until(lambda: not engine.scheduler.has_requests(), "the probe", step=True)
    cold = engine.answers(prompts)
    engine.drop_gpu_cache()
    outputs = engine.generate(prompts)
    assert [list(output.outputs[0].token_ids) for output in outputs] == cold
    assert [output.num_cached_tokens for output in outputs] == [672, 672]
    engine.manager.check_invariants()


def test_preempted_requests_leave_nothing_wrong_behind(make_engine, prompt, monkeypatch):
    engine = make_engine("llama", block_size=BLOCK, num_gpu_blocks_override=34)
    prompts = [prompt(seed, 200) for seed in (40, 41, 42, 43)]
    alone = []
    for text in prompts:
        alone += engine.answers([text], max_tokens=150)
        assert engine.llm.reset_prefix_cache(reset_connector=True)

    preempted = []
    real = engine.scheduler._preempt_request

    def counting(request, *args, **kwargs):
        preempted.append(request.request_id)
        return real(request, *args, **kwargs)

    monkeypatch.setattr(engine.scheduler, "_preempt_request", counting)
    assert engine.answers(prompts, max_tokens=150) == alone
    assert preempted, "the GPU cache was large enough: the test shows nothing"
    engine.manager.check_invariants()
    for text, expected in zip(prompts, alone, strict=True):
        engine.drop_gpu_cache()
        outputs = engine.generate([text], max_tokens=150)
        assert list(outputs[0].outputs[0].token_ids) == expected
        assert outputs[0].num_cached_tokens == 192


def test_stores_of_a_preempted_request_are_doomed(make_engine, prompt, monkeypatch):
    engine = make_engine("llama", block_size=BLOCK, num_gpu_blocks_override=34)
    prompts = [prompt(seed, 200) for seed in (50, 51, 52, 53)]
    alone = []
    for text in prompts:
        alone += engine.answers([text], max_tokens=150)
        assert engine.llm.reset_prefix_cache(reset_connector=True)
    doomed = []
    real = engine.manager.doom
    monkeypatch.setattr(engine.manager, "doom", lambda ids: (doomed.extend(ids), real(ids)))
    monkeypatch.setattr(engine.connector.scheduler, "has_pending_block_frees", lambda: False)
    engine.hold(True)  # no store ends before its request is preempted
    from vllm import SamplingParams

    parameters = SamplingParams(temperature=0, max_tokens=150, ignore_eos=True)
    for index, text in enumerate(prompts):
        engine.llm.llm_engine.add_request(str(index), {"prompt_token_ids": text}, parameters)
    engine.until(lambda: bool(doomed), "a preemption", step=True)
    engine.hold(False)
    answers = {}

    def step():
        for output in engine.llm.llm_engine.step():
            if output.finished:
                answers[output.request_id] = list(output.outputs[0].token_ids)
        return len(answers) == len(prompts)

    engine.until(step, "the answers")
    engine.settle()
    assert [answers[str(index)] for index in range(len(prompts))] == alone
    engine.manager.check_invariants()
    for text, expected in zip(prompts, alone, strict=True):
        engine.drop_gpu_cache()
        assert engine.answers([text], max_tokens=150) == [expected]
