"""Blocks between tensors on a GPU and host memory: every layout, fences on real streams, graphs captured meanwhile."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from flexkv import CacheConfig, KVManager, ModelConfig, _core
from flexkv.common.kv_tensors import layout_from_kv_caches
from flexkv.server.client import KVTPClient
from flexkv.server.registration import AgentReport
from tests.rig import eventually

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")]

LOAD, STORE = 0, 1
WAIT_S = 60.0
SLEEP_CYCLES = 400_000_000
"""About 0.2 s of a GPU."""


def layers(shape: tuple[int, ...], num_layers: int, dtype: object = torch.bfloat16) -> list[torch.Tensor]:
    return [torch.zeros(shape, dtype=dtype, device="cuda") for _ in range(num_layers)]


LAYOUTS: dict[str, Callable[[], tuple[list[torch.Tensor], int]]] = {
    "K and V apart": lambda: (layers((2, 60, 16, 8, 128), 5), 1),
    "K and V in a block": lambda: (layers((60, 2, 16, 8, 128), 5), 0),
    "MLA": lambda: (layers((60, 16, 576), 7), 0),
    "an odd number of bytes": lambda: (layers((60, 3, 77), 3, torch.uint8), 0),
    "pieces of four bytes": lambda: (layers((60, 5, 3), 4, torch.float32), 0),
    "pieces of a little more than two KiB": lambda: (layers((60, 2064), 5, torch.uint8), 0),
    "pieces of a little more than ten KiB": lambda: (layers((60, 10_256), 5, torch.uint8), 0),
    "pieces of 16 bytes": lambda: (layers((60, 16), 5, torch.uint8), 0),
    "blocks outside of all layers": lambda: (layers((60, 8, 2, 16, 8, 128), 1), 0),
    "a block of one piece": lambda: (layers((60, 3 << 20), 1, torch.uint8), 0),
    "a block of one very long piece": lambda: (layers((60, 17 << 20), 1, torch.uint8), 0),
    "heads outside of the blocks": lambda: ([torch.zeros((8, 60, 16, 64), device="cuda").transpose(0, 1)], 0),
}


def equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Byte by byte: what is no number is not even equal to itself."""
    return torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))


class Copies:
    """Tensors on the GPU, host slots, and what copies between them."""

    def __init__(self, tensors: list[torch.Tensor], block_dim: int, num_slots: int = 90) -> None:
        self.tensors, self.block_dim = tensors, block_dim
        spec = layout_from_kv_caches(tensors, block_dim=block_dim)
        self.num_blocks, self.slot_bytes = spec.num_blocks, spec.slot_bytes
        self.pool = _core.HostPool(num_slots, [spec.slot_bytes])
        assert self.pool.wait_prefaulted(num_slots, WAIT_S)
        self.stride = self.pool.stride_bytes(0)
        base = self.pool.view(0, 0).__array_interface__["data"][0]
        self.native = _core.BlockCopies("cuda", spec.num_blocks, spec.planes, base, self.stride, num_slots)
        assert self.native.wait_usable(WAIT_S)
        self.planes = spec.planes
        self._engine, self._step = torch.cuda.Stream(), 0

    def copy_beside(self, is_busy: bool, direction: int, slots: np.ndarray, blocks: np.ndarray) -> None:
        """Copy; if so, while the engine works on a step that the copy does not wait for."""
        if is_busy:
            self._be_busy()
        assert self.native.copy(direction, slots, blocks) == len(slots) * self.slot_bytes
        assert not is_busy or not self._engine.query(), "the engine was done before the copy"

    def _be_busy(self) -> None:
        with torch.cuda.stream(self._engine):
            torch.cuda._sleep(SLEEP_CYCLES // 2)
        self._step += 1
        self.native.record_step(self._step, self._engine.cuda_stream)

    def randomize(self) -> list[torch.Tensor]:
        """Fill the tensors, and return copies of them."""
        for tensor in self.tensors:
            raw = tensor.view(torch.uint8) if tensor.is_contiguous() else None
            if raw is None:
                tensor.copy_(torch.randn(tensor.shape, device="cuda"))
            else:
                raw.copy_(torch.randint(0, 256, raw.shape, dtype=torch.uint8, device="cuda"))
        torch.cuda.synchronize()
        return [tensor.clone() for tensor in self.tensors]

    def expected_slot(self, block: int) -> np.ndarray:
        """Read the bytes of a block through the planes, with torch."""
        pieces = []
        for base, stride, chunk in self.planes.tolist():
            for tensor in self.tensors:
                start = tensor.data_ptr()
                size = tensor.untyped_storage().nbytes()
                if start <= base < start + size:
                    raw = torch.empty(0, dtype=torch.uint8, device="cuda").set_(tensor.untyped_storage())
                    at = base + block * stride - start
                    pieces.append(raw[at : at + chunk].cpu().numpy())
        return np.concatenate(pieces)


@pytest.mark.parametrize("is_busy", [False, True], ids=["beside nothing", "beside the engine's work"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_byte_of_a_block_goes_to_its_slot_and_back_and_no_other(name: str, is_busy: bool) -> None:
    copies = Copies(*LAYOUTS[name]())
    if is_busy:
        copies.native.use_mechanism("staged")
    rng = np.random.default_rng(5)
    original = copies.randomize()
    for num in (1, 7, 60):
        blocks = rng.permutation(copies.num_blocks)[:num].astype(np.int64)
        for slots in (np.arange(num, dtype=np.int64) + 3, rng.permutation(90)[:num].astype(np.int64)):
            for slot in range(90):
                copies.pool.view(0, slot)[:] = 0xA5
            copies.copy_beside(is_busy, STORE, slots, blocks)
            for slot, block in list(zip(slots.tolist(), blocks.tolist(), strict=True))[:5]:
                assert np.array_equal(copies.pool.view(0, slot)[: copies.slot_bytes], copies.expected_slot(block))
            for slot in set(range(90)) - set(slots.tolist()):
                assert (copies.pool.view(0, slot)[: copies.slot_bytes] == 0xA5).all()
            for tensor in copies.tensors:
                tensor.zero_()
            torch.cuda.synchronize()
            copies.copy_beside(is_busy, LOAD, slots, blocks)
            index = torch.from_numpy(blocks).cuda()
            others = torch.tensor(sorted(set(range(copies.num_blocks)) - set(blocks.tolist())), device="cuda")
            for tensor, before in zip(copies.tensors, original, strict=True):
                for which, expected in ((index, before), (others.long(), torch.zeros_like(before))):
                    found = tensor.index_select(copies.block_dim, which)
                    assert equal(found, expected.index_select(copies.block_dim, which))
                tensor.copy_(before)
            torch.cuda.synchronize()


@pytest.mark.parametrize("is_busy", [False, True], ids=["beside nothing", "beside the engine's work"])
def test_blocks_that_are_longer_than_a_stage_arrive_in_pieces(is_busy: bool) -> None:
    copies = Copies(layers((4, 37 << 20), 2, torch.uint8), 0, num_slots=4)
    copies.native.use_mechanism("staged")
    original = copies.randomize()
    slots, blocks = np.array([3, 0, 1]), np.array([1, 2, 0])
    for slot in range(4):
        copies.pool.view(0, slot)[:] = 0xA5
    copies.copy_beside(is_busy, STORE, slots, blocks)
    for slot, block in zip(slots.tolist(), blocks.tolist(), strict=True):
        assert np.array_equal(copies.pool.view(0, slot)[: copies.slot_bytes], copies.expected_slot(block))
    assert (copies.pool.view(0, 2)[: copies.slot_bytes] == 0xA5).all()
    for tensor in copies.tensors:
        tensor[:3] = 0
    torch.cuda.synchronize()
    copies.copy_beside(is_busy, LOAD, slots, blocks)
    assert all(equal(tensor, before) for tensor, before in zip(copies.tensors, original, strict=True))


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability()[0] < 9, reason="this GPU has no slim kernels"
)
@pytest.mark.parametrize("direction", [LOAD, STORE])
def test_kernels_of_stages_find_room_beside_a_matrix_product(direction: int) -> None:
    copies = Copies(layers((2, 60, 16, 2, 64), 32), 1)  # chunks of 4 KiB
    copies.native.use_mechanism("staged")
    ids = np.arange(16, dtype=np.int64)
    one = torch.randn((16_384, 16_384), device="cuda", dtype=torch.bfloat16)
    out = torch.empty_like(one)
    engine = torch.cuda.Stream()
    torch.cuda.synchronize()
    copies.native.copy(direction, ids, ids)
    with torch.cuda.stream(engine):
        torch.matmul(one, one, out=out)  # the first time takes longer

    def share_of_a_product(step: int) -> float:
        engine.synchronize()
        with torch.cuda.stream(engine):
            torch.matmul(one, one, out=out)  # 12 ms on an H100
        copies.native.record_step(step, engine.cuda_stream)
        begin_s = time.perf_counter()
        copies.native.copy(direction, ids, ids)
        taken_s = time.perf_counter() - begin_s
        engine.synchronize()
        return taken_s / (time.perf_counter() - begin_s)

    # A kernel that finds none gets in when the last groups of the product have begun, close to its end.
    shares = [share_of_a_product(step) for step in range(1, 6)]
    assert min(shares) < 0.25, shares


def test_host_memory_changes_hands_while_the_engine_works() -> None:
    tensors, dim = layers((2, 60, 16, 8, 128), 4), 1
    copies = Copies(tensors, dim)
    original = copies.randomize()
    ids = np.arange(60, dtype=np.int64)
    copies.copy_beside(True, STORE, ids, ids)
    copies.native.release_host()
    base = copies.pool.view(0, 0).__array_interface__["data"][0]
    copies.native = _core.BlockCopies("cuda", copies.num_blocks, copies.planes, base, copies.stride, 90)
    assert copies.native.wait_usable(WAIT_S)
    for tensor in tensors:
        tensor.zero_()
    torch.cuda.synchronize()
    copies.copy_beside(True, LOAD, ids, ids)
    assert all(equal(tensor, before) for tensor, before in zip(tensors, original, strict=True))


def test_both_directions_at_once_share_the_stages() -> None:
    tensors, dim = layers((2, 600, 16, 8, 128), 16), 1
    copies = Copies(tensors, dim, num_slots=600)
    copies.randomize()
    first, second = np.arange(300, dtype=np.int64), np.arange(300, 600, dtype=np.int64)
    copies.native.copy(STORE, first, first)
    expected = [tensor[:, :300].clone() for tensor in tensors]
    for tensor in tensors:
        tensor[:, :300].zero_()
    torch.cuda.synchronize()
    errors: list[BaseException] = []

    def run(direction: int, ids: np.ndarray) -> None:
        try:
            for _ in range(8):
                copies.native.copy(direction, ids, ids)
        except BaseException as error:  # noqa: BLE001  raised below
            errors.append(error)

    threads = [threading.Thread(target=run, args=args) for args in ((LOAD, first), (STORE, second))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert errors == []
    assert all(equal(tensor[:, :300], before) for tensor, before in zip(tensors, expected, strict=True))
    for block in (300, 411, 599):
        assert np.array_equal(copies.pool.view(0, block)[: copies.slot_bytes], copies.expected_slot(block))


def test_a_store_waits_on_the_device_for_the_step_that_writes_its_blocks() -> None:
    copies = Copies(layers((2, 20, 16, 8, 128), 4), 1)
    ids = np.arange(20, dtype=np.int64)
    torch.cuda._sleep(SLEEP_CYCLES)
    for tensor in copies.tensors:
        tensor.fill_(1.5)
    copies.native.record_step(4, torch.cuda.current_stream().cuda_stream or 1)
    copies.native.copy(STORE, ids, ids, after_step=3)
    stored = torch.from_numpy(np.stack([copies.pool.view(0, slot)[: copies.slot_bytes] for slot in range(20)]))
    assert (stored.view(torch.bfloat16) == 1.5).all()


def test_a_load_waits_on_the_device_for_the_step_that_still_reads_its_blocks() -> None:
    copies = Copies(layers((2, 20, 16, 8, 128), 4), 1)
    ids = np.arange(20, dtype=np.int64)
    copies.native.copy(STORE, ids, ids)  # zeros
    for tensor in copies.tensors:
        tensor.fill_(2.5)
    torch.cuda._sleep(SLEEP_CYCLES)
    read = [tensor.clone() for tensor in copies.tensors]
    copies.native.record_step(9, torch.cuda.current_stream().cuda_stream or 1)
    copies.native.copy(LOAD, ids, ids, after_step=9)
    torch.cuda.synchronize()
    assert all((tensor == 2.5).all() for tensor in read), "it read what the load brought"
    assert all((tensor == 0).all() for tensor in copies.tensors)


def test_without_its_step_a_store_is_too_early() -> None:
    """The two tests above would fail without the fences: this one shows that the kernels are late enough for it."""
    copies = Copies(layers((2, 20, 16, 8, 128), 4), 1)
    ids = np.arange(20, dtype=np.int64)
    torch.cuda._sleep(SLEEP_CYCLES)
    for tensor in copies.tensors:
        tensor.fill_(1.5)
    copies.native.copy(STORE, ids, ids)
    torch.cuda.synchronize()
    assert (copies.pool.view(0, 0)[: copies.slot_bytes] == 0).all()


class Captures:
    """Graphs of an engine, captured in the mode in which whatever any thread does may end the capture."""

    def __init__(self) -> None:
        self._work = torch.zeros(1024, device="cuda")
        self._work += 1  # the first time the kernel is loaded
        self._end_s = time.monotonic() + WAIT_S
        self.num = 0

    def add(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Capture one, which does not end before `meanwhile` returns, and run it."""
        assert time.monotonic() < self._end_s, "so many captures should have been enough"
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, capture_error_mode="global"):
                for _ in range(200):
                    self._work += 1
                meanwhile()
        finally:
            torch.cuda.set_stream(stream)  # which a capture that failed does not
        graph.replay()
        self.num += 1

    def check(self) -> None:
        torch.cuda.synchronize()
        assert (self._work == 1 + 200 * self.num).all()


def test_registering_and_copying_disturb_no_capture_of_a_graph() -> None:
    tensors = layers((2, 200, 16, 8, 128), 8)
    ids = np.arange(200, dtype=np.int64)
    made: list[Copies] = []
    errors: list[BaseException] = []
    stop = threading.Event()

    def register_and_copy() -> None:
        try:
            while not stop.is_set():
                copies = Copies(tensors, 1, num_slots=200)
                copies.native.copy(STORE, ids, ids)
                copies.native.copy(LOAD, ids, ids)
                made.append(copies)
        except BaseException as error:  # noqa: BLE001  raised below
            errors.append(error)

    captures = Captures()
    thread = threading.Thread(target=register_and_copy)
    thread.start()
    try:
        num_before = len(made)
        while captures.num < 50 or (len(made) < num_before + 3 and errors == []):
            captures.add()
    finally:
        stop.set()
        thread.join(WAIT_S)
    assert errors == []
    captures.check()


def test_an_agent_registers_the_pool_while_the_engine_captures_a_graph() -> None:
    tensors = {f"layer {i}": tensor for i, tensor in enumerate(layers((2, 64, 16, 8, 128), 6))}
    config = CacheConfig(tokens_per_block=16, num_cpu_blocks=4096)
    manager = KVManager(ModelConfig(6, 8, 128, dtype="bfloat16"), config)
    client = KVTPClient(manager.gpu_register_port, tokens_per_block=16, gpu_tuning_cache="off")
    captures = Captures()
    engine, steps = torch.cuda.Stream(), itertools.count(1)

    def report() -> AgentReport:
        found = client.stats()
        assert found is not None
        return found

    def tuning() -> str:
        found = report().copy_tuning
        assert found is not None
        return found.state

    def is_registered_beside_steps() -> bool:
        client.record_step(next(steps), engine.cuda_stream)
        return manager.wait_ready(0.001) and report().is_registration_complete

    def register_the_pool() -> None:
        assert report().registered_bytes == 0
        manager.start()  # the agent finds it now, and then the pool
        assert eventually(is_registered_beside_steps)
        assert eventually(lambda: tuning() not in ("UNTUNED", "MEASURING"))

    try:
        client.register_to_server(tensors)
        captures.add(register_the_pool)
        captures.check()
        block_bytes = 6 * 2 * 16 * 8 * 128 * 2
        assert (report().registered_bytes, report().unregistered_bytes) == (4096 * block_bytes, 0)
        assert tuning() == "MEASURED"
    finally:
        have_ended = [client.shutdown(), manager.shutdown()]
    assert have_ended == [True, True]


def test_a_manager_keeps_blocks_of_a_gpu_and_brings_them_back() -> None:
    tokens_per_block, num_blocks = 16, 64
    tensors = {f"layer {i}": tensor for i, tensor in enumerate(layers((2, num_blocks, tokens_per_block, 8, 128), 6))}
    config = CacheConfig(tokens_per_block=tokens_per_block, num_cpu_blocks=128)
    manager = KVManager(ModelConfig(6, 8, 128, dtype="bfloat16"), config)
    manager.start()
    client = KVTPClient(manager.gpu_register_port, tokens_per_block=tokens_per_block)
    client.register_to_server(tensors)
    assert manager.wait_ready(WAIT_S)
    tokens = np.arange(40 * tokens_per_block)
    torch.cuda._sleep(SLEEP_CYCLES)
    for tensor in tensors.values():
        tensor.copy_(torch.randn_like(tensor))
    put = manager.put_async(tokens, np.arange(40 * tokens_per_block), after_step=1)
    client.record_step(1)
    manager.wait(put, timeout=WAIT_S)
    before = [tensor.clone() for tensor in tensors.values()]
    for tensor in tensors.values():
        tensor.zero_()
    client.record_step(2)
    task, mask = manager.get_match(tokens)
    assert mask.all()
    manager.launch(task, block_ids=[np.arange(40)[::-1].copy() + 20], after_step=2)
    assert manager.wait(task, timeout=WAIT_S)[task].status.name == "SUCCESS"
    for tensor, expected in zip(tensors.values(), before, strict=True):
        assert equal(tensor[:, 20:60].flip(1), expected[:, :40])
    client.shutdown()
    assert manager.shutdown()


def test_a_pool_is_registered_while_it_is_prefaulted_and_the_client_says_how_much() -> None:
    tensors = {f"layer {i}": tensor for i, tensor in enumerate(layers((2, 64, 16, 8, 128), 6))}
    config = CacheConfig(tokens_per_block=16, num_cpu_blocks=8192)
    manager = KVManager(ModelConfig(6, 8, 128, dtype="bfloat16"), config)
    manager.start()
    client = KVTPClient(manager.gpu_register_port, tokens_per_block=16)
    client.register_to_server(tensors)
    assert manager.wait_ready(WAIT_S)

    def report() -> AgentReport:
        found = client.stats()
        assert found is not None
        return found

    assert eventually(lambda: report().is_registration_complete, WAIT_S)
    block_bytes = 6 * 2 * 16 * 8 * 128 * 2
    assert (report().registered_bytes, report().unregistered_bytes) == (8192 * block_bytes, 0)
    assert not report().is_load_stuck
    assert not report().is_store_stuck
    assert client.shutdown()
    assert manager.shutdown()
