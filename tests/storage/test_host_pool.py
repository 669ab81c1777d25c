"""HostPool as Python sees it: geometry, views, limits, and what a process boundary may do with it."""

from __future__ import annotations

import errno
import gc
import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from flexkv import _core
from tests.rig import eventually

TIMEOUT_S = 60.0


def test_slots_are_padded_and_every_shard_has_its_own() -> None:
    pool = _core.HostPool(5, [100, 5000], prefault_threads=1)
    assert (pool.num_slots, pool.num_shards) == (5, 2)
    assert [pool.slot_bytes(shard) for shard in (0, 1)] == [100, 5000]
    assert [pool.stride_bytes(shard) for shard in (0, 1)] == [4096, 8192]
    assert [_core.slot_stride_bytes(size) for size in (1, 4096, 4097)] == [4096, 4096, 8192]
    assert pool.page_kind in ("hugetlb", "thp", "4k")
    assert pool.wait_prefaulted(5, TIMEOUT_S)
    assert pool.slots_prefaulted == 5
    assert pool.prefault_error == 0


def test_a_view_is_the_slot_itself_as_another_mapping_sees_it() -> None:
    pool = _core.HostPool(4, [100])
    view = pool.view(0, 3)
    assert view.shape == (100,)
    assert view.dtype == np.uint8
    view[:] = np.arange(100)
    with mmap.mmap(pool.fd(0), 4 * 4096, prot=mmap.PROT_READ) as other:
        assert other[3 * 4096 : 3 * 4096 + 100] == bytes(range(100))


def test_a_view_keeps_the_pool_alive() -> None:
    view = _core.HostPool(1, [4096]).view(0, 0)
    gc.collect()
    view[:] = 7
    assert (view == 7).all()


def test_pools_differ_in_generation() -> None:
    assert _core.HostPool(1, [1]).generation != _core.HostPool(1, [1]).generation


def test_a_pool_cannot_be_resized_by_who_gets_its_descriptor() -> None:
    pool = _core.HostPool(1, [1])
    for size in (0, 1 << 20):
        with pytest.raises(PermissionError):
            os.ftruncate(pool.fd(0), size)
    assert not os.get_inheritable(pool.fd(0))


def test_too_large_a_pool_says_what_there_is_and_what_to_set() -> None:
    assert 0 < _core.memory_headroom() < 1 << 50
    with pytest.raises(OSError, match=r"GiB.*FLEXKV_CPU_CACHE_GB") as caught:
        _core.HostPool(1 << 30, [1 << 20])
    assert caught.value.errno == errno.ENOMEM


@pytest.mark.parametrize(
    ("num_slots", "slot_bytes", "threads", "name"),
    [
        (0, [1], 1, "num_slots"),
        (-1, [1], 1, "num_slots"),
        (1, [], 1, "slot_bytes"),
        (1, [0], 1, "slot_bytes"),
        (1, [1] * 65, 1, "slot_bytes"),
        (1, [1], 0, "prefault_threads"),
        (1 << 62, [4096], 1, "num_slots"),
    ],
)
def test_bad_sizes_are_refused(num_slots: int, slot_bytes: list[int], threads: int, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        _core.HostPool(num_slots, slot_bytes, threads)


def test_ids_out_of_range_are_refused() -> None:
    pool = _core.HostPool(2, [1])
    for shard, slot, name in ((1, 0, "shard"), (-1, 0, "shard"), (0, 2, "slot"), (0, -1, "slot")):
        with pytest.raises(ValueError, match=name):
            pool.view(shard, slot)
    assert not pool.wait_prefaulted(3, 0.0)


def test_prefault_threads_run_at_a_lower_priority_than_the_engine() -> None:
    pool = _core.HostPool(1 << 18, [4096], 2)  # a GiB, so that they are still at it; it is dropped at once
    threads = [
        int(task.name)
        for task in Path("/proc/self/task").iterdir()
        if (task / "comm").read_text(encoding="ascii").strip() == "fkv-prefault"
    ]
    assert len(threads) == 2
    lowered: set[int] = set()

    def all_lowered() -> bool:
        lowered.update(thread for thread in threads if os.getpriority(os.PRIO_PROCESS, thread) == 10)
        return len(lowered) == 2

    assert eventually(all_lowered)
    assert os.getpriority(os.PRIO_PROCESS, 0) == 0
    del pool
