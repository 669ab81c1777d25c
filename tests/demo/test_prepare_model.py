"""The conversion of the demo's model: names and the order of rotary rows."""

from __future__ import annotations

import numpy as np
import pytest

from demo.prepare_model import huggingface_name, unpermute_rotary_rows


def permuted_as_gguf_does(weight: np.ndarray, num_heads: int) -> np.ndarray:
    rows, hidden = weight.shape
    halves = weight.reshape(num_heads, 2, rows // num_heads // 2, hidden)
    return halves.swapaxes(1, 2).reshape(rows, hidden)


@pytest.mark.parametrize("num_heads", [1, 3])
def test_undoing_the_row_order_gives_the_original_projection(num_heads: int) -> None:
    weight = np.arange(num_heads * 8 * 5, dtype=np.float32).reshape(num_heads * 8, 5)
    stored = permuted_as_gguf_does(weight, num_heads)
    assert not np.array_equal(stored, weight)
    assert np.array_equal(unpermute_rotary_rows(stored, num_heads), weight)


def test_tensors_get_the_names_that_llama_has() -> None:
    assert huggingface_name("blk.3.attn_q.weight") == "model.layers.3.self_attn.q_proj.weight"
    assert huggingface_name("token_embd.weight") == "model.embed_tokens.weight"


def test_a_tensor_of_another_architecture_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"blk\.0\.ssm_a\.weight"):
        huggingface_name("blk.0.ssm_a.weight")
