"""TransferScheduler: what the native op scheduler means, in a page of Python.

The reference that tests hold csrc/transfer/op_graph.cpp against, and what a simulator runs on. It has no ranks, routes
or clock: the caller takes ops that may start and says how each ended. An op whose predecessor did not end well is
cancelled, in whichever graph it is. So are the waiting ops of a graph that was cancelled or of which one op failed,
except those for which an op of another graph still waits, directly or over others. Ops that run, run on.
Thread safety: none.
"""

from __future__ import annotations

from enum import Enum

from flexkv.common.transfer import GraphId, OpId, TransferOpGraph

__all__ = ["OpState", "TransferScheduler"]


class OpState(Enum):
    """WAITING -> RUNNING -> DONE | FAILED ; WAITING -> CANCELLED."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


_ENDED = (OpState.DONE, OpState.FAILED, OpState.CANCELLED)
_NOT_DONE = (OpState.FAILED, OpState.CANCELLED)


class TransferScheduler:
    """The ops of all graphs that were added, and their states."""

    def __init__(self) -> None:
        self._states: dict[OpId, OpState] = {}
        self._predecessors: dict[OpId, frozenset[OpId]] = {}
        self._graphs: dict[GraphId, tuple[OpId, ...]] = {}
        self._graph_of: dict[OpId, GraphId] = {}
        self._cancelled: set[GraphId] = set()

    def add_graph(self, graph: TransferOpGraph) -> None:
        """Take a graph in. Raises ValueError on a cycle, a graph or op known already, or an unknown predecessor."""
        graph.validate()
        if graph.graph_id in self._graphs:
            raise ValueError(f"graph_id {graph.graph_id} is known already")
        predecessors = {OpId(row[0]): frozenset(OpId(op_id) for op_id in row[5]) for row in graph.to_native()}
        for op_id, before in predecessors.items():
            if op_id in self._states:
                raise ValueError(f"op_id {op_id} is known already")
            for other in before:
                if other not in self._states and other not in predecessors:
                    raise ValueError(f"op {op_id} waits for op {other}, which is unknown")
        self._graphs[graph.graph_id] = tuple(predecessors)
        for op_id, before in predecessors.items():
            self._states[op_id] = OpState.WAITING
            self._predecessors[op_id] = before
            self._graph_of[op_id] = graph.graph_id
        self._cancel_hopeless()

    def state(self, op_id: OpId) -> OpState:
        """Return the state of an op. Raises KeyError when it is unknown."""
        return self._states[op_id]

    def take_ready(self) -> list[OpId]:
        """Return the ops whose predecessors are all done; they run from now on."""
        ready = [
            op_id
            for op_id, state in self._states.items()
            if state is OpState.WAITING and all(self._states[p] is OpState.DONE for p in self._predecessors[op_id])
        ]
        for op_id in ready:
            self._states[op_id] = OpState.RUNNING
        return ready

    def finish(self, op_id: OpId, *, failed: bool = False) -> None:
        """Say how a running op ended. Raises ValueError when it does not run."""
        if self._states.get(op_id) is not OpState.RUNNING:
            raise ValueError(f"op {op_id} does not run: {self._states.get(op_id)}")
        self._states[op_id] = OpState.FAILED if failed else OpState.DONE
        self._cancel_hopeless()

    def cancel(self, graph_id: GraphId) -> None:
        """Cancel the ops of a graph that wait, but for those others wait for. Raises KeyError when it is unknown."""
        if not self.graph_ended(graph_id):
            self._cancelled.add(graph_id)
        self._cancel_hopeless()

    def graph_ended(self, graph_id: GraphId) -> bool:
        """Return whether no op of the graph waits or runs. Raises KeyError when it is unknown."""
        return all(self._states[op_id] in _ENDED for op_id in self._graphs[graph_id])

    def graph_failed(self, graph_id: GraphId) -> bool:
        """Return whether an op of the graph failed or was cancelled. Raises KeyError when it is unknown."""
        return any(self._states[op_id] in _NOT_DONE for op_id in self._graphs[graph_id])

    def _cancel_hopeless(self) -> None:
        while hopeless := [op_id for op_id, state in self._states.items() if self._is_hopeless(op_id, state)]:
            for op_id in hopeless:
                self._states[op_id] = OpState.CANCELLED

    def _is_hopeless(self, op_id: OpId, state: OpState) -> bool:
        if state is not OpState.WAITING:
            return False
        cannot_run = any(self._states[p] in _NOT_DONE for p in self._predecessors[op_id])
        return cannot_run or not self._is_wanted(op_id)

    def _is_wanted(self, op_id: OpId) -> bool:
        graph_id = self._graph_of[op_id]
        if graph_id not in self._cancelled and not self.graph_failed(graph_id):
            return True
        return any(
            op_id in self._predecessors[other] and state is OpState.WAITING for other, state in self._states.items()
        )
