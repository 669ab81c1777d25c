"""Loads by layers in a real vLLM: layers wait for their own blocks, and what comes out is what a cold run gives."""

from __future__ import annotations

import pytest

from flexkv.integration.vllm.connector import FlexKVConnector

pytestmark = pytest.mark.vllm
BLOCK = 32
TIMEOUT_S = 0.5


def transfer(policy="recompute", **extra):
    return {
        "kv_connector": "FlexKVConnector",
        "kv_connector_module_path": "flexkv.integration.vllm.connector",
        "kv_load_failure_policy": policy,
        "kv_connector_extra_config": {"enable_layerwise_transfer": True, **extra},
    }


@pytest.mark.parametrize("executor,asynchronous", [("uni", False), ("uni", True)])
def test_failed(make_engine, prompt, executor, asynchronous):
    engine = make_engine(
        "llama", transfer(transfer_timeout_s=TIMEOUT_S), block_size=BLOCK, executor=executor, asynchronous=asynchronous
    )
    engine.answers([[5] * 40])
    text = prompt(20, 300)
    (cold,) = engine.answers([text])
    engine.drop_gpu_cache()
    engine.poison_host_blocks()
    outputs = engine.generate([text])
    print(
        "poisoned",
        list(outputs[0].outputs[0].token_ids) == cold,
        outputs[0].num_cached_tokens,
        engine.agent_reports()[0].loads_done,
    )
    assert engine.llm.reset_prefix_cache(reset_connector=True)
    (cold,) = engine.answers([text])
    engine.drop_gpu_cache()
    engine.hold(True)
    engine.add("a", text)
    out = engine.finish()
    engine.hold(False)
    (o,) = out.values()
    print(executor, asynchronous, list(o.outputs[0].token_ids), cold, o.num_cached_tokens)
    assert list(o.outputs[0].token_ids) == cold
