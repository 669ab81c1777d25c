"""The face of the scheduler role, and what it tells the workers each step. One implementation caches, one is off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from flexkv.common.metrics import CacheStats

if TYPE_CHECKING:
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.outputs import KVConnectorOutput
    from vllm.v1.request import Request

__all__ = ["SchedulerRole", "StepNotice"]


@dataclass(frozen=True, slots=True)
class StepNotice:
    """What the scheduler role tells the workers for one step."""

    step: int
    """Its number: the ticket that the workers record once the step's work is submitted."""
    outstanding: bool
    """Whether something is to be settled: then the output of the step must reach the scheduler, tokens or not."""
    failed_block_ids: frozenset[int] = frozenset()
    """Device blocks whose load failed. vLLM reads them from the workers."""
    layer_load: frozenset[int] = frozenset()
    """Device blocks of the load by layers that this step computes on; its ticket is the step's number."""
    is_timed: bool = False
    """Whether the time of the step is taken: then its output must name it."""


class SchedulerRole(Protocol):
    """What vLLM's scheduler asks, from its thread.

    No call waits longer than a few milliseconds, `reset_cache` and `shutdown` excepted.
    """

    def get_num_new_matched_tokens(self, request: Request, num_computed_tokens: int) -> tuple[int | None, bool]:
        """Return how many tokens beyond the computed ones can be loaded, and whether asynchronously."""

    def update_state_after_alloc(self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int) -> None:
        """Blocks were allocated for the request; `num_external_tokens` of its tokens are to be loaded."""

    def build_connector_meta(self, scheduler_output: SchedulerOutput) -> StepNotice:
        """The step is planned: launch, store, cancel."""

    def update_connector_output(self, output: KVConnectorOutput, step: int | None) -> None:
        """A step came back: fill in the requests whose transfers ended. `step`: its number, if its output names it."""

    def request_finished(self, request: Request) -> tuple[bool, dict[str, Any] | None]:
        """Return whether its blocks must be held."""

    def reset_cache(self) -> bool:
        """Forget all blocks."""

    def has_pending_block_frees(self) -> bool:
        """Whether finished requests still hold device blocks for us."""

    def stats(self) -> CacheStats | None:
        """Return the counters."""

    def shutdown(self) -> bool:
        """Stop; False when a copy may still touch device blocks. Idempotent."""
