"""The prefix index against a model of plain dictionaries.

Presence, readiness, pins, drops, eviction order under LRU.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flexkv.cache.radixtree import EntryMeta, InsertStatus, RadixTree
from flexkv.common.block import SequenceMeta
from tests.stateful.campaigns import every_run, long_campaign

CAPACITY = 24
ALPHABET = st.integers(0, 2)
CHAINS = st.lists(ALPHABET, min_size=1, max_size=6)


def keys_of(chain: list[int]) -> np.ndarray:
    return SequenceMeta(np.array(chain, dtype=np.int64), 1).block_hashes


class ModelEntry:
    def __init__(self, chain: tuple[int, ...], slot: int) -> None:
        self.chain = chain
        self.slot = slot
        self.ready = False
        self.pins = 0
        self.doomed = False


class IndexMachine(RuleBasedStateMachine):
    """Model: entries by slot, and visible chains. What is "gone" is computed from the definition, not from counters."""

    def __init__(self) -> None:
        super().__init__()
        self.index = RadixTree(CAPACITY)
        self.entries: dict[int, ModelEntry] = {}
        self.visible: dict[tuple[int, ...], int] = {}
        self.parents: dict[int, int | None] = {}

    def free_slots(self) -> list[int]:
        return [slot for slot in range(CAPACITY) if slot not in self.entries]

    def children(self, slot: int) -> list[int]:
        return [child for child, parent in self.parents.items() if parent == slot]

    def sweep(self) -> set[int]:
        """Remove doomed entries that nothing holds any more; return their slots."""
        gone: set[int] = set()
        while True:
            loose = [s for s, e in self.entries.items() if e.doomed and e.pins == 0 and not self.children(s)]
            if not loose:
                return gone
            for slot in loose:
                del self.entries[slot], self.parents[slot]
                gone.add(slot)

    def doom_below(self, chain: tuple[int, ...]) -> None:
        for other in [c for c in self.visible if c[: len(chain)] == chain]:
            self.entries[self.visible.pop(other)].doomed = True

    @rule(chain=CHAINS, start=st.integers(0, 5))
    def insert(self, chain: list[int], start: int) -> None:
        start = min(start, len(chain) - 1)
        free = self.free_slots()
        count = len(chain) - start
        if len(free) < count:
            return
        slots = np.array(free[-count:], dtype=np.int64)
        status = self.index.insert(keys_of(chain), start, slots, EntryMeta())
        if start and tuple(chain[:start]) not in self.visible:
            assert status == InsertStatus.PARENT_GONE
            return
        if tuple(chain[: start + 1]) in self.visible:
            assert status == InsertStatus.CONFLICT
            return
        assert status == InsertStatus.INSERTED
        parent = self.visible[tuple(chain[:start])] if start else None
        for depth, slot in enumerate(slots.tolist(), start + 1):
            self.entries[slot] = ModelEntry(tuple(chain[:depth]), slot)
            self.visible[tuple(chain[:depth])] = slot
            self.parents[slot] = parent
            parent = slot

    @rule(chain=CHAINS)
    def match(self, chain: list[int]) -> None:
        found = self.index.match(keys_of(chain), 0)
        prefixes = [tuple(chain[: n + 1]) for n in range(len(chain))]
        slots = []
        for prefix in prefixes:
            if prefix not in self.visible:
                break
            slots.append(self.visible[prefix])
        ready = 0
        while ready < len(slots) and self.entries[slots[ready]].ready:
            ready += 1
        assert found.num_visible == len(slots)
        assert found.num_ready == ready
        assert found.slots().tolist() == slots
        assert found.deepest_visible == (slots[-1] if slots else -1)
        assert found.deepest_ready == (slots[ready - 1] if ready else -1)
        assert sum(length for _, length in found.runs.tolist()) == len(slots)

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def mark_ready(self, data: st.DataObject) -> None:
        slots = data.draw(st.lists(st.sampled_from(sorted(self.entries)), max_size=4, unique=True))
        self.index.mark_ready(np.array(slots, dtype=np.int64))
        for slot in slots:
            if not self.entries[slot].doomed:
                self.entries[slot].ready = True

    @precondition(lambda self: self.visible)
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.visible.values())))
        self.index.pin(slot)
        self.entries[slot].pins += 1

    @precondition(lambda self: any(e.pins for e in self.entries.values()))
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(s for s, e in self.entries.items() if e.pins)))
        gone = self.index.unpin(slot)
        self.entries[slot].pins -= 1
        assert set(gone.tolist()) == self.sweep()

    @precondition(lambda self: self.visible)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        chain = data.draw(st.sampled_from(sorted(self.visible)))
        gone = self.index.drop(self.visible[chain])
        self.doom_below(chain)
        assert set(gone.tolist()) == self.sweep()

    @rule(count=st.integers(0, 6))
    def evict(self, count: int) -> None:
        for slot in self.index.evict(count).tolist():
            entry = self.entries[slot]
            assert entry.ready
            assert not entry.doomed
            assert entry.pins == 0
            assert not self.children(slot), "an evicted block was somebody's parent"
            del self.entries[slot], self.parents[slot], self.visible[entry.chain]
            count -= 1
        if count:
            leaves = [s for s in self.visible.values() if not self.children(s)]
            assert not [s for s in leaves if self.entries[s].ready and not self.entries[s].pins]

    @rule()
    def reset(self) -> None:
        gone = self.index.reset()
        self.doom_below(())
        assert set(gone.tolist()) == self.sweep()

    @invariant()
    def counts_agree(self) -> None:
        self.index.check_invariants()
        visible = [self.entries[slot] for slot in self.visible.values()]
        assert self.index.num_blocks == len(visible)
        assert self.index.num_doomed == len(self.entries) - len(visible)
        assert self.index.num_unready == sum(not e.ready for e in visible)
        assert self.index.num_pinned == sum(e.pins > 0 for e in self.entries.values())


TestIndex = every_run(IndexMachine, 60, 40)
test_a_long_campaign = long_campaign(IndexMachine, 3000)
