"""LayerLoads: which loads go by layers, and what becomes of them.

A load by layers is offered to vLLM as a synchronous one: the request runs in the step it is scheduled in, and each of
its layers waits for its own blocks only. The whole step waits with it, so such a load is taken only while no other
request runs, and one a step. What fails is reported by the workers with that step's output; vLLM recomputes it, or
fails the request, by its `kv_load_failure_policy`.

    offered -> planned (accepted) -> open (launched, with the number of its step as ticket) -> settled: whole or lost

Until it is settled, which is when its task has ended and its step has come back, nobody knows whether what the step
computed is right, and it may be more than one request: others find its blocks in vLLM's own prefix cache, in the same
step already. So nothing is stored of any request that has one of its blocks; and, if it was lost, never of those that
had one then, nor of those that get one before its own request has computed it again.

Thread safety: none; the scheduler's thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flexkv.common.request import KVResponse, KVResponseStatus
from flexkv.integration.vllm.request_state import FlexKVGetTask, LoadState, RequestState
from flexkv.integration.vllm.request_table import RequestTable
from flexkv.kvtask import StagingState

if TYPE_CHECKING:
    from flexkv.kvmanager import KVManager

__all__ = ["LayerLoads"]


@dataclass(slots=True, eq=False)
class _OpenLoad:
    load: FlexKVGetTask
    state: RequestState
    step: int
    block_ids: frozenset[int]
    is_lost: bool
    has_ended: bool
    has_come_back: bool = False


class LayerLoads:
    """Decides which match goes by layers, launches it, and says of whom nothing may be stored because of it.

    Args:
        manager: started.
        requests: those the scheduler role knows.
        enabled: if not, none goes by layers.
    """

    def __init__(self, manager: KVManager, requests: RequestTable, *, enabled: bool) -> None:
        self._manager = manager
        self._requests = requests
        self._enabled = enabled
        self._offered: dict[str, int] = {}  # in this step, to be accepted or not: the first block
        self._planned: list[FlexKVGetTask] = []  # no notice has named them yet; launched ones too
        self._open: list[_OpenLoad] = []
        self._lost: list[_OpenLoad] = []  # settled; their requests have not computed everything again
        self._ran: Collection[str] = ()  # requests of the last step
        self._admitted: set[str] = set()  # to the step that is being scheduled, beside the former

    # ---- while vLLM schedules

    def offers(self, match: FlexKVGetTask) -> bool:
        """Whether a match made in this step goes by layers: all of it in host memory, and no other request runs."""
        self._offered.pop(match.request_id, None)
        if not self._enabled or self._planned:
            return False
        if any(other != match.request_id and self._is_alive(other) for other in (*self._ran, *self._admitted)):
            return False
        assert match.task_id is not None
        if self._manager.staging(match.task_id) is not StagingState.READY:
            return False
        self._offered[match.request_id] = match.start_block
        return True

    @property
    def offered(self) -> Mapping[str, int]:
        """Requests whose last answer in this step was a load by layers, not accepted yet: the first block of it."""
        return self._offered

    def admit(self, request_id: str) -> None:
        """VLLM runs the request in the step that is being scheduled."""
        if self._enabled:
            self._admitted.add(request_id)

    def plan(self, load: FlexKVGetTask) -> None:
        """VLLM has accepted a load by layers, which is launched when the step is built; not one that is FAILED."""
        self._planned.append(load)

    def is_planned(self, load: FlexKVGetTask | None) -> bool:
        """Whether it was accepted for the step that is being scheduled."""
        return load in self._planned

    def launch(self, step: int, scheduled: Collection[str]) -> None:
        """Launch what was accepted for the step being built. `scheduled`: the step's requests."""
        self._ran = scheduled
        self._admitted, self._offered = set(), {}
        self._lost = [lost for lost in self._lost if self._is_to_be_computed(lost)]
        for load in self._planned:
            is_failed = load.state is LoadState.FAILED
            block_ids = frozenset(load.block_ids.tolist())
            self._open.append(
                _OpenLoad(
                    load, self._requests[load.request_id], step, block_ids, is_lost=is_failed, has_ended=is_failed
                )
            )
            if is_failed:
                continue
            assert load.task_id is not None
            load.state = LoadState.RUNNING
            self._manager.launch(
                [load.task_id],
                block_ids=[load.block_ids],
                after_step=step - 1,
                layerwise_transfer=True,
                counter_id=step,
            )

    def tell(self) -> tuple[frozenset[int], frozenset[int]]:
        """Return, for the step's notice, the blocks of its load, and of one that has failed already."""
        planned, self._planned = self._planned, []
        failed = frozenset[int]().union(*(it.block_ids.tolist() for it in planned if it.state is LoadState.FAILED))
        return frozenset[int]().union(*(it.block_ids.tolist() for it in planned)) - failed, failed

    # ---- when something ended

    @property
    def is_open(self) -> bool:
        """Whether something is to be settled."""
        return bool(self._open)

    def note_end(self, response: KVResponse) -> bool:
        """A task has ended; False when it is none of these."""
        for one in self._open:
            if one.load.task_id == response.task_id:
                one.has_ended = True
                one.is_lost |= response.status is not KVResponseStatus.SUCCESS
                return True
        return False

    def came_back(self, step: int | None, invalid_block_ids: Collection[int]) -> None:
        """A step's output: the blocks that its workers report. What they say of its load counts, whatever the task."""
        for one in self._open:
            if one.step == step:
                one.has_come_back = True
                one.is_lost |= not one.block_ids.isdisjoint(invalid_block_ids)

    def take_settled(self) -> list[RequestState]:
        """Return the requests whose load is known to be whole or lost, since the last call; what is lost is noted."""
        settled = [one for one in self._open if one.has_ended and one.has_come_back]
        if not settled:
            return []
        self._open = [one for one in self._open if one not in settled]
        requests: list[RequestState] = []
        for one in settled:
            state = one.state
            if one.is_lost:
                self._lost.append(one)
            if state.load is not one.load:
                continue  # preempted meanwhile
            state.load = None
            if one.is_lost:
                state.may_load = state.may_store = False
            requests.append(state)
        if self._lost:
            for state in self._requests.values():
                self._note_lost(state)
        return requests

    def may_store(self, state: RequestState) -> bool:
        """Whether its blocks can be right: False while that is not known, and for good if they are not."""
        if not self._open and not self._lost:
            return True
        self._note_lost(state)
        return state.may_store and not _touches(self._open, state)

    @property
    def untold_block_ids(self) -> frozenset[int]:
        """Blocks of accepted loads that no notice has named: the workers do not know that they wait for them."""
        return frozenset[int]().union(*(load.block_ids.tolist() for load in self._planned))

    def _note_lost(self, state: RequestState) -> None:
        if _touches(self._lost, state):
            state.may_store = False

    def _is_to_be_computed(self, lost: _OpenLoad) -> bool:
        """Whether its request is going to overwrite it, and has not yet."""
        request = lost.state.request
        is_known = self._requests.get(request.request_id) is lost.state
        return is_known and request.num_computed_tokens < request.num_tokens - 1

    def _is_alive(self, request_id: str) -> bool:
        state = self._requests.get(request_id)
        return state is not None and not state.finished


def _touches(loads: Iterable[_OpenLoad], state: RequestState) -> bool:
    return any(not load.block_ids.isdisjoint(state.block_ids) for load in loads)
