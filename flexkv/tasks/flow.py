"""TaskFlow: what happens to tasks: planned, launched, ended, released.

Everything here runs under the KVTaskEngine's mutex and never waits.
A task holds reservations from match until its graph is released. Whatever becomes of it, each ends exactly once:

    un-launched:  empty plan -> commit      cancel, reset, lease, shutdown -> abort      launch -> submitted, or abort
    running:      status done -> commit     status other, or doomed -> quarantine;   released -> abort
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from flexkv import _core
from flexkv.cache.cache_engine import GlobalCacheEngine
from flexkv.cache.radixtree import NEVER_S, EntryMeta, Match
from flexkv.cache.reservation import GetReservation, PutReservation, Reservation
from flexkv.cache.span import BlockSpan
from flexkv.cache.transfer_pattern import join_graph, load_graph, store_graph
from flexkv.common.block import IdArray
from flexkv.common.debug import flexkv_logger
from flexkv.common.metrics import CacheStats, MissReason, SkipReason
from flexkv.common.request import KVRequest, KVRequestType
from flexkv.common.transfer import GraphId, TransferOpGraph
from flexkv.errors import FlexKVError
from flexkv.tasks.host_tier import HostTier, TierState
from flexkv.tasks.recorder import Recorder
from flexkv.tasks.requests import GpuMappings
from flexkv.tasks.seams import Completion, Transfer
from flexkv.tasks.ssd_tier import SsdTier
from flexkv.tasks.staging import StagingState, is_lost, staging_of
from flexkv.tasks.task import KVTask, KVTaskManager, Launch, TaskStatus
from flexkv.tasks.tier_mover import Staged, TierMover

__all__ = ["TaskFlow"]

_logger = flexkv_logger(__name__)
_MISS = {
    TierState.WAITING: MissReason.NOT_READY,
    TierState.OFF: MissReason.QUARANTINE,
    TierState.BROKEN: MissReason.NOT_READY,
}
_SKIP = {
    TierState.WAITING: SkipReason.NOT_READY,
    TierState.OFF: SkipReason.QUARANTINE,
    TierState.BROKEN: SkipReason.NOT_READY,
}
_NOTHING = BlockSpan(0, 0)
_FAILED = frozenset({_core.OpStatus.FAILED, _core.OpStatus.TIMED_OUT})


class _Stored(NamedTuple):
    """What a store brought to the CPU tier."""

    task: KVTask
    blocks: PutReservation


class TaskFlow:
    """The life of tasks. `clock_s` returns seconds since the engine was made; `closed` makes every request a miss."""

    def __init__(
        self,
        tasks: KVTaskManager,
        tier: HostTier,
        ssd: SsdTier,
        mover: TierMover,
        transfer: Transfer,
        recorder: Recorder,
        clock_s: Callable[[], float],
        prefetch_timeout_s: float,
    ) -> None:
        self.tasks = tasks
        self.tier = tier
        self.ssd = ssd
        self.mover = mover
        self.closed = False
        self._transfer = transfer
        self._prefetch_timeout_s = prefetch_timeout_s
        self._recorder = recorder
        self._clock_s = clock_s
        self._changed = False
        self._completions: deque[Completion] = deque()
        self._due: deque[_Stored] = deque()  # to go on to the SSD tier
        self._due_after: dict[GraphId, list[_Stored]] = {}  # the same, once the first of their blocks are written

    def drain(self) -> None:
        """Apply what was completed, follow the tier, and cancel what waited for its launch too long.

        Cheap when idle.
        """
        self._apply_completions()
        if not self.closed:
            self.tier.refresh(self._clock_s())
            self.ssd.refresh(self.tier.cache, self._transfer.ranks)
        while (task := self.tasks.expired(self._clock_s())) is not None:
            _logger.warning("task was never launched nor cancelled, cancelled now task_id=%d", task.task_id)
            self.cancel(task)

    def take_changed(self) -> bool:
        """Return whether a task ended or a graph was released since the last call."""
        changed, self._changed = self._changed, False
        return changed

    def get(self, request: KVRequest) -> KVTask:
        """Plan a GET. With nothing to load the task is COMPLETED at once."""
        cache = self.tier.cache
        if self.closed or self.tier.state is not TierState.SERVING or cache is None:
            task = self._create(request, None)
            self._recorder.missed(request, task, MissReason.SHUT_DOWN if self.closed else _MISS[self.tier.state])
            return self._end(task, TaskStatus.COMPLETED)
        reservation, staged = self._find(cache, request)
        task = self._create(request, reservation)
        self._recorder.got(request, task, reservation, is_left_out=staged is Staged.LEFT_OUT)
        return task if reservation.num_blocks else self._commit(task)

    def _find(self, cache: GlobalCacheEngine, request: KVRequest) -> tuple[GetReservation, Staged]:
        """Pin what the CPU tier has of a request, with what is on its way there from now on."""
        sequence, start, end = request.sequence, request.start_block, request.end_block
        now_s = int(self._clock_s())
        here: Match | None = cache.cpu_cache_engine.match(sequence, now_s, end)
        staged = Staged.NOTHING
        if not request.cpu_only:
            assert here is not None
            staged = self.mover.stage(cache, sequence, here, start, end, is_repeat=request.is_repeat)
        if staged is Staged.BEGUN:
            here = None
        may_wait = not request.cpu_only
        return cache.prepare_get(sequence, start, end, now_s=now_s, may_wait=may_wait, match=here), staged

    def staging(self, task: KVTask | None) -> StagingState:
        """Return how far the blocks of a GET are."""
        cache = self.tier.cache
        if cache is None or task is None or task.status is not TaskStatus.UNREADY:
            return StagingState.BROKEN
        return staging_of(cache, task.reservations)

    def check_by_layers(self, tasks: Sequence[KVTask]) -> None:
        """Raise ValueError unless it is one GET whose blocks are in host memory: no other load goes by layers."""
        if len(tasks) != 1 or tasks[0].type is not KVRequestType.GET:
            raise ValueError(f"task_ids has {len(tasks)} tasks; layerwise_transfer is for one load")
        if not tasks[0].is_ended and self.staging(tasks[0]) is not StagingState.READY:
            raise ValueError("task_ids has a load whose blocks are not all in host memory; load it whole")

    def misses(self, key: bytes, first_key: bytes, num_blocks: int, *, is_repeat: bool) -> bool:
        """Count a GET that would find nothing, and say so; False when it has to be planned to know, or to be traced."""
        cache = self.tier.cache
        if self.closed or self.tier.state is not TierState.SERVING or cache is None or self._recorder.is_tracing:
            return False
        with_ssd = self.ssd.may_read
        if cache.holds(key, with_ssd=with_ssd):
            return False
        if not is_repeat:
            held_before = key != first_key and cache.holds(first_key, with_ssd=with_ssd)
            self._recorder.found_nothing(num_blocks, MissReason.ON_GPU if held_before else MissReason.NO_MATCH)
        return True

    def put(self, request: KVRequest) -> KVTask:
        """Plan a PUT. With nothing to store the task is COMPLETED at once."""
        cache = self.tier.cache
        if self.closed or self.tier.state is not TierState.SERVING or cache is None:
            task = self._create(request, None)
            self._recorder.skipped(request, task, SkipReason.SHUT_DOWN if self.closed else _SKIP[self.tier.state])
            return self._end(task, TaskStatus.COMPLETED)
        expiry_s = NEVER_S if request.expiry_s is None else request.expiry_s
        meta = EntryMeta(tenant=request.tenant, priority=request.priority, expiry_s=expiry_s)
        reservation = cache.prepare_put(request.sequence, request.end_block, meta, now_s=int(self._clock_s()))
        task = self._create(request, reservation)
        task.is_prefix_ready = reservation.is_prefix_ready
        self._recorder.planned_put(request, task, reservation)
        return task if reservation.num_blocks else self._commit(task)

    def prefetch(self, request: KVRequest) -> KVTask:
        """Begin to bring blocks from lower tiers to the CPU tier; when they are there, the task lets go of them.

        With nothing to bring it is COMPLETED at once.
        """
        cache = self.tier.cache
        if self.closed or self.tier.state is not TierState.SERVING or cache is None:
            task = self._create(request, None)
            self._recorder.prefetched(request, task)
            return self._end(task, TaskStatus.COMPLETED)
        reservation, _ = self._find(cache, request)
        task = self._create(request, reservation)
        self._recorder.prefetched(request, task)
        task.launched = True
        waits = cache.arrivals.ops(reservation.slots)
        external = sorted({int(op_id) for op_id in waits if op_id >= 0})
        if external:
            self._submit(task, join_graph(external), self._prefetch_timeout_s)
        else:
            self._commit(task)
        return task

    def launch_each(self, tasks: Sequence[KVTask], mappings: GpuMappings, launch: Launch) -> None:
        """Submit tasks that were not launched; those that ended meanwhile are passed over.

        Where a load by layers does not come, the workers are told. Raises ValueError naming the mapping; nothing was
        changed.
        """
        blocks = [mappings.blocks(index, task.span, self.tier.num_gpu_blocks) for index, task in enumerate(tasks)]
        for task, own in zip(tasks, blocks, strict=True):
            if not task.is_ended:
                self.launch(task, [own], launch)
            if launch.layer_ticket and task.status is not TaskStatus.RUNNING:
                self._transfer.lose_load(launch.layer_ticket)

    def launch_batch(self, tasks: Sequence[KVTask], mappings: GpuMappings, launch: Launch) -> KVTask:
        """Make one task of tasks that were not launched, and submit it; if one of them was cancelled, it is too.

        Raises ValueError naming the mapping, or task_ids when they are of two kinds; nothing was changed.
        """
        if len({task.type for task in tasks}) > 1:
            raise ValueError("task_ids has gets and puts; a batch has tasks of one kind")
        blocks = mappings.all_blocks([task.span for task in tasks], self.tier.num_gpu_blocks)
        pending = [own for task, own in zip(tasks, blocks, strict=True) if not task.is_ended]
        cancelled = any(task.status is TaskStatus.CANCELLED for task in tasks)
        batch = self.tasks.merge(tasks, self._clock_s())
        if cancelled:
            self.cancel(batch)
        else:
            self.launch(batch, pending, launch)
        return batch

    def launch(self, task: KVTask, blocks: Sequence[IdArray], launch: Launch) -> None:
        """Submit the graph of an un-launched task; `blocks` has the GPU blocks of each part, checked.

        Cannot raise for bad input.
        """
        task.launched = True
        self._recorder.launched(task)
        slots = [reservation.slots for reservation in task.reservations]
        if task.type is KVRequestType.PUT:
            graph = store_graph(slots, blocks, launch.after_step)
        elif self.tier.cache is None or is_lost(self.tier.cache, task.reservations):
            _logger.warning("task failed, blocks it waited for did not come task_id=%d", task.task_id)
            task.become(TaskStatus.READY)
            self._abort_parts(task)
            self._end(task, TaskStatus.FAILED)
            return
        else:
            graph = load_graph(slots, blocks, launch.after_step, self._waits(task, slots), launch.layer_ticket)
        if graph.num_ops == 0:
            self._commit(task)
            return
        self._submit(task, graph, launch.timeout_s)

    def _waits(self, task: KVTask, slots: Sequence[IdArray]) -> IdArray | None:
        """Return the ops that fill the slots of a GET; None when all are filled."""
        cache = self.tier.cache
        assert cache is not None
        if not any(isinstance(held, GetReservation) and held.num_arriving for held in task.reservations):
            return None
        return cache.arrivals.ops(np.concatenate(slots))

    def _submit(self, task: KVTask, graph: TransferOpGraph, timeout_s: float) -> None:
        task.become(TaskStatus.READY)
        submitted = False
        try:
            self._transfer.submit_transfer_graph(graph, timeout_s)
            submitted = True
        except (ValueError, RuntimeError, OSError, FlexKVError) as error:
            _logger.error(
                "task failed, its graph was refused task_id=%d kind=%s error=%s", task.task_id, task.type.value, error
            )
        finally:  # whatever it raised
            if not submitted:
                self._abort_parts(task)
                self._end(task, TaskStatus.FAILED)
        if submitted:
            self.tasks.start(task, graph.graph_id)

    def cancel(self, task: KVTask) -> None:
        """Release everything of an un-launched task. Others are passed over."""
        if task.status is TaskStatus.UNREADY:
            self._abort_parts(task)
            self._end(task, TaskStatus.CANCELLED)

    def doom(self, task: KVTask) -> None:
        """See to it that a PUT is never committed.

        Its blocks are invisible now, and ops that do not run yet are cancelled.
        """
        self.cancel(task)
        if (
            task.type is KVRequestType.PUT
            and task.status is TaskStatus.RUNNING
            and not task.doomed
            and task.graph_id is not None
        ):
            task.doomed = True
            for reservation in task.reservations:
                reservation.doom()
            self._transfer.cancel(task.graph_id)

    def reset(self) -> frozenset[GraphId]:
        """Empty the tiers, cancel what is not launched, hurry stores on.

        Returns the graphs that are still in flight.
        """
        for task in self.tasks.unlaunched():
            self.cancel(task)
        for task in self.tasks.running():
            if task.type is KVRequestType.PUT and task.graph_id is not None:
                self._transfer.cancel(task.graph_id)
        self._due.clear()
        self._due_after.clear()
        self.ssd.begin_reset()
        if self.tier.cache is not None:
            self.tier.cache.reset()
        self._recorder.reset()
        return frozenset(self.tasks.graph_to_task) | self.mover.cancel_writes()

    def is_in_flight(self, graph_id: GraphId) -> bool:
        """Whether a graph of a task or a move is not released yet."""
        return graph_id in self.tasks.graph_to_task or self.mover.is_running(graph_id)

    def is_settled(self, task: KVTask, *, completely: bool) -> bool:
        """Whether a task has ended, and with `completely` whether what its end began has, too."""
        if not completely or not task.is_ended:
            return task.is_ended
        return not any(map(self.mover.is_running, task.offloads)) and not any(due.task is task for due in self._due)

    @property
    def num_in_flight(self) -> int:
        """Tasks and moves that have not ended."""
        return self.tasks.num_running + self.mover.num_running

    @property
    def is_idle(self) -> bool:
        """Whether no store and no move is under way."""
        return not (self.mover.num_running or self._due) and not any(
            task.type is KVRequestType.PUT for task in self.tasks.running()
        )

    def close(self) -> None:
        """From now on every request is a miss; what is not launched is cancelled. Idempotent."""
        self.closed = True
        for task in self.tasks.unlaunched():
            self.cancel(task)

    def abandon(self, *, drained: bool) -> None:
        """The transfer engine has stopped: close, and fail what it did not answer.

        `drained`: nothing touches any slot any more. Can be repeated.
        """
        self.close()
        while self._apply_completions():
            pass  # a poll takes a bounded number
        self._due.clear()
        self._due_after.clear()
        self.mover.abandon(drained=drained)
        for graph_id, task in list(self.tasks.graph_to_task.items()):
            if drained:
                self._abort_parts(task)
                self.tasks.release(graph_id)
            else:
                self._quarantine_parts(task)
            if not task.is_ended:
                _logger.error(
                    "task failed, the transfer engine stopped task_id=%d kind=%s", task.task_id, task.type.value
                )
                self._end(task, task.outcome or TaskStatus.FAILED)

    def stats(self) -> CacheStats:
        """Return the counters and levels at this moment."""
        counters = self._recorder.counters
        counters.tasks_running = self.tasks.num_running
        counters.dropped_results = self.tasks.num_dropped
        self.mover.note_levels()
        if self.tier.cache is not None:
            self._recorder.note_levels(self.tier.cache)
        return counters.snapshot()

    def check_invariants(self) -> None:
        """Raise when slots, pins or reservations do not add up. O(capacity)."""
        cache = self.tier.cache
        if cache is None:
            return
        cache.check_invariants()
        held = sum(1 for _ in self.tasks.reservations()) + self.mover.num_reservations
        assert held == cache.num_live_reservations, (
            f"{cache.num_live_reservations} reservations live, tasks and moves hold {held}"
        )

    def _create(self, request: KVRequest, reservation: Reservation | None) -> KVTask:
        span = _NOTHING if reservation is None else reservation.span
        num_asked = request.end_block - request.start_block
        return self.tasks.create(
            request.type, request.sequence.num_tokens, num_asked, span, reservation, self._clock_s()
        )

    def _apply_completions(self) -> bool:
        """Apply what was completed and return whether there was anything; after an error the next call goes on."""
        self._completions.extend(self._transfer.poll())
        found = bool(self._completions)
        while self._completions:
            self._apply(self._completions.popleft())
        return found

    def _apply(self, completion: Completion) -> None:
        task = self.tasks.graph_to_task.get(GraphId(completion.graph_id))
        if completion.kind == _core.CompletionKind.OP:
            self._recorder.op_ended(completion, failed=completion.status in _FAILED)
        if self.mover.is_running(GraphId(completion.graph_id)):
            self._changed |= self.mover.apply(completion)
            if completion.kind == _core.CompletionKind.GRAPH_RELEASED:  # not before: until then it takes the room
                self._due.extend(self._due_after.pop(GraphId(completion.graph_id), ()))
            elif completion.kind == _core.CompletionKind.GRAPH_STATUS and completion.status != _core.OpStatus.DONE:
                self._due_after.pop(GraphId(completion.graph_id), None)
        elif task is None:
            _logger.warning("completion of an unknown graph graph_id=%d", completion.graph_id)
        elif completion.kind == _core.CompletionKind.OP:
            self.mover.note_copy(completion)
        elif completion.kind == _core.CompletionKind.GRAPH_STATUS:
            if not task.is_ended:  # it has when the engine was shut down meanwhile
                self._decide(task, completion)
        else:
            self._release(task, GraphId(completion.graph_id))

    def _decide(self, task: KVTask, completion: Completion) -> None:
        """A graph's status is known; its ops may still run unless it is done."""
        if completion.status == _core.OpStatus.DONE and not task.doomed:
            self._commit(task)
            return
        self._quarantine_parts(task)
        cancelled = task.doomed or completion.status == _core.OpStatus.CANCELLED
        timed_out = completion.status == _core.OpStatus.TIMED_OUT
        task.outcome = TaskStatus.CANCELLED if cancelled else TaskStatus.FAILED
        if not cancelled:
            _logger.error(
                "task failed task_id=%d kind=%s blocks=%d timed_out=%s error=%s",
                task.task_id,
                task.type.value,
                task.num_blocks,
                timed_out,
                completion.error,
            )
        if task.type is KVRequestType.PUT:  # a GET ends when nothing can write its GPU blocks any more (D16)
            self._end(task, task.outcome, timed_out=timed_out)
        else:
            task.timed_out = timed_out

    def _release(self, task: KVTask, graph_id: GraphId) -> None:
        """No rank touches the graph's slots and blocks any more."""
        self._abort_parts(task)
        self.tasks.release(graph_id)
        self._changed = True
        if not task.is_ended:
            self._end(task, task.outcome or TaskStatus.FAILED, timed_out=task.timed_out)

    def _commit(self, task: KVTask) -> KVTask:
        for part in task.parts:
            reservation = part.take_reservation()
            if reservation is not None:
                reservation.commit()
                if isinstance(reservation, PutReservation) and self.ssd.may_write:
                    self._due.append(_Stored(task, reservation))
        return self._end(task, TaskStatus.COMPLETED)

    @property
    def is_work_due(self) -> bool:
        """Whether `work` has something to do."""
        return bool(self._due)

    def work(self) -> None:
        """Do one piece of what nobody waits for: let what one store brought to the CPU tier go on to the SSD tier."""
        stored = self._due.popleft()
        self._changed = True
        cache, blocks = self.tier.cache, stored.blocks
        assert cache is not None
        graph_id, goes_on = self.mover.offload(cache, blocks.sequence, blocks.span.end, blocks.meta)
        if graph_id is not None:
            stored.task.offloads += (graph_id,)
            if goes_on:
                self._due_after[graph_id] = [stored]

    @staticmethod
    def _abort_parts(task: KVTask) -> None:
        for part in task.parts:
            reservation = part.take_reservation()
            if reservation is not None:
                reservation.abort()

    @staticmethod
    def _quarantine_parts(task: KVTask) -> None:
        for reservation in task.reservations:
            if not reservation.is_quarantined:
                reservation.quarantine()

    def _end(self, task: KVTask, status: TaskStatus, *, timed_out: bool = False) -> KVTask:
        self.tasks.finish(task, status)
        self._recorder.ended(task, timed_out=timed_out)
        self._changed = True
        return task
