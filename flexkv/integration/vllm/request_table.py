"""The requests the scheduler role knows, with their keys and their device blocks as of the last step."""

from __future__ import annotations

import logging
from collections.abc import ItemsView, ValuesView
from itertools import compress
from typing import TYPE_CHECKING

from flexkv.common.debug import flexkv_logger
from flexkv.errors import ConfigError
from flexkv.integration.vllm.request_keys import Adapters, RequestKeys, request_namespace
from flexkv.integration.vllm.request_state import RequestState

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.request import Request

    from flexkv.kvmanager import KVManager

__all__ = ["RequestTable"]

logger = flexkv_logger(__name__)


class RequestTable:
    """States by request id. A state lives from the first question about its request until vLLM has let it go.

    Args:
        manager: knows the roots of namespaces.
        tokens_per_block: of the engine.
        use_engine_hashes: whether `request.block_hashes` are to be trusted as content.
    """

    def __init__(self, manager: KVManager, tokens_per_block: int, use_engine_hashes: bool) -> None:
        self._manager = manager
        self._tokens_per_block = tokens_per_block
        self._use_engine_hashes = use_engine_hashes
        self._states: dict[str, RequestState] = {}
        self._adapters = Adapters()
        self._has_warned = False
        self._plain_root = b""  # of requests without a namespace, once there was one

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, request_id: str) -> RequestState:
        return self._states[request_id]

    def get(self, request_id: str) -> RequestState | None:
        """Return the state of a request that was asked about, else None."""
        return self._states.get(request_id)

    def of(self, request: Request) -> RequestState:
        """Return the request's state, a new one at the first call."""
        state = self._states.get(request.request_id)
        if state is None or state.request is not request:
            state = self._states[request.request_id] = RequestState(request, self._keys_of(request))
        return state

    def drop(self, request_id: str) -> None:
        """Forget a request. REQUIRES: it is known."""
        del self._states[request_id]

    def items(self) -> ItemsView[str, RequestState]:
        """Return all ids and states."""
        return self._states.items()

    def values(self) -> ValuesView[RequestState]:
        """Return all states."""
        return self._states.values()

    def follow(self, scheduler_output: SchedulerOutput) -> list[RequestState]:
        """Take over the device blocks this step hands out; returns the requests that got some."""
        changed: list[RequestState] = []
        for new in scheduler_output.scheduled_new_reqs:
            state = self._states.get(new.req_id)
            if state is not None:
                state.block_ids = list(new.block_ids[0])
                changed.append(state)
        cached = scheduler_output.scheduled_cached_reqs
        gains = cached.new_block_ids  # None for most of them
        for request_id, new_block_ids in zip(compress(cached.req_ids, gains), filter(None, gains), strict=True):
            state = self._states.get(request_id)
            if state is None:
                continue
            changed.append(state)
            if request_id in cached.resumed_req_ids:
                state.block_ids = list(new_block_ids[0])
            else:
                state.block_ids.extend(new_block_ids[0])
        return changed

    def _keys_of(self, request: Request) -> RequestKeys | None:
        try:
            namespace = request_namespace(request, self._use_engine_hashes, self._adapters)
        except ConfigError as error:
            level = logging.DEBUG if self._has_warned else logging.WARNING
            logger.log(
                level, "request not cached, more will not be named request_id=%s reason=%s", request.request_id, error
            )
            self._has_warned = True
            return None
        if namespace is None:
            return None
        if namespace:
            root = self._manager.sequence(namespace=namespace, block_hashes=[]).root
        else:
            root = self._plain_root = self._plain_root or self._manager.sequence(block_hashes=[]).root
        return RequestKeys(root, self._tokens_per_block, self._use_engine_hashes, namespace)
