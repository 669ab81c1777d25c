"""What the GPU benchmarks copy with, on memory of the host."""

from __future__ import annotations

import numpy as np

from benchmarks.gpu_blocks import address_of, planes_in, prefaulted_pool, tuned_copies
from benchmarks.gpu_rate import LOAD, STORE

NUM_PLANES, NUM_BLOCKS, CHUNK_BYTES = 3, 5, 70
SLOT_BYTES = NUM_PLANES * CHUNK_BYTES


def test_planes_are_those_of_a_tensor_of_planes() -> None:
    planes = planes_in(1000, NUM_PLANES, NUM_BLOCKS, CHUNK_BYTES)
    assert planes.dtype == np.uint64
    assert planes.tolist() == [[1000, 70, 70], [1350, 70, 70], [1700, 70, 70]]


def test_blocks_go_to_slots_and_back() -> None:
    memory = np.random.default_rng(3).integers(0, 256, (NUM_PLANES, NUM_BLOCKS, CHUNK_BYTES), dtype=np.uint8)
    before = memory.copy()
    pool = prefaulted_pool(NUM_BLOCKS, SLOT_BYTES)
    planes = planes_in(memory.ctypes.data, NUM_PLANES, NUM_BLOCKS, CHUNK_BYTES)
    copies = tuned_copies(planes, NUM_BLOCKS, address_of(pool), pool.stride_bytes(0), NUM_BLOCKS, "cpu")
    slots, blocks = np.array([4, 0], dtype=np.int64), np.array([1, 2], dtype=np.int64)
    assert copies.copy(STORE, slots, blocks) == 2 * SLOT_BYTES
    for slot, block in ((4, 1), (0, 2)):
        assert np.array_equal(pool.view(0, slot)[:SLOT_BYTES], before[:, block].reshape(-1))
    memory[:, blocks] = 0xA5
    copies.copy(LOAD, slots, blocks)
    assert np.array_equal(memory, before)
