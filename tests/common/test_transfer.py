"""Transfer ops and graphs: validation, order, cycles, external edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexkv.common.transfer import OpId, TransferOp, TransferOpGraph, TransferType

IDS = np.arange(3)


def make_op(**arguments: object) -> TransferOp:
    defaults: dict[str, object] = {"transfer_type": TransferType.H2D, "src_block_ids": IDS, "dst_block_ids": IDS}
    return TransferOp(**{**defaults, **arguments})  # type: ignore[arg-type]


def make_graph(num_ops: int, edges: list[tuple[int, int]] | None = None) -> tuple[TransferOpGraph, list[OpId]]:
    graph = TransferOpGraph()
    ops = [make_op() for _ in range(num_ops)]
    for op in ops:
        graph.add_transfer_op(op)
    for successor, predecessor in edges or []:
        graph.add_dependency(ops[successor].op_id, ops[predecessor].op_id)
    return graph, [op.op_id for op in ops]


def test_the_numbers_of_the_routes_are_those_of_the_native_core() -> None:
    names = ["H2D", "D2H", "DISK2H", "H2DISK", "REMOTE2H", "H2REMOTE", "VIRTUAL"]
    assert [(route.name, route.value) for route in TransferType] == list(zip(names, range(7), strict=True))


def test_ids_are_taken_from_one_sequence_unless_given() -> None:
    ids = [make_op().op_id, int(TransferOpGraph().graph_id), make_op().op_id]
    assert len(set(ids)) == 3
    assert make_op(op_id=77).op_id == 77


def test_an_op_takes_its_arguments_in_the_order_of_the_contract() -> None:
    op = TransferOp(5, 9, TransferType.D2H, IDS, IDS, 2, 1, {8})
    assert (op.op_id, op.graph_id, op.transfer_type, op.layer_id, op.layer_granularity) == (
        5,
        9,
        TransferType.D2H,
        2,
        1,
    )
    assert op.successors == {8}


def test_id_vectors_are_shared_not_copied() -> None:
    assert np.shares_memory(make_op().src_block_ids, IDS)


BAD_OPS: dict[str, tuple[str, dict[str, object]]] = {
    "unequal lengths": ("src_block_ids and dst_block_ids have 3 and 2 ids", {"dst_block_ids": IDS[:2]}),
    "int32": ("src_block_ids", {"src_block_ids": IDS.astype(np.int32)}),
    "float": ("dst_block_ids", {"dst_block_ids": IDS.astype(float)}),
    "two dimensions": ("src_block_ids", {"src_block_ids": IDS.reshape(1, 3)}),
    "negative id": (r"dst_block_ids\[1\] is -1", {"dst_block_ids": np.array([0, -1, 2])}),
    "unknown route": ("transfer_type", {"transfer_type": 99}),
    "negative op id": ("op_id", {"op_id": -1}),
    "op id that is no integer": ("op_id", {"op_id": "1"}),
    "negative step": ("after_step", {"after_step": -1}),
    "negative layer": ("layer_id", {"layer_id": -1}),
    "no layers": ("layer_granularity", {"layer_granularity": 0}),
    "bad predecessor": ("predecessors", {"predecessors": [-3]}),
}


@pytest.mark.parametrize("what", BAD_OPS)
def test_a_bad_op_is_refused_by_the_name_of_the_argument(what: str) -> None:
    message, change = BAD_OPS[what]
    with pytest.raises(ValueError, match=message):
        make_op(**change)


def test_ops_become_ready_when_their_predecessors_are_completed() -> None:
    graph, (a, b, c) = make_graph(3, [(1, 0), (2, 0), (2, 1)])
    assert graph.take_ready_op_ids() == [a]
    assert graph.take_ready_op_ids() == []
    graph.mark_completed(a)
    assert graph.take_ready_op_ids() == [b]
    graph.mark_completed(b)
    assert graph.take_ready_op_ids() == [c]
    assert not graph.all_transfer_ops_completed()
    graph.mark_completed(c)
    assert graph.all_transfer_ops_completed()


def test_an_empty_graph_is_completed() -> None:
    graph = TransferOpGraph()
    graph.validate()
    assert graph.all_transfer_ops_completed()
    assert graph.to_native() == []


def test_an_op_waits_for_an_op_of_another_graph() -> None:
    graph, (op,) = make_graph(1)
    other = make_op().op_id
    graph.add_external_dependency(op, other)
    graph.validate()
    assert graph.take_ready_op_ids() == []
    graph.mark_completed(other)
    assert graph.take_ready_op_ids() == [op]
    assert graph.num_ops == 1


def test_edges_named_at_construction_count_whatever_the_order_of_adding() -> None:
    for first, second in ((0, 1), (1, 0)):
        early = make_op()
        late = make_op(predecessors=[early.op_id])
        graph = TransferOpGraph()
        for op in ([early, late][first], [early, late][second]):
            graph.add_transfer_op(op)
        graph.validate()
        assert early.successors == {late.op_id}
        assert graph.take_ready_op_ids() == [early.op_id]


def test_successors_named_at_construction_count_too() -> None:
    late = make_op()
    early = make_op(successors=[late.op_id])
    graph = TransferOpGraph()
    graph.add_transfer_op(late)
    graph.add_transfer_op(early)
    graph.validate()
    assert graph.take_ready_op_ids() == [early.op_id]


@pytest.mark.parametrize("edges", [[(1, 0), (0, 1)], [(1, 0), (2, 1), (0, 2)], [(3, 2), (2, 3)]])
def test_a_cycle_is_refused(edges: list[tuple[int, int]]) -> None:
    graph, _ = make_graph(4, edges)
    with pytest.raises(ValueError, match="cycle"):
        graph.validate()


@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))))
    )
)
def test_any_acyclic_graph_runs_to_its_end_in_an_order_its_edges_allow(case: tuple[int, list[tuple[int, int]]]) -> None:
    num_ops, pairs = case
    edges = [(max(pair), min(pair)) for pair in pairs if pair[0] != pair[1]]
    graph, ids = make_graph(num_ops, edges)
    graph.validate()
    order: list[OpId] = []
    while ready := graph.take_ready_op_ids():
        for op_id in ready:
            graph.mark_completed(op_id)
        order += ready
    assert graph.all_transfer_ops_completed()
    assert sorted(order) == sorted(ids)
    assert all(order.index(ids[early]) < order.index(ids[late]) for late, early in edges)


def test_unknown_and_repeated_ids_are_refused_and_change_nothing() -> None:
    graph, (a, b) = make_graph(2, [(1, 0)])
    with pytest.raises(ValueError, match="predecessor_op_id"):
        graph.add_dependency(a, 10**9)
    with pytest.raises(ValueError, match="successor_op_id"):
        graph.add_dependency(10**9, a)
    with pytest.raises(ValueError, match="both"):
        graph.add_dependency(a, a)
    with pytest.raises(ValueError, match="use add_dependency"):
        graph.add_external_dependency(a, b)
    with pytest.raises(ValueError, match="already in graph"):
        graph.add_transfer_op(graph.ops[a])
    with pytest.raises(ValueError, match="graph_id"):
        TransferOpGraph().add_transfer_op(graph.ops[a])
    with pytest.raises(ValueError, match="not taken yet"):
        graph.mark_completed(b)
    graph.take_ready_op_ids()
    graph.mark_completed(a)
    with pytest.raises(ValueError, match="already completed"):
        graph.mark_completed(a)
    with pytest.raises(ValueError, match="no op of graph"):
        graph.mark_completed(10**9)
    assert graph.take_ready_op_ids() == [b]


def test_a_predecessor_that_is_nowhere_is_refused() -> None:
    graph = TransferOpGraph()
    graph.add_transfer_op(make_op(predecessors=[10**9]))
    with pytest.raises(ValueError, match="unknown ops"):
        graph.validate()


def test_the_native_form_lists_ops_with_their_predecessors() -> None:
    graph, (a, b) = make_graph(2, [(1, 0)])
    external = make_op().op_id
    graph.add_external_dependency(a, external)
    first, second = graph.to_native()
    assert (first[0], first[1], first[4], first[5]) == (a, 0, 0, [external])
    assert (second[0], second[5]) == (b, [a])
    assert np.shares_memory(first[2], IDS)
