"""Block keys of the native core against hashlib, and what the bindings refuse."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexkv import _core

ROOT = bytes(range(16))
TOKENS = np.arange(64, dtype=np.int64)


def keys_by_hashlib(tokens: npt.NDArray[np.int64], tokens_per_block: int, parent: bytes) -> list[bytes]:
    keys = []
    for at in range(0, len(tokens) - tokens_per_block + 1, tokens_per_block):
        message = tokens[at : at + tokens_per_block].astype("<u4").tobytes() + parent
        parent = hashlib.sha256(message).digest()[:16]
        keys.append(parent)
    return keys


def rows(keys: npt.NDArray[np.uint8]) -> list[bytes]:
    return [bytes(row) for row in keys]


@given(st.binary(max_size=300))
def test_sha256_is_that_of_hashlib(data: bytes) -> None:
    assert _core.sha256(data) == hashlib.sha256(data).digest()


@given(
    tokens=st.lists(st.integers(0, 2**32 - 1), max_size=200),
    tokens_per_block=st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128]),
    parent=st.binary(min_size=16, max_size=16),
)
def test_token_keys_are_those_of_hashlib(tokens: list[int], tokens_per_block: int, parent: bytes) -> None:
    array = np.array(tokens, dtype=np.int64)
    keys = _core.hash_token_blocks(array, tokens_per_block, parent)
    assert keys.shape == (len(tokens) // tokens_per_block, 16)
    assert keys.dtype == np.uint8
    assert rows(keys) == keys_by_hashlib(array, tokens_per_block, parent)


def test_a_long_prompt_hashed_without_the_gil_has_the_same_keys() -> None:
    tokens = np.random.default_rng(1).integers(0, 2**32, 40_000, dtype=np.int64)
    assert rows(_core.hash_token_blocks(tokens, 16, ROOT)) == keys_by_hashlib(tokens, 16, ROOT)


@given(
    hashes=st.integers(1, 39).flatmap(lambda width: st.lists(st.binary(min_size=width, max_size=width), max_size=40)),
    start=st.integers(0, 40),
)
def test_mixed_keys_are_those_of_hashlib_in_every_form(hashes: list[bytes], start: int) -> None:
    start = min(start, len(hashes))
    expected = [hashlib.sha256(ROOT + each).digest()[:16] for each in hashes[start:]]
    assert rows(_core.mix_engine_hashes(hashes, ROOT, start)) == expected
    assert rows(_core.mix_engine_hashes(tuple(hashes), ROOT, start)) == expected
    if hashes:
        array = np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(len(hashes), -1)
        assert rows(_core.mix_engine_hashes(array, ROOT, start)) == expected


def test_many_mixed_keys_are_those_of_hashlib() -> None:
    array = np.random.default_rng(2).integers(0, 256, (1003, 32), dtype=np.uint8)
    expected = [hashlib.sha256(ROOT + bytes(row)).digest()[:16] for row in array]
    assert rows(_core.mix_engine_hashes(array, ROOT)) == expected
    assert rows(_core.mix_engine_hashes(rows(array), ROOT)) == expected


@pytest.mark.parametrize(
    ("tokens", "error", "message"),
    [
        ([1, 2, 3], TypeError, "tokens must be .* int64 array, got list"),
        (None, TypeError, "tokens must be .*, got NoneType"),
        (TOKENS.astype(np.int32), ValueError, "tokens must be .* got elements of format 'i'"),
        (TOKENS.astype(np.float64), ValueError, "tokens must be .* got elements of format 'd'"),
        (TOKENS.astype(">i8"), ValueError, "tokens must be .* got elements of format '>"),
        (TOKENS.reshape(4, 16), ValueError, "tokens must be .* got 2 dimensions"),
        (TOKENS[::2], ValueError, "tokens must be .* gaps"),
        (np.zeros(8, dtype="M8[s]"), ValueError, "tokens must be .*"),
        (np.zeros(513, dtype=np.uint8)[1:].view(np.int64), ValueError, "tokens must be aligned"),
        (np.array([5, 2**32, -1]), ValueError, r"tokens\[1\] = 4294967296 is out of range"),
        (np.array([5, 6, -1]), ValueError, r"tokens\[2\] = -1 is out of range"),
    ],
)
def test_tokens_that_do_not_fit_are_refused_by_name(tokens: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _core.hash_token_blocks(tokens, 2, ROOT)


@pytest.mark.parametrize("tokens_per_block", [0, -1, 3, 12, 2**31])
def test_block_sizes_that_are_no_power_of_two_are_refused(tokens_per_block: int) -> None:
    with pytest.raises(ValueError, match="tokens_per_block must be"):
        _core.hash_token_blocks(TOKENS, tokens_per_block, ROOT)


@pytest.mark.parametrize(
    ("key", "error"), [(b"short", ValueError), (bytes(17), ValueError), ("x" * 16, TypeError), (None, TypeError)]
)
def test_keys_that_are_not_16_bytes_are_refused_by_name(key: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="parent must be bytes of length 16"):
        _core.hash_token_blocks(TOKENS, 16, key)
    with pytest.raises(error, match="root must be bytes of length 16"):
        _core.mix_engine_hashes([bytes(32)], key)


@pytest.mark.parametrize(
    ("hashes", "error", "message"),
    [
        ([bytes(32), bytes(31)], ValueError, r"hashes\[1\] has 31 bytes, the first one 32"),
        ([bytes(32), "x"], TypeError, r"hashes\[1\] must be bytes, got str"),
        ([7], TypeError, r"hashes\[0\] must be bytes, got int"),
        ([b""], ValueError, "hashes must be 1 to 39 bytes wide, got 0"),
        ([bytes(40)], ValueError, "hashes must be 1 to 39 bytes wide, got 40"),
        (np.zeros((2, 40), np.uint8), ValueError, "hashes must be 1 to 39 bytes wide, got 40"),
        (np.zeros((2, 32), np.int8), ValueError, "hashes must be .* got elements of format 'b'"),
        (np.zeros(32, np.uint8), ValueError, "hashes must be .* got 1 dimensions"),
        (iter([bytes(32)]), TypeError, "hashes must be"),
    ],
)
def test_hashes_that_do_not_fit_are_refused_by_name(hashes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _core.mix_engine_hashes(hashes, ROOT)


@pytest.mark.parametrize("start", [-1, 3])
def test_a_start_beyond_the_hashes_is_refused(start: int) -> None:
    with pytest.raises(ValueError, match="start must be in"):
        _core.mix_engine_hashes([bytes(32)] * 2, ROOT, start)
    with pytest.raises(ValueError, match="start must be in"):
        _core.mix_engine_hashes(np.zeros((2, 32), np.uint8), ROOT, start)


def test_hashes_before_the_start_are_not_read() -> None:
    assert _core.mix_engine_hashes([None, bytes(32)], ROOT, 1).shape == (1, 16)  # type: ignore[list-item]
