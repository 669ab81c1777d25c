r"""Reservations: what a plan pins and reserves, from prepare to commit or abort (D9, D16).

                     commit
        PREPARED ------------------------------> COMMITTED
          |  | \---------------- abort --------> ABORTED
          |  doom (PUT)                             ^ ^
          |  v                                      | |
          | DOOMED ------------- abort -------------/ |
          |  | quarantine                             |
          v  v                                        |
        QUARANTINED ------------ abort ---------------/

DOOMED: never to be committed; its blocks are invisible, ops may still run. QUARANTINED: it failed or timed out, and an
op that touches its slots has not been heard of; the slots are counted. `abort` means that no op will touch them any
more. Any other step raises.

A GET pins the deepest block it loads. A PUT inserts its blocks unready when it is prepared (so that no second PUT
writes them) and pins the deepest: until it ends they can be neither evicted nor freed. Thread safety: none; the owner
holds a lock.
"""

from __future__ import annotations

from enum import Enum

import numpy as np

from flexkv.cache.mempool import Slots
from flexkv.cache.radixtree import EntryMeta
from flexkv.cache.span import BlockSpan
from flexkv.cache.tier import CacheEngine
from flexkv.common.block import SequenceMeta

__all__ = ["GetReservation", "PutReservation", "Reservation", "ReservationState"]

_NO_SLOTS: Slots = np.empty(0, dtype=np.int64)
_NO_SLOTS.setflags(write=False)


class ReservationState(Enum):
    """See the drawing in the module."""

    PREPARED = "prepared"
    DOOMED = "doomed"
    QUARANTINED = "quarantined"
    COMMITTED = "committed"
    ABORTED = "aborted"


_OPEN = frozenset({ReservationState.PREPARED, ReservationState.DOOMED, ReservationState.QUARANTINED})


class Reservation:
    """What one plan holds in one tier. `slots` are those of the blocks of `span`, in chain order."""

    def __init__(self, tier: CacheEngine, sequence: SequenceMeta, span: BlockSpan, slots: Slots = _NO_SLOTS) -> None:
        self.tier = tier
        self.sequence = sequence
        self.span = span
        self.slots = slots
        self.state = ReservationState.PREPARED
        if len(slots):
            tier.pin(int(slots[-1]))
        tier.ledger.live.add(self)

    @property
    def num_blocks(self) -> int:
        """Blocks it holds."""
        return len(self.slots)

    @property
    def is_quarantined(self) -> bool:
        """True while an op that touches its slots has not been heard of."""
        return self.state is ReservationState.QUARANTINED

    @property
    def is_open(self) -> bool:
        """True until commit or abort."""
        return self.state in _OPEN

    def commit(self, num_blocks: int | None = None) -> None:
        """The plan was carried out: pins go, what was written becomes ready. Raises RuntimeError unless PREPARED.

        `num_blocks`: only the first so many were written well; the rest is taken back.
        """
        self._step(ReservationState.COMMITTED, frozenset({ReservationState.PREPARED}))
        try:
            self._on_commit(self.num_blocks if num_blocks is None else num_blocks)
        finally:
            self._end()

    def abort(self) -> None:
        """The plan was not carried out, and no op touches its slots any more. Raises RuntimeError when it has ended."""
        was_quarantined = self.is_quarantined
        self._step(ReservationState.ABORTED, _OPEN)
        if was_quarantined:
            self.tier.ledger.num_quarantined_blocks -= self.num_blocks
        try:
            self._on_doom()
        finally:
            self._end()

    def doom(self) -> None:
        """Never commit it; what it was to write becomes invisible now.

        Raises RuntimeError unless PREPARED or DOOMED.
        """
        self._step(ReservationState.DOOMED, frozenset({ReservationState.PREPARED, ReservationState.DOOMED}))
        self._on_doom()

    def quarantine(self) -> None:
        """It failed, but an op may still touch its slots. Raises RuntimeError unless PREPARED or DOOMED."""
        self._step(ReservationState.QUARANTINED, frozenset({ReservationState.PREPARED, ReservationState.DOOMED}))
        self.tier.ledger.num_quarantined_blocks += self.num_blocks
        self._on_doom()
        self._on_quarantine()

    def _step(self, state: ReservationState, allowed_from: frozenset[ReservationState]) -> None:
        if self.state not in allowed_from:
            raise RuntimeError(f"a reservation that is {self.state.name} cannot become {state.name}")
        self.state = state

    def _end(self) -> None:
        self.tier.ledger.live.discard(self)
        if self.num_blocks:
            self.tier.unpin(int(self.slots[-1]))

    def _on_commit(self, num_blocks: int) -> None:
        """What a commit does beside unpinning."""

    def _on_doom(self) -> None:
        """Take back what the plan made visible. Idempotent."""

    def _on_quarantine(self) -> None:
        """Set apart what ops may still write."""


class GetReservation(Reservation):
    """Blocks to load, pinned. `num_visible` and `num_ready` say how much of the sequence the tier holds.

    `num_arriving`: of its last blocks, how many were still on their way from a slower tier when it was prepared.
    """

    def __init__(
        self,
        tier: CacheEngine,
        sequence: SequenceMeta,
        span: BlockSpan,
        slots: Slots,
        num_visible: int,
        num_ready: int,
        num_arriving: int = 0,
    ) -> None:
        super().__init__(tier, sequence, span, slots)
        self.num_visible = num_visible
        self.num_ready = num_ready
        self.num_arriving = num_arriving


class PutReservation(Reservation):
    """Blocks to write, inserted unready and pinned.

    `num_skipped`: missing blocks it leaves out since slots were short. `is_prefix_ready`: whether the blocks before the
    span had their bytes; if not, somebody was still writing them.
    """

    def __init__(
        self,
        tier: CacheEngine,
        sequence: SequenceMeta,
        span: BlockSpan,
        slots: Slots,
        meta: EntryMeta,
        num_skipped: int,
        *,
        is_prefix_ready: bool,
    ) -> None:
        super().__init__(tier, sequence, span, slots)
        self.meta = meta
        self.num_skipped = num_skipped
        self.is_prefix_ready = is_prefix_ready
        self._first_key = sequence.block_hashes[span.start] if len(slots) else None

    def _on_commit(self, num_blocks: int) -> None:
        if num_blocks < self.num_blocks:
            self.tier.drop(self.sequence.block_hashes[self.span.start + num_blocks], int(self.slots[num_blocks]))
        self.tier.publish(self.sequence, self.slots[:num_blocks], self.span.start, self.meta)

    def _on_doom(self) -> None:
        if self._first_key is not None:
            self.tier.drop(self._first_key, int(self.slots[0]))
            self._first_key = None

    def _on_quarantine(self) -> None:
        if self.num_blocks:
            self.tier.quarantine(self.slots)
