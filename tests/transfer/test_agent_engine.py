"""The real TransferEngine with real copy agents, in one process and in two, and what happens when a worker dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from flexkv import _core
from flexkv._core import CompletionKind, OpStatus, OpType
from flexkv.server import KVTPClient

NUM_LAYERS, NUM_BLOCKS, BLOCK_SHAPE = 3, 24, (4, 16, 10)  # heads, tokens, K and V
NUM_SLOTS = 40
TIMEOUT_S = 30.0

Bytes = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.int64]


class Worker:
    """A rank's KV tensors and its client."""

    def __init__(self, address: str, rank: int = 0, num_ranks: int = 1) -> None:
        self.layers = np.zeros((NUM_LAYERS, NUM_BLOCKS, *BLOCK_SHAPE), np.float16)
        self.client = KVTPClient(address, rank=rank, num_ranks=num_ranks, tokens_per_block=16, copy_threads=2)
        self.client.register_to_server({f"layer.{i}": layer for i, layer in enumerate(self.layers)})

    def fill(self, seed: int) -> None:
        random = np.random.default_rng(seed).integers(0, 256, self.layers.nbytes, dtype=np.uint8)
        self.layers.view(np.uint8).reshape(-1)[:] = random

    def blocks(self) -> Bytes:
        """Shape: (blocks, bytes), in the order of a slot: by layer."""
        return np.ascontiguousarray(self.layers.swapaxes(0, 1)).reshape(NUM_BLOCKS, -1).view(np.uint8)

    def outstanding(self) -> int:
        report = self.client.stats()
        return 0 if report is None else report.ops_outstanding

    def hold(self, held: bool) -> None:
        self.client.hold(held)

    def record_step(self, step: int) -> None:
        self.client.record_step(step)

    def close(self) -> bool:
        return self.client.shutdown(TIMEOUT_S)


def serve_worker(address: str, commands: Connection) -> None:
    """Body of a worker process: does what it is told until it is told to close."""
    worker = Worker(address)
    name = ""
    while name != "close":
        name, arguments = commands.recv()
        commands.send(getattr(worker, name)(*arguments))


class RemoteWorker:
    """A Worker in a process of its own."""

    def __init__(self, address: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._commands, theirs = context.Pipe()
        self.process = context.Process(target=serve_worker, args=(address, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def _call(self, name: str, *arguments: object) -> object:
        self._commands.send((name, arguments))
        assert self._commands.poll(TIMEOUT_S), f"the worker does not answer to {name}"
        return self._commands.recv()

    def fill(self, seed: int) -> None:
        self._call("fill", seed)

    def blocks(self) -> Bytes:
        blocks = self._call("blocks")
        assert isinstance(blocks, np.ndarray)
        return blocks

    def outstanding(self) -> int:
        count = self._call("outstanding")
        assert isinstance(count, int)
        return count

    def hold(self, held: bool) -> None:
        self._call("hold", held)

    def record_step(self, step: int) -> None:
        self._call("record_step", step)

    def close(self) -> bool:
        if not self.process.is_alive():
            return True
        self.thaw()
        closed = self._call("close")
        self.process.join(TIMEOUT_S)
        return bool(closed)

    def freeze(self) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)  # returns when it has stopped

    def thaw(self) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.join(TIMEOUT_S)
        assert self.process.exitcode == -signal.SIGKILL


class Bench:
    """An engine with a pool, and what its tests do with it."""

    def __init__(self, address: str, num_ranks: int = 1) -> None:
        self.engine = _core.TransferEngine(address.removeprefix("ipc://"), num_ranks)
        self.engine.start()
        self.pool: _core.HostPool | None = None
        self._next_id = 1

    def open_pool(self) -> _core.HostPool:
        """Wait for all ranks and give them a pool."""
        assert self.engine.wait_ranks(TIMEOUT_S)
        self.pool = _core.HostPool(NUM_SLOTS, [rank.slot_bytes for rank in self.engine.ranks()])
        self.engine.set_pool(self.pool)
        self.wait_until(lambda: self.engine.slots_available == NUM_SLOTS)
        return self.pool

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for what has no event of its own."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline_s
            time.sleep(0.002)

    def submit(self, kind: OpType, src: Ids, dst: Ids, *, after_step: int = 0, timeout_s: float = TIMEOUT_S) -> int:
        graph_id = self._next_id
        self._next_id += 1
        ids = [np.ascontiguousarray(vector, np.int64) for vector in (src, dst)]
        self.engine.submit(graph_id, [(graph_id, int(kind), *ids, after_step, [])], timeout_s)
        return graph_id

    def completion(self, graph_id: int, kind: CompletionKind) -> _core.Completion:
        """Wait for the next completion of a graph; it must be this one."""
        while True:
            for completion in self.engine.poll(1):
                if completion.kind == CompletionKind.OP:
                    continue
                assert (completion.graph_id, completion.kind) == (graph_id, kind)
                return completion
            assert self.engine.wait(TIMEOUT_S)

    def finish(self, graph_id: int, status: OpStatus = OpStatus.DONE) -> None:
        for kind in (CompletionKind.GRAPH_STATUS, CompletionKind.GRAPH_RELEASED):
            completion = self.completion(graph_id, kind)
            assert completion.status == status, completion.error

    def round_trip(self, worker: Worker | RemoteWorker, shard: int = 0) -> None:
        """Store random blocks, poison the device, load them back elsewhere; every byte is compared."""
        assert self.pool is not None
        rng = np.random.default_rng(11)
        slots, blocks, targets = (rng.permutation(n)[:13] for n in (NUM_SLOTS, NUM_BLOCKS, NUM_BLOCKS))
        worker.fill(7)
        stored = worker.blocks()[blocks]
        for slot in range(NUM_SLOTS):
            self.pool.view(shard, slot)[:] = 0xA5
        self.finish(self.submit(OpType.D2H, blocks, slots))
        for slot in range(NUM_SLOTS):
            where = np.flatnonzero(slots == slot)
            expected = stored[where[0]] if len(where) else np.full(stored.shape[1], 0xA5, np.uint8)
            assert np.array_equal(self.pool.view(shard, slot), expected)
        worker.fill(8)
        after = worker.blocks()
        after[targets] = stored
        self.finish(self.submit(OpType.H2D, slots, targets))
        assert np.array_equal(worker.blocks(), after)

    def close(self) -> None:
        assert self.engine.stop(TIMEOUT_S)


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/engine/flexkv.sock"


@pytest.fixture
def bench(address: str) -> Iterator[Bench]:
    bench = Bench(address)
    yield bench
    bench.close()


@pytest.fixture(params=[Worker, RemoteWorker], ids=["one process", "two processes"])
def worker(request: pytest.FixtureRequest, bench: Bench, address: str) -> Iterator[Worker | RemoteWorker]:
    worker: Worker | RemoteWorker = request.param(address)
    bench.open_pool()
    yield worker
    assert worker.close()


@pytest.fixture
def remote(bench: Bench, address: str) -> Iterator[RemoteWorker]:
    remote = RemoteWorker(address)
    bench.open_pool()
    yield remote
    assert remote.close()


def some(count: int) -> Ids:
    return np.arange(count, dtype=np.int64)


def test_blocks_come_back_byte_identical(worker: Worker | RemoteWorker, bench: Bench) -> None:
    bench.round_trip(worker)


def test_a_store_waits_for_its_step(worker: Worker | RemoteWorker, bench: Bench) -> None:
    worker.record_step(2)
    ticketed = bench.submit(OpType.D2H, some(3), some(3), after_step=3)
    bench.finish(bench.submit(OpType.D2H, some(3), some(3) + 10, after_step=2))  # later, and not behind it
    assert bench.engine.poll() == []
    worker.record_step(3)
    bench.finish(ticketed)


def test_a_cancelled_op_leaves_the_host_alone(worker: Worker | RemoteWorker, bench: Bench) -> None:
    assert bench.pool is not None
    worker.fill(3)
    bench.pool.view(0, 5)[:] = 0x5A
    worker.hold(True)
    graph_id = bench.submit(OpType.D2H, some(1), some(1) + 5)
    bench.wait_until(lambda: worker.outstanding() == 1)
    bench.engine.cancel(graph_id)
    bench.finish(graph_id, OpStatus.CANCELLED)
    worker.hold(False)
    assert (bench.pool.view(0, 5) == 0x5A).all()
    bench.round_trip(worker)


def test_each_rank_has_its_own_shard(address: str) -> None:
    bench = Bench(address, num_ranks=2)
    workers = [Worker(address, rank, 2) for rank in (1, 0)]
    pool = bench.open_pool()
    for seed, worker in enumerate(workers):
        worker.fill(seed)
    bench.finish(bench.submit(OpType.D2H, some(4), some(4) + 20))
    for rank, worker in ((1, workers[0]), (0, workers[1])):
        stored = np.stack([pool.view(rank, slot) for slot in range(20, 24)])
        assert np.array_equal(stored, worker.blocks()[:4])
        assert worker.close()
    bench.close()


def test_a_worker_killed_with_an_op_in_hand_fails_it_and_frees_its_slots(
    remote: RemoteWorker, bench: Bench, address: str
) -> None:
    remote.hold(True)
    graph_id = bench.submit(OpType.D2H, some(5), some(5))
    bench.wait_until(lambda: remote.outstanding() == 1)
    remote.kill()
    bench.finish(graph_id, OpStatus.FAILED)
    assert bench.engine.num_graphs == 0
    successor = RemoteWorker(address)
    bench.wait_until(lambda: bench.engine.ranks()[0].slots_mapped == NUM_SLOTS)
    bench.round_trip(successor)
    assert successor.close()


def test_a_worker_killed_while_it_copies_is_survived(remote: RemoteWorker, bench: Bench) -> None:
    graph_ids = [bench.submit(OpType.D2H, some(NUM_BLOCKS), some(NUM_BLOCKS)) for _ in range(200)]
    remote.kill()
    pending = {graph_id: [CompletionKind.GRAPH_STATUS, CompletionKind.GRAPH_RELEASED] for graph_id in graph_ids}
    while pending:
        assert bench.engine.wait(TIMEOUT_S)
        for completion in bench.engine.poll():
            if completion.kind == CompletionKind.OP:
                continue
            assert completion.status in (OpStatus.DONE, OpStatus.FAILED)
            assert pending[completion.graph_id].pop(0) == completion.kind
            if not pending[completion.graph_id]:
                del pending[completion.graph_id]
    assert bench.engine.num_graphs == 0


def test_a_frozen_worker_times_out_and_its_slots_stay_in_use_until_it_answers(
    remote: RemoteWorker, bench: Bench
) -> None:
    remote.freeze()
    graph_id = bench.submit(OpType.D2H, some(5), some(5), timeout_s=0.2)
    status = bench.completion(graph_id, CompletionKind.GRAPH_STATUS)
    assert status.status == OpStatus.TIMED_OUT
    assert all(completion.kind == CompletionKind.OP for completion in bench.engine.poll())
    assert bench.engine.num_graphs == 1
    remote.thaw()
    assert bench.completion(graph_id, CompletionKind.GRAPH_RELEASED).status == OpStatus.TIMED_OUT
    bench.round_trip(remote)


def test_an_agent_finds_a_restarted_engine(address: str) -> None:
    first = Bench(address)
    worker = Worker(address)
    first.open_pool()
    first.round_trip(worker)
    first.close()
    second = Bench(address)
    second.open_pool()
    second.round_trip(worker)
    assert worker.close()
    second.close()


def test_an_engine_that_goes_with_an_op_in_hand_is_survived(address: str) -> None:
    first = Bench(address)
    worker = Worker(address)
    first.open_pool()
    worker.hold(True)
    first.submit(OpType.H2D, some(5), some(5))
    first.wait_until(lambda: worker.outstanding() == 1)
    first.engine.stop(0.2)
    del first
    worker.hold(False)
    second = Bench(address)
    second.open_pool()
    second.round_trip(worker)
    assert worker.close()
    second.close()
