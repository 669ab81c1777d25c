"""Stores on their way: ordered while vLLM schedules, planned and launched while the model runs.

    ordered -> launched -> ended        nothing missing, no room, doomed before its turn: ordered -> ended

The scheduler's thread orders, dooms, and takes what ended; whoever calls `work` and `collect` (a StoreThread, or the
scheduler's thread when it has nothing else to do) does the rest. A launched store runs after the step that computes its
tokens, whenever it was launched.

Invariants
 1. Each order ends exactly once.
 2. When `doom` or `drop` has returned, no order it was for is committed later: they and a launch exclude each other.

Thread safety: all methods, any thread. The lock is held for a few launches at most.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from flexkv.common.block import IdArray
from flexkv.common.request import KVResponse, KVResponseStatus
from flexkv.integration.vllm.request_state import FlexKVPutTask

if TYPE_CHECKING:
    from flexkv.kvmanager import KVManager

__all__ = ["StoreQueue"]

MAX_BATCH_ORDERS = 8
"""Stores of one launch, and so of one hold of the lock: about a millisecond at most."""


class StoreQueue:
    """The orders of one scheduler role.

    Args:
        manager: started.
        timeout_s: bound of a store, the step it waits for included; None: the manager's own bound of a transfer.
    """

    def __init__(self, manager: KVManager, timeout_s: float | None = None) -> None:
        self._manager = manager
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._ordered: deque[FlexKVPutTask] = deque()
        self._launched: dict[int, list[FlexKVPutTask]] = {}
        self._ended: deque[FlexKVPutTask] = deque()
        self._other_results: deque[KVResponse] = deque()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is ordered or launched, and nothing that ended waits to be taken."""
        return not (self._ordered or self._launched or self._ended)

    @property
    def has_work(self) -> bool:
        """Whether `work` or `collect` may find something to do."""
        return bool(self._ordered or self._launched)

    def add(self, order: FlexKVPutTask) -> None:
        """Order a store. O(1), never waits."""
        self._ordered.append(order)

    def work(self) -> None:
        """Plan and launch what is ordered, as batches."""
        while self._ordered:
            with self._lock:
                self._launch_some()

    def collect(self) -> None:
        """Take the manager's results: orders that ended, and for `take_other_results` those of other tasks."""
        self._file(self._manager.poll())

    def take_ended(self) -> list[FlexKVPutTask]:
        """Return the orders that have ended since the last call."""
        ended: list[FlexKVPutTask] = []
        while self._ended:
            ended.append(self._ended.popleft())
        return ended

    def take_other_results(self) -> list[KVResponse]:
        """Return the results of tasks that are no stores, since the last call."""
        results: list[KVResponse] = []
        while self._other_results:
            results.append(self._other_results.popleft())
        return results

    def doom(self, orders: Iterable[FlexKVPutTask]) -> None:
        """Never commit these: the device blocks are taken away. What others store in the same batch goes with them."""
        with self._lock:
            task_ids = set()
            for order in orders:
                order.is_doomed = True
                if order.task_id is not None:
                    task_ids.add(order.task_id)
            if task_ids:
                self._manager.doom(task_ids)

    def drop(self) -> None:
        """End what is ordered and not launched."""
        with self._lock:
            self._ended.extend(self._ordered)
            self._ordered.clear()

    def _launch_some(self) -> None:
        """Launch a batch. REQUIRES: the lock."""
        orders: list[FlexKVPutTask] = []
        task_ids: list[int] = []
        block_ids: list[IdArray] = []
        while self._ordered and len(orders) < MAX_BATCH_ORDERS:
            order = self._ordered.popleft()
            if order.is_doomed:
                self._ended.append(order)
                continue
            keys = order.state.keys
            assert keys is not None
            task_id, missing = self._manager.put_span(keys.sequence(order.contents))
            order.is_held = missing.end == len(order.contents)
            if missing.num_blocks == 0:
                self._ended.append(order)
                continue
            orders.append(order)
            task_ids.append(task_id)
            block_ids.append(np.array(order.block_ids[missing.start : missing.end], dtype=np.int64))
        if not orders:
            return
        step = max(order.step for order in orders)
        (batch_id,) = self._manager.launch(
            task_ids, block_ids=block_ids, as_batch=True, after_step=step, timeout_s=self._timeout_s
        )
        self._launched[batch_id] = orders
        for order in orders:
            order.task_id = batch_id

    def _file(self, results: dict[int, KVResponse]) -> None:
        if not results:
            return
        with self._lock:  # whoever launched one of these has noted it by now
            for task_id, response in results.items():
                orders = self._launched.pop(task_id, None)
                if orders is None:
                    self._other_results.append(response)
                    continue
                for order in orders:
                    order.is_held = order.is_held and response.status is KVResponseStatus.SUCCESS
                self._ended.extend(orders)
