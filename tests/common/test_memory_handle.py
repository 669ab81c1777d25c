"""Handles of memory: a host segment can be mapped from its handle alone, by another process too."""

from __future__ import annotations

import dataclasses
import multiprocessing
import pickle

import numpy as np
import pytest

from flexkv import _core
from flexkv.common.memory_handle import HostSegmentHandle, KVTensorHandle
from flexkv.errors import StorageIOError

SLOT_BYTES = 5000


def double_slot(handle: HostSegmentHandle, slot: int) -> None:
    with handle.map() as mapping:
        where = handle.slot_range(slot)
        mapping[where] = bytes(byte * 2 % 256 for byte in mapping[where])


def test_another_process_maps_the_same_bytes() -> None:
    pool = _core.HostPool(3, [SLOT_BYTES])
    content = np.random.default_rng(1).integers(0, 256, (3, SLOT_BYTES), dtype=np.uint8)
    for slot in range(3):
        pool.view(0, slot)[:] = content[slot]
    handle = pickle.loads(pickle.dumps(HostSegmentHandle.of(pool, 0)))
    process = multiprocessing.get_context("spawn").Process(target=double_slot, args=(handle, 1))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    content[1] *= 2
    for slot in range(3):
        assert np.array_equal(pool.view(0, slot), content[slot])


def test_a_handle_outlives_its_pool_as_an_error() -> None:
    pool = _core.HostPool(3, [SLOT_BYTES])
    handle = HostSegmentHandle.of(pool, 0)
    with pytest.raises(ValueError, match="slot is 3"):
        handle.slot_range(3)
    del pool
    with pytest.raises(StorageIOError, match="host segment"):
        handle.map()


@pytest.mark.parametrize("change", [{"num_slots": 1 << 20}, {"inode": 1}])
def test_a_segment_that_is_not_the_handles_is_not_mapped(change: dict[str, int]) -> None:
    pool = _core.HostPool(1, [SLOT_BYTES])
    wrong = dataclasses.replace(HostSegmentHandle.of(pool, 0), **change)
    with pytest.raises(StorageIOError, match="its handle says"):
        wrong.map()


def test_a_tensor_handle_says_where_the_tensor_lies() -> None:
    array = np.zeros((4, 6, 2), np.float32)[:, ::2]
    handle = KVTensorHandle.of(array)
    assert handle.address == array.ctypes.data
    assert (handle.shape, handle.strides, handle.itemsize) == ((4, 3, 2), (12, 4, 1), 4)
    assert (handle.dtype, handle.device) == ("float32", "cpu")
    assert pickle.loads(pickle.dumps(handle)) == handle
