"""The scheduler role when FlexKV is off: nothing is offered or kept, and what vLLM was promised is wound up.

Used when the engine has a KV cache that cannot be kept, and after an unexpected error of ours: the engine must serve
on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from flexkv.integration.vllm.request_state import LoadState, RequestState
from flexkv.integration.vllm.scheduler_role import StepNotice

if TYPE_CHECKING:
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.outputs import KVConnectorOutput
    from vllm.v1.request import Request

    from flexkv.integration.vllm.layer_loads import LayerLoads

__all__ = ["OffSchedulerConnector"]


class OffSchedulerConnector:
    """Implements SchedulerRole.

    Args:
        tokens_per_block: of the engine.
        failed_loads: requests that wait for a load which will not come, with the blocks it was to fill.
        told_loads: such requests whose blocks a step's notice has named already; named once, never again.
        aborted_loads: finished requests that wait for the end of a load.
        held: finished requests whose blocks were held for stores. REQUIRES: nothing touches any of these blocks any
            more.
        step: the last step's number.
        offered_by_layers: requests whose offer of a load by layers may still be accepted, for the next step, with the
            first block of the offer.
        lost_block_ids: blocks of such loads that were accepted and will not come: the next step computes on them.
    """

    def __init__(
        self,
        tokens_per_block: int,
        *,
        failed_loads: Mapping[str, Iterable[int]] | None = None,
        told_loads: Mapping[str, Iterable[int]] | None = None,
        aborted_loads: Collection[str] = (),
        held: Collection[str] = (),
        step: int = 0,
        offered_by_layers: Mapping[str, int] | None = None,
        lost_block_ids: Collection[int] = (),
    ) -> None:
        self._tokens_per_block = tokens_per_block
        self._failed = {request_id: frozenset(ids) for request_id, ids in (failed_loads or {}).items()}
        self._told = {request_id: frozenset(ids) for request_id, ids in (told_loads or {}).items()}
        self._aborted = set(aborted_loads)
        self._held = set(held)
        self._step = step
        self._offered_by_layers = dict(offered_by_layers or {})
        self._lost = frozenset(lost_block_ids)

    @classmethod
    def winding_up(
        cls,
        states: Iterable[tuple[str, RequestState]],
        tokens_per_block: int,
        step: int,
        layer_loads: LayerLoads,
    ) -> OffSchedulerConnector:
        """Return the role that winds up what was promised to these requests. REQUIRES: as above."""
        failed: dict[str, Iterable[int]] = {}
        told: dict[str, Iterable[int]] = {}
        aborted: set[str] = set()
        held: set[str] = set()
        for request_id, state in states:
            is_awaited = state.is_loading and not state.computes_on_load  # by layers: the workers see to it
            if state.load is not None and state.load.state is LoadState.TOLD:
                told[request_id] = state.load.block_ids.tolist()
            elif state.finished:
                (aborted if is_awaited else held).add(request_id)
            elif is_awaited and state.load is not None:
                failed[request_id] = state.load.block_ids.tolist()
        return cls(
            tokens_per_block,
            failed_loads=failed,
            told_loads=told,
            aborted_loads=aborted,
            held=held,
            step=step,
            offered_by_layers=layer_loads.offered,
            lost_block_ids=layer_loads.untold_block_ids,
        )

    def get_num_new_matched_tokens(self, request: Request, num_computed_tokens: int) -> tuple[int | None, bool]:
        """Offer nothing."""
        return 0, False

    def update_state_after_alloc(self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int) -> None:
        """Take a load that was offered before we went off as failed."""
        num_blocks = -(-num_external_tokens // self._tokens_per_block)
        if not num_blocks:
            return
        block_ids = blocks.get_block_ids()[0]
        start = self._offered_by_layers.get(request.request_id)
        if start is None:
            self._failed[request.request_id] = frozenset(block_ids[-num_blocks:])
        else:
            self._lost = self._lost.union(block_ids[start : start + num_blocks])

    def build_connector_meta(self, scheduler_output: SchedulerOutput) -> StepNotice:
        """Tell the workers which loads failed: each once."""
        self._step += 1
        failed = self._lost.union(*self._failed.values())
        self._told.update(self._failed)
        self._failed, self._lost, self._offered_by_layers = {}, frozenset(), {}
        return StepNotice(self._step, bool(self._told or self._aborted or self._held), failed)

    def update_connector_output(self, output: KVConnectorOutput, step: int | None) -> None:
        """Report the ends that are due."""
        reported = {request_id for request_id, ids in self._told.items() if ids <= output.invalid_block_ids}
        if reported or self._aborted:
            output.finished_recving = (output.finished_recving or set()) | reported | self._aborted
        if self._held:
            output.finished_sending = (output.finished_sending or set()) | self._held
        for request_id in reported:
            del self._told[request_id]
        self._aborted, self._held = set(), set()

    def request_finished(self, request: Request) -> tuple[bool, dict[str, Any] | None]:
        """Hold its blocks only until the end of its load has been reported."""
        if self._failed.pop(request.request_id, None) is not None:
            self._aborted.add(request.request_id)
            return True, None
        return request.request_id in self._told, None

    def reset_cache(self) -> bool:
        """Nothing is cached."""
        return True

    def has_pending_block_frees(self) -> bool:
        """Whether blocks become free with the next step's output."""
        return bool(self._held or self._aborted)

    def stats(self) -> None:
        """Nothing is counted."""

    def shutdown(self) -> bool:
        """Nothing runs."""
        return True
