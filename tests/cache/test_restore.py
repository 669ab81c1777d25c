"""A tier after a restart: index, pool and events agree about the blocks its slots still hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexkv.cache.mempool import Mempool
from flexkv.cache.radixtree import NEVER_S, EntryMeta, RadixTree
from flexkv.cache.restored import RestoredBlocks
from flexkv.cache.tier import CacheEngine
from flexkv.common.block import SequenceMeta
from flexkv.common.events import BlocksRemoved, BlocksStored, KVEvent
from flexkv.common.storage import DeviceType

TPB = 4
NUM_SLOTS = 64


class Collector(list[KVEvent]):
    def publish(self, event: KVEvent) -> None:
        self.append(event)


def sequence(num_blocks: int, first: int = 0, shared: int = 0) -> SequenceMeta:
    """A sequence of its own from block `shared` on."""
    tokens = np.arange(num_blocks * TPB)
    tokens[shared * TPB :] += first * 1000
    made = SequenceMeta(tokens, TPB)
    made.gen_hashes()
    return made


def found_of(sequences: list[SequenceMeta], slots: list[int] | None = None, **columns: Any) -> RestoredBlocks:
    """Each block of the sequences once, in the order in which it first appears."""
    rows: dict[bytes, bytes] = {}
    for each in sequences:
        parent = bytes(16)
        for key in each.block_hashes:
            rows.setdefault(key.tobytes(), parent)
            parent = key.tobytes()
    count = len(rows)
    defaults: dict[str, Any] = {
        "slots": np.arange(count, dtype=np.int64) if slots is None else np.array(slots, dtype=np.int64),
        "keys": np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(count, 16),
        "parents": np.frombuffer(b"".join(rows.values()), dtype=np.uint8).reshape(count, 16),
        "expiry_s": np.full(count, NEVER_S, dtype=np.uint32),
        "tenants": np.zeros(count, dtype=np.uint16),
        "groups": np.zeros(count, dtype=np.uint8),
        "priorities": np.zeros(count, dtype=np.uint8),
    }
    return RestoredBlocks(**defaults | columns)


def tier(collector: Collector | None = None, available: int | None = None) -> CacheEngine:
    return CacheEngine(DeviceType.SSD, NUM_SLOTS, TPB, 0.0, available=available, collector=collector)


def test_a_restored_tier_serves_what_it_held_and_takes_more() -> None:
    engine = tier()
    assert engine.restore(found_of([sequence(5)], slots=[9, 10, 11, 40, 3])) == 5
    match = engine.match(sequence(8))
    assert (match.num_ready, match.slots().tolist()) == (5, [9, 10, 11, 40, 3])
    assert engine.mempool.num_used_blocks == 5
    slots = engine.take(3)
    assert not set(slots.tolist()) & {9, 10, 11, 40, 3}
    engine.insert(sequence(8), slots, 5)
    engine.publish(sequence(8), slots, 5)
    assert engine.match(sequence(8)).num_ready == 8
    engine.check_invariants()
    assert len(engine.take(NUM_SLOTS)) == NUM_SLOTS  # all evicted
    assert engine.index.num_blocks == 0


def test_slots_of_blocks_left_out_are_free() -> None:
    engine = tier()
    found = found_of([sequence(3), sequence(3, first=1)])
    found = found.at(np.array([0, 1, 2, 4, 5]))  # the second chain lost its first block
    assert engine.restore(found) == 3
    assert engine.mempool.num_free_blocks == NUM_SLOTS - 3
    engine.check_invariants()


def test_expired_blocks_stay_away() -> None:
    engine = tier()
    expiry_s = np.array([NEVER_S, NEVER_S, 70, 70], dtype=np.uint32)
    assert engine.restore(found_of([sequence(4)], expiry_s=expiry_s), now_s=70) == 2
    assert engine.match(sequence(4), 70).num_visible == 2
    assert engine.mempool.num_used_blocks == 2


def test_what_a_living_block_hangs_on_lives_as_long_whatever_its_own_row_says() -> None:
    engine = tier()
    expiry_s = np.array([70, 20, 90, 70], dtype=np.uint32)
    assert engine.restore(found_of([sequence(4)], expiry_s=expiry_s), now_s=70) == 3
    assert engine.match(sequence(4), 89).num_ready == 3
    assert engine.match(sequence(4), 90).num_visible == 0
    engine.check_invariants()


def test_eviction_goes_on_in_the_order_of_use() -> None:
    engine = tier()
    priorities = np.array([0, 0, 3, 3, 0], dtype=np.uint8)
    chains = [sequence(2, 1), sequence(2, 2), sequence(1, 3)]
    engine.restore(found_of(chains, slots=[1, 2, 3, 4, 5], priorities=priorities))
    assert engine.index.evict(5).tolist() == [2, 1, 5, 4, 3]


def test_one_event_announces_a_chain_and_a_branch_names_its_parent() -> None:
    events = Collector()
    engine = tier(events)
    trunk, branch = sequence(4), sequence(6, first=1, shared=2)
    tenants = np.array([7] * 8, dtype=np.uint16)
    engine.restore(found_of([trunk, branch], tenants=tenants))
    assert len(events) == 2
    first, second = events
    assert isinstance(first, BlocksStored)
    assert isinstance(second, BlocksStored)
    assert (first.keys == trunk.block_hashes).all()
    assert first.parent_key is None
    assert (second.keys == branch.block_hashes[2:]).all()
    assert second.parent_key == trunk.block_hashes[1].tobytes()
    assert {(each.tenant, each.tier, each.tokens_per_block) for each in (first, second)} == {(7, DeviceType.SSD, TPB)}
    events.clear()
    engine.take(NUM_SLOTS)
    removed = [key.tobytes() for event in events if isinstance(event, BlocksRemoved) for key in event.keys]
    assert len(removed) == len(set(removed)) == 8  # what was announced is taken back


def test_a_change_of_tenant_or_group_within_a_chain_is_another_event() -> None:
    events = Collector()
    tenants = np.array([1, 1, 2, 2], dtype=np.uint16)
    groups = np.array([0, 0, 0, 1], dtype=np.uint8)
    tier(events).restore(found_of([sequence(4)], tenants=tenants, groups=groups))
    described = [(len(event.keys), event.tenant, event.group) for event in events if isinstance(event, BlocksStored)]
    assert described == [(2, 1, 0), (1, 2, 0), (1, 2, 1)]


def test_nothing_found_is_no_event() -> None:
    events = Collector()
    assert tier(events).restore(found_of([])) == 0
    assert events == []


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("slots", np.array([1, 2, 2], dtype=np.int64), r"slots\[2\] = 2 is named twice"),
        ("slots", np.array([1, 2, NUM_SLOTS], dtype=np.int64), "slot 64 is not available"),
        ("slots", np.array([1, 2, -1], dtype=np.int64), "slot -1 is out of range"),
        ("slots", np.array([1, 2, 3], dtype=np.int32), "slots must be"),
        ("keys", np.zeros((3, 15), dtype=np.uint8), "keys must have shape"),
        ("parents", np.zeros((2, 16), dtype=np.uint8), "one length"),
        ("expiry_s", np.zeros(3, dtype=np.int64), "expiry_s must be"),
        ("tenants", np.zeros(3, dtype=np.uint8), "tenants must be"),
        ("groups", np.zeros(2, dtype=np.uint8), "one length"),
        ("priorities", np.array([0, 8, 0], dtype=np.uint8), "priority must be in"),
    ],
)
def test_bad_columns_are_refused_and_change_nothing(column: str, value: np.ndarray, message: str) -> None:
    events = Collector()
    engine = tier(events)
    good = found_of([sequence(3)])
    with pytest.raises(ValueError, match=message):
        engine.restore(replace(good, **{column: value}))
    engine.check_invariants()
    assert (engine.index.num_blocks, engine.mempool.num_used_blocks, events) == (0, 0, [])
    assert engine.restore(good) == 3


def test_only_an_empty_tier_is_restored() -> None:
    engine = tier()
    slots = engine.take(1)
    with pytest.raises(ValueError, match="1 slots are in use"):
        engine.restore(found_of([sequence(3)], slots=[10, 11, 12]))
    engine.recycle(slots)
    assert engine.restore(found_of([sequence(3)])) == 3
    with pytest.raises(ValueError, match="only an empty tier"):
        engine.restore(found_of([sequence(3, first=1)], slots=[10, 11, 12]))
    engine.check_invariants()


def test_slots_that_are_not_there_yet_cannot_be_restored() -> None:
    engine = tier(available=2)
    with pytest.raises(ValueError, match="slot 2 is not available yet"):
        engine.restore(found_of([sequence(3)]))
    engine.set_available(NUM_SLOTS)
    assert engine.restore(found_of([sequence(3)])) == 3


def test_a_pool_adopts_all_of_the_slots_or_none() -> None:
    pool = Mempool(10)
    pool.adopt_blocks([3, 1, 8])
    for slots in ([0, 3], [0, 0], [0, 10], [0, -1]):
        with pytest.raises(ValueError, match="slots"):
            pool.adopt_blocks(slots)
    assert (pool.num_free_blocks, pool.num_used_blocks) == (7, 3)
    assert not set(pool.allocate_blocks(7).tolist()) & {1, 3, 8}
    pool.check_invariants()


@given(data=st.data())
def test_whatever_is_found_the_tier_is_consistent_and_holds_only_whole_chains(data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 12))
    names = st.integers(1, 8).map(lambda name: bytes([name]) * 16)
    keys = data.draw(st.lists(names, min_size=count, max_size=count))
    parents = data.draw(st.lists(st.one_of(st.just(bytes(16)), names), min_size=count, max_size=count))
    slots = data.draw(st.permutations(range(NUM_SLOTS)))[:count]
    expiry_s = data.draw(st.lists(st.sampled_from([5, 50, NEVER_S]), min_size=count, max_size=count))
    found = found_of(
        [],
        slots=slots,
        keys=np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(count, 16),
        parents=np.frombuffer(b"".join(parents), dtype=np.uint8).reshape(count, 16),
        expiry_s=np.array(expiry_s, dtype=np.uint32),
        tenants=np.zeros(count, dtype=np.uint16),
        groups=np.zeros(count, dtype=np.uint8),
        priorities=np.zeros(count, dtype=np.uint8),
    )
    events = Collector()
    engine = tier(events)
    restored = engine.restore(found, now_s=5)
    engine.check_invariants()
    newest = {key: row for row, key in enumerate(keys)}
    chains = {key: _chain_of(key, newest, parents) for key in newest}
    living = {key for row, key in enumerate(keys) if expiry_s[row] != 5}
    whole = {above for key in living for above in chains[key]}
    assert restored == len(whole)
    assert {key for key in set(keys) if engine.holds(key)} == whole
    announced: list[bytes] = []
    for event in events:
        assert isinstance(event, BlocksStored)
        assert event.parent_key is None or event.parent_key in announced
        announced += [key.tobytes() for key in event.keys]
    assert len(announced) == restored
    assert set(announced) == whole


def _chain_of(key: bytes, newest: dict[bytes, int], parents: list[bytes]) -> list[bytes]:
    """The key and all above it, or nothing where that does not lead to a first block."""
    chain: list[bytes] = []
    while key != bytes(16):
        if key not in newest or key in chain:
            return []
        chain.append(key)
        key = parents[newest[key]]
    return chain


def test_an_index_restored_twice_needs_to_be_empty() -> None:
    index = RadixTree(NUM_SLOTS)
    rows = index.restore(found_of([sequence(3)]), 0)
    assert rows.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="holds 3 blocks"):
        index.restore(found_of([sequence(1, first=1)], slots=[9]), 0)
    assert index.reset().size == 3
    assert index.restore(found_of([sequence(1, first=1)], slots=[9]), 0).tolist() == [0]
    index.pin(9)
    index.raise_meta(9, EntryMeta(priority=2))
    index.check_invariants()
