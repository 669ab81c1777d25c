"""Checks blocks of an SSD store against their records, a slice at a time. Reads beside whoever serves from it.

What the store itself changes meanwhile is not bad: after a mismatch the record is read again, and a block that is no
longer the one that was listed counts as changed. Not thread-safe.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from flexkv import _core
from flexkv.cli.stores import Store, is_refusal, refused

__all__ = ["BadBlock", "StoreCheck"]

_SLICE_BYTES = 32 << 20  # of one native call: what Ctrl-C waits for
_WHY = {
    _core.SsdCheck.DAMAGED: "its bytes are not those that were written",
    _core.SsdCheck.UNREADABLE: "the device cannot read it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BadBlock:
    """A block that does not check."""

    slot: int
    key: str
    why: str


@dataclass(slots=True, kw_only=True)
class StoreCheck:
    """A store, and what has been found of it so far."""

    store: Store
    problem: str = ""  # why its blocks cannot be looked at at all
    is_lost: bool = False  # the problem is damage
    num_blocks: int = 0
    num_checked: int = 0
    num_changed: int = 0
    bad: list[BadBlock] = field(default_factory=list)
    damaged_records: list[int] = field(default_factory=list)  # their slots
    num_records_of_before: int = 0
    _reader: _core.SsdReader | None = None
    _slots: list[int] = field(default_factory=list)
    _keys: list[str] = field(default_factory=list)

    @property
    def is_bad(self) -> bool:
        """Whether anything of it is damaged."""
        return bool(self.is_lost or self.bad or self.damaged_records)

    @classmethod
    def begin(cls, store: Store) -> StoreCheck:
        """Read the store's records.

        Raises:
            Refused: this user may not read it.
        """
        check = cls(store=store)
        if not store.is_ok:  # a busy one is being started or emptied: its header is not yet whole
            check.problem, check.is_lost = store.state, store.state == "damaged header" and not store.is_busy
            return check
        try:
            reader = _core.SsdReader(store.root, store.fingerprint)
            slots, _, _, keys, damaged, check.num_records_of_before = reader.read_records()
        except OSError as error:
            if is_refusal(error):
                raise refused(error, store.path) from error
            is_there = os.path.isdir(store.path)
            check.problem, check.is_lost = str(error) if is_there else "removed meanwhile", is_there
            return check
        except ValueError:
            check.problem = "removed or emptied meanwhile"
            return check
        check._reader = reader
        check._slots = slots.tolist()
        check._keys = [key.tobytes().hex() for key in keys]
        check.num_blocks = len(check._slots)
        check.damaged_records = damaged.tolist()
        return check

    def run(self, on_checked: Callable[[int], None]) -> None:
        """Check all blocks; `on_checked` is told the bytes after each slice."""
        if self._reader is None:
            return
        slot_bytes = self.store.slot_bytes
        slice_blocks = max(1, _SLICE_BYTES // slot_bytes)
        while self.num_checked < self.num_blocks:
            count = min(slice_blocks, self.num_blocks - self.num_checked)
            for row, code in enumerate(self._reader.check(self.num_checked, count).tolist(), self.num_checked):
                state = _core.SsdCheck(code)
                self.num_changed += state == _core.SsdCheck.CHANGED
                if state in _WHY:
                    self.bad.append(BadBlock(slot=self._slots[row], key=self._keys[row], why=_WHY[state]))
            self.num_checked += count
            on_checked(count * slot_bytes)
