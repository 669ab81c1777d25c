"""The native prefix index through its bindings. Its own tests are csrc/tests/test_prefix_index.cpp and _fuzz.cpp."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from flexkv import _core

Keys = npt.NDArray[np.uint8]
Slots = npt.NDArray[np.int64]


def chain(length: int, family: int = 0) -> Keys:
    return _core.hash_token_blocks(np.zeros(length, dtype=np.int64), 1, bytes([family] * 16))


def slots_of(*slots: int) -> Slots:
    return np.array(slots, dtype=np.int64)


def put(index: _core.PrefixIndex, keys: Keys, start: int, slots: Slots, **meta: int) -> None:
    assert index.insert(keys, start, slots, **meta) == _core.InsertStatus.INSERTED
    index.mark_ready(slots)
    index.check_invariants()


@pytest.fixture
def index() -> _core.PrefixIndex:
    """An index of 20 slots that holds a chain of five ready blocks in slots 3, 4, 5, 10, 11."""
    index = _core.PrefixIndex(20)
    put(index, chain(5), 0, slots_of(3, 4, 5, 10, 11))
    return index


def counts(index: _core.PrefixIndex) -> tuple[int, ...]:
    index.check_invariants()
    return index.num_blocks, index.num_doomed, index.num_unready, index.num_pinned, index.num_evictable


def test_a_match_is_a_value_with_runs_and_slots(index: _core.PrefixIndex) -> None:
    match = index.match(chain(9), 0)
    index.reset()
    assert (match.num_visible, match.num_ready, match.deepest_visible, match.deepest_ready) == (5, 5, 11, 11)
    assert match.runs.tolist() == [[3, 3], [10, 2]]
    assert match.slots().tolist() == [3, 4, 5, 10, 11]
    for begin in range(6):
        for end in range(begin, 6):
            assert match.slots_range(begin, end).tolist() == [3, 4, 5, 10, 11][begin:end]


def test_a_match_of_nothing_is_empty(index: _core.PrefixIndex) -> None:
    for keys in (chain(3, family=1), chain(0)):
        match = index.match(keys, 0)
        assert (match.num_visible, match.deepest_visible, match.deepest_ready, match.first_expired) == (0, -1, -1, -1)
        assert match.runs.shape == (0, 2)
        assert match.slots().shape == (0,)


@pytest.mark.parametrize(("begin", "end"), [(-1, 2), (3, 2), (0, 6)])
def test_a_range_beyond_the_match_is_refused(index: _core.PrefixIndex, begin: int, end: int) -> None:
    with pytest.raises(ValueError, match=r"(begin|end) must be"):
        index.match(chain(5), 0).slots_range(begin, end)


def test_unready_blocks_are_visible_but_not_ready(index: _core.PrefixIndex) -> None:
    assert index.insert(chain(7), 5, slots_of(12, 13)) == _core.InsertStatus.INSERTED
    match = index.match(chain(7), 0)
    assert (match.num_visible, match.num_ready, match.deepest_visible, match.deepest_ready) == (7, 5, 13, 11)
    assert index.is_ready(11)
    assert not index.is_ready(12)


def test_a_stale_insert_conflicts(index: _core.PrefixIndex) -> None:
    assert index.insert(chain(7), 4, slots_of(12, 13, 14)) == _core.InsertStatus.CONFLICT
    assert index.insert(chain(7, family=1), 5, slots_of(12, 13)) == _core.InsertStatus.PARENT_GONE
    assert counts(index) == (5, 0, 0, 0, 1)


def test_pins_keep_a_chain_and_unpin_returns_what_went(index: _core.PrefixIndex) -> None:
    index.pin(11)
    assert (index.pins_of(11), index.pins_of(10), index.pins_of(0)) == (1, 0, 0)
    assert index.evict(5).tolist() == []
    assert index.drop(10).tolist() == []
    assert counts(index) == (3, 2, 0, 1, 0)
    assert index.unpin(11).tolist() == [11, 10]
    assert index.evict(2).tolist() == [5, 4]
    assert index.reset().tolist() == [3]
    assert counts(index) == (0, 0, 0, 0, 0)


def test_keys_and_slots_name_each_other(index: _core.PrefixIndex) -> None:
    assert index.keys_of(slots_of(10, 3)).tolist() == chain(5)[[3, 0]].tolist()
    assert index.find(chain(5)[4].tobytes()) == 11
    assert index.find(bytes(16)) == -1


def test_an_expired_block_does_not_match_and_is_named() -> None:
    index = _core.PrefixIndex(20)
    put(index, chain(2), 0, slots_of(0, 1))
    put(index, chain(4), 2, slots_of(2, 3), expiry_s=50)
    assert index.match(chain(4), 49).num_visible == 4
    match = index.match(chain(4), 50)
    assert (match.num_visible, match.first_expired) == (2, 2)
    assert index.insert(chain(4), 2, slots_of(8, 9)) == _core.InsertStatus.CONFLICT
    assert sorted(index.drop(match.first_expired).tolist()) == [2, 3]
    put(index, chain(4), 2, slots_of(8, 9))


def test_a_lower_priority_goes_first() -> None:
    index = _core.PrefixIndex(20)
    put(index, chain(1, family=1), 0, slots_of(1), priority=7, tenant=65535, group=255)
    put(index, chain(1, family=2), 0, slots_of(2))
    assert index.evict(20).tolist() == [2, 1]


def test_raising_a_pinned_block_raises_its_ancestors_and_lowers_nothing() -> None:
    index = _core.PrefixIndex(20)
    put(index, chain(2, family=1), 0, slots_of(0, 1), priority=2, expiry_s=50)
    put(index, chain(1, family=2), 0, slots_of(5), priority=3)
    with pytest.raises(ValueError, match="slot 1 is not pinned"):
        index.raise_meta(1, 5, 90)
    index.pin(1)
    with pytest.raises(ValueError, match="priority must be"):
        index.raise_meta(1, 8, 90)
    index.raise_meta(1, 5, 90)
    index.raise_meta(1, 1, 10)
    index.unpin(1)
    index.check_invariants()
    assert index.match(chain(2, family=1), 89).num_visible == 2
    assert index.match(chain(2, family=1), 90).num_visible == 0
    assert index.evict(20).tolist() == [5, 1, 0]


def test_keys_may_lie_anywhere_in_memory(index: _core.PrefixIndex) -> None:
    shifted = np.zeros(5 * 16 + 1, dtype=np.uint8)[1:].reshape(5, 16)
    shifted[:] = chain(5)
    assert index.match(shifted, 0).num_visible == 5


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        (chain(5).astype(np.int8), ValueError),
        (chain(5).astype(np.uint16), ValueError),
        (chain(5)[:, :8].copy(), ValueError),
        (chain(5)[::2], ValueError),
        (chain(5)[0], ValueError),
        (chain(5).reshape(5, 4, 4), ValueError),
        ([bytes(16)], TypeError),
        (b"x" * 16, ValueError),
        (None, TypeError),
    ],
)
def test_keys_that_do_not_fit_are_refused_by_name(index: _core.PrefixIndex, keys: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="keys must"):
        index.match(keys, 0)
    with pytest.raises(error, match="keys must"):
        index.insert(keys, 0, slots_of(0, 1, 2, 6, 7))
    assert counts(index) == (5, 0, 0, 0, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": -1}, "start must be"),
        ({"start": 8}, "start must be"),
        ({"start": 6}, "slots must have one entry for each new key"),
        ({"slots": slots_of(12, 20)}, "slot 20 is out of range"),
        ({"slots": slots_of(12, -1)}, "slot -1 is out of range"),
        ({"slots": slots_of(12, 12)}, r"slots\[1\] = 12 is in the index already or named twice"),
        ({"slots": slots_of(12, 3)}, r"slots\[1\] = 3 is in the index already"),
        ({"slots": np.array([12, 13], dtype=np.int32)}, "slots must be .* int64 array"),
        ({"keys": np.concatenate([chain(6), chain(6)[5:]])}, r"keys\[6\] is named twice"),
        ({"tenant": -1}, "tenant must be"),
        ({"tenant": 65536}, "tenant must be"),
        ({"priority": 8}, "priority must be"),
        ({"group": 256}, "group must be"),
        ({"expiry_s": 2**32}, "expiry_s must be"),
    ],
)
def test_a_bad_insert_is_refused_and_changes_nothing(
    index: _core.PrefixIndex, arguments: dict[str, Any], message: str
) -> None:
    good: dict[str, Any] = {"keys": chain(7), "start": 5, "slots": slots_of(12, 13)}
    with pytest.raises(ValueError, match=message):
        index.insert(**(good | arguments))
    assert counts(index) == (5, 0, 0, 0, 1)
    put(index, chain(7), 5, slots_of(12, 13))


@pytest.mark.parametrize("now_s", [-1, 2**32])
def test_a_time_that_does_not_fit_is_refused(index: _core.PrefixIndex, now_s: int) -> None:
    with pytest.raises(ValueError, match="now_s must be"):
        index.match(chain(5), now_s)


@pytest.mark.parametrize("slot", [-1, 20, 0, 2**40])
def test_a_slot_without_entry_is_refused(index: _core.PrefixIndex, slot: int) -> None:
    for call in (index.pin, index.unpin, index.drop):
        with pytest.raises(ValueError, match=f"slot {slot} "):
            call(slot)
    for batch in (index.mark_ready, index.keys_of):
        with pytest.raises(ValueError, match=f"slot {slot} "):
            batch(slots_of(3, slot))
    assert counts(index) == (5, 0, 0, 0, 1)


def test_an_unpin_without_pin_and_a_negative_eviction_are_refused(index: _core.PrefixIndex) -> None:
    with pytest.raises(ValueError, match="slot 11 is not pinned"):
        index.unpin(11)
    with pytest.raises(ValueError, match="n must not be negative"):
        index.evict(-1)
    with pytest.raises(ValueError, match="key must be bytes of length 16"):
        index.find(b"short")
    assert counts(index) == (5, 0, 0, 0, 1)


def test_bad_sizes_and_policies_are_refused() -> None:
    for capacity in (0, -1, 2**31 + 1):
        with pytest.raises(ValueError, match="capacity must be"):
            _core.PrefixIndex(capacity)
    with pytest.raises(ValueError, match="unknown eviction policy 'fifo'; known: lru"):
        _core.PrefixIndex(10, "fifo")
    assert _core.eviction_policy_names() == ["lru"]


def test_memory_stays_within_its_target() -> None:
    assert _core.PrefixIndex(100_000).memory_bytes <= 96 * 100_000
