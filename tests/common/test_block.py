"""Tokens, masks and slot mappings as engines pass them, and sequences as chains of keys."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexkv.common.block import SequenceMeta, as_id_vector, as_mask, as_slot_mapping, as_token_array
from flexkv.common.hash_utils import hash_blocks, root_key


class TensorDouble:
    """What `as_*` need of a torch tensor."""

    def __init__(self, array: np.ndarray | None) -> None:
        self.array = array

    def detach(self) -> TensorDouble:
        return self

    def cpu(self) -> TensorDouble:
        return self

    def numpy(self) -> np.ndarray:
        if self.array is None:
            raise TypeError("got unsupported ScalarType BFloat16")
        return self.array


@pytest.mark.parametrize(
    "kind", [list, tuple, np.array, lambda v: np.array(v, dtype=np.uint32), lambda v: TensorDouble(np.array(v))]
)
def test_tokens_come_as_list_array_or_tensor(kind: Callable[[list[int]], object]) -> None:
    tokens = as_token_array(kind([0, 5, (1 << 32) - 1]))
    assert tokens.dtype == np.int64
    assert tokens.tolist() == [0, 5, (1 << 32) - 1]


def test_an_int64_vector_is_taken_without_a_copy() -> None:
    tokens = np.arange(8)
    assert np.shares_memory(as_token_array(tokens), tokens)


def test_a_strided_vector_becomes_contiguous() -> None:
    assert as_token_array(np.arange(8)[::2]).flags.c_contiguous


def test_no_tokens_are_an_empty_vector() -> None:
    assert as_token_array([]).shape == (0,)
    assert as_token_array([]).dtype == np.int64


BAD_TOKENS: dict[str, object] = {
    "float": np.array([1.0]),
    "list of float": [1.5],
    "bool": np.array([True]),
    "list of bool": [True, False],
    "two dimensions": np.zeros((2, 2), dtype=np.int64),
    "a number": 5,
    "none": None,
    "text": "12",
    "bytes": b"12",
    "ragged": [[1], [2, 3]],
    "too long for int64": [1 << 70],
    "uint64 beyond int64": np.array([1 << 63], dtype=np.uint64),
    "negative": [1, -1],
    "beyond 32 bits": [1 << 32],
    "objects": np.array([object()]),
    "a dict": {1: 2},
    "a tensor numpy lacks": TensorDouble(None),
}


@pytest.mark.parametrize("what", BAD_TOKENS)
def test_bad_tokens_are_refused_by_the_name_of_the_argument(what: str) -> None:
    with pytest.raises(ValueError, match="prompt"):
        as_token_array(BAD_TOKENS[what], "prompt")


def test_the_message_names_the_first_token_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"token_ids\[2\] is -7"):
        as_token_array([0, 1, -7, -8])


@pytest.mark.parametrize(
    "ids", [np.array([1], dtype=np.int32), np.array([1], dtype=np.uint64), [1.0], [[1]], [-1], True]
)
def test_ids_are_int64_vectors_that_are_not_negative(ids: object) -> None:
    with pytest.raises(ValueError, match="src_block_ids"):
        as_id_vector(ids, "src_block_ids")


def test_no_mask_means_every_token() -> None:
    assert as_mask(None, 3).tolist() == [True, True, True]


def test_a_mask_is_taken_as_it_is() -> None:
    mask = np.array([True, False])
    assert as_mask(mask, 2) is mask
    assert as_mask([True, False], 2).tolist() == [True, False]
    assert as_mask([], 0).tolist() == []


@pytest.mark.parametrize(
    "mask", [np.ones(2, dtype=np.bool_), np.ones(3), [1, 0, 1], np.ones((3, 1), dtype=np.bool_), "abc", 3]
)
def test_a_mask_of_wrong_shape_or_dtype_is_refused_by_name(mask: object) -> None:
    with pytest.raises(ValueError, match="token_mask"):
        as_mask(mask, 3)


@given(st.lists(st.integers(0, 1000), max_size=6), st.sampled_from([1, 2, 16]))
def test_a_slot_mapping_of_whole_blocks_gives_their_ids(blocks: list[int], tokens_per_block: int) -> None:
    slots = [block * tokens_per_block + token for block in blocks for token in range(tokens_per_block)]
    ids = as_slot_mapping(np.array(slots, dtype=np.int64), len(slots), tokens_per_block)
    assert ids.tolist() == blocks


@pytest.mark.parametrize("slots", [[0, 1, 2, 3, 4, 5, 6, 8], [1, 2, 3, 4], [3, 2, 1, 0], [0, 1, 2, 4], [0, 0, 0, 0]])
def test_slots_that_do_not_form_whole_blocks_are_refused(slots: list[int]) -> None:
    with pytest.raises(ValueError, match=r"slot_mapping\[\d\] is \d where \d+ is due"):
        as_slot_mapping(slots, len(slots), 4)


@pytest.mark.parametrize(
    ("slots", "num_tokens"), [([0, 1, 2, 3], 8), ([0, 1, 2], 3), ([-4, -3, -2, -1], 4), (np.zeros(4), 4)]
)
def test_a_slot_mapping_of_wrong_length_or_dtype_is_refused_by_name(slots: object, num_tokens: int) -> None:
    with pytest.raises(ValueError, match="slot_mapping"):
        as_slot_mapping(slots, num_tokens, 4)


def test_a_partial_tail_block_has_no_key() -> None:
    sequence = SequenceMeta(list(range(11)), 4)
    assert (sequence.num_tokens, sequence.num_blocks) == (11, 2)
    assert sequence.block_hashes.shape == (2, 16)


def test_keys_are_computed_at_the_first_use_and_then_kept() -> None:
    sequence = SequenceMeta(list(range(8)), 4)
    assert not sequence.has_hashes
    keys = sequence.block_hashes
    assert sequence.has_hashes
    sequence.gen_hashes()
    assert sequence.block_hashes is keys
    assert not keys.flags.writeable


def test_keys_chain_from_the_root_of_the_namespace() -> None:
    tokens = np.arange(8)
    keys = SequenceMeta(tokens, 4, ["a"]).block_hashes
    assert np.array_equal(keys, hash_blocks(tokens, 4, root_key(b"", ["a"], 0, 4)))
    assert not np.array_equal(keys, SequenceMeta(tokens, 4, ["b"]).block_hashes)
    assert np.array_equal(SequenceMeta(tokens, 4).block_hashes, SequenceMeta(tokens, 4, []).block_hashes)


def test_engine_hashes_stand_in_for_tokens() -> None:
    hashes = [bytes([value]) * 32 for value in range(3)]
    root = bytes(16)
    for sequence in (
        SequenceMeta(None, 4, block_hashes=hashes, root=root),
        SequenceMeta(None, 4, block_hashes=hashes, num_tokens=14, root=root),
        SequenceMeta(list(range(14)), 4, block_hashes=hashes, root=root),
    ):
        assert sequence.num_blocks == 3
        expected = [hashlib.sha256(root + value).digest()[:16] for value in hashes]
        assert [key.tobytes() for key in sequence.block_hashes] == expected


def test_hashes_beyond_the_tokens_and_tokens_beyond_the_hashes_are_left_out() -> None:
    hashes = [bytes(32)] * 3
    assert SequenceMeta(None, 4, block_hashes=hashes, num_tokens=11).num_blocks == 2
    assert SequenceMeta(None, 4, block_hashes=hashes, num_tokens=99).num_blocks == 3
    assert SequenceMeta(None, 4, block_hashes=hashes, num_tokens=11).block_hashes.shape == (2, 16)


@given(st.integers(0, 6), st.booleans())
def test_known_keys_of_a_prefix_give_the_same_chain(num_known: int, with_hashes: bool) -> None:
    tokens = np.arange(24)
    hashes = [bytes([value]) * 32 for value in range(6)] if with_hashes else None
    whole = SequenceMeta(tokens, 4, block_hashes=hashes).block_hashes
    again = SequenceMeta(tokens, 4, block_hashes=hashes, prefix_keys=whole[:num_known]).block_hashes
    assert np.array_equal(whole, again)


def test_equal_keys_mean_equal_prefixes() -> None:
    one = SequenceMeta([1, 2, 3, 4], 2).block_hashes
    other = SequenceMeta([9, 2, 3, 4], 2).block_hashes
    assert not (one == other).all(axis=1).any()


BAD_SEQUENCES: dict[str, tuple[str, dict[str, object]]] = {
    "no tokens": ("token_ids", {"token_ids": None}),
    "bad tokens": ("token_ids", {"token_ids": [0.5]}),
    "block of 3": ("tokens_per_block", {"tokens_per_block": 3}),
    "block of 0": ("tokens_per_block", {"tokens_per_block": 0}),
    "negative block": ("tokens_per_block", {"tokens_per_block": -4}),
    "block of True": ("tokens_per_block", {"tokens_per_block": True}),
    "short root": ("root", {"root": b"short"}),
    "namespace is text": ("namespace", {"namespace": "tenant"}),
    "num_tokens differs": ("num_tokens", {"num_tokens": 3}),
    "negative num_tokens": ("num_tokens", {"token_ids": None, "block_hashes": [bytes(32)], "num_tokens": -1}),
    "prefix of another width": ("prefix_keys", {"prefix_keys": np.zeros((1, 8), dtype=np.uint8)}),
    "prefix of another dtype": ("prefix_keys", {"prefix_keys": np.zeros((1, 16))}),
}


@pytest.mark.parametrize("what", BAD_SEQUENCES)
def test_a_bad_sequence_is_refused_by_the_name_of_the_argument(what: str) -> None:
    name, change = BAD_SEQUENCES[what]
    arguments: dict[str, object] = {"token_ids": list(range(8)), "tokens_per_block": 4, **change}
    with pytest.raises(ValueError, match=name):
        SequenceMeta(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("hashes", [[b"", b""], [bytes(40)], [bytes(32), bytes(31)], [1, 2], ["a"], [None]])
def test_engine_hashes_of_impossible_or_unequal_width_are_refused(hashes: list[bytes]) -> None:
    with pytest.raises(ValueError, match="block_hashes"):
        SequenceMeta(None, 4, block_hashes=hashes).gen_hashes()


def test_keys_that_cover_every_block_are_returned_as_they_are() -> None:
    tokens = np.arange(14)
    whole = SequenceMeta(tokens, 4).block_hashes
    for hashes in (None, [b"engine-hash-%d" % n for n in range(3)]):
        again = SequenceMeta(tokens, 4, block_hashes=hashes, prefix_keys=whole).block_hashes
        assert np.shares_memory(again, whole)
        assert not again.flags.writeable
