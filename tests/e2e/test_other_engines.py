"""vLLM's own connector class, MLA, and an engine whose KV cache cannot be kept."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.vllm
IN_TREE = {"kv_connector": "FlexKVConnectorV1"}
MLA = {"num_gpu_blocks_override": 128, "attention_backend": "CPU_MLA"}
"""Where the CPU has AMX vLLM would take a backend that knows no float32."""


def test_vllms_own_connector_class_works_too(make_engine, prompt):
    engine = make_engine("llama", IN_TREE, block_size=32)
    prompts = [prompt(seed, 300) for seed in (60, 61)]
    cold = engine.answers(prompts)
    engine.drop_gpu_cache()
    outputs = engine.generate(prompts)
    assert [list(output.outputs[0].token_ids) for output in outputs] == cold
    assert [output.num_cached_tokens for output in outputs] == [288, 288]
    engine.drop_gpu_cache()
    engine.poison_host_blocks()
    assert all(answer != expected for answer, expected in zip(engine.answers(prompts), cold, strict=True))


def test_mla_blocks_come_back(make_engine, prompt):
    """Decode and prefill differ a little on this platform, so both runs leave exactly one token to compute."""
    engine = make_engine("mla", **MLA)
    text = prompt(62, 20 * 16 + 1)
    engine.answers([text])
    own = engine.generate([text], logprobs=1)[0]
    engine.drop_gpu_cache()
    ours = engine.generate([text], logprobs=1)[0]
    assert own.num_cached_tokens == ours.num_cached_tokens == 320
    assert list(ours.outputs[0].token_ids) == list(own.outputs[0].token_ids)
    assert ours.outputs[0].cumulative_logprob == pytest.approx(own.outputs[0].cumulative_logprob, abs=1e-4)
    engine.drop_gpu_cache()
    engine.poison_host_blocks()
    poisoned = engine.generate([text], logprobs=1)[0]
    assert poisoned.outputs[0].cumulative_logprob != pytest.approx(own.outputs[0].cumulative_logprob, abs=1e-2)


@pytest.mark.parametrize("class_name", ["FlexKVConnector", "FlexKVConnectorV1"])
def test_an_engine_with_sliding_windows_serves_without_the_cache(make_engine, prompt, class_name, caplog):
    transfer = {"kv_connector": class_name}
    if class_name == "FlexKVConnector":
        transfer["kv_connector_module_path"] = "flexkv.integration.vllm.connector"
    with caplog.at_level("WARNING", logger="flexkv"):
        engine = make_engine("sliding", transfer, caches=False, block_size=32)
    assert "SlidingWindowSpec" in caplog.text
    cold = engine.answers([prompt(63, 300)])
    engine.drop_gpu_cache()
    outputs = engine.generate([prompt(63, 300)])
    assert outputs[0].num_cached_tokens == 0
    assert [list(outputs[0].outputs[0].token_ids)] == cold


def test_two_tensor_parallel_ranks_of_mla_keep_one_copy(make_engine, prompt):
    engine = make_engine("mla", executor="mp", tensor_parallel_size=2, **MLA)
    (pool,) = engine._pools
    assert (engine.manager._engine.model_config.replicas, pool.num_shards) == (2, 1)
    text = prompt(64, 20 * 16 + 1)
    cold = engine.answers([text])
    assert [report.bytes_stored for report in engine.agent_reports()] == [10 * pool.slot_bytes(0)] * 2
    engine.drop_gpu_cache()
    loaded = engine.generate([text])[0]
    assert [report.bytes_loaded for report in engine.agent_reports()] == [20 * pool.slot_bytes(0)] * 2
    assert loaded.num_cached_tokens == 320
    assert [list(loaded.outputs[0].token_ids)] == cold
    engine.check_nothing_is_held()
    engine.drop_gpu_cache()
    engine.poison_host_blocks()
    assert engine.answers([text]) != cold
