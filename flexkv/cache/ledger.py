"""Ledger: the reservations of a tier that have not ended, and what they hold. Thread safety: none; the owner locks."""

from __future__ import annotations

from typing import Protocol

from flexkv.cache.mempool import Slots
from flexkv.cache.radixtree import RadixTree

__all__ = ["Holder", "Ledger"]


class Holder(Protocol):
    """A reservation, as its tier sees it: it pins the last of its slots."""

    slots: Slots

    @property
    def is_quarantined(self) -> bool:
        """True while an op that touches the slots has not been heard of."""


class Ledger:
    """Who holds blocks of a tier."""

    def __init__(self) -> None:
        self.live: set[Holder] = set()
        self.num_quarantined_blocks = 0

    def check_invariants(self, index: RadixTree) -> None:
        """Every pin of the index is one of a live reservation, and the other way round. O(live)."""
        pins: dict[int, int] = {}
        for holder in self.live:
            if len(holder.slots):
                slot = int(holder.slots[-1])
                pins[slot] = pins.get(slot, 0) + 1
        assert index.num_pinned == len(pins), f"{index.num_pinned} blocks are pinned, {len(pins)} by reservations"
        for slot, count in pins.items():
            assert index.pins_of(slot) == count, f"slot {slot} has {index.pins_of(slot)} pins, {count} by reservations"
        quarantined = sum(len(holder.slots) for holder in self.live if holder.is_quarantined)
        assert quarantined == self.num_quarantined_blocks, (
            f"{quarantined} != {self.num_quarantined_blocks} quarantined blocks"
        )
