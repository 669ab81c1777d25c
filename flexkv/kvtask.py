"""KVTaskEngine: the verbs over tasks, a GET or PUT from match to commit.

What happens to a task is in flexkv/tasks/flow.py, records in flexkv/tasks/task.py, checks of arguments in
flexkv/tasks/requests.py; here are locking and waiting. Thread safety: all methods, any thread. One mutex; every public
call drains completions first, but for `misses` and `stats(settled=False)`, and does what is due, but for those that a
scheduler waits for; hashing, waiting and shutting down happen outside the mutex. Nothing waits without a bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from flexkv.cache.span import BlockSpan, blocks_of_mapping
from flexkv.common.address import own_socket
from flexkv.common.block import BoolArray, SequenceMeta
from flexkv.common.checks import as_int
from flexkv.common.config import MAX_TRANSFER_TIMEOUT_S, CacheConfig, ModelConfig
from flexkv.common.debug import flexkv_logger
from flexkv.common.events import EventCollector, KVEvent
from flexkv.common.hash_utils import Keys
from flexkv.common.metrics import CacheStats
from flexkv.common.request import KVRequest, KVRequestType, KVResponse
from flexkv.errors import ConfigError
from flexkv.storage.storage_engine import StorageEngine
from flexkv.tasks.flow import TaskFlow
from flexkv.tasks.gate import Gate
from flexkv.tasks.host_tier import HostTier, TierState
from flexkv.tasks.recorder import EventBuffer, Recorder
from flexkv.tasks.requests import (
    GpuMappings,
    RequestReader,
    SequenceArguments,
    TaskIds,
    as_task_ids,
    as_timeout,
    check_gpu_blocks,
)
from flexkv.tasks.seams import Storage, Transfer
from flexkv.tasks.ssd_tier import SsdTier
from flexkv.tasks.staging import StagingState
from flexkv.tasks.task import KVTask, KVTaskManager, Launch, TaskStatus
from flexkv.tasks.tier_mover import TierMover
from flexkv.transfer.transfer_engine import TransferEngine

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["EventBuffer", "KVTask", "KVTaskEngine", "KVTaskManager", "StagingState", "TaskStatus"]

_logger = flexkv_logger(__name__)
_MIN_TIMEOUT_S = 1e-3
_STOP_SHARE = 0.3  # of the time for a shutdown: what is kept for stopping once writes were given the rest


class KVTaskEngine:
    """Keeps and brings back KV blocks, task by task.

    Args:
        gpu_register_port: address of the socket on which GPU ranks register; default: one of this process's own.
        transfer, storage: stand in for the product's engines (tests).
        event_collector: takes KV events; None makes none. An EventBuffer is emptied by `take_events`.
        clock: seconds, monotonic; for expiry, leases and the trace. Waits use the real one.

    Raises:
        ConfigError: naming the setting.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        cache_config: CacheConfig,
        gpu_register_port: str | None = None,
        *,
        transfer: Transfer | None = None,
        storage: Storage | None = None,
        event_collector: EventCollector | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model_config = model_config
        self.cache_config = cache_config
        self._tokens_per_block = cache_config.tokens_per_block
        start_s = clock()
        self._reader = RequestReader(cache_config, lambda: int(clock() - start_s))
        self._recorder = Recorder(cache_config, event_collector, lambda: clock() - start_s)
        self._transfer = transfer or TransferEngine.of_model(gpu_register_port or own_socket(), model_config)
        self._tasks = KVTaskManager(cache_config.tokens_per_block, cache_config.max_finished_tasks)
        collector = self._recorder if self._recorder.wants_events else None
        store = storage or StorageEngine(model_config, cache_config)
        now_s = lambda: clock() - start_s  # noqa: E731
        self._tier = HostTier(model_config, cache_config, self._transfer, store, collector)
        self._ssd = SsdTier(cache_config, self._transfer, store, collector, now_s)
        self._mover = TierMover(model_config, cache_config, self._transfer, self._ssd, self._recorder, now_s)
        self._flow = TaskFlow(
            self._tasks,
            self._tier,
            self._ssd,
            self._mover,
            self._transfer,
            self._recorder,
            now_s,
            cache_config.transfer_timeout_s,
        )
        self._gate = Gate(self._flow, self._transfer.event_fd)

    def start(self) -> None:
        """Let ranks register. Does not block. Raises OSError or FlexKVError when the socket cannot be had."""
        self._transfer.start()

    def is_ready(self) -> bool:
        """Return whether every rank has registered, slots can be had, and an SSD tier is open or known to be off.

        Raises:
            ConfigError: a tier cannot work as configured; it never will be ready.
        """
        with self._gate.entered():
            failure = self._tier.failure or self._ssd.failure
            if failure is not None:
                raise ConfigError(str(failure), key=failure.key, tier=failure.tier) from failure
            return not self._flow.closed and self._tier.has_slots and not self._ssd.is_opening

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until `is_ready`; False after `timeout_s` or a shutdown. Raises ConfigError like it."""
        return self._gate.ask_until(self.is_ready, time.monotonic() + as_timeout(timeout_s, "timeout_s"))

    def sequence(
        self,
        token_ids: object = None,
        namespace: Sequence[str] | None = None,
        *,
        block_hashes: Sequence[bytes] | Keys | None = None,
        num_tokens: int | None = None,
    ) -> SequenceMeta:
        """Return a handle of a prompt for the verbs' `sequence=`; its keys are computed once. Raises ValueError."""
        return self._reader.sequence(token_ids, namespace, block_hashes=block_hashes, num_tokens=num_tokens)

    def get_match(
        self,
        token_ids: object = None,
        token_mask: object = None,
        cpu_only: bool = False,
        namespace: Sequence[str] | None = None,
        **arguments: Unpack[SequenceArguments],
    ) -> tuple[int, BoolArray]:
        """Find what can be loaded, and pin it until launched or cancelled.

        In `token_mask` True means not on the GPU yet; it is not modified. What the SSD tier has beyond the CPU tier is
        on its way from here on, if reading it is faster than computing it; `cpu_only` leaves it out. A launch does not
        wait for it: the load of each part begins when its bytes are there. See SequenceArguments for the keywords.

        Returns: the task id, and the mask of tokens to load: one block-aligned span that starts at the first block
        boundary at or after the first True of `token_mask` and stays within that stretch of Trues.

        Raises:
            ValueError: naming the argument; nothing was changed.
        """
        request, _ = self._reader.get(token_ids, token_mask, namespace, arguments)
        if cpu_only:
            request = replace(request, cpu_only=True)
        self._hash(request)
        with self._gate.entered_briefly():
            task = self._flow.get(request)
        return task.task_id, self._mask(request, task)

    def put_match(
        self,
        token_ids: object = None,
        token_mask: object = None,
        namespace: Sequence[str] | None = None,
        **arguments: Unpack[SequenceArguments],
    ) -> tuple[int, BoolArray]:
        """Find what is not held yet, and reserve slots for it until launched or cancelled.

        In `token_mask` True means may be written; it starts at block 0.

        Returns: the task id, and the mask of tokens still to be written, in whole blocks. Fewer when slots are short.

        Raises:
            ValueError: naming the argument; nothing was changed.
        """
        request, _ = self._reader.put(token_ids, token_mask, namespace, arguments)
        self._hash(request)
        with self._gate.entered():
            task = self._flow.put(request)
        return task.task_id, self._mask(request, task)

    def get_span(
        self, sequence: SequenceMeta, start_block: int = 0, *, is_repeat: bool = False, cpu_only: bool = False
    ) -> tuple[int, BlockSpan]:
        """Do what `get_match` does for a handle of `sequence()`, and answer in blocks: no mask is made. O(log n).

        `is_repeat`: the caller asks again what was a miss; if it still is, that is not counted a second time.
        """
        request = KVRequest(
            type=KVRequestType.GET,
            sequence=sequence,
            start_block=start_block,
            end_block=sequence.num_blocks,
            is_repeat=is_repeat,
            cpu_only=cpu_only,
        )
        self._hash(request)
        with self._gate.entered_briefly():
            task = self._flow.get(request)
        return task.task_id, task.span

    def staging(self, task_id: int) -> StagingState:
        """Return whether the blocks of a GET that waits for its launch are all in host memory, checked (D15)."""
        with self._gate.entered_briefly():
            return self._flow.staging(self._tasks.find(task_id))

    def note_prefill(self, num_tokens: int, seconds: float) -> None:
        """Say how long computing so many tokens of prompts took: what is slower to read is not loaded (D11)."""
        with self._gate.lock:
            self._mover.note_prefill(num_tokens, seconds)

    def misses(self, key: bytes, *, first_key: bytes, num_blocks: int, is_repeat: bool = False) -> bool:
        """Return whether a GET would find nothing. O(1).

        If so it is counted as that GET, and there is no task; else nothing was changed. Completions are not looked at:
        it is False where blocks still show of a store that has failed since the last call of another verb.

        Args:
            key: of the first block that is asked for.
            first_key: of the prompt's first block; tells whether what is held of the prompt is on the GPU already.
            num_blocks: that are asked for.
            is_repeat: the caller asks again what was a miss; if it still is, that is not counted a second time.
        """
        with self._gate.lock:
            return self._flow.misses(key, first_key, num_blocks, is_repeat=is_repeat)

    def put_span(self, sequence: SequenceMeta) -> tuple[int, BlockSpan, bool]:
        """Do what `put_match` does for a handle of `sequence()`, and answer in blocks: no mask is made.

        Returns: the task id, the blocks still to be written, and whether those before them have their bytes: if not,
        other tasks are still writing some, and may fail.
        """
        request = KVRequest(type=KVRequestType.PUT, sequence=sequence, start_block=0, end_block=sequence.num_blocks)
        self._hash(request)
        with self._gate.entered():
            task = self._flow.put(request)
        return task.task_id, task.span, task.is_prefix_ready

    def get_async(
        self,
        token_ids: object,
        slot_mapping: object,
        token_mask: object = None,
        namespace: Sequence[str] | None = None,
        *,
        after_step: int = 0,
        timeout_s: float | None = None,
        **arguments: Unpack[SequenceArguments],
    ) -> int:
        """Match and launch a load in one. `slot_mapping`: one slot for each True of `token_mask`, or for each token."""
        launch = self._launch_of(after_step, timeout_s)
        request, mask = self._reader.get(token_ids, token_mask, namespace, arguments)
        return self._run(request, mask, slot_mapping, launch, self._flow.get)

    def put_async(
        self,
        token_ids: object,
        slot_mapping: object,
        token_mask: object = None,
        namespace: Sequence[str] | None = None,
        *,
        after_step: int = 0,
        timeout_s: float | None = None,
        **arguments: Unpack[SequenceArguments],
    ) -> int:
        """Match and launch a store in one; like `get_async`."""
        launch = self._launch_of(after_step, timeout_s)
        request, mask = self._reader.put(token_ids, token_mask, namespace, arguments)
        return self._run(request, mask, slot_mapping, launch, self._flow.put)

    def prefetch_async(
        self, token_ids: object = None, namespace: Sequence[str] | None = None, **arguments: Unpack[SequenceArguments]
    ) -> int:
        """Bring blocks from lower tiers to the CPU tier, ahead of the request; done at once when there are none."""
        request = self._reader.prefetch(token_ids, namespace, arguments)
        self._hash(request)
        with self._gate.entered():
            return self._flow.prefetch(request).task_id

    def launch(
        self,
        task_ids: TaskIds,
        slot_mappings: object = None,
        as_batch: bool = False,
        layerwise_transfer: bool = False,
        counter_id: int = 0,
        *,
        block_ids: object = None,
        after_step: int = 0,
        timeout_s: float | None = None,
    ) -> list[int]:
        """Start matched tasks.

        Args:
            task_ids: of un-launched tasks. Those that ended meanwhile (nothing to move, or cancelled) are passed over.
            slot_mappings: for each task, one GPU slot for each True of its mask.
            as_batch: several tasks of one kind become one task; the parts answer NOTFOUND from then on.
            layerwise_transfer: load layer by layer: one task, whose blocks are all in host memory (`staging`).
            counter_id: then the ticket by which the workers ask for the progress (KVTPClient.expect_load): it grows.
            block_ids: in place of slot_mappings: for each task, one GPU block id for each masked block.
            after_step: the engine step after which the copies may run; 0: at once.
            timeout_s: bound of the transfer, at most 1e6; default: the configuration's.

        Returns: the ids to wait for.

        Raises:
            ValueError: naming the argument: an unknown id, one that was launched already, or a bad mapping; nothing was
                changed.
        """
        ids = as_task_ids(task_ids)
        if len(set(ids)) != len(ids):
            raise ValueError(f"task_ids is {ids}; an id is named twice")
        ticket = as_int("counter_id", counter_id, 1) if layerwise_transfer else 0
        launch = self._launch_of(after_step, timeout_s, ticket)
        mappings = GpuMappings(task_ids, len(ids), slot_mappings, block_ids, self._tokens_per_block)
        with self._gate.entered_briefly():
            tasks = [self._tasks.launchable(task_id) for task_id in ids]
            if ticket:
                self._flow.check_by_layers(tasks)
            if as_batch and len(tasks) > 1:
                return [self._flow.launch_batch(tasks, mappings, launch).task_id]
            self._flow.launch_each(tasks, mappings, launch)
            return ids

    def cancel(self, task_ids: TaskIds) -> None:
        """Release everything of un-launched tasks; they answer CANCELLED once.

        Other ids are passed over: running tasks run on.
        """
        with self._gate.entered_briefly():
            for task in self._tasks.known(as_task_ids(task_ids)):
                self._flow.cancel(task)

    def doom(self, task_ids: TaskIds) -> None:
        """Never commit these PUTs: the engine took their GPU blocks away (D17).

        Un-launched tasks are cancelled, running GETs run on, other ids are passed over. Must be called before the GPU
        blocks are given other contents.
        """
        with self._gate.entered_briefly():
            for task in self._tasks.known(as_task_ids(task_ids)):
                self._flow.doom(task)

    def wait(self, task_ids: TaskIds, timeout: float = 20.0, completely: bool = False) -> dict[int, KVResponse]:
        """Wait until every task has ended, at most `timeout` seconds, and take the results of those that have.

        An id that is unknown (or whose result was taken) answers NOTFOUND, an un-launched one UNREADY; neither is
        waited for. What still runs at the end answers TIMEOUT and runs on. `completely`: also wait until what a store
        brought has been written to the SSD tier, or was dropped; the status is that of the store.
        """
        ids = as_task_ids(task_ids)
        deadline_s = time.monotonic() + as_timeout(timeout)
        with self._gate.entered():
            tasks = {task_id: self._tasks.find(task_id) for task_id in ids}
        begun = [task for task in tasks.values() if task is not None and (task.launched or task.is_ended)]
        self._gate.wait_until(
            lambda: all(self._flow.is_settled(task, completely=completely) for task in begun), deadline_s
        )
        self._recorder.flush()
        with self._gate.lock:
            return {task_id: self._tasks.answer(task_id, task) for task_id, task in tasks.items()}

    def try_wait(self, task_ids: TaskIds) -> dict[int, KVResponse]:
        """Return the responses of those tasks that have ended, without waiting.

        Their results stay until the first `wait` or `poll`.
        """
        with self._gate.entered():
            return {task.task_id: task.response() for task in self._tasks.known(as_task_ids(task_ids)) if task.is_ended}

    def poll(self) -> dict[int, KVResponse]:
        """Take the results of all tasks that have ended, in the order they did, without waiting."""
        with self._gate.entered():
            finished = self._tasks.take_finished()
        self._recorder.flush()
        return {task.task_id: task.response() for task in finished}

    def wait_any(self, timeout_s: float) -> bool:
        """Wait until there is a result to take; False after `timeout_s`, or when nothing runs that could end."""
        deadline_s = time.monotonic() + as_timeout(timeout_s, "timeout_s")
        self._gate.wait_until(lambda: self._tasks.num_finished > 0 or self._flow.num_in_flight == 0, deadline_s)
        self._recorder.flush()
        with self._gate.lock:
            return self._tasks.num_finished > 0

    def reset(self) -> None:
        """Empty all tiers, and wait until transfers in flight have ended, at most `transfer_timeout_s`. Idempotent.

        Un-launched tasks are cancelled; blocks of running stores will never be seen; running loads run on. When this
        returns, what lay in the SSD tier will not be found after a restart either; unless that tier was not open, since
        ranks were missing or somebody else served from it: it is emptied then before it serves here.
        """
        with self._gate.entered():
            graphs = self._flow.reset()
        deadline_s = time.monotonic() + self.cache_config.transfer_timeout_s
        if not self._gate.wait_until(lambda: not any(map(self._flow.is_in_flight, graphs)), deadline_s):
            _logger.warning("reset left transfers in flight, their slots stay in quarantine graphs=%d", len(graphs))
        self._ssd.renew()
        self._gate.ask_until(lambda: not self._gate.ask(lambda: self._ssd.owes_reset), deadline_s)

    def shutdown(self, timeout_s: float = 5.0) -> bool:
        """Stop: un-launched tasks are cancelled, running ones and writes to the SSD tier drain for `timeout_s`.

        Later requests are misses. Idempotent; a second call returns the first one's answer.

        Returns: True when nothing touches any GPU block or slot any more; False when a copy may still run. In a forked
        child nothing runs and nothing is done.
        """
        timeout_s = as_timeout(timeout_s, "timeout_s")
        if self._gate.in_forked_child:
            return True
        deadline_s = time.monotonic() + timeout_s
        try:
            with self._gate.entered():
                self._flow.close()
            if self._ssd.may_write:
                self._gate.wait_until(lambda: self._flow.is_idle, deadline_s - _STOP_SHARE * timeout_s)
        finally:  # whatever went wrong: copies must not touch GPU blocks after this (D16)
            drained = self._transfer.shutdown(max(0.0, deadline_s - time.monotonic()))
            drained = self._ssd.close(max(_MIN_TIMEOUT_S, deadline_s - time.monotonic())) and drained
            with self._gate.lock:
                self._gate.close()
                self._flow.abandon(drained=drained)
        self._recorder.close()
        return drained

    def stats(self, *, settled: bool = True) -> CacheStats:
        """Return the counters and levels at this moment; if not `settled`, as of the last call of another verb."""
        with self._gate.entered() if settled else self._gate.lock:
            return self._flow.stats()

    def take_events(self) -> list[KVEvent]:
        """Return the KV events since the last call; none unless `event_collector` is an EventBuffer."""
        with self._gate.entered():
            return self._recorder.take_events()

    @property
    def num_running(self) -> int:
        """Tasks that are launched and have not ended."""
        with self._gate.lock:
            return self._tasks.num_running

    @property
    def is_working(self) -> bool:
        """Whether blocks go from tier to tier, or are to: `poll` now and then, though no task runs. Takes no lock."""
        return self._flow.is_work_due or self._mover.num_running > 0

    @property
    def num_blocks(self) -> int:
        """Capacity of the CPU tier in blocks; 0 until it is open."""
        with self._gate.lock:
            return 0 if self._tier.cache is None else self._tier.cache.cpu_cache_engine.num_blocks

    def check_invariants(self) -> None:
        """Raise when slots, pins or reservations do not add up. O(capacity); for tests and for a doctor."""
        with self._gate.entered():
            self._flow.check_invariants()

    def _hash(self, request: KVRequest) -> None:
        """Compute the keys outside the mutex, unless nothing would ask for them."""
        if self._tier.state is TierState.SERVING:
            request.sequence.gen_hashes()

    def _mask(self, request: KVRequest, task: KVTask) -> BoolArray:
        return task.span.token_mask(request.sequence.num_tokens, self._tokens_per_block)

    def _launch_of(self, after_step: int, timeout_s: float | None, layer_ticket: int = 0) -> Launch:
        bound_s = (
            self.cache_config.transfer_timeout_s
            if timeout_s is None
            else min(as_timeout(timeout_s, "timeout_s", minimum_s=_MIN_TIMEOUT_S), MAX_TRANSFER_TIMEOUT_S)
        )
        return Launch(as_int("after_step", after_step), bound_s, layer_ticket)

    def _run(
        self,
        request: KVRequest,
        mask: BoolArray | None,
        slot_mapping: object,
        launch: Launch,
        plan: Callable[[KVRequest], KVTask],
    ) -> int:
        """Plan and launch a request whose slot mapping was given before the match."""
        asked = BlockSpan(request.start_block, request.end_block)
        blocks = blocks_of_mapping(slot_mapping, mask, request.sequence.num_tokens, asked, self._tokens_per_block)
        self._hash(request)
        with self._gate.entered():
            if self._tier.cache is not None:
                check_gpu_blocks(blocks, "slot_mapping", self._tier.num_gpu_blocks)
            task = plan(request)
            if not task.is_ended:
                self._flow.launch(task, [blocks[task.span.start - asked.start : task.span.end - asked.start]], launch)
            return task.task_id
