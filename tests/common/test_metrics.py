"""Counters and their snapshots."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest

from flexkv.common.metrics import COUNT_NAMES, LEVEL_NAMES, CacheStats, Counters, MissReason, SkipReason
from flexkv.common.transfer import TransferType


def test_a_snapshot_does_not_follow_later_counts() -> None:
    counters = Counters()
    counters.hit_blocks = 3
    counters.miss(MissReason.NO_MATCH)
    counters.skip(SkipReason.NO_SLOTS, 5)
    counters.routes[TransferType.H2D].add(2, 4096, 0.5)
    stats = counters.snapshot()
    counters.hit_blocks += 1
    counters.miss(MissReason.NO_MATCH)
    counters.skip(SkipReason.NO_SLOTS, 1)
    counters.routes[TransferType.H2D].add(1, 1, 1.0)
    assert stats.hit_blocks == 3
    assert stats.misses[MissReason.NO_MATCH] == 1
    assert stats.skipped_blocks[SkipReason.NO_SLOTS] == 5
    assert stats.routes[TransferType.H2D].bytes == 4096
    with pytest.raises(FrozenInstanceError):
        stats.hit_blocks = 4  # type: ignore[misc]


def test_a_failed_op_counts_as_failed_and_moves_no_block() -> None:
    counters = Counters()
    counters.routes[TransferType.D2H].add(4, 100, 0.1, failed=True)
    route = counters.snapshot().routes[TransferType.D2H]
    assert (route.num_ops, route.num_blocks, route.bytes, route.num_failed) == (1, 0, 100, 1)


def test_every_number_of_a_snapshot_has_a_flat_name() -> None:
    counters = Counters()
    counters.slots_used = 7
    counters.routes[TransferType.H2D].add(2, 4096, 0.5)
    flat = counters.snapshot().flat()
    assert flat["slots_used"] == 7
    assert (flat["h2d_ops"], flat["h2d_blocks"], flat["h2d_bytes"], flat["h2d_seconds"]) == (1, 2, 4096, 0.5)
    assert flat["misses_no_match"] == 0
    assert flat["skipped_blocks_doomed"] == 0
    plain = {field.name for field in fields(CacheStats)} - {"routes", "misses", "skipped_blocks"}
    assert plain == set(COUNT_NAMES) | set(LEVEL_NAMES)
    assert plain < flat.keys()
