"""The TransferScheduler by itself, and as the oracle of the native one: random graphs, random ends, the same states."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flexkv import _core
from flexkv._core import CompletionKind, OpStatus
from flexkv.common.transfer import GraphId, OpId, TransferOp, TransferOpGraph, TransferType
from flexkv.transfer import TransferEngine, TransferScheduler
from flexkv.transfer.scheduler import OpState
from tests.transfer.wire_agent import DONE, FAILED, OP, WireAgent

TIMEOUT_S = 20.0


def graph_of(*ops: TransferOp) -> TransferOpGraph:
    graph = TransferOpGraph()
    for op in ops:
        graph.add_transfer_op(op)
    return graph


def test_ops_start_when_all_predecessors_are_done() -> None:
    scheduler = TransferScheduler()
    a, b = TransferOp(), TransferOp()
    c = TransferOp(predecessors=[a.op_id, b.op_id])
    graph = graph_of(a, b, c)
    scheduler.add_graph(graph)
    assert scheduler.take_ready() == [a.op_id, b.op_id]
    scheduler.finish(a.op_id)
    assert scheduler.take_ready() == []
    scheduler.finish(b.op_id)
    assert scheduler.take_ready() == [c.op_id]
    assert not scheduler.graph_ended(graph.graph_id)
    scheduler.finish(c.op_id)
    assert scheduler.graph_ended(graph.graph_id)
    assert not scheduler.graph_failed(graph.graph_id)


def test_a_failure_spreads_over_graphs_and_running_ops_run_on() -> None:
    scheduler = TransferScheduler()
    a, sibling = TransferOp(), TransferOp()
    b = TransferOp()
    graph, joined = graph_of(a, sibling), graph_of(b)
    joined.add_external_dependency(b.op_id, a.op_id)
    scheduler.add_graph(graph)
    scheduler.add_graph(joined)
    scheduler.take_ready()
    scheduler.finish(a.op_id, failed=True)
    assert scheduler.state(sibling.op_id) is OpState.RUNNING
    assert scheduler.state(b.op_id) is OpState.CANCELLED
    assert scheduler.graph_failed(joined.graph_id)
    assert scheduler.graph_ended(joined.graph_id)


def test_a_cancelled_graph_keeps_what_others_wait_for() -> None:
    scheduler = TransferScheduler()
    a = TransferOp()
    b, c = TransferOp(predecessors=[a.op_id]), TransferOp(predecessors=[a.op_id])
    d = TransferOp()
    graph, joined = graph_of(a, b, c), graph_of(d)
    joined.add_external_dependency(d.op_id, b.op_id)
    scheduler.add_graph(graph)
    scheduler.add_graph(joined)
    scheduler.cancel(graph.graph_id)
    assert [scheduler.state(op.op_id) for op in (a, b, c)] == [OpState.WAITING, OpState.WAITING, OpState.CANCELLED]
    assert scheduler.take_ready() == [a.op_id]
    scheduler.finish(a.op_id)
    assert scheduler.take_ready() == [b.op_id]
    scheduler.finish(b.op_id)
    assert scheduler.take_ready() == [d.op_id]
    scheduler.finish(d.op_id)
    assert not scheduler.graph_failed(joined.graph_id)
    assert scheduler.graph_ended(graph.graph_id)


def test_what_a_cancelled_graph_kept_goes_with_the_last_that_waits_for_it() -> None:
    scheduler = TransferScheduler()
    a, d = TransferOp(), TransferOp()
    graph, joined = graph_of(a), graph_of(d)
    joined.add_external_dependency(d.op_id, a.op_id)
    scheduler.add_graph(graph)
    scheduler.add_graph(joined)
    scheduler.cancel(graph.graph_id)
    scheduler.cancel(joined.graph_id)
    assert scheduler.state(a.op_id) is OpState.CANCELLED
    assert scheduler.graph_ended(joined.graph_id)


def test_what_the_scheduler_does_not_know_is_refused() -> None:
    scheduler = TransferScheduler()
    graph = graph_of(TransferOp())
    scheduler.add_graph(graph)
    with pytest.raises(ValueError, match="known already"):
        scheduler.add_graph(graph)
    orphan = TransferOp()
    late = graph_of(orphan)
    late.add_external_dependency(orphan.op_id, 10**9)
    with pytest.raises(ValueError, match="unknown"):
        scheduler.add_graph(late)
    with pytest.raises(ValueError, match="does not run"):
        scheduler.finish(OpId(10**9))
    with pytest.raises(KeyError):
        scheduler.cancel(GraphId(10**9))


class Pair:
    """The native engine and the oracle, told the same. After each step both must have the same ops running."""

    def __init__(self, directory: str) -> None:
        self.engine = TransferEngine(str(Path(directory) / "flexkv.sock"))
        self.engine.start()
        self.agent = WireAgent(self.engine.socket_path)
        self.agent.register()
        assert self.engine.wait_ranks(TIMEOUT_S)
        self.engine.set_pool(_core.HostPool(4, [4096]))
        self.agent.serve_pool()
        assert self.engine._native.wait_slots(4, TIMEOUT_S)
        self.begin()

    def begin(self) -> None:
        self.oracle = TransferScheduler()
        self.ops: dict[OpId, TransferOp] = {}
        self.graphs: list[GraphId] = []
        self.running: list[OpId] = []
        self.seen: dict[OpId, OpStatus] = {}
        self.released: set[int] = set()

    def submit(self, graph: TransferOpGraph) -> None:
        self.ops.update(graph.ops)
        self.graphs.append(graph.graph_id)
        self.oracle.add_graph(graph)
        self.engine.submit_transfer_graph(graph, TIMEOUT_S)
        self.follow()

    def end(self, op_id: OpId, *, failed: bool) -> None:
        self.running.remove(op_id)
        self.oracle.finish(op_id, failed=failed)
        self.agent.acknowledge(op_id, FAILED if failed else DONE)
        self.follow()

    def cancel(self, graph_id: GraphId) -> None:
        self.oracle.cancel(graph_id)
        self.engine.cancel(graph_id)
        self.follow()

    def follow(self) -> None:
        started: set[OpId] = set()
        while ready := self.oracle.take_ready():
            for op_id in ready:
                if self.ops[op_id].transfer_type is TransferType.VIRTUAL:
                    self.oracle.finish(op_id)
                else:
                    started.add(op_id)
        self.running += sorted(started)
        while started:
            kind, body = self.agent.receive()
            if kind == OP:
                started.remove(OpId(int.from_bytes(body[:8], "little")))
        expected = {op_id: state for op_id in self.ops if (state := self.oracle.state(op_id)) not in OPEN}
        ended = {graph_id for graph_id in self.graphs if self.oracle.graph_ended(graph_id)}
        while len(self.seen) < len(expected) or not self.released.issuperset(ended):
            self.drain()  # releases too: what may be waited for must not depend on when they come
        assert {op_id: OpState[status.name] for op_id, status in self.seen.items()} == expected

    def drain(self) -> None:
        assert self.engine.wait(TIMEOUT_S)
        for completion in self.engine.poll():
            if completion.kind == CompletionKind.OP:
                self.seen[OpId(completion.op_id)] = OpStatus(completion.status)
            elif completion.kind == CompletionKind.GRAPH_RELEASED:
                self.released.add(completion.graph_id)

    def finish(self) -> None:
        while self.running:
            self.end(self.running[0], failed=False)
        while len(self.released) < len(self.graphs):
            self.drain()
        assert self.engine.poll() == []
        assert self.engine.num_graphs == 0


OPEN = (OpState.WAITING, OpState.RUNNING)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with tempfile.TemporaryDirectory() as directory:
        pair = Pair(directory)
        yield pair
        pair.agent.close()
        pair.engine.shutdown(TIMEOUT_S)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_the_native_engine_schedules_as_the_oracle_does(pair: Pair, data: st.DataObject) -> None:
    pair.finish()  # an example may be given up at any draw
    pair.begin()
    for _ in range(data.draw(st.integers(1, 12), label="steps")):
        action = data.draw(st.sampled_from(["submit", "done", "failed", "cancel"]), label="action")
        if action == "submit" or not pair.graphs:
            pair.submit(draw_graph(pair, data))
        elif action == "cancel":
            pair.cancel(data.draw(st.sampled_from(pair.graphs), label="graph"))
        elif pair.running:
            pair.end(data.draw(st.sampled_from(pair.running), label="op"), failed=action == "failed")
    pair.finish()


def draw_graph(pair: Pair, data: st.DataObject) -> TransferOpGraph:
    """A graph whose ops may wait for earlier ones of it and for ops of graphs that are not released."""
    graph = TransferOpGraph()
    held = [op.op_id for op in pair.ops.values() if op.graph_id not in pair.released]
    for _ in range(data.draw(st.integers(0, 5), label="ops")):
        virtual = data.draw(st.booleans(), label="virtual")
        op = TransferOp() if virtual else TransferOp(None, None, TransferType.H2D, [0], [1])
        own = list(graph.ops)
        graph.add_transfer_op(op)
        for other in data.draw(st.lists(st.sampled_from(own), max_size=2), label="own") if own else ():
            graph.add_dependency(op.op_id, other)
        for other in data.draw(st.lists(st.sampled_from(held), max_size=2), label="held") if held else ():
            graph.add_external_dependency(op.op_id, other)
    return graph
