"""Loads by layers in a real vLLM: layers wait for their own blocks, and what comes out is what a cold run gives."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.vllm
BLOCK = 32
TIMEOUT_S = 0.5
NUM_LAYERS = 4


def transfer(policy="recompute", **extra):
    return {
        "kv_connector": "FlexKVConnector",
        "kv_connector_module_path": "flexkv.integration.vllm.connector",
        "kv_load_failure_policy": policy,
        "kv_connector_extra_config": {"enable_layerwise_transfer": True, **extra},
    }


def watch_waits(engine):
    """Write down, on every rank, which layers of which loads are waited for; returns what reads that."""

    def watch(_worker):
        from vllm.distributed.kv_transfer import get_kv_transfer_group

        client = get_kv_transfer_group().impl.worker._client
        client.waits = []
        real = type(client).wait_for_layer

        def wait(ticket, layer_name):
            client.waits.append((ticket, layer_name))
            return real(client, ticket, layer_name)

        client.wait_for_layer = wait

    def take(_worker):
        from vllm.distributed.kv_transfer import get_kv_transfer_group

        client = get_kv_transfer_group().impl.worker._client
        waits, client.waits[:] = list(client.waits), []
        return waits

    engine.llm.collective_rpc(watch)
    return lambda: engine.llm.collective_rpc(take)


def check_loads_go_by_layers(engine, prompts):
    cold = engine.answers(prompts)
    engine.drop_gpu_cache()
    take = watch_waits(engine)
    (before,) = engine.agent_reports()
    for prompt, answer in zip(prompts, cold, strict=True):
        (output,) = engine.generate([prompt])
        assert (list(output.outputs[0].token_ids), output.num_cached_tokens) == (answer, 288)
    (after,) = engine.agent_reports()
    assert after.loads_done - before.loads_done == len(prompts)
    (waits,) = take()
    tickets = sorted({ticket for ticket, _ in waits})
    layers = [f"model.layers.{index}.self_attn.attn" for index in range(NUM_LAYERS)]
    assert len(tickets) == len(prompts)
    assert waits == [(ticket, layer) for ticket in tickets for layer in layers]
    engine.drop_gpu_cache()
    engine.poison_host_blocks()
    for prompt, answer in zip(prompts, cold, strict=True):
        assert engine.answers([prompt]) != [answer], "what was loaded is what layers compute on"
    engine.check_nothing_is_held()


def test_what_is_loaded_layer_by_layer_gives_the_same_answers_from_a_worker_of_its_own(make_engine, prompt):
    engine = make_engine("llama", transfer(), block_size=BLOCK, executor="mp")
    check_loads_go_by_layers(engine, [prompt(seed, 300) for seed in range(3)])


# ---- the worker in this process, one step ahead; a load that fails fails its request


def test_what_is_loaded_layer_by_layer_gives_the_same_answers_one_step_ahead(make_engine, prompt):
    engine = make_engine("llama", transfer("fail", transfer_timeout_s=TIMEOUT_S), block_size=BLOCK, asynchronous=True)
    check_loads_go_by_layers(engine, [prompt(seed, 300) for seed in range(3)])
    assert engine.llm.reset_prefix_cache(reset_connector=True)
    text = prompt(9, 300)
    (cold,) = engine.answers([text])
    engine.drop_gpu_cache()
    with engine.held():
        engine.add("lost", text)
        (lost,) = engine.finish().values()
    assert (lost.outputs[0].finish_reason, list(lost.outputs[0].token_ids)) == ("error", [])
    engine.check_nothing_is_held()
    assert engine.answers([text]) == [cold]


# ---- the worker in this process; a load that fails is computed again


@pytest.fixture
def engine(make_engine, prompt):
    engine = make_engine("llama", transfer(transfer_timeout_s=TIMEOUT_S), block_size=BLOCK)
    engine.answers([[5] * 40])  # the first step of an engine is slow: its store would time out
    return engine


def test_answers_are_right_also_where_loads_fail(engine, prompt):
    check_loads_go_by_layers(engine, [prompt(seed, 300) for seed in range(3)])
    assert engine.llm.reset_prefix_cache(reset_connector=True)

    # Both requests run in the step of the first one's load: the second finds its blocks in vLLM's own prefix cache.
    shared = prompt(7, 256)
    both = {name: shared + prompt(seed, 100) for name, seed in (("a", 71), ("b", 72))}
    cold = {name: engine.answers([text])[0] for name, text in both.items()}
    for is_lost in (False, True):
        assert engine.llm.reset_prefix_cache(reset_connector=True)
        engine.answers([shared + prompt(8, 10)])
        engine.drop_gpu_cache()
        take = watch_waits(engine)
        stored = engine.stats()["put_blocks"]
        engine.hold(is_lost)
        for name, text in both.items():
            engine.add(name, text)
        outputs = engine.finish()
        engine.hold(False)
        engine.settle()
        assert take() != [[]]
        assert {name[0]: list(output.outputs[0].token_ids) for name, output in outputs.items()} == cold
        assert (engine.stats()["failed_tasks"] > 0) is is_lost
        assert (engine.stats()["put_blocks"] > stored) is not is_lost, "what was computed on lost blocks is not kept"
        engine.drop_gpu_cache()
        assert {name: engine.answers([text])[0] for name, text in both.items()} == cold
        engine.check_nothing_is_held()


def test_an_error_of_ours_between_the_launch_and_the_workers_is_computed_again(engine, prompt, monkeypatch):
    text = prompt(21, 300)
    (cold,) = engine.answers([text])
    engine.drop_gpu_cache()
    engine.poison_host_blocks()
    role = engine.connector.scheduler

    def broken(output):
        assert role._layer_loads.untold_block_ids, "launched, and the workers were not told"
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(role, "_plan_stores", broken)
    assert engine.answers([text]) == [cold]
    assert engine.connector.scheduler is not role
    assert engine.answers([text]) == [cold]


# ---- pieces


@pytest.mark.parametrize("value", ["1", "0", None])
def test_graphs_are_asked_to_be_piecewise_where_layers_may_wait(monkeypatch, value):
    from flexkv.integration.vllm.connector import FlexKVConnector

    monkeypatch.delenv("FLEXKV_ENABLE_LAYERWISE_TRANSFER", raising=False)
    extra = {} if value is None else {"enable_layerwise_transfer": value}
    assert FlexKVConnector.requires_piecewise_for_cudagraph(extra) is (value == "1")
    if value is not None:
        monkeypatch.setenv("FLEXKV_ENABLE_LAYERWISE_TRANSFER", value)
    assert FlexKVConnector.requires_piecewise_for_cudagraph({}) is (value == "1")


@pytest.mark.parametrize("computes_on_load", [False, True])
@pytest.mark.parametrize("call", ["wait_for_layer", "record_step"])
def test_an_error_of_ours_turns_the_rank_off_unless_the_step_computes_on_a_load(monkeypatch, call, computes_on_load):
    from flexkv.integration.vllm.scheduler_role import StepNotice
    from flexkv.integration.vllm.vllm_v1_adapter import FlexKVConnectorV1Impl
    from flexkv.integration.vllm.worker_connector import FlexKVWorkerConnector

    def broken(*args):
        raise RuntimeError("broken on purpose")

    impl = object.__new__(FlexKVConnectorV1Impl)
    impl._worker = first = FlexKVWorkerConnector(None)
    monkeypatch.setattr(FlexKVWorkerConnector, call, broken)
    monkeypatch.setattr(FlexKVWorkerConnector, "computes_on_load", computes_on_load)
    if computes_on_load:
        with pytest.raises(RuntimeError, match="on purpose"):
            impl.wait_for_layer_load("model.layers.0") or impl.wait_for_save()
        assert impl.worker is first
    else:
        impl.wait_for_layer_load("model.layers.0")
        assert impl.worker is first, "it is not asked to wait"
        if call == "record_step":
            impl.wait_for_save()
            assert impl.worker is not first
    monkeypatch.undo()
    impl.worker.bind_step(StepNotice(1, True, layer_load=frozenset({3})))
    assert impl.get_block_ids_with_load_errors() == {3}, "loads that come are reported as lost"
