"""Two ranks of one engine in one process, on one GPU or on two: heads in shards, and MLA, of which one copy is kept.

And threads of the engine's, which keep their own GPU.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from flexkv import CacheConfig, KVManager, ModelConfig, _core
from flexkv.common.kv_tensors import layout_from_kv_caches
from flexkv.server.client import KVTPClient
from flexkv.server.registration import LEGACY_STREAM

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")]

WAIT_S = 60.0
TPB, NUM_BLOCKS, NUM_LAYERS = 16, 64, 6
SLEEP_CYCLES = 400_000_000
"""About 0.2 s of a GPU."""
MLA = ModelConfig(NUM_LAYERS, 1, 576, True, dtype="bfloat16", tp_size=2)
SHARDS = ModelConfig(NUM_LAYERS, 8, 128, dtype="bfloat16", tp_size=2)


def current_context() -> int:
    """Return the calling thread's CUDA context as the driver has it; 0: none."""
    context = ctypes.c_void_p()
    assert ctypes.CDLL("libcuda.so.1").cuCtxGetCurrent(ctypes.byref(context)) == 0
    return context.value or 0


class Ranks:
    """A manager and both ranks."""

    def __init__(self, model: ModelConfig, devices: list[str]) -> None:
        self.model, self.devices = model, devices
        self.manager = KVManager(model, CacheConfig(tokens_per_block=TPB, num_cpu_blocks=96, evict_ratio=0.0))
        self.manager.start()
        shape = (NUM_BLOCKS, TPB, 576) if model.use_mla else (2, NUM_BLOCKS, TPB, 4, 128)
        self.block_dim = 0 if model.use_mla else 1
        self.tensors = [
            [torch.zeros(shape, dtype=torch.bfloat16, device=device) for _ in range(NUM_LAYERS)] for device in devices
        ]
        self.clients = [
            KVTPClient(self.manager.gpu_register_port, rank=rank, num_ranks=2, tokens_per_block=TPB) for rank in (0, 1)
        ]
        for client, tensors in zip(self.clients, self.tensors, strict=True):
            client.register_to_server(tensors, block_dim=self.block_dim)
        assert self.manager.wait_ready(WAIT_S)

    def compute(self, step: int, *, is_same: bool) -> list[list[torch.Tensor]]:
        """Run a step that writes all blocks, late. Returns what each rank writes: all of them the same, or not."""
        written = []
        for rank, tensors in enumerate(self.tensors):
            generator = torch.Generator().manual_seed(100 * step + (0 if is_same else rank))
            values = [torch.randn(tensor.shape, generator=generator).to(torch.bfloat16) for tensor in tensors]
            pinned = [value.pin_memory() for value in values]
            with torch.cuda.device(self.devices[rank]):
                torch.cuda._sleep(SLEEP_CYCLES)
                for tensor, value in zip(tensors, pinned, strict=True):
                    tensor.copy_(value, non_blocking=True)
                self.clients[rank].record_step(step)
            written.append(pinned)
        return written

    def wipe(self, step: int) -> None:
        for rank, tensors in enumerate(self.tensors):
            with torch.cuda.device(self.devices[rank]):
                torch.cuda._sleep(SLEEP_CYCLES)
                for tensor in tensors:
                    tensor.zero_()
                self.clients[rank].record_step(step)

    def put(self, num_blocks: int, first: int, step: int) -> str:
        slots = np.arange(num_blocks * TPB)
        task = self.manager.put_async(slots + first, slots, after_step=step)
        return self.manager.wait(task, timeout=WAIT_S)[task].status.name

    def get(self, num_blocks: int, first: int, blocks: np.ndarray, step: int) -> str:
        task, mask = self.manager.get_match(np.arange(num_blocks * TPB) + first)
        assert mask.all()
        self.manager.launch(task, block_ids=[blocks], after_step=step)
        return self.manager.wait(task, timeout=WAIT_S)[task].status.name

    def check(self, blocks: np.ndarray, written: list[list[torch.Tensor]]) -> None:
        """Block i of what was written lies in blocks[i] of its rank, and zeros everywhere else."""
        others = torch.tensor(sorted(set(range(NUM_BLOCKS)) - set(blocks.tolist())))
        for tensors, expected in zip(self.tensors, written, strict=True):
            for tensor, values in zip(tensors, expected, strict=True):
                found = tensor.cpu()
                there = found.index_select(self.block_dim, torch.from_numpy(blocks))
                wanted = values.index_select(self.block_dim, torch.arange(len(blocks)))
                assert torch.equal(there.contiguous().view(torch.uint8), wanted.contiguous().view(torch.uint8))
                assert (found.index_select(self.block_dim, others) == 0).all()

    def close(self) -> None:
        for client in self.clients:
            assert client.shutdown()
        assert self.manager.shutdown()


@pytest.fixture(params=["one GPU", "two GPUs"])
def devices(request: pytest.FixtureRequest) -> list[str]:
    if request.param == "one GPU":
        return ["cuda:0", "cuda:0"]
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU is here")
    return ["cuda:0", "cuda:1"]


@pytest.fixture(params=[MLA, SHARDS], ids=["MLA", "shards"])
def ranks(request: pytest.FixtureRequest, devices: list[str]) -> Iterator[Ranks]:
    ranks = Ranks(request.param, devices)
    yield ranks
    ranks.close()


def test_each_rank_gets_its_bytes_back_behind_its_own_steps(ranks: Ranks) -> None:
    rng = np.random.default_rng(7)
    for turn in range(3):
        written = ranks.compute(2 * turn + 1, is_same=ranks.model.use_mla)
        assert ranks.put(31, turn * 10_000, 2 * turn + 1) == "SUCCESS"
        ranks.wipe(2 * turn + 2)
        blocks = rng.permutation(NUM_BLOCKS)[:31].astype(np.int64)
        assert ranks.get(31, turn * 10_000, blocks, 2 * turn + 2) == "SUCCESS"
        ranks.check(blocks, written)


def test_replicas_share_the_host_memory_and_the_stores(ranks: Ranks) -> None:
    pool = ranks.manager._engine._tier._pool
    assert isinstance(pool, _core.HostPool)
    assert pool.num_shards == (1 if ranks.model.use_mla else 2)
    ranks.compute(1, is_same=ranks.model.use_mla)
    assert ranks.put(31, 0, 1) == "SUCCESS"
    assert ranks.get(31, 0, np.arange(31, dtype=np.int64), 1) == "SUCCESS"
    reports = [client.stats() for client in ranks.clients]
    stored = sorted(report.bytes_stored // pool.slot_bytes(0) for report in reports if report is not None)
    assert stored == ([15, 16] if ranks.model.use_mla else [31, 31])
    assert [report and report.bytes_loaded // pool.slot_bytes(0) for report in reports] == [31, 31]
    assert [report and report.last_error for report in reports] == ["", ""]


def test_each_replica_stores_half_of_the_blocks_in_one_run_and_both_load_what_is_there(devices: list[str]) -> None:
    """Ranks that are no replicas at all show which of them stored a block."""
    ranks = Ranks(MLA, devices)
    written = ranks.compute(1, is_same=False)
    assert ranks.put(40, 0, 1) == "SUCCESS"
    ranks.wipe(2)
    blocks = np.arange(NUM_BLOCKS - 40, NUM_BLOCKS, dtype=np.int64)
    assert ranks.get(40, 0, blocks, 2) == "SUCCESS"
    halves = [slice(0, 20), slice(20, 40)]
    first = int(not torch.equal(ranks.tensors[0][0][blocks[0]].cpu(), written[0][0][0]))
    for tensors in ranks.tensors:
        for layer, tensor in enumerate(tensors):
            found = tensor.cpu()[torch.from_numpy(blocks)]
            for rank, half in zip((first, 1 - first), halves, strict=True):
                assert torch.equal(found[half], written[rank][layer][:40][half])
    ranks.close()


@pytest.mark.parametrize("has_another", [False, True], ids=["none yet", "another GPU"])
def test_a_thread_that_registers_and_tells_of_steps_keeps_its_own_gpu(has_another: bool) -> None:
    if has_another and torch.cuda.device_count() < 2:
        pytest.skip("one GPU is here")
    tensors = [torch.zeros((2, 20, 16, 8, 128), dtype=torch.bfloat16, device="cuda") for _ in range(4)]
    spec = layout_from_kv_caches(tensors, block_dim=1)
    pool = _core.HostPool(20, [spec.slot_bytes])
    assert pool.wait_prefaulted(20, WAIT_S)
    base = pool.view(0, 0).__array_interface__["data"][0]
    stream = torch.cuda.Stream()
    found: list[int] = []

    def work() -> None:
        if has_another:
            torch.cuda.set_device(1)
            torch.zeros(1, device="cuda")
        found.append(current_context())
        native = _core.BlockCopies("cuda", spec.num_blocks, spec.planes, base, pool.stride_bytes(0), 20)
        found.append(current_context())
        assert native.wait_usable(WAIT_S)
        native.record_step(1, stream.cuda_stream)
        native.record_step(2, LEGACY_STREAM)
        found.append(current_context())
        native.release_host()
        del native
        found.append(current_context())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(WAIT_S)
    assert len(found) == 4
    assert len(set(found)) == 1
    assert bool(found[0]) is has_another
