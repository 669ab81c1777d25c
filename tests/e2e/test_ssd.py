"""A real vLLM across a restart: what one engine stored, the next one brings back from SSD, and only right bytes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.e2e.conftest import IN_TREE, OURS

pytestmark = pytest.mark.vllm
BLOCK = 32
NUM_PROMPTS = 3
PROMPT_BLOCKS = 9  # of 300 tokens


@pytest.fixture
def prompts(prompt):
    return [prompt(seed, 300) for seed in range(70, 70 + NUM_PROMPTS)]


def with_ssd(transfer, directory, **options):
    settings = {"ssd_cache_dir": str(directory), "ssd_cache_gb": "64MiB"} | options
    return transfer | {"kv_load_failure_policy": "recompute", "kv_connector_extra_config": settings}


def cached_tokens(outputs):
    return [output.num_cached_tokens for output in outputs]


def tokens_of(outputs):
    return [list(output.outputs[0].token_ids) for output in outputs]


def data_file(directory: Path) -> Path:
    (found,) = directory.rglob("data")
    return found


@pytest.mark.parametrize(
    ("transfer", "executor"),
    [
        pytest.param(OURS, "uni", id="our class-uni"),
        pytest.param(IN_TREE, "mp", id="in-tree class-mp"),
        pytest.param(OURS, "mp", id="our class-mp", marks=pytest.mark.long),
        pytest.param(IN_TREE, "uni", id="in-tree class-uni", marks=pytest.mark.long),
    ],
)
def test_the_next_engine_brings_prompts_back_with_the_same_answers(make_engine, prompts, tmp_path, transfer, executor):
    engine = make_engine("llama", with_ssd(transfer, tmp_path), block_size=BLOCK, executor=executor)
    cold = engine.answers(prompts)
    engine = make_engine("llama", with_ssd(transfer, tmp_path), block_size=BLOCK, executor=executor)
    outputs = engine.generate(prompts)
    assert tokens_of(outputs) == cold
    assert cached_tokens(outputs) == [PROMPT_BLOCKS * BLOCK] * NUM_PROMPTS
    assert engine.stats()["ssd_staged_blocks"] == PROMPT_BLOCKS * NUM_PROMPTS
    engine.check_nothing_is_held()


def test_blocks_are_loaded_while_they_are_read_if_that_is_asked_for(make_engine, prompts, tmp_path):
    transfer = with_ssd(OURS, tmp_path, ssd_pipelined_loads=True)
    cold = make_engine("llama", transfer, block_size=BLOCK).answers(prompts)
    engine = make_engine("llama", transfer, block_size=BLOCK)
    outputs = engine.generate(prompts)
    assert tokens_of(outputs) == cold
    assert cached_tokens(outputs) == [PROMPT_BLOCKS * BLOCK] * NUM_PROMPTS
    engine.check_nothing_is_held()


@pytest.mark.parametrize("pipelined", [False, True], ids=["staged", "pipelined"])
def test_bytes_that_changed_on_disk_change_no_answer(make_engine, prompts, tmp_path, pipelined):
    transfer = with_ssd(OURS, tmp_path, ssd_pipelined_loads=pipelined)
    engine = make_engine("llama", transfer, block_size=BLOCK)
    cold = engine.answers(prompts)
    engine.close()
    bytes_of = bytearray(data_file(tmp_path).read_bytes())
    source = random.Random(7)
    for position in source.sample(range(len(bytes_of)), len(bytes_of) // 2000):
        bytes_of[position] ^= 1 << source.randrange(8)
    data_file(tmp_path).write_bytes(bytes_of)
    engine = make_engine("llama", transfer, block_size=BLOCK)
    assert engine.answers(prompts) == cold
    assert engine.stats()["ssd_bad_blocks"] > 0
    engine.check_nothing_is_held()


def test_what_was_reset_is_not_found_after_a_restart(make_engine, prompts, tmp_path):
    engine = make_engine("llama", with_ssd(OURS, tmp_path), block_size=BLOCK)
    cold = engine.answers(prompts)
    assert engine.llm.reset_prefix_cache(reset_connector=True)
    engine = make_engine("llama", with_ssd(OURS, tmp_path), block_size=BLOCK)
    outputs = engine.generate(prompts)
    assert tokens_of(outputs) == cold
    assert cached_tokens(outputs) == [0] * NUM_PROMPTS


def test_a_directory_in_use_leaves_the_second_engine_without_an_ssd_tier(make_engine, prompts, tmp_path, prompt):
    from flexkv import _core

    engine = make_engine("llama", with_ssd(OURS, tmp_path), block_size=BLOCK)
    cold = engine.answers(prompts)
    name = data_file(tmp_path).parent.name
    slot_bytes = engine.manager._engine._ssd.store.slot_bytes
    engine.close()
    holder = _core.SsdStore([str(tmp_path)], name, "another engine", [slot_bytes], BLOCK, 64 << 20)
    engine = make_engine("llama", with_ssd(OURS, tmp_path), block_size=BLOCK)
    outputs = engine.generate(prompts)
    assert tokens_of(outputs) == cold
    assert cached_tokens(outputs) == [0] * NUM_PROMPTS
    assert holder.stop(10)
