"""The TransferEngine's Python face, with an agent that copies nothing."""

from __future__ import annotations

import fcntl
import logging
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import flexkv.transfer
from flexkv import _core
from flexkv._core import CompletionKind, OpStatus, OpType
from flexkv.common.transfer import TransferOp, TransferOpGraph, TransferType
from flexkv.errors import ConfigError
from flexkv.transfer import GPUCPUTransferWorker, TransferEngine
from tests.transfer.wire_agent import BYE, FAILED, WireAgent

NUM_SLOTS = 10
TIMEOUT_S = 20.0


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[TransferEngine]:
    engine = TransferEngine(f"ipc://{tmp_path}/engine/flexkv.sock")
    engine.start()
    yield engine
    engine.shutdown(0.0)


@pytest.fixture
def agent(engine: TransferEngine) -> Iterator[WireAgent]:
    agent = WireAgent(engine.socket_path)
    agent.register()
    assert engine.wait_ranks(TIMEOUT_S)
    engine.set_pool(_core.HostPool(NUM_SLOTS, [4096]))
    assert agent.serve_pool() == NUM_SLOTS
    assert engine._native.wait_slots(NUM_SLOTS, TIMEOUT_S)
    yield agent
    agent.close()


def graph_of(*ops: TransferOp) -> TransferOpGraph:
    graph = TransferOpGraph()
    for op in ops:
        graph.add_transfer_op(op)
    return graph


def load(*, slots: object = (1, 2), blocks: object = (3, 4), **keywords: int) -> TransferOp:
    return TransferOp(None, None, TransferType.H2D, slots, blocks, **keywords)


def take(engine: TransferEngine, count: int) -> list[_core.Completion]:
    completions: list[_core.Completion] = []
    while len(completions) < count:
        assert engine.wait(TIMEOUT_S)
        completions += engine.poll()
    assert len(completions) == count
    return completions


def test_a_graph_runs_in_order_and_completes_once(engine: TransferEngine, agent: WireAgent) -> None:
    first, second = load(), TransferOp(None, None, TransferType.D2H, [5], [6], after_step=9)
    graph = graph_of(first, second)
    graph.add_dependency(second.op_id, first.op_id)
    engine.submit_transfer_graph(graph, TIMEOUT_S)
    op = agent.take_op()
    assert (op.op_id, op.after_step, op.direction, op.slots, op.blocks) == (first.op_id, 0, 0, (1, 2), (3, 4))
    assert engine.poll() == []
    assert not select.select([engine.event_fd], [], [], 0)[0]
    agent.acknowledge(first.op_id)
    op = agent.take_op()
    assert (op.op_id, op.after_step, op.direction, op.slots, op.blocks) == (second.op_id, 9, 1, (6,), (5,))
    agent.acknowledge(second.op_id)
    completions = take(engine, 4)
    assert [c.kind for c in completions] == [
        CompletionKind.OP,
        CompletionKind.OP,
        CompletionKind.GRAPH_STATUS,
        CompletionKind.GRAPH_RELEASED,
    ]
    assert [c.op_id for c in completions] == [first.op_id, second.op_id, -1, -1]
    assert [(c.type, c.num_blocks) for c in completions[:2]] == [(OpType.H2D, 2), (OpType.D2H, 1)]
    assert {c.graph_id for c in completions} == {graph.graph_id}
    assert {c.status for c in completions} == {OpStatus.DONE}
    assert completions[0].bytes == 4096
    assert completions[0].seconds == pytest.approx(1e-6)
    assert {c.error for c in completions} == {""}
    assert engine.num_graphs == 0


def test_a_failed_op_says_what_and_where(engine: TransferEngine, agent: WireAgent) -> None:
    op = load()
    engine.submit_transfer_graph(graph_of(op), TIMEOUT_S)
    agent.acknowledge(agent.take_op().op_id, FAILED)
    status = take(engine, 3)[1]
    assert status.status == OpStatus.FAILED
    assert f"H2D op {op.op_id}" in status.error
    assert "rank 0" in status.error


def test_completions_make_the_event_fd_readable(engine: TransferEngine, agent: WireAgent) -> None:
    engine.submit_transfer_graph(graph_of(load()), TIMEOUT_S)
    agent.acknowledge(agent.take_op().op_id)
    assert select.select([engine.event_fd], [], [], TIMEOUT_S)[0]
    take(engine, 3)
    assert not select.select([engine.event_fd], [], [], 0)[0]


def test_a_virtual_op_is_done_by_itself(engine: TransferEngine) -> None:
    engine.submit_transfer_graph(graph_of(TransferOp()), TIMEOUT_S)
    assert [c.status for c in take(engine, 3)] == [OpStatus.DONE] * 3


def test_a_graph_without_its_rank_fails_at_once(engine: TransferEngine, agent: WireAgent) -> None:
    agent.close()
    for _ in range(2):  # the first may be sent before the end is noticed: it fails then
        engine.submit_transfer_graph(graph_of(load()), TIMEOUT_S)
        assert {c.status for c in take(engine, 3)} <= {OpStatus.FAILED, OpStatus.CANCELLED}
    rank = engine.ranks()[0]
    assert not rank.connected


def test_cancel_is_heard(engine: TransferEngine, agent: WireAgent) -> None:
    graph = graph_of(load())
    engine.submit_transfer_graph(graph, TIMEOUT_S)
    op = agent.take_op()
    engine.cancel(graph.graph_id)
    engine.cancel(10**9)
    assert take(engine, 1)[0].status == OpStatus.CANCELLED
    agent.acknowledge(op.op_id)
    assert take(engine, 2)[1].kind == CompletionKind.GRAPH_RELEASED


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (load(slots=[NUM_SLOTS], blocks=[0]), "slot 10 is out of range"),
        (load(slots=[0], blocks=[100]), "block 100 is out of range"),
        (TransferOp(None, None, TransferType.DISK2H, [0], [0]), "DISK2H"),
        (TransferOp(None, None, TransferType.VIRTUAL, [0], [0]), "VIRTUAL op moves nothing"),
        (TransferOp(predecessors=[10**9]), "predecessor 1000000000 is not known"),
    ],
)
def test_a_bad_graph_is_refused(engine: TransferEngine, agent: WireAgent, op: TransferOp, message: str) -> None:
    op.graph_id = None
    with pytest.raises(ValueError, match=message):
        engine.submit_transfer_graph(graph_of(op), TIMEOUT_S)
    assert engine.num_graphs == 0
    assert engine.poll() == []


def test_the_device_blocks_that_every_rank_has_follow_the_last_registrations(tmp_path: Path) -> None:
    engine = TransferEngine(str(tmp_path / "two.sock"), num_ranks=2)
    engine.start()
    assert engine.num_device_blocks == 0
    agents = [WireAgent(engine.socket_path) for _ in range(2)]
    agents[0].register(0, 2, num_blocks=70)
    agents[1].register(1, 2, num_blocks=50)
    assert engine.wait_ranks(TIMEOUT_S)
    assert engine.num_device_blocks == 50
    agents[1].send(BYE)
    assert agents[1].is_closed()
    agents[1].close()
    assert engine.num_device_blocks == 50, "what it had, until it comes back"
    agents[1] = WireAgent(engine.socket_path)
    agents[1].register(1, 2, num_blocks=60)
    engine.set_pool(_core.HostPool(NUM_SLOTS, [4096, 4096]))
    assert agents[1].serve_pool() == NUM_SLOTS
    assert engine.num_device_blocks == 60
    for agent in agents:
        agent.close()
    engine.shutdown(0.0)


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bad_timeout_is_refused(engine: TransferEngine, timeout_s: float) -> None:
    with pytest.raises(ValueError, match="timeout_s"):
        engine.submit_transfer_graph(graph_of(TransferOp()), timeout_s)


def test_the_native_engine_takes_arrays_as_they_are_or_not_at_all(engine: TransferEngine) -> None:
    ids = np.zeros(2, np.int64)
    good = (1, 6, ids, ids, 0, [])
    for index, value, name in (
        (0, "x", "op_id"),
        (1, 7, "type"),
        (2, ids.astype(np.int32), "src"),
        (2, [0, 0], "src"),
        (3, np.zeros((2, 2), np.int64), "dst"),
        (3, np.zeros(4, np.int64)[::2], "dst"),
        (4, -1, "after_step"),
        (5, 3, "predecessors"),
    ):
        bad = [*good[:index], value, *good[index + 1 :]]
        with pytest.raises(ValueError, match=rf"ops\[1\]\[{index}\] \({name}\)"):
            engine._native.submit(1, [good, tuple(bad)], TIMEOUT_S)  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"ops\[0\] must be a tuple"):
        engine._native.submit(1, [good[:5]], TIMEOUT_S)  # type: ignore[list-item]
    assert engine.num_graphs == 0
    engine._native.submit(np.int64(1), [(np.int64(1), TransferType.VIRTUAL, ids, ids, np.uint8(0), [])], TIMEOUT_S)
    assert len(take(engine, 3)) == 3


def test_nothing_runs_before_there_is_a_pool(engine: TransferEngine) -> None:
    assert engine.slots_available == 0
    with pytest.raises(RuntimeError, match="pool"):
        engine.submit_transfer_graph(graph_of(load()), TIMEOUT_S)
    with pytest.raises(RuntimeError, match="registered"):
        engine.set_pool(_core.HostPool(1, [4096]))


def test_an_engine_starts_once_and_stops_for_good(tmp_path: Path) -> None:
    engine = TransferEngine(str(tmp_path / "flexkv.sock"))
    engine.start()
    with pytest.raises(RuntimeError, match="before"):
        engine.start()
    assert engine.shutdown(TIMEOUT_S)
    assert engine.shutdown(TIMEOUT_S)
    assert not engine.wait(TIMEOUT_S)
    with pytest.raises(RuntimeError, match="does not run"):
        engine.submit_transfer_graph(graph_of(TransferOp()), TIMEOUT_S)


def test_a_socket_in_use_is_an_oserror(engine: TransferEngine) -> None:
    second = TransferEngine(engine.socket_path)
    with pytest.raises(OSError, match="already listens"):
        second.start()


def test_engines_that_start_in_one_directory_at_one_moment_wait_for_each_other(tmp_path: Path) -> None:
    directory = tmp_path / "engines"
    directory.mkdir(mode=0o700)
    lock = os.open(directory, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)  # what an engine holds while it binds
    engine = TransferEngine(str(directory / "a.sock"))
    opener = threading.Timer(0.05, os.close, (lock,))
    opener.start()
    engine.start()
    opener.join()
    assert engine.shutdown(TIMEOUT_S)
    lock = os.open(directory, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(OSError, match="another engine is starting"):  # one that stands still
        TransferEngine(str(directory / "b.sock")).start()
    os.close(lock)


@pytest.mark.parametrize("address", ["", "tcp://host:1", "relative/path", "/" + "x" * 200])
def test_a_bad_address_is_a_config_error(address: str) -> None:
    with pytest.raises(ConfigError, match="gpu_register_port"):
        TransferEngine(address)


@pytest.mark.parametrize("num_ranks", [0, 65])
def test_the_number_of_ranks_is_bounded(tmp_path: Path, num_ranks: int) -> None:
    with pytest.raises(ValueError, match="num_ranks"):
        TransferEngine(str(tmp_path / "s"), num_ranks)


def test_a_peer_that_breaks_the_protocol_is_logged_once(
    engine: TransferEngine, agent: WireAgent, caplog: pytest.LogCaptureFixture
) -> None:
    hostile = WireAgent(engine.socket_path)
    hostile.send_raw(b"GET / HTTP/1.1\r\n\r\n")
    assert hostile.is_closed()
    hostile.close()
    with caplog.at_level(logging.WARNING, logger="flexkv"):
        engine.poll()
        engine.poll()
    assert engine.protocol_errors == 1
    assert "bad magic" in engine.last_protocol_error
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_one_worker_serves_both_directions(engine: TransferEngine) -> None:
    workers = engine._worker_map
    gpu, disk = {TransferType.H2D, TransferType.D2H}, {TransferType.DISK2H, TransferType.H2DISK}
    assert set(workers) == gpu | disk | {TransferType.VIRTUAL}
    assert workers[TransferType.H2D] is workers[TransferType.D2H]
    assert isinstance(workers[TransferType.H2D], GPUCPUTransferWorker)
    with pytest.raises(ValueError, match="H2DISK"):
        workers[TransferType.H2D].check(TransferOp(None, None, TransferType.H2DISK, [0], [0]))


def test_a_process_ends_cleanly_with_an_engine_that_was_never_stopped(tmp_path: Path) -> None:
    program = (
        "from flexkv.transfer import TransferEngine\n"
        f"engine = TransferEngine({str(tmp_path / 's.sock')!r})\n"
        "engine.start()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_face_of_transfer() -> None:
    assert flexkv.transfer.__all__ == [
        "CPUSSDDiskTransferWorker",
        "GPUCPUTransferWorker",
        "TransferEngine",
        "TransferScheduler",
    ]
