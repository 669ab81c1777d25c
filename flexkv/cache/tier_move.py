"""TierMove: blocks on their way between two tiers. Arrivals: which host slots are being filled from a slower tier.

A move pins its blocks where they are, and has inserted them unready where they go. It ends once: by `commit`, which may
be of its first blocks only, or by `abort`. Pure; thread safety: none, the owner holds a lock.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flexkv.cache.mempool import Slots
from flexkv.cache.reservation import GetReservation, PutReservation
from flexkv.cache.span import BlockSpan
from flexkv.common.block import SequenceMeta
from flexkv.common.hash_utils import KEY_BYTES, Keys
from flexkv.common.transfer import OpId

__all__ = ["NOTHING", "UNSURE", "Arrivals", "TierMove"]

NOTHING = -1
"""In a vector of ops: the block waits for none."""
UNSURE = -2
"""In a vector of ops: its move has failed; whether this block is good is known once no op of the move runs any more."""


class TierMove:
    """Blocks `span` of a sequence, read from `source.slots` and written to `target.slots`."""

    __slots__ = ("source", "target")

    def __init__(self, source: GetReservation, target: PutReservation) -> None:
        assert source.span == target.span, f"{source.span} is to become {target.span}"
        self.source = source
        self.target = target

    @property
    def span(self) -> BlockSpan:
        """The blocks it moves."""
        return self.target.span

    @property
    def num_blocks(self) -> int:
        """How many it moves."""
        return self.target.num_blocks

    @property
    def sequence(self) -> SequenceMeta:
        """Whose blocks they are."""
        return self.target.sequence

    @property
    def keys(self) -> Keys:
        """Of its blocks. Shape: (n, 16)."""
        return self.sequence.block_hashes[self.span.start : self.span.end]

    @property
    def parents(self) -> Keys:
        """The key before each of its blocks; zeros for the first block of the chain. Shape: (n, 16)."""
        if self.span.start:
            return self.sequence.block_hashes[self.span.start - 1 : self.span.end - 1]
        return np.concatenate(
            [np.zeros((1, KEY_BYTES), dtype=np.uint8), self.sequence.block_hashes[: self.span.end - 1]]
        )

    @property
    def is_quarantined(self) -> bool:
        """True while an op that touches its slots has not been heard of."""
        return self.target.is_quarantined

    def commit(self, num_good: int) -> None:
        """Let the first `num_good` blocks be seen where they went; the rest is taken back."""
        if num_good:
            self.target.commit(num_good)
        else:
            self.target.abort()
        self.source.commit()

    def abort(self) -> None:
        """Nothing of it counts, and no op touches its slots any more."""
        self.source.abort()
        self.target.abort()

    def quarantine(self) -> None:
        """It failed, but an op may still touch its slots.

        Those it reads are kept by their pins. They are not counted with the slots that an op may still write to: a
        reset while much is being written would make the tier look broken.
        """
        self.target.quarantine()


class Arrivals:
    """By host slot: the op that is bringing its bytes from a slower tier.

    Others can wait for it, and need not read the same block again (joined loads). `num_slots`: that an op is to fill.
    """

    def __init__(self, num_slots: int) -> None:
        self._ops: npt.NDArray[np.int64] = np.full(num_slots, NOTHING, dtype=np.int64)
        self.num_slots = 0

    def expect(self, slots: Slots, op_id: OpId) -> None:
        """The op will fill these slots."""
        self._ops[slots] = op_id
        self.num_slots += len(slots)

    def doubt(self, slots: Slots) -> None:
        """Their move has failed: some may still turn out to be good. REQUIRES: they were expected."""
        self._ops[slots] = UNSURE
        self.num_slots -= len(slots)

    def clear(self, slots: Slots) -> None:
        """The bytes are there, or will not come. REQUIRES: they were expected."""
        self.num_slots -= int(np.count_nonzero(self._ops[slots] >= 0))
        self._ops[slots] = NOTHING

    def ops(self, slots: Slots) -> npt.NDArray[np.int64]:
        """Return the op that each slot waits for, or NOTHING or UNSURE. Shape: (n,)."""
        waits: npt.NDArray[np.int64] = self._ops[slots]
        return waits
