"""LayerLoads: which loads go by layers, and what becomes of them.

A load by layers is offered to vLLM as a synchronous one: the request runs in the step it is scheduled in, and each of
its layers waits for its own blocks only. The whole step waits with it, so such a load is taken only while no other
request runs, and one a step. What fails is reported by the workers with that step's output (vLLM recomputes it, or
fails the request, by its `kv_load_failure_policy`), and such a request is not stored any more.

    MATCHED -> PLANNED (accepted) -> RUNNING (launched, with the number of its step as ticket) -> DONE | FAILED

Thread safety: none; the scheduler's thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flexkv.integration.vllm.request_state import FlexKVGetTask, LoadState
from flexkv.integration.vllm.request_table import RequestTable

if TYPE_CHECKING:
    from flexkv.kvmanager import KVManager

__all__ = ["LayerLoads"]


class LayerLoads:
    """Decides which match goes by layers, and launches it.

    Args:
        manager: started.
        requests: those the scheduler role knows.
        enabled: if not, none goes by layers.
    """

    def __init__(self, manager: KVManager, requests: RequestTable, *, enabled: bool) -> None:
        self._manager = manager
        self._requests = requests
        self._enabled = enabled
        self._planned: FlexKVGetTask | None = None
        self._ran: Iterable[str] = ()

    def takes(self, request_id: str) -> bool:
        """Whether a match of this request, made in this step, goes by layers."""
        if not self._enabled or self._planned is not None:
            return False
        return not any(other != request_id and self._is_alive(other) for other in self._ran)

    def _is_alive(self, request_id: str) -> bool:
        state = self._requests.get(request_id)
        return state is not None and not state.finished

    def plan(self, load: FlexKVGetTask) -> None:
        """VLLM has accepted a load by layers; it is launched when the step is built."""
        self._planned = load

    def launch(self, step: int, scheduled: Iterable[str]) -> FlexKVGetTask | None:
        """Launch the load that was accepted for the step being built, and return it. `scheduled`: its requests."""
        load, self._planned = self._planned, None
        self._ran = scheduled
        if load is None:
            return None
        assert load.task_id is not None
        load.state = LoadState.RUNNING
        self._manager.launch(
            [load.task_id],
            block_ids=[load.block_ids],
            after_step=step - 1,
            layerwise_transfer=True,
            counter_id=step,
        )
        return load
