"""Staging: requests that wait for blocks on their way from a slower tier to host memory (D15: stage, verify, offer).

vLLM fails or recomputes a request whose promised load fails, so nothing is promised before its bytes are here. Until
then it is told to ask again, step after step, but not longer than `ssd_stage_timeout_s`: then it gets what the CPU tier
has, and the blocks that come late are there for who asks next. Thread safety: none; the scheduler's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from flexkv.common.debug import flexkv_logger
from flexkv.integration.vllm.request_state import FlexKVGetTask, LoadState, RequestState
from flexkv.kvtask import StagingState

if TYPE_CHECKING:
    from flexkv.kvmanager import KVManager

__all__ = ["Staging"]

logger = flexkv_logger(__name__)


class Staging:
    """Follows matches in state STAGING.

    Args:
        manager: started.
        discard: gives up a match.
        timeout_s: how long a request is kept waiting.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        manager: KVManager,
        discard: Callable[[FlexKVGetTask], None],
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._manager = manager
        self._discard = discard
        self._timeout_s = timeout_s
        self._clock = clock
        self._waiting: set[str] = set()

    @property
    def is_anybody_waiting(self) -> bool:
        """Whether a request waits for its blocks."""
        return bool(self._waiting)

    def forget(self, request_id: str) -> None:
        """The request's match was given up, or the request has ended."""
        self._waiting.discard(request_id)

    def is_over(self, state: RequestState) -> bool:
        """Whether a request has waited as long as it may."""
        return state.stage_until_s is not None and self._clock() >= state.stage_until_s

    def first_state(self, task_id: int) -> LoadState:
        """Return the state of a match that was just made."""
        is_ready = self._manager.staging(task_id) is StagingState.READY
        return LoadState.MATCHED if is_ready else LoadState.STAGING

    def settle(
        self, state: RequestState, match: FlexKVGetTask, match_again: Callable[[], FlexKVGetTask | None]
    ) -> FlexKVGetTask | None:
        """Return the match to go on with: this one, MATCHED or STAGING, or a new one when it has come to nothing."""
        assert match.task_id is not None
        self.forget(match.request_id)
        if state.stage_until_s is None:
            state.stage_until_s = self._clock() + self._timeout_s
        staging = self._manager.staging(match.task_id)
        if staging is StagingState.READY:
            match.state = LoadState.MATCHED
            return match
        if staging is StagingState.PENDING and not self.is_over(state):
            self._waiting.add(match.request_id)
            return match
        if staging is StagingState.PENDING:
            logger.warning(
                "blocks of a slower tier come too late, the request goes on without them request_id=%s waited_s=%.1f",
                match.request_id,
                self._timeout_s,
            )
        self._discard(match)
        return match_again()
