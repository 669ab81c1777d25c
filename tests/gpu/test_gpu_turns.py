"""The engine's own copies come in between ours: the copy engine else serves one stream until it is empty."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu_blocks import address_of, has_batches, planes_in, prefaulted_pool, tuned_copies

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")]

LOAD, STORE = 0, 1
NUM_PLANES, NUM_BLOCKS, CHUNK_BYTES = 64, 512, 64 << 10
"""2 GiB: all of it takes 39 ms over a link of 55 GB/s."""
MOST_S = 0.005
STEPS = itertools.count(1)


@pytest.fixture(scope="module")
def native() -> Iterator[Any]:
    memory = torch.zeros((NUM_PLANES, NUM_BLOCKS, CHUNK_BYTES), dtype=torch.uint8, device="cuda")
    planes = planes_in(memory.data_ptr(), NUM_PLANES, NUM_BLOCKS, CHUNK_BYTES)
    pool = prefaulted_pool(NUM_BLOCKS, NUM_PLANES * CHUNK_BYTES, 8)
    torch.cuda.synchronize()
    yield tuned_copies(planes, NUM_BLOCKS, address_of(pool), pool.stride_bytes(0), NUM_BLOCKS)
    del memory, pool


@pytest.mark.parametrize("direction", [LOAD, STORE])
@pytest.mark.parametrize("mechanism", ["staged", "strided", "mixed", "batched"])
def test_a_copy_of_the_engines_does_not_wait_for_a_long_op(native: Any, mechanism: str, direction: int) -> None:
    ids = np.arange(NUM_BLOCKS)
    if mechanism == "batched" and not has_batches(native):
        pytest.skip("the driver has no batches of copies")
    native.use_mechanism(mechanism)
    assert native.mechanism_for(direction, ids) == mechanism
    device = torch.zeros(256 << 10, dtype=torch.uint8, device="cuda")
    host = torch.zeros(256 << 10, dtype=torch.uint8, pin_memory=True)
    engine, end = torch.cuda.Stream(), torch.cuda.Event()
    has_copied, is_enough = threading.Event(), threading.Event()
    ops_s: list[float] = []

    def copy_blocks() -> None:
        while not is_enough.is_set():
            begin_s = time.perf_counter()
            native.copy(direction, ids, ids)
            ops_s.append(time.perf_counter() - begin_s)
            has_copied.set()

    copying = threading.Thread(target=copy_blocks)
    copying.start()
    try:
        assert has_copied.wait(60)
        waited_s = []
        for _ in range(30):
            native.record_step(next(STEPS), engine.cuda_stream)
            begin_s = time.perf_counter()
            with torch.cuda.stream(engine):
                (device if direction == LOAD else host).copy_(host if direction == LOAD else device, non_blocking=True)
                end.record(engine)
            end.synchronize()
            waited_s.append(time.perf_counter() - begin_s)
            time.sleep(0.002)  # else many would come in the gap between two ops
    finally:
        is_enough.set()
        copying.join(60)
    assert statistics.median(ops_s) > 4 * MOST_S  # else it shows nothing
    assert sorted(waited_s)[-4] < MOST_S
