"""Recorder: what the task engine tells about itself: counters, the trace, and KV events kept for `take_events`.

Nothing here decides anything. Thread safety: none but for `flush` and `close`, which write to the disk and so are
called without the KVTaskEngine's mutex; it guards all else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from flexkv.cache.cache_engine import GlobalCacheEngine
from flexkv.cache.cost_model import LoadDecision
from flexkv.cache.reservation import GetReservation, PutReservation
from flexkv.common.config import CacheConfig
from flexkv.common.debug import flexkv_logger
from flexkv.common.events import BlocksRemoved, EventCollector, KVEvent
from flexkv.common.metrics import Counters, MissReason, SkipReason
from flexkv.common.request import KVRequest, KVRequestType
from flexkv.common.storage import DeviceType
from flexkv.common.tracer import TraceOp, Tracer
from flexkv.common.transfer import TransferType
from flexkv.tasks.seams import Completion
from flexkv.tasks.task import KVTask, TaskStatus

__all__ = ["EventBuffer", "Recorder"]

_logger = flexkv_logger(__name__)
_MAX_EVENTS = 65536
FLUSH_EVERY_RECORDS = 1024
MAX_PENDING_RECORDS = 32768


class EventBuffer:
    """An EventCollector that keeps the last events until they are taken.

    `num_dropped` counts those that did not fit.
    """

    def __init__(self, max_events: int = _MAX_EVENTS) -> None:
        self._events: deque[KVEvent] = deque(maxlen=max_events)
        self.num_dropped = 0

    def publish(self, event: KVEvent) -> None:
        """Keep one event."""
        self.num_dropped += len(self._events) == self._events.maxlen
        self._events.append(event)

    def take(self) -> list[KVEvent]:
        """Return what was kept, oldest first, and forget it."""
        events = list(self._events)
        self._events.clear()
        return events


class Recorder:
    """Counts, traces and collects.

    Args:
        collector: where KV events go; an EventBuffer can be emptied by `take_events`. None: no events are made, unless
            a trace needs them.
        clock_s: seconds since the task engine was made.

    Attributes:
        num_lost_events: events that the collector raised on.
    """

    def __init__(
        self, cache_config: CacheConfig, collector: EventCollector | None, clock_s: Callable[[], float]
    ) -> None:
        self.counters = Counters()
        self._collector = collector
        self._clock_s = clock_s
        self.num_lost_events = 0
        self._tracer: Tracer | None = None
        if cache_config.trace_path is not None:
            self._tracer = Tracer(
                cache_config.trace_path,
                tokens_per_block=cache_config.tokens_per_block,
                num_blocks=cache_config.num_cpu_blocks or 0,
                policy=cache_config.eviction_policy,
                max_buffered=MAX_PENDING_RECORDS,
            )

    @property
    def wants_events(self) -> bool:
        """Whether the tiers should publish to this recorder."""
        return self._collector is not None or self._tracer is not None

    @property
    def is_tracing(self) -> bool:
        """Whether every request is written to a trace."""
        return self._tracer is not None

    def publish(self, event: KVEvent) -> None:
        """Take one event of a tier (EventCollector)."""
        if self._tracer is not None and isinstance(event, BlocksRemoved) and event.tier is DeviceType.CPU:
            self._tracer.record(TraceOp.EVICT, self._clock_s(), keys=event.keys, num_blocks=len(event.keys))
        if self._collector is None:
            return
        try:
            self._collector.publish(event)
        except Exception:  # it is the user's code: whatever it raises must not fail tasks or leave blocks pinned
            self.num_lost_events += 1
            if self.num_lost_events == 1:
                _logger.exception("the event collector failed, events are lost collector=%r", self._collector)

    def take_events(self) -> list[KVEvent]:
        """Return the events kept since the last call; none unless the collector is an EventBuffer."""
        return self._collector.take() if isinstance(self._collector, EventBuffer) else []

    def found_nothing(self, num_blocks: int, reason: MissReason) -> None:
        """A GET was a miss."""
        self.counters.get_requests += 1
        self.counters.queried_blocks += num_blocks
        self.counters.miss(reason)

    def missed(self, request: KVRequest, task: KVTask, reason: MissReason) -> None:
        """A GET was answered without asking the cache."""
        if not request.is_repeat:
            self.found_nothing(request.end_block - request.start_block, reason)
        self._trace(TraceOp.GET, task, request, reason=reason.value)

    def got(self, request: KVRequest, task: KVTask, reservation: GetReservation, *, is_left_out: bool = False) -> None:
        """A GET was planned. One that found something is counted once it is launched.

        `is_left_out`: a slower tier has something, but computing it is faster.
        """
        reason = ""
        if reservation.num_blocks == 0:
            miss = MissReason.SLOWER_THAN_COMPUTE if is_left_out else _miss_reason(request, reservation)
            reason = miss.value
            if not request.is_repeat:
                self.found_nothing(request.end_block - request.start_block, miss)
        self._trace(
            TraceOp.GET,
            task,
            request,
            matched=reservation.num_visible,
            ready=reservation.num_ready,
            num_blocks=reservation.num_blocks,
            reason=reason,
        )

    def skipped(self, request: KVRequest, task: KVTask, reason: SkipReason) -> None:
        """A PUT was answered without asking the cache."""
        self.counters.put_requests += 1
        self.counters.skip(reason, request.end_block)
        self._trace(TraceOp.PUT, task, request, reason=reason.value)

    def planned_put(self, request: KVRequest, task: KVTask, reservation: PutReservation) -> None:
        """A PUT was planned."""
        self.counters.put_requests += 1
        self.counters.put_blocks += reservation.num_blocks
        self.counters.skip(SkipReason.ALREADY_STORED, reservation.span.start)
        self.counters.skip(SkipReason.NO_SLOTS, reservation.num_skipped)
        self._trace(TraceOp.PUT, task, request, matched=reservation.span.start, num_blocks=reservation.num_blocks)

    def launched(self, task: KVTask) -> None:
        """A task was launched. What a GET asked for counts from here on: an engine looks up what it has no room for."""
        if task.type is not KVRequestType.GET:
            return
        for part in task.parts:
            if part.span.num_blocks:
                self.counters.get_requests += 1
                self.counters.queried_blocks += part.num_asked
                self.counters.hit_blocks += part.span.num_blocks

    def decided_stage(self, num_blocks: int, decision: LoadDecision) -> None:
        """What of the blocks that a slower tier has is worth reading was decided."""
        left_out = num_blocks - decision.num_blocks
        if left_out == 0:
            return
        if self.counters.ssd_not_offered_blocks == 0:
            _logger.info(
                "ssd blocks left out, more will be counted only blocks=%d reason=%s load_s=%s compute_s=%s",
                left_out,
                decision.reason.value,
                decision.load_s,
                decision.compute_s,
            )
        self.counters.ssd_not_offered_blocks += left_out

    def prefetched(self, request: KVRequest, task: KVTask) -> None:
        """A PREFETCH was planned."""
        self._trace(TraceOp.PREFETCH, task, request)

    def op_ended(self, completion: Completion, *, failed: bool) -> None:
        """An op ended. One that moves nothing (VIRTUAL) is on no route."""
        route = self.counters.routes.get(TransferType(completion.type))
        if route is not None:
            route.add(completion.num_blocks, completion.bytes, completion.seconds, failed=failed)

    def ended(self, task: KVTask, *, timed_out: bool = False) -> None:
        """A task ended, in whatever way."""
        counters = self.counters
        if task.status is TaskStatus.COMPLETED:
            if task.type is KVRequestType.GET:
                counters.loaded_blocks += task.num_blocks
            elif task.type is KVRequestType.PUT:
                counters.stored_blocks += task.num_blocks
        elif task.status is TaskStatus.FAILED:
            counters.failed_tasks += 1
            counters.timed_out_tasks += timed_out
        else:
            counters.cancelled_tasks += 1
        if task.type is KVRequestType.PUT and task.launched and task.status is not TaskStatus.COMPLETED:
            counters.skip(SkipReason.DOOMED if task.doomed else SkipReason.FAILED, task.num_blocks)
        if self._tracer is not None:
            op = TraceOp.COMMIT if task.status is TaskStatus.COMPLETED else TraceOp.ABORT
            for part in task.parts:
                if not part.ended_before:
                    self._tracer.record(op, self._clock_s(), task_id=part.task_id, reason=task.status.value)

    def note_levels(self, cache: GlobalCacheEngine) -> None:
        """Write the present levels of the tiers into the counters."""
        counters, cpu, ssd = self.counters, cache.cpu_cache_engine, cache.ssd_cache_engine
        counters.slots_total = cpu.num_blocks
        counters.slots_used = cpu.mempool.num_used_blocks
        counters.slots_quarantined = cache.num_quarantined_blocks
        counters.evicted_blocks = cpu.num_evicted
        if ssd is not None:
            counters.ssd_slots_total = ssd.num_blocks
            counters.ssd_slots_used = ssd.mempool.num_used_blocks
            counters.ssd_evicted_blocks = ssd.num_evicted

    def reset(self) -> None:
        """The tiers were emptied."""
        self.counters.resets += 1
        if self._tracer is not None:
            self._tracer.record(TraceOp.RESET, self._clock_s())

    def flush(self) -> None:
        """Write the trace out when much of it waits. Blocks for the disk; thread-safe."""
        if self._tracer is not None and self._tracer.num_buffered >= FLUSH_EVERY_RECORDS:
            self._tracer.flush()

    def close(self) -> None:
        """Write the trace out. Idempotent. Blocks for the disk; thread-safe."""
        if self._tracer is not None:
            self._tracer.close()

    def _trace(
        self,
        op: TraceOp,
        task: KVTask,
        request: KVRequest,
        *,
        matched: int = 0,
        ready: int = 0,
        num_blocks: int = 0,
        reason: str = "",
    ) -> None:
        if self._tracer is None:
            return
        keys, start = None, 0
        if request.sequence.has_hashes:
            keys, start = request.sequence.block_hashes[: request.end_block], request.start_block
        self._tracer.record(
            op,
            self._clock_s(),
            task_id=task.task_id,
            keys=keys,
            matched=matched,
            ready=ready,
            start=start,
            num_blocks=num_blocks,
            reason=reason,
        )


def _miss_reason(request: KVRequest, reservation: GetReservation) -> MissReason:
    if request.end_block <= request.start_block:
        return MissReason.ON_GPU if request.start_block else MissReason.TOO_SHORT
    if reservation.num_visible > request.start_block:
        return MissReason.NOT_STORED_YET
    return MissReason.ON_GPU if reservation.num_visible else MissReason.NO_MATCH
