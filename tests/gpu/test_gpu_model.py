"""A model on a GPU whose KV is stored, dropped, and loaded again: the benchmark with transformers in its small form."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here"),
    pytest.mark.filterwarnings("default"),  # those of transformers are not ours to turn into errors
]


@pytest.fixture
def bench():
    from benchmarks import bench_gpu_model

    return bench_gpu_model


def test_a_prompt_that_was_dropped_and_brought_back_goes_on_as_if_it_had_stayed(bench) -> None:
    words = ["--tiny", "--device", "cuda", "--lengths", "128", "2048", "--mixed", "512+300"]
    rows = bench.measure(bench.arguments(words), "cuda")
    assert [(row.loaded, row.computed) for row in rows] == [(128, 9), (512, 300), (2048, 9)]
    assert all(row.max_difference < 0.5 for row in rows)


def test_a_load_that_goes_to_other_blocks_is_an_error(bench, monkeypatch) -> None:
    monkeypatch.setattr(bench.Rig, "load", lambda rig, task, ids: rig._run(task, np.roll(ids, 1)))
    from benchmarks.model_rig import WrongResultError

    with pytest.raises(WrongResultError, match="by load"):
        bench.measure(bench.arguments(["--tiny", "--device", "cuda", "--lengths", "128"]), "cuda")


@pytest.mark.parametrize(("num_queries", "num_keys"), [(1, 700), (9, 700), (300, 700), (700, 700)])
def test_attention_is_causal_from_the_last_token_on(bench, num_queries: int, num_keys: int) -> None:
    from benchmarks.paged_model import attend

    query, key, value = (
        torch.randn(1, heads, length, 128, device="cuda", dtype=torch.bfloat16)
        for heads, length in ((8, num_queries), (2, num_keys), (2, num_keys))
    )
    mask = torch.ones(num_queries, num_keys, dtype=torch.bool, device="cuda").tril(num_keys - num_queries)
    keys, values = (states.float().repeat_interleave(4, 1) for states in (key, value))
    scores = (query.float() @ keys.transpose(2, 3) / 128**0.5).masked_fill(~mask, float("-inf"))
    expected = (scores.softmax(-1) @ values).transpose(1, 2)
    found, _ = attend(None, query, key, value, None, scaling=128**-0.5)
    assert torch.allclose(found.float(), expected, atol=0.02)
