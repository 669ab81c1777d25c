"""The ways of copying between a GPU and host memory: each is right, and figures are kept for the next start."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu_blocks import address_of, has_batches, planes_in, prefaulted_pool, tuned_copies, usable_copies
from flexkv import CacheConfig, KVManager, ModelConfig
from flexkv.server.client import KVTPClient

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")]

LOAD, STORE = 0, 1
WAIT_S = 60.0
MECHANISMS = ("staged", "direct", "strided", "batched", "zero_copy", "mixed")
NUM_BLOCKS = 200


class Copies:
    """Planes in one tensor, and as many slots as blocks."""

    def __init__(self, num_planes: int, chunk_bytes: int) -> None:
        self.memory = torch.randint(0, 256, (num_planes, NUM_BLOCKS, chunk_bytes), dtype=torch.uint8, device="cuda")
        slot_bytes = num_planes * chunk_bytes
        planes = planes_in(self.memory.data_ptr(), num_planes, NUM_BLOCKS, chunk_bytes)
        self.pool = prefaulted_pool(NUM_BLOCKS, slot_bytes)
        torch.cuda.synchronize()
        stride = self.pool.stride_bytes(0)
        self.native = tuned_copies(planes, NUM_BLOCKS, address_of(self.pool), stride, NUM_BLOCKS)

    def check(self, slots: np.ndarray, blocks: np.ndarray) -> None:
        """Store, compare the slots, wipe, load, compare the blocks."""
        before = self.memory.clone()
        self.native.copy(STORE, slots, blocks)
        for slot, block in zip(slots.tolist(), blocks.tolist(), strict=True):
            stored = np.asarray(self.pool.view(0, slot))
            assert np.array_equal(stored, before[:, block].cpu().numpy().reshape(-1))
        self.memory[:, torch.from_numpy(blocks).cuda()] = 0xA5
        torch.cuda.synchronize()
        self.native.copy(LOAD, slots, blocks)
        assert torch.equal(self.memory, before)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(("num_planes", "chunk_bytes"), [(7, 4096), (3, 1020), (2, 37), (1, 8192), (1, 3000)])
def test_each_mechanism_copies_what_it_takes(mechanism: str, num_planes: int, chunk_bytes: int) -> None:
    copies = Copies(num_planes, chunk_bytes)
    copies.native.use_mechanism(mechanism)
    takes = {"direct": num_planes == 1, "strided": num_planes > 1, "batched": has_batches(copies.native)}
    rng = np.random.default_rng(num_planes)
    for count in (1, 5, NUM_BLOCKS):
        slots = rng.permutation(NUM_BLOCKS)[:count].astype(np.int64)
        used = copies.native.mechanism_for(STORE, slots)
        assert used == (mechanism if takes.get(mechanism, True) else "staged")
        copies.check(slots, rng.permutation(NUM_BLOCKS)[:count].astype(np.int64))
        copies.check(np.arange(count), np.arange(count))


def test_all_kinds_of_ops_are_measured_soon() -> None:
    tuning = Copies(64, 32 << 10).native.tuning()
    assert tuning["state"] == "MEASURED", tuning["why_not"]
    staged = tuning["mechanisms"].index("staged")
    reached = [cell for cell, us in zip(tuning["cells"], tuning["us"], strict=True) if us[staged] > 0]
    assert {blocks for _, blocks, _ in reached} >= {1, 4, 16}
    assert all(us == 0 or 1 < us < 1e6 for row in tuning["us"] for us in row)


def test_the_engine_launches_kernels_while_it_is_measured() -> None:
    """What frees memory waits for the GPU, and every launch with it: not while a step of the engine's runs."""
    memory = torch.zeros((2, NUM_BLOCKS, 32 << 10), dtype=torch.uint8, device="cuda")
    planes = planes_in(memory.data_ptr(), 2, NUM_BLOCKS, 32 << 10)
    pool = prefaulted_pool(NUM_BLOCKS, 64 << 10)
    engine, other, small = torch.cuda.Stream(), torch.cuda.Stream(), torch.zeros(8, device="cuda")
    with torch.cuda.stream(other):
        small.add_(1)  # the first time the kernel is loaded
    torch.cuda.synchronize()
    native = usable_copies(planes, NUM_BLOCKS, address_of(pool), pool.stride_bytes(0), NUM_BLOCKS)
    with torch.cuda.stream(engine):
        torch.cuda._sleep(800_000_000)  # about 0.4 s
    native.record_step(1, engine.cuda_stream)
    longest_s, num_launches = 0.0, 0
    with torch.cuda.stream(other):
        while not engine.query():
            begin_s = time.perf_counter()
            small.add_(1)
            longest_s = max(longest_s, time.perf_counter() - begin_s)
            num_launches += 1
    assert native.wait_tuned(WAIT_S)
    assert num_launches > 10
    assert longest_s < 0.1


def test_what_was_measured_is_used_by_the_next_client(tmp_path: Path) -> None:
    tensors = {
        f"layer.{layer}": torch.zeros((2, 60, 16, 8, 128), dtype=torch.bfloat16, device="cuda") for layer in range(6)
    }
    states = []
    for _ in range(2):
        manager = KVManager(
            ModelConfig(6, 8, 128, dtype="bfloat16"), CacheConfig(tokens_per_block=16, num_cpu_blocks=32)
        )
        manager.start()
        client = KVTPClient(manager.gpu_register_port, tokens_per_block=16, gpu_tuning_cache=str(tmp_path))
        client.register_to_server(tensors)
        assert manager.wait_ready(WAIT_S)
        registration = client._registration
        assert registration is not None
        assert registration.agent.wait_tuned(WAIT_S)
        report = client.stats()
        assert report is not None
        assert report.copy_tuning is not None
        states.append(report.copy_tuning.state)
        assert client.shutdown(WAIT_S)
        assert manager.shutdown()
    assert states == ["MEASURED", "GIVEN"]
    assert len(list(tmp_path.iterdir())) == 1
