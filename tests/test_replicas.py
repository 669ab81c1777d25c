"""Ranks that hold the same KV (MLA): one copy in host memory, stored by all of them together, loaded by each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flexkv import _core
from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.common.request import KVResponseStatus as Status
from flexkv.common.transfer import TransferType
from flexkv.kvmanager import KVManager
from flexkv.server.client import KVTPClient
from tests.rig import READY_TIMEOUT_S, TPB, Gpu, Rig, WorkerProcess, eventually, slots_of, tokens

BLOCK_SHAPE = (TPB, 576)
BLOCK_BYTES = 3 * TPB * 576
STRIDE = 8192  # of a slot
NUM_SLOTS = 20


@pytest.fixture(params=[(2, 1), (4, 1), (4, 2), (6, 2)], ids=lambda shape: f"{shape[0]} ranks, {shape[1]} stages")
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    num_ranks, num_stages = request.param
    rig = Rig(
        num_ranks=num_ranks, num_stages=num_stages, use_mla=True, block_shape=BLOCK_SHAPE, num_cpu_blocks=NUM_SLOTS
    )
    yield rig
    rig.close()


def stages_of(rig: Rig) -> list[list[int]]:
    """The ranks of each stage."""
    replicas = rig.manager._engine.model_config.replicas
    return [list(range(first, first + replicas)) for first in range(0, len(rig.gpus), replicas)]


def pool_of(rig: Rig) -> _core.HostPool:
    pool = rig.manager._engine._tier._pool
    assert isinstance(pool, _core.HostPool)
    return pool


def bytes_stored(rig: Rig) -> list[int]:
    reports = [client.stats() for client in rig.clients]
    return [0 if report is None else report.bytes_stored for report in reports]


def test_every_rank_gets_the_bytes_that_all_of_them_stored(rig: Rig) -> None:
    blocks, target = [7, 2, 40, 41, 42, 43, 9], [1, 50, 2, 30, 31, 32, 33]
    expected = [gpu.read(blocks) for gpu in rig.gpus]
    assert rig.store(tokens(7), blocks) is Status.SUCCESS
    for stage in stages_of(rig):
        for rank in stage[1:]:
            assert np.array_equal(expected[rank], expected[stage[0]])
    for gpu in rig.gpus:
        gpu.poison()
    assert rig.load(tokens(7), target) is Status.SUCCESS
    for gpu, bytes_of_rank in zip(rig.gpus, expected, strict=True):
        assert np.array_equal(gpu.read(target), bytes_of_rank)
        assert gpu.untouched(target)
    rig.check_nothing_is_held()


def test_host_memory_holds_one_copy_for_each_stage(rig: Rig) -> None:
    pool, num_stages = pool_of(rig), len(stages_of(rig))
    assert (pool.num_shards, pool.num_slots) == (num_stages, NUM_SLOTS)
    assert pool.wait_prefaulted(NUM_SLOTS, READY_TIMEOUT_S)
    segments = [os.fstat(pool.fd(shard)) for shard in range(pool.num_shards)]
    assert [segment.st_size for segment in segments] == [NUM_SLOTS * STRIDE] * num_stages
    assert len({segment.st_ino for segment in segments}) == num_stages


def test_each_rank_stores_its_share_and_loads_everything(rig: Rig) -> None:
    num_stages, replicas = len(stages_of(rig)), len(stages_of(rig)[0])
    assert rig.store(tokens(13), range(13)) is Status.SUCCESS
    assert sum(bytes_stored(rig)) == 13 * num_stages * BLOCK_BYTES
    for stage in stages_of(rig):
        shares = [bytes_stored(rig)[rank] // BLOCK_BYTES for rank in stage]
        even = [13 * (turn + 1) // replicas - 13 * turn // replicas for turn in range(replicas)]
        assert sorted(shares) == sorted(even)
    assert rig.load(tokens(13), range(20, 33)) is Status.SUCCESS
    reports = [client.stats() for client in rig.clients]
    assert [report and report.bytes_loaded for report in reports] == [13 * BLOCK_BYTES] * len(rig.clients)
    routes = rig.manager.stats().routes
    assert routes[TransferType.D2H].bytes == 13 * num_stages * BLOCK_BYTES
    assert routes[TransferType.H2D].bytes == 13 * len(rig.clients) * BLOCK_BYTES


def test_each_rank_stores_one_run_of_the_blocks_and_all_load_what_is_there() -> None:
    """Ranks that are no replicas at all show which of them stored a block."""
    rig = Rig(num_ranks=2, use_mla=True, block_shape=BLOCK_SHAPE)
    rig.gpus[1].fill()
    expected = [gpu.read(range(12)) for gpu in rig.gpus]
    assert rig.store(tokens(12), range(12)) is Status.SUCCESS
    assert rig.load(tokens(12), range(30, 42)) is Status.SUCCESS
    found = rig.gpus[0].read(range(30, 42))
    assert np.array_equal(found, rig.gpus[1].read(range(30, 42)))
    sources = [[np.array_equal(found[:, block], bytes_of[:, block]) for bytes_of in expected] for block in range(12)]
    runs = [sources[:6], sources[6:]]
    assert sorted(runs) == [[[False, True]] * 6, [[True, False]] * 6]
    rig.close()


def test_single_blocks_are_not_always_stored_by_the_same_rank() -> None:
    rig = Rig(num_ranks=2, use_mla=True, block_shape=BLOCK_SHAPE, num_cpu_blocks=64)
    for block in range(60):
        assert rig.store(tokens(1, first=1000 * block), [block]) is Status.SUCCESS
    shares = [num_bytes // BLOCK_BYTES for num_bytes in bytes_stored(rig)]
    assert sum(shares) == 60
    assert min(shares) >= 15
    rig.close()


def test_bytes_of_the_cache_are_those_of_one_copy() -> None:
    for use_mla, num_slots in ((True, 12), (False, 6)):
        settings: dict[str, object] = {"num_cpu_blocks": None, "cpu_cache_bytes": 12 * STRIDE}
        rig = Rig(num_ranks=2, use_mla=use_mla, block_shape=BLOCK_SHAPE, **settings)  # type: ignore[arg-type]
        assert rig.manager.stats().slots_total == num_slots
        rig.close()


def test_how_fast_loads_are_is_told_in_bytes_of_blocks() -> None:
    rig = Rig(num_ranks=2, use_mla=True, block_shape=BLOCK_SHAPE)
    assert rig.store(tokens(10), range(10)) is Status.SUCCESS
    assert rig.load(tokens(10), range(20, 30)) is Status.SUCCESS
    route = rig.manager.stats().routes[TransferType.H2D]
    rate = rig.manager._engine._mover.cost_model.rate_of(TransferType.H2D)
    assert rate == pytest.approx(route.bytes / 2 / route.seconds)
    rig.close()


def test_a_replica_of_another_layout_is_refused_and_told_why() -> None:
    model = ModelConfig(3, 1, 24, True, dtype="uint8", tp_size=2)
    manager = KVManager(model, CacheConfig(tokens_per_block=TPB, num_cpu_blocks=4))
    manager.start()
    clients = [KVTPClient(manager.gpu_register_port, rank=rank, num_ranks=2, tokens_per_block=TPB) for rank in (0, 1)]
    clients[0].register_to_server(Gpu(block_shape=BLOCK_SHAPE).layers, block_dim=0)
    assert eventually(lambda: len(manager._engine._transfer.ranks()) == 1)
    clients[1].register_to_server(Gpu(block_shape=(TPB, 2, 288)).layers, block_dim=0)
    assert eventually(lambda: clients[1].state is _core.AgentState.REFUSED)
    report = clients[1].stats()
    assert report is not None
    assert report.state == "REFUSED"
    assert "rank 1: the layout tag is" in report.last_error
    assert "by rank 0, which holds the same KV and shares its slots" in report.last_error
    assert not manager.is_ready()
    for client in clients:
        assert client.shutdown()
    manager.shutdown()


class ReplicaElsewhere:
    """A manager and rank 0 here, rank 1 in another process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        config = CacheConfig(tokens_per_block=TPB, num_cpu_blocks=NUM_SLOTS, evict_ratio=0.0)
        self.manager = KVManager(ModelConfig(3, 1, 24, True, dtype="uint8", tp_size=2), config)
        self.manager.start()
        self.gpu = Gpu()
        self.gpu.fill()
        self.client = KVTPClient(self.manager.gpu_register_port, rank=0, num_ranks=2, tokens_per_block=TPB)
        self.client.register_to_server(self.gpu.layers, block_dim=0)
        self.workers: list[WorkerProcess] = []
        self.add_worker()
        assert self.manager.wait_ready(READY_TIMEOUT_S)

    def add_worker(self) -> None:
        memory = self.directory / f"gpu{len(self.workers)}"
        self.workers.append(WorkerProcess(self.manager.gpu_register_port, memory, rank=1, num_ranks=2))

    @property
    def worker(self) -> WorkerProcess:
        return self.workers[-1]

    def put(self, num_blocks: int, first: int = 0) -> int:
        return self.manager.put_async(tokens(num_blocks, first), slots_of(range(num_blocks)))

    def get(self, num_blocks: int, first_gpu_block: int) -> int:
        blocks = range(first_gpu_block, first_gpu_block + num_blocks)
        return self.manager.get_async(tokens(num_blocks), slots_of(blocks))

    def status(self, task_id: int) -> Status:
        return self.manager.wait(task_id, timeout=READY_TIMEOUT_S)[task_id].status

    def num_slots_mapped(self, rank: int) -> int:
        return self.manager._engine._transfer.ranks()[rank].slots_mapped  # type: ignore[attr-defined,no-any-return]

    def slots(self) -> tuple[int, int]:
        self.manager.check_invariants()
        stats = self.manager.stats()
        return stats.slots_used, stats.slots_quarantined

    def close(self) -> None:
        assert self.client.shutdown()
        for worker in self.workers:
            worker.close()
        self.manager.shutdown()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[ReplicaElsewhere]:
    pair = ReplicaElsewhere(tmp_path)
    yield pair
    pair.close()


def test_a_rank_that_dies_before_its_share_is_stored_leaves_no_block_behind(pair: ReplicaElsewhere) -> None:
    assert np.array_equal(pair.gpu.read(range(8)), pair.worker.gpu.read(range(8)))
    pair.worker.tell("hold 1")
    store = pair.put(8)
    assert eventually(lambda: (report := pair.client.stats()) is not None and report.stores_done == 1)
    assert pair.slots() == (8, 0), "its replica has stored its own share"
    pair.worker.kill()
    assert pair.status(store) is Status.FAILED
    assert eventually(lambda: pair.slots() == (0, 0))
    assert not pair.manager.get_match(tokens(8))[1].any()


def test_a_rank_that_is_dead_matters_only_to_stores_that_it_has_a_share_of(pair: ReplicaElsewhere) -> None:
    expected = pair.gpu.read([0])
    pair.worker.kill()
    assert eventually(lambda: not pair.manager._engine._transfer.ranks()[1].connected)  # type: ignore[attr-defined]
    statuses = [pair.status(pair.put(1, 1000 * at)) for at in range(20)]  # one block each: the share of one of them
    assert set(statuses) == {Status.SUCCESS, Status.FAILED}
    stored = [at for at in range(20) if pair.manager.get_match(tokens(1, 1000 * at))[1].any()]
    assert stored == [at for at, status in enumerate(statuses) if status is Status.SUCCESS]
    pair.add_worker()
    assert eventually(lambda: pair.num_slots_mapped(1) == NUM_SLOTS), "until then loads fail"
    load = pair.manager.get_async(tokens(1, 1000 * stored[0]), slots_of([30]))
    assert pair.status(load) is Status.SUCCESS
    for gpu in (pair.gpu, pair.worker.gpu):
        assert np.array_equal(gpu.read([30]), expected)


def test_slots_of_a_replica_that_stands_still_are_quarantined_until_it_is_dead(pair: ReplicaElsewhere) -> None:
    pair.worker.freeze()
    store = pair.manager.put_async(tokens(4), slots_of(range(4)), timeout_s=0.2)
    assert pair.status(store) is Status.FAILED
    assert pair.slots() == (0, 4)
    pair.worker.kill()
    assert eventually(lambda: pair.slots() == (0, 0))


def test_a_rank_that_dies_in_a_load_fails_it_and_another_gets_what_was_stored(pair: ReplicaElsewhere) -> None:
    expected = pair.gpu.read(range(8))
    assert pair.status(pair.put(8)) is Status.SUCCESS
    pair.worker.tell("hold 1")
    load = pair.get(8, 20)
    assert eventually(lambda: (report := pair.client.stats()) is not None and report.loads_done == 1)
    pair.worker.kill()
    assert pair.status(load) is Status.FAILED
    assert eventually(lambda: pair.slots() == (8, 0))
    pair.add_worker()
    pair.gpu.poison()
    pair.worker.gpu.poison()
    assert eventually(lambda: pair.status(pair.get(8, 30)) is Status.SUCCESS)
    for gpu in (pair.gpu, pair.worker.gpu):
        assert np.array_equal(gpu.read(range(30, 38)), expected)
        assert gpu.untouched(range(30, 38))
