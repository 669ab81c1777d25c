"""Stores on their way: ordered while vLLM schedules, planned and launched while the model runs.

    ordered -> launched -> ended        nothing missing, no room, doomed before its turn: ordered -> ended

The scheduler's thread orders, dooms, and takes what ended; whoever calls `work` and `collect` (a StoreThread, or the
scheduler's thread when it has nothing else to do) does the rest. A launched store runs after the step that computes its
tokens, whenever it was launched.

Invariants
 1. Each order ends exactly once.
 2. When `doom` or `drop` has returned, no order it was for is committed later: they and a launch exclude each other.

Thread safety: `work` and `collect`: any thread, several at once too. The others: the scheduler's thread alone. The lock
is held for one batch at most, and while no keys are made. In a forked child whatever takes it raises ServerError.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from flexkv.cache.span import BlockSpan
from flexkv.common.block import IdArray
from flexkv.common.process import OwnProcess
from flexkv.common.request import KVResponse, KVResponseStatus
from flexkv.integration.vllm.request_state import FlexKVPutTask

if TYPE_CHECKING:
    from flexkv.kvmanager import KVManager

__all__ = ["StoreQueue"]

MAX_BATCH_ORDERS = 8
"""Stores of one launch, and so of one hold of the lock: about a millisecond at most."""


class _FairLock:
    """A lock for `with`. Whoever waits gets it before who had it gets it back: the worker takes it again and again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = threading.Lock()
        self._process = OwnProcess()

    def __enter__(self) -> None:
        self._process.check()
        with self._next:
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class StoreQueue:
    """The orders of one scheduler role.

    Args:
        manager: started.
        timeout_s: bound of a store, the step it waits for included; None: the manager's own bound of a transfer.
    """

    def __init__(self, manager: KVManager, timeout_s: float | None = None) -> None:
        self._manager = manager
        self._timeout_s = timeout_s
        self._lock = _FairLock()
        self._ordered: deque[FlexKVPutTask] = deque()
        self._launched: dict[int, list[FlexKVPutTask]] = {}
        self._ended: deque[FlexKVPutTask] = deque()
        self._other_results: deque[KVResponse] = deque()

    @property
    def has_work(self) -> bool:
        """Whether `work` or `collect` may find something to do; also while stored blocks go on to slower tiers."""
        return bool(self._ordered or self._launched) or self._manager.is_working

    def add(self, order: FlexKVPutTask) -> None:
        """Order a store. O(1), never waits."""
        self._ordered.append(order)

    def work(self) -> None:
        """Plan and launch what is ordered, as batches. What raises leaves its orders as they were."""
        while self._make_keys():
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

    def _make_keys(self) -> bool:
        """Make the keys of the next batch; False when nothing is ordered."""
        with self._lock:
            orders = [self._ordered[i] for i in range(min(len(self._ordered), MAX_BATCH_ORDERS))]
        for order in orders:
            if order.sequence is None:
                assert order.state.keys is not None
                order.sequence = order.state.keys.sequence(order.contents)
        return bool(orders)

    def _launch_some(self) -> None:
        """Launch what has its keys, as a batch. REQUIRES: the lock."""
        orders: list[FlexKVPutTask] = []
        task_ids: list[int] = []
        block_ids: list[IdArray] = []
        done = False
        try:
            while self._ordered and self._ordered[0].sequence is not None and len(orders) < MAX_BATCH_ORDERS:
                order = self._ordered.popleft()
                orders.append(order)
                missing = None if order.is_doomed else self._plan(order, task_ids)
                if missing is None:
                    self._ended.append(orders.pop())
                else:
                    block_ids.append(np.array(order.block_ids[missing.start : missing.end], dtype=np.int64))
            if orders:
                self._launch(orders, task_ids, block_ids)
            done = True
        finally:
            if not done:
                self._ordered.extendleft(reversed(orders))
                self._manager.cancel(task_ids)

    def _launch(self, orders: list[FlexKVPutTask], task_ids: list[int], block_ids: list[IdArray]) -> None:
        step = max(order.step for order in orders)
        (batch_id,) = self._manager.launch(
            task_ids, block_ids=block_ids, as_batch=True, after_step=step, timeout_s=self._timeout_s
        )
        self._launched[batch_id] = orders
        for order in orders:
            order.task_id = batch_id

    def _plan(self, order: FlexKVPutTask, task_ids: list[int]) -> BlockSpan | None:
        """Reserve slots for what is not held; None when that is nothing."""
        assert order.sequence is not None
        task_id, missing, is_prefix_ready = self._manager.put_span(order.sequence)
        order.is_held = is_prefix_ready and missing.end == len(order.contents)
        if missing.num_blocks == 0:
            return None
        task_ids.append(task_id)
        return missing

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
