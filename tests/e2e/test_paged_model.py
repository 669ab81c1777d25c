"""The benchmark with transformers on a CPU: its paged model is right, and it sees what is not brought back rightly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import bench_gpu_model as bench
from benchmarks.block_table import BlockTable
from benchmarks.model_rig import WrongResultError
from benchmarks.paged_model import SHAPES, PagedModel, make_model

pytestmark = pytest.mark.vllm

WORDS = ["--model", "tiny", "--tiny", "--device", "cpu", "--rounds", "1"]


def options_of(*words: str):
    found = bench.arguments([*WORDS, *words])
    found.rounds = 1
    return found


@pytest.fixture
def model():
    return make_model(SHAPES["tiny"], "cpu", torch.float32, seed=3)


def test_pages_in_scattered_blocks_give_what_transformers_own_cache_gives(model) -> None:
    tokens = np.random.default_rng(1).integers(0, 1024, 150)
    blocks = BlockTable(np.random.default_rng(2).permutation(40)[:12].astype(np.int64), 16)
    steps: list[int] = []
    paged = PagedModel(model, 40, 16, steps.append)
    paged.poison(np.arange(40))
    logits = paged.prefill(tokens, 0, blocks, chunk=64)
    found, _ = paged.decode(tokens, logits, blocks, 8, 5)
    assert steps == list(range(1, 1 + 1 + 2 + 7))

    model.set_attn_implementation("eager")
    with torch.inference_mode():
        told = model(input_ids=torch.from_numpy(tokens)[None]).logits[0, -1]
        expected = model.generate(
            torch.from_numpy(tokens)[None],
            attention_mask=torch.ones(1, 150, dtype=torch.long),
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    assert torch.allclose(logits, told, atol=1e-4)
    assert found == expected[0, 150:].tolist()


def test_a_prompt_that_was_dropped_and_brought_back_goes_on_as_if_it_had_stayed() -> None:
    rows = bench.measure(options_of("--lengths", "128", "--mixed", "64+40"), "cpu")
    assert [(row.loaded, row.computed) for row in rows] == [(64, 40), (128, 9)]
    for row in rows:
        assert row.load_mib == row.loaded / 16 * 48 / 1024
        assert row.layerwise_ms > 0
        assert 0 <= row.max_difference < 1e-4


def other_blocks(rig, task, block_ids):
    rig._run(task, np.roll(block_ids, 1))


def no_blocks(rig, task, block_ids):
    rig.manager.cancel(task)


def other_blocks_by_layers(rig, task, block_ids):
    return BEGIN_LAYERWISE(rig, task, np.roll(block_ids, 1))


BEGIN_LAYERWISE = bench.Rig.begin_layerwise


@pytest.mark.parametrize(
    ("verb", "load"),
    [("load", other_blocks), ("load", no_blocks), ("begin_layerwise", other_blocks_by_layers)],
)
def test_a_load_that_goes_elsewhere_or_nowhere_is_an_error(monkeypatch, verb, load) -> None:
    monkeypatch.setattr(bench.Rig, verb, load)
    with pytest.raises(WrongResultError, match="by l"):
        bench.measure(options_of("--lengths", "128"), "cpu")


def test_bytes_are_compared_also_where_logits_do_not_show_them(monkeypatch) -> None:
    real = bench.Trial.own_hit
    monkeypatch.setattr(bench.Trial, "load", lambda trial: real(trial))
    with pytest.raises(WrongResultError, match="other bytes by load"):
        bench.measure(options_of("--lengths", "128"), "cpu")


@pytest.mark.parametrize("words", [["--lengths", "100"], ["--mixed", "64+0"]])
def test_what_is_no_whole_number_of_blocks_is_refused(words) -> None:
    with pytest.raises(ValueError, match="blocks of 16 tokens"):
        bench.cases_of(options_of(*words))
