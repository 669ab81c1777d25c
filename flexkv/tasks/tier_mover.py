"""TierMover: moves blocks between the CPU and SSD tiers, beside the tasks that engines ask for.

A *stage* reads what the SSD tier has beyond the CPU tier, as soon as somebody asks for it; who asks next waits for the
same ops. An *offload* writes what a store has brought to the CPU tier. Each is one graph:

    submitted -> status done                                        -> commit all
              -> failed or late: in doubt -> released               -> commit what is good before the first bad block
              -> cancelled: in quarantine -> released               -> abort

A move that is late is *stuck* until it is released. While one is, no other begins: a disk that hangs takes no more of
the CPU tier.

A block that fails its checksum, or cannot be read, leaves the SSD tier's index with all that follow it (D13).
Everything here runs under the KVTaskEngine's mutex and never waits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum

from flexkv import _core
from flexkv.cache.cache_engine import GlobalCacheEngine
from flexkv.cache.cost_model import CostModel
from flexkv.cache.radixtree import EntryMeta, Match
from flexkv.cache.tier_move import TierMove
from flexkv.cache.transfer_pattern import chunks_of, offload_graph, stage_graph
from flexkv.common.block import SequenceMeta
from flexkv.common.config import MAX_TRANSFER_TIMEOUT_S, CacheConfig, ModelConfig
from flexkv.common.debug import flexkv_logger
from flexkv.common.transfer import GraphId, OpId, TransferOpGraph, TransferType
from flexkv.errors import FlexKVError
from flexkv.tasks.recorder import Recorder
from flexkv.tasks.seams import Completion, Transfer
from flexkv.tasks.ssd_tier import SsdTier

__all__ = ["Staged", "TierMover"]

_logger = flexkv_logger(__name__)
MAX_PINNED_FRACTION = 0.5
"""Of the CPU tier's blocks, what may wait for its write: the rest stays for those who need slots now."""
SLOWEST_BYTES_PER_S = 50e6
PATIENCE = 4.0
"""How many times longer than expected a move may take before it counts as late."""
FIRST_QUEUE_BYTES = 256 << 20
"""What may wait for its write before the rate of writes is known."""


class Staged(Enum):
    """What became of the wish to read blocks from the SSD tier.

    NOTHING: there was nothing to read, or no room. BEGUN: the CPU tier has changed. LEFT_OUT: computing them is faster.
    """

    NOTHING = "nothing"
    BEGUN = "begun"
    LEFT_OUT = "left out"


class _Run:
    """A move in flight."""

    __slots__ = (
        "chunks",
        "first_bad",
        "is_arriving",
        "is_decided",
        "is_stuck",
        "is_told",
        "move",
        "num_bytes",
        "num_to_follow",
        "route",
        "seconds",
        "was_alone",
    )

    def __init__(self, move: TierMove, route: TransferType, graph: TransferOpGraph, *, was_alone: bool) -> None:
        self.move = move
        self.route = route
        self.chunks: dict[OpId, slice] = dict(zip(graph.ops, chunks_of(move.num_blocks), strict=True))
        self.first_bad = move.num_blocks
        self.num_bytes = 0
        self.num_to_follow = 0  # blocks that are offered again when this has written its own
        self.seconds = 0.0
        self.was_alone = was_alone
        self.is_arriving = route is TransferType.DISK2H
        self.is_decided = False
        self.is_stuck = False
        self.is_told = False  # why it failed is in the log


class TierMover:
    """The moves of one task engine.

    Attributes:
        cost_model: what reading and computing cost, as measured.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        cache_config: CacheConfig,
        transfer: Transfer,
        ssd: SsdTier,
        recorder: Recorder,
        clock_s: Callable[[], float],
    ) -> None:
        self.cost_model = CostModel()
        self._replicas = model_config.replicas
        self._cache_config = cache_config
        self._transfer = transfer
        self._ssd = ssd
        self._recorder = recorder
        self._clock_s = clock_s
        self._runs: dict[GraphId, _Run] = {}
        self._cache: GlobalCacheEngine | None = None
        self._num_queued = {TransferType.DISK2H: 0, TransferType.H2DISK: 0}  # blocks, by route
        self._num_stuck = 0  # moves

    @property
    def num_running(self) -> int:
        """Moves that are not released."""
        return len(self._runs)

    @property
    def num_reservations(self) -> int:
        """Reservations that moves hold: two each, until they are decided."""
        return 2 * sum(not run.is_decided for run in self._runs.values())

    def is_running(self, graph_id: GraphId) -> bool:
        """Whether this move is not released yet."""
        return graph_id in self._runs

    def stage(
        self,
        cache: GlobalCacheEngine,
        sequence: SequenceMeta,
        here: Match,
        start_block: int,
        end_block: int,
        *,
        is_repeat: bool = False,
    ) -> Staged:
        """Begin to read what the SSD tier has of [start_block, end_block) beyond the CPU tier, if that is worth it.

        `here`: what the CPU tier has of the blocks before `end_block`. `is_repeat`: this was asked before.
        """
        if not self._ssd.may_read:
            return Staged.NOTHING
        slot = cache.ssd_slot(sequence, end_block) if int(here.num_ready) == end_block else -1
        if slot >= 0:  # the usual case: nothing has to be matched
            self._use(cache, sequence, slot, end_block)
            return Staged.NOTHING
        found = cache.find(sequence, end_block, now_s=int(self._clock_s()), cpu=here)
        if found is None:
            return Staged.NOTHING
        if int(found.ssd.num_ready) > start_block:
            self._use(cache, sequence, int(found.ssd.deepest_ready), int(found.ssd.num_ready))
        num_blocks, num_saved = cache.num_to_stage(found, start_block)
        if num_saved == 0 or self._num_stuck:
            return Staged.NOTHING
        decision = self.cost_model.decide(
            num_blocks,
            self._ssd.block_bytes,
            self._cache_config.tokens_per_block,
            self._num_queued[TransferType.DISK2H] * self._ssd.block_bytes,
            num_saved=num_saved,
            may_probe=not is_repeat,
            now_s=self._clock_s(),
        )
        if not is_repeat:
            self._recorder.decided_stage(num_blocks, decision)
        if decision.num_blocks == 0:
            return Staged.LEFT_OUT
        move = cache.prepare_stage(sequence, found, decision.num_blocks)
        if move is None:
            return Staged.NOTHING
        graph = stage_graph(move)
        if self._submit(cache, move, TransferType.DISK2H, graph):
            for op, chunk in zip(graph, chunks_of(move.num_blocks), strict=True):
                cache.arrivals.expect(move.target.slots[chunk], op.op_id)
        return Staged.BEGUN

    def _use(
        self,
        cache: GlobalCacheEngine,
        sequence: SequenceMeta,
        slot: int,
        num_blocks: int,
        meta: EntryMeta | None = None,
    ) -> None:
        """The last of so many blocks is used, so that its record is to say so, too."""
        if slot < 0:
            return
        cache.use_ssd(slot, meta)
        self._ssd.touch(slot, sequence.block_hashes[num_blocks - 1], meta)

    def offload(
        self, cache: GlobalCacheEngine, sequence: SequenceMeta, num_blocks: int, meta: EntryMeta
    ) -> tuple[GraphId | None, bool]:
        """Begin to write the first blocks of a sequence that the CPU tier alone has; None when none are written.

        Under pressure fewer are, and those left out are counted: they are lost when the CPU tier evicts them (D10). The
        second value: none are left out for that, but there are too many to wait at once; offer the sequence again when
        the move is released. Should it fail, those that wait for it are counted as left out.
        """
        found = cache.find(sequence, num_blocks, now_s=int(self._clock_s())) if self._ssd.may_write else None
        if found is None:
            return None, False
        wanted = cache.num_to_offload(found)
        if wanted == 0:
            self._use(cache, sequence, int(found.ssd.deepest_visible), int(found.ssd.num_visible), meta)
            return None, False
        by_time, by_pins = (0, 0) if self._num_stuck else self._room_to_write(cache)
        admitted = min(wanted, by_time, by_pins)
        move = cache.prepare_offload(sequence, found, admitted, meta) if admitted else None
        if move is None:
            self._note_not_stored(TransferType.H2DISK, wanted)
            return None, False
        num_left = wanted - move.num_blocks
        graph = offload_graph(move, self._ssd.unix_expiry_s(meta.expiry_s))
        begun = self._submit(cache, move, TransferType.H2DISK, graph)
        goes_on = begun and move.num_blocks == by_pins < min(wanted, by_time)
        if goes_on:
            self._runs[graph.graph_id].num_to_follow = num_left
        else:
            self._note_not_stored(TransferType.H2DISK, num_left)
        return (graph.graph_id if begun else None), goes_on

    def _room_to_write(self, cache: GlobalCacheEngine) -> tuple[int, int]:
        """Return how many more blocks may wait for their write: for the time it takes, and for the slots they hold."""
        rate = self.cost_model.rate_of(TransferType.H2DISK)
        queue_bytes = FIRST_QUEUE_BYTES if rate is None else int(rate * self._cache_config.ssd_write_queue_s)
        by_time = max(1, queue_bytes // self._ssd.block_bytes)
        by_pins = max(1, int(MAX_PINNED_FRACTION * cache.cpu_cache_engine.num_blocks))
        num_queued = self._num_queued[TransferType.H2DISK]
        return max(0, by_time - num_queued), max(0, by_pins - num_queued)

    def _submit(self, cache: GlobalCacheEngine, move: TierMove, route: TransferType, graph: TransferOpGraph) -> bool:
        submitted = False
        try:
            self._transfer.submit_transfer_graph(graph, self._timeout_s(route, move.num_blocks))
            submitted = True
        except (ValueError, RuntimeError, OSError, FlexKVError) as error:
            _logger.error("move was refused route=%s blocks=%d error=%s", route.name, move.num_blocks, error)
        finally:  # whatever it raised
            if not submitted:
                move.abort()
                self._note_not_stored(route, move.num_blocks)
        if submitted:
            self._cache = cache
            self._runs[graph.graph_id] = _Run(move, route, graph, was_alone=not self._runs)
            self._num_queued[route] += move.num_blocks
        return submitted

    def _timeout_s(self, route: TransferType, num_blocks: int) -> float:
        """Return the bound of a move: a transfer's, and several times what its bytes and those before it take."""
        rate = max(self.cost_model.rate_of(route) or 0.0, SLOWEST_BYTES_PER_S)
        num_bytes = (self._num_queued[route] + num_blocks) * self._ssd.block_bytes
        return min(self._cache_config.transfer_timeout_s + PATIENCE * num_bytes / rate, MAX_TRANSFER_TIMEOUT_S)

    def apply(self, completion: Completion) -> bool:
        """Take a completion if it is of a move; returns whether one has ended."""
        run = self._runs.get(GraphId(completion.graph_id))
        assert run is not None
        assert self._cache is not None
        if completion.kind == _core.CompletionKind.OP:
            self._op_ended(self._cache, run, completion)
            return False
        if completion.kind == _core.CompletionKind.GRAPH_STATUS:
            self._decide(self._cache, run, completion)
            return run.is_decided
        del self._runs[GraphId(completion.graph_id)]
        self._num_queued[run.route] -= run.move.num_blocks
        self._num_stuck -= run.is_stuck
        self._nothing_arrives(self._cache, run)
        if not run.is_decided:
            if run.move.is_quarantined:
                run.move.abort()
                self._note_not_stored(run.route, run.move.num_blocks)
            else:
                self._commit(run, run.first_bad)
        return True

    def note_levels(self) -> None:
        """Write what is under way, and what reading and computing cost, into the counters."""
        counters, estimates = self._recorder.counters, self.cost_model.estimates()
        counters.ssd_moves_running = len(self._runs)
        counters.ssd_read_bytes_per_s = self.cost_model.rate_of(TransferType.DISK2H) or 0.0
        counters.ssd_write_bytes_per_s = self.cost_model.rate_of(TransferType.H2DISK) or 0.0
        counters.prefill_tokens_per_s = 0.0 if estimates.prefill is None else estimates.prefill.per_s

    def note_copy(self, completion: Completion) -> None:
        """A copy to the GPU ended: how fast it was counts, too. In bytes of blocks, which each replica has loaded."""
        if completion.status == _core.OpStatus.DONE and completion.type == _core.OpType.H2D:
            num_bytes = completion.bytes // self._replicas
            self.cost_model.transferred(TransferType.H2D, num_bytes, completion.seconds, self._clock_s())

    def note_prefill(self, num_tokens: int, seconds: float) -> None:
        """The engine has computed so many tokens of prompts."""
        self.cost_model.prefilled(num_tokens, seconds, self._clock_s())

    def _op_ended(self, cache: GlobalCacheEngine, run: _Run, completion: Completion) -> None:
        chunk = run.chunks[OpId(completion.op_id)]
        run.num_bytes += completion.bytes
        run.seconds = max(run.seconds, completion.queued_seconds + completion.seconds)
        error = int(completion.io_errno)
        if run.route is TransferType.DISK2H:
            if error or completion.status == _core.OpStatus.DONE:  # else nothing was read: it was cancelled, or late
                self._ssd.read_ended(error, completion.error)
        elif error:
            self._ssd.write_failed(error, completion.error)
            run.is_told = True
        if completion.status == _core.OpStatus.DONE:
            return
        failed = list(completion.failed_blocks)
        first = chunk.start + (failed[0] if failed else 0)
        run.first_bad = min(run.first_bad, first)
        if run.route is TransferType.DISK2H and failed and completion.status == _core.OpStatus.FAILED:
            self._bad_block(cache, run.move, first, completion)
            run.is_told = True

    def _bad_block(self, cache: GlobalCacheEngine, move: TierMove, block: int, completion: Completion) -> None:
        """A block cannot be had from the SSD tier: it and all behind it go."""
        ssd = cache.ssd_cache_engine
        assert ssd is not None
        slot = int(move.source.slots[block])
        self._recorder.counters.ssd_bad_blocks += max(1, len(completion.failed_blocks))
        _logger.warning(
            "ssd block is bad, it and what follows it are dropped slot=%d block=%d bad_checksums=%d error=%s",
            slot,
            move.span.start + block,
            completion.num_bad_checksums,
            completion.error,
        )
        ssd.drop(move.keys[block], slot)

    def _decide(self, cache: GlobalCacheEngine, run: _Run, completion: Completion) -> None:
        if run.move.is_quarantined:  # the engine was shut down meanwhile: nothing of it counts any more
            return
        if completion.status == _core.OpStatus.DONE:
            run.is_decided = True
            self._nothing_arrives(cache, run)
            self._commit(run, run.move.num_blocks)
            if run.was_alone:
                self.cost_model.transferred(run.route, run.num_bytes, run.seconds, self._clock_s())
            return
        self._note_not_stored(run.route, run.num_to_follow)
        if completion.status == _core.OpStatus.TIMED_OUT:
            run.is_stuck = True
            self._num_stuck += 1
        if completion.status == _core.OpStatus.CANCELLED:
            self._nothing_arrives(cache, run)
            run.move.quarantine()
        elif run.is_arriving:
            cache.arrivals.doubt(run.move.target.slots)
        if not run.is_told:
            _logger.log(
                logging.INFO if completion.status == _core.OpStatus.CANCELLED else logging.WARNING,
                "move failed route=%s blocks=%d status=%s error=%s",
                run.route.name,
                run.move.num_blocks,
                completion.status.name,
                completion.error,
            )

    @staticmethod
    def _nothing_arrives(cache: GlobalCacheEngine, run: _Run) -> None:
        if run.is_arriving:
            run.is_arriving = False
            cache.arrivals.clear(run.move.target.slots)

    def _commit(self, run: _Run, num_good: int) -> None:
        run.move.commit(num_good)
        counters = self._recorder.counters
        if run.route is TransferType.DISK2H:
            counters.ssd_staged_blocks += num_good
        else:
            counters.ssd_stored_blocks += num_good
            self._note_not_stored(run.route, run.move.num_blocks - num_good)

    def _note_not_stored(self, route: TransferType, num_blocks: int) -> None:
        if route is TransferType.H2DISK:
            self._recorder.counters.ssd_dropped_blocks += num_blocks

    def cancel_writes(self) -> frozenset[GraphId]:
        """The tiers are emptied: hurry writes on. Returns the moves in flight."""
        for graph_id, run in self._runs.items():
            if run.route is TransferType.H2DISK:
                self._transfer.cancel(graph_id)
        return frozenset(self._runs)

    def abandon(self, *, drained: bool) -> None:
        """The transfer engine has stopped. `drained`: nothing touches any slot any more."""
        for graph_id, run in list(self._runs.items()):
            if not run.is_decided:
                assert self._cache is not None
                self._nothing_arrives(self._cache, run)
                if drained:
                    run.move.abort()
                elif not run.move.is_quarantined:
                    run.move.quarantine()
            if drained:
                del self._runs[graph_id]
