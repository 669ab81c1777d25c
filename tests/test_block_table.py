"""Where tokens lie in paged memory, over pages that are numpy arrays."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.block_table import BlockTable, K, V

BLOCKS, SIZE = np.array([7, 2, 5, 0], dtype=np.int64), 4


def test_what_is_written_by_rows_in_parts_is_read_by_halves_in_order_and_nothing_else_changes() -> None:
    table = BlockTable(BLOCKS, SIZE)
    pages = np.zeros((8, 2, SIZE, 3), dtype=np.int64)
    states = np.random.default_rng(3).integers(1, 100, (2, 14, 3))
    for start, end in ((0, 5), (5, 6), (6, 14)):
        for part in (K, V):
            pages.reshape(-1, 3)[table.rows(start, end, part)] = states[part, start:end]
    for part in (K, V):
        found = pages.reshape(-1, SIZE, 3)[table.halves(14, part)].reshape(-1, 3)
        assert np.array_equal(found[:14], states[part])
        assert not found[14:].any()
        for at, block in enumerate(BLOCKS.tolist()[:3]):
            assert np.array_equal(pages[block, part], states[part, at * SIZE : (at + 1) * SIZE])
    assert not pages[[1, 3, 4, 6]].any()


def test_only_filled_blocks_are_whole() -> None:
    table = BlockTable(BLOCKS, SIZE)
    assert table.whole_blocks(3).tolist() == []
    assert table.whole_blocks(11).tolist() == [7, 2]
    assert table.halves(9, K).tolist() == [14, 4, 10]


def test_a_sequence_does_not_outgrow_its_blocks() -> None:
    table = BlockTable(BLOCKS, SIZE)
    assert len(table.rows(15, 16, V)) == 1
    with pytest.raises(ValueError, match="room for 16"):
        table.rows(15, 17, K)
    with pytest.raises(ValueError, match="room for 16"):
        table.halves(17, K)
