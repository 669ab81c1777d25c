"""Layouts: shapes and strides agree with numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexkv.common.storage import DeviceType, KVCacheLayout, KVCacheLayoutType, StorageHandle
from flexkv.errors import ConfigError

SIZES = st.integers(1, 3)


@given(st.sampled_from(list(KVCacheLayoutType)), SIZES, SIZES, SIZES, SIZES, SIZES, st.booleans())
def test_strides_are_those_of_a_contiguous_array_of_the_shape(
    layout_type: KVCacheLayoutType, layers: int, blocks: int, tokens: int, heads: int, dim: int, is_mla: bool
) -> None:
    layout = KVCacheLayout(layout_type, layers, blocks, tokens, heads, dim, is_mla)
    array = np.empty(layout.kv_shape, dtype=np.uint8)
    outer = (
        {"layer": 0, "kv": 1, "block": 2}
        if layout_type is KVCacheLayoutType.LAYERWISE
        else {"block": 0, "layer": 1, "kv": 2}
    )
    assert layout.get_layer_stride() == array.strides[outer["layer"]]
    assert layout.get_kv_stride() == array.strides[outer["kv"]]
    assert layout.get_block_stride() == array.strides[outer["block"]]
    assert layout.get_total_elements() == array.size
    assert layout.get_elements_per_block() == array.size // blocks
    assert layout.get_chunk_size() == tokens * heads * dim


def test_the_older_names_of_the_types_are_synonyms() -> None:
    assert KVCacheLayoutType.LAYERFIRST is KVCacheLayoutType.LAYERWISE
    assert KVCacheLayoutType.BLOCKFIRST is KVCacheLayoutType.BLOCKWISE
    assert KVCacheLayout("layerfirst", 1, 1, 1, 1, 1).type is KVCacheLayoutType.LAYERWISE


def test_use_mla_is_a_synonym_of_is_mla() -> None:
    layout = KVCacheLayout(
        type=KVCacheLayoutType.BLOCKWISE,
        num_layer=2,
        num_block=3,
        tokens_per_block=4,
        num_head=1,
        head_size=5,
        use_mla=True,
    )
    assert layout.is_mla
    assert layout.use_mla
    assert layout.kv_shape == (3, 2, 1, 4, 1, 5)
    assert layout == KVCacheLayout(KVCacheLayoutType.BLOCKWISE, 2, 3, 4, 1, 5, is_mla=True)
    assert hash(layout) == hash(KVCacheLayout(KVCacheLayoutType.BLOCKWISE, 2, 3, 4, 1, 5, True))


@pytest.mark.parametrize("name", ["num_layer", "num_block", "tokens_per_block", "num_head", "head_size"])
@pytest.mark.parametrize("value", [0, -1, 1.0, "1", None, True])
def test_a_size_that_is_no_positive_integer_is_refused_by_name(name: str, value: object) -> None:
    sizes: dict[str, object] = {
        "num_layer": 1,
        "num_block": 1,
        "tokens_per_block": 1,
        "num_head": 1,
        "head_size": 1,
        name: value,
    }
    with pytest.raises(ConfigError, match=f"{name} is"):
        KVCacheLayout(KVCacheLayoutType.BLOCKWISE, **sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout_type", ["diagonal", 1, None])
def test_an_unknown_layout_type_is_refused(layout_type: object) -> None:
    with pytest.raises(ConfigError, match=r"type is .*LAYERWISE"):
        KVCacheLayout(layout_type, 1, 1, 1, 1, 1)  # type: ignore[arg-type]


def test_a_handle_says_what_lies_where() -> None:
    handle = StorageHandle(device_type=DeviceType.CPU, data=b"bytes")
    assert (handle.device_type, handle.device_id, handle.dtype, handle.data) == (DeviceType.CPU, 0, "uint8", b"bytes")
