"""Staging, as a GET that waits for its launch sees it: how far the blocks that were on their way to host memory are.

Pure. Thread safety: none; the KVTaskEngine's mutex guards what is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from flexkv.cache.cache_engine import GlobalCacheEngine
from flexkv.cache.reservation import GetReservation, Reservation
from flexkv.cache.tier_move import NOTHING, UNSURE

__all__ = ["StagingState", "is_lost", "staging_of"]


class StagingState(Enum):
    """How far the blocks of a GET that waits for its launch are: PENDING -> READY | BROKEN.

    READY: all are in the CPU tier. PENDING: some are on their way there. BROKEN: some will not come, or the task has
    ended; cancel it and ask anew.
    """

    READY = "ready"
    PENDING = "pending"
    BROKEN = "broken"


def staging_of(cache: GlobalCacheEngine, reservations: Iterable[Reservation]) -> StagingState:
    """Return how far the blocks are that these hold, all together."""
    states = {_state_of(cache, reservation) for reservation in reservations}
    for state in (StagingState.BROKEN, StagingState.PENDING):
        if state in states:
            return state
    return StagingState.READY


def _state_of(cache: GlobalCacheEngine, reservation: Reservation) -> StagingState:
    if not isinstance(reservation, GetReservation) or reservation.num_arriving == 0:
        return StagingState.READY
    slots = reservation.slots[-reservation.num_arriving :]
    waits = cache.arrivals.ops(slots) != NOTHING
    settled = slots[~waits]
    if cache.cpu_cache_engine.index.count_ready(settled) < len(settled):
        return StagingState.BROKEN
    if waits.any():
        return StagingState.PENDING
    reservation.num_arriving = 0
    return StagingState.READY


def is_lost(cache: GlobalCacheEngine, reservations: Iterable[Reservation]) -> bool:
    """Return whether some blocks will not come, or there is no op that could be waited for."""
    held = list(reservations)
    return staging_of(cache, held) is StagingState.BROKEN or any(
        (cache.arrivals.ops(reservation.slots) == UNSURE).any() for reservation in held
    )
