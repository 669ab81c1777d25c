"""The scheduler role: asks the cache what it holds of a request, has it loaded and stored, tells vLLM when that ended.

Order within one scheduler step: questions and allocations, then `build_connector_meta` (preempted requests first, then
stores are ordered, loads launched, matches that were not taken cancelled, and the stores begun), then the workers run,
then `update_connector_output`.

Step tickets: the step being built is numbered before anything is launched. A store runs after the step that computes
its tokens; a load after the step before it, since its device blocks may have belonged to a request of that step. A
failed load is told to the workers in the next step's notice and settled when that step comes back, because vLLM reads
the failed blocks from the workers' output, before it reads which loads ended. Stores are only ordered here: they are
planned and launched while the model runs (store_queue.py), on a thread of their own if there is one.

Invariants
 1. vLLM hears exactly once of each load it was promised, and of each request whose blocks it holds for us.
 2. Blocks are let go only when no transfer we count on touches them; stores whose blocks vLLM takes away are doomed
    first.
 3. Nothing here changes vLLM's objects, except the sets of finished requests it asks to have filled.
Thread safety: none; vLLM calls from one thread. No call waits longer than a few milliseconds, `reset_cache` and
`shutdown` excepted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from flexkv.common.debug import flexkv_logger
from flexkv.common.metrics import CacheStats
from flexkv.common.request import KVResponse, KVResponseStatus
from flexkv.integration.vllm.layer_loads import LayerLoads
from flexkv.integration.vllm.prefill_clock import PrefillClock
from flexkv.integration.vllm.request_state import FlexKVGetTask, FlexKVPutTask, LoadState, RequestState
from flexkv.integration.vllm.request_table import RequestTable
from flexkv.integration.vllm.scheduler_off import OffSchedulerConnector
from flexkv.integration.vllm.scheduler_role import StepNotice
from flexkv.integration.vllm.staging import Staging
from flexkv.integration.vllm.store_queue import StoreQueue
from flexkv.integration.vllm.store_thread import StoreThread

if TYPE_CHECKING:
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.outputs import KVConnectorOutput
    from vllm.v1.request import Request

    from flexkv.kvmanager import KVManager

__all__ = ["FlexKVSchedulerConnector"]

logger = flexkv_logger(__name__)

IDLE_WAIT_S = 0.001
DECODE_STORE_BLOCKS = 16
MAX_STORES_PER_STEP = 2
"""Beyond it stores wait for the next steps, unless many do: then a part of them goes each step."""
BACKLOG_STEPS = 8


class FlexKVSchedulerConnector:
    """Implements SchedulerRole on a KVManager, which it owns.

    Args:
        manager: started.
        tokens_per_block: of the engine; equal to the granularity of its block hashes.
        use_engine_hashes: whether `request.block_hashes` are to be trusted as content.
        may_load, may_store: by the engine's role (consumer, producer).
        store_timeout_s: bound of a store, the step it waits for included; None: the manager's own bound of a transfer.
        decode_store_blocks: generated blocks stored at a time: few cost more each, many are lost with a preemption.
        has_slow_tier: whether there is a tier below host memory: how fast the engine computes prompts is measured then.
        stage_timeout_s: blocks of that tier are offered only once they are in host memory and were checked, and a
            request waits for them so long at most (D15). None: they are offered while they are being read, which asks
            for vLLM's policy `recompute`.
        by_layers: whether a load may go by layers (layer_loads.py).
        own_thread: whether stores are planned and launched on a thread of their own; else as each step is planned.
    """

    def __init__(
        self,
        manager: KVManager,
        *,
        tokens_per_block: int,
        use_engine_hashes: bool = True,
        may_load: bool = True,
        may_store: bool = True,
        store_timeout_s: float | None = None,
        decode_store_blocks: int = DECODE_STORE_BLOCKS,
        by_layers: bool = False,
        own_thread: bool = False,
        has_slow_tier: bool = False,
        stage_timeout_s: float | None = None,
    ) -> None:
        self._manager = manager
        self._tokens_per_block = tokens_per_block
        self._may_load = may_load
        self._may_store = may_store
        self._decode_store_blocks = decode_store_blocks
        self._step = 0
        self._last_step_was_empty = False
        self._requests = RequestTable(manager, tokens_per_block, use_engine_hashes)
        self._matched: dict[str, RequestState] = {}  # asked in this step
        self._layer_loads = LayerLoads(manager, self._requests, enabled=by_layers)
        self._planned: list[FlexKVGetTask] = []  # allocated in this step, to be launched at its end
        self._loading: dict[int, RequestState] = {}  # by task id: launched, end not seen
        self._unsettled: dict[str, RequestState] = {}  # a task ended, vLLM was not told yet
        self._held: dict[str, RequestState] = {}  # vLLM is done with them, and keeps their blocks for us
        self._discarded: list[int] = []  # matches nobody wants: to be cancelled
        self._has_untaken = False  # results nobody waits for are to be taken: of cancelled matches, and of empty ones
        self._due: dict[int, list[RequestState]] = {}  # by step: to be looked at for blocks to store
        self._to_store: OrderedDict[str, RequestState] = OrderedDict()  # have blocks to store, first come first
        self._stores = StoreQueue(manager, store_timeout_s)
        self._store_thread = StoreThread(self._stores) if own_thread else None
        self._staging: Staging | None = None
        if has_slow_tier and stage_timeout_s is not None:
            self._staging = Staging(manager, self._discard, stage_timeout_s)
        self._prefill_clock = PrefillClock(manager.note_prefill) if has_slow_tier else None

    # ---- while vLLM schedules

    def get_num_new_matched_tokens(self, request: Request, num_computed_tokens: int) -> tuple[int | None, bool]:
        """Return the tokens that ready blocks hold beyond the computed ones: whole blocks, and one token is left.

        None: ask again in the next step, blocks are on their way from a slower tier (D15).
        """
        state = self._requests.of(request)
        wanted = self._may_load and state.may_load and not request.skip_reading_prefix_cache
        if state.keys is None or not wanted or num_computed_tokens % self._tokens_per_block:
            return 0, False
        start = num_computed_tokens // self._tokens_per_block
        end = min(state.keys.count(request), (request.num_tokens - 1) // self._tokens_per_block)
        match = state.load
        if match is None or match.start_block != start or match.state not in (LoadState.STAGING, LoadState.MATCHED):
            self._drop_match(state)
            if end <= start:
                return 0, False
            match = state.load = self._match(state, start, end)
        if self._staging is not None and match is not None and match.state is LoadState.STAGING:
            match = state.load = self._staging.settle(state, match, lambda: self._match(state, start, end))
            if match is not None and match.state is LoadState.STAGING:
                return None, False
        if match is None:
            return 0, False
        self._matched[request.request_id] = state
        return match.num_blocks * self._tokens_per_block, not self._layer_loads.offers(match)

    def update_state_after_alloc(self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int) -> None:
        """Take the device blocks of a load that was accepted. Called again, with 0 tokens, when the load has ended."""
        num_blocks, extra_tokens = divmod(num_external_tokens, self._tokens_per_block)
        if num_external_tokens == 0:
            self._layer_loads.admit(request.request_id)
            return
        state = self._requests.of(request)
        block_ids = np.array(blocks.get_block_ids()[0], dtype=np.int64)
        load = state.load
        first_block = self._layer_loads.offered.get(request.request_id)
        if extra_tokens:  # we offer whole blocks, and vLLM takes what it was offered: a load of part of one is refused
            num_blocks += 1
            self._drop_match(state)
            load = None
        if load is not None and load.state is LoadState.MATCHED and load.num_blocks != num_blocks:
            start = load.start_block
            self._drop_match(state)
            load = self._match(state, start, start + num_blocks)
        if load is None or load.state is not LoadState.MATCHED or load.num_blocks != num_blocks:
            if load is not None:
                self._discard(load)
            start = len(block_ids) - num_blocks if first_block is None else first_block
            load = FlexKVGetTask(request.request_id, None, start, num_blocks, LoadState.FAILED)
        else:
            load.state = LoadState.PLANNED
        load.by_layers = first_block is not None
        load.block_ids = block_ids[load.start_block : load.start_block + num_blocks]
        state.load = load
        state.has_loaded = True
        if load.by_layers:
            self._layer_loads.plan(load)
        elif load.state is LoadState.PLANNED:
            self._planned.append(load)
        else:
            self._unsettled[request.request_id] = state

    def build_connector_meta(self, scheduler_output: SchedulerOutput) -> StepNotice:
        """Doom what preemption took, launch loads and stores, cancel what was not scheduled, and number the step."""
        self._check_store_thread()
        self._step += 1
        clock = None if self._layer_loads.untold_block_ids else self._prefill_clock  # such a step waits for its load
        is_timed = clock is not None and clock.planned(
            self._step, scheduler_output.total_num_scheduled_tokens, len(scheduler_output.num_scheduled_tokens)
        )
        for request_id in scheduler_output.preempted_req_ids or ():
            self._preempted(request_id)
        self._layer_loads.launch(self._step, scheduler_output.num_scheduled_tokens)
        self._plan_stores(scheduler_output)
        self.launch_tasks()
        self.cancel_tasks()
        self._begin_stores()
        if scheduler_output.total_num_scheduled_tokens:
            self._last_step_was_empty = False
        else:
            self._rest()
        is_outstanding = bool(self._loading or self._unsettled or self._held or self._layer_loads.is_open)
        on_its_way, failed = self._layer_loads.tell()
        for state in self._unsettled.values():
            if state.load is not None and state.load.state is LoadState.FAILED and not state.finished:
                state.load.state = LoadState.TOLD
                failed = failed.union(state.load.block_ids.tolist())
        return StepNotice(self._step, is_outstanding, failed, on_its_way, is_timed)

    def launch_tasks(self) -> None:
        """Launch the loads that were planned since the last call: after the step before."""
        loads, self._planned = self._planned, []
        for load in loads:
            assert load.task_id is not None
            load.state = LoadState.RUNNING
            self._loading[load.task_id] = self._requests[load.request_id]
        if loads:
            ids = [load.task_id for load in loads if load.task_id is not None]
            self._manager.launch(ids, block_ids=[load.block_ids for load in loads], after_step=self._step - 1)

    def cancel_tasks(self) -> None:
        """Cancel the matches of this step that vLLM did not schedule."""
        for state in self._matched.values():
            self._drop_match(state)
        self._matched = {}
        if self._discarded:
            self._manager.cancel(self._discarded)
            self._discarded = []
            self._has_untaken = True

    # ---- when a step came back, and at the end of a request

    def update_connector_output(self, output: KVConnectorOutput, step: int | None) -> None:
        """Fill in the requests whose loads ended, and those whose blocks are no longer held."""
        self._check_store_thread()
        if self._prefill_clock is not None:
            self._prefill_clock.came_back(step)
        self.launch_tasks()
        if self._store_thread is None:
            self._begin_stores()
        if self._loading or self._has_untaken or self._layer_loads.is_open:
            self._has_untaken = False
            self._stores.collect()
        self._layer_loads.came_back(step, output.invalid_block_ids)
        self._note_results()
        received: set[str] = set()
        sent: set[str] = set()
        for request_id, state in list(self._unsettled.items()):
            load = state.load if state.is_loading else None
            if load is not None and load.state in (LoadState.PLANNED, LoadState.RUNNING):
                continue
            if load is not None and load.state is LoadState.FAILED and not state.finished:
                continue  # the next notice tells the workers
            if load is not None and load.state is LoadState.TOLD:
                if not output.invalid_block_ids.issuperset(load.block_ids.tolist()):
                    continue  # the step that carries the notice has not come back
                state.may_load = False
            if state.finished and state.stores:
                continue
            del self._unsettled[request_id]
            state.load = None
            if load is not None:
                received.add(request_id)
            elif state.finished:
                sent.add(request_id)
            if state.finished:
                self._held.pop(request_id, None)
                self._requests.drop(request_id)
        if received:
            output.finished_recving = (output.finished_recving or set()) | received
        if sent:
            output.finished_sending = (output.finished_sending or set()) | sent

    def request_finished(self, request: Request) -> tuple[bool, dict[str, Any] | None]:
        """Store its last whole blocks; hold its blocks while a store reads them or a load writes them."""
        state = self._requests.get(request.request_id)
        if state is None:
            return False, None
        self._note_results()
        self._drop_match(state)
        self._to_store.pop(request.request_id, None)
        state.due_step = 0
        if not state.is_loading and self._layer_loads.may_store(state):
            if state.lacks_blocks:
                state.num_stored_blocks = 0
            self._order_store(state, request.num_computed_tokens)
        state.finished = state.is_loading or bool(state.stores)
        if not state.finished:
            self._unsettled.pop(request.request_id, None)
            self._requests.drop(request.request_id)
            return False, None
        self._held[request.request_id] = state
        if self._store_thread is not None:
            self._store_thread.notice()
        return True, None

    def has_pending_block_frees(self) -> bool:
        """Whether finished requests still hold device blocks, which are let go without a preemption."""
        return bool(self._held)

    # ---- the rest

    def reset_cache(self) -> bool:
        """Forget all blocks. Device blocks filled before the reset, of requests that run on, are not stored any more.

        Running loads run on; returns when transfers in flight have ended, at most `transfer_timeout_s` later.
        """
        self.cancel_tasks()
        self._stores.drop()
        self._manager.reset()
        self._stores.collect()
        self._note_results()
        for state in self._requests.values():
            state.may_store = not state.holds_blocks
        logger.info("cache reset requests_running=%d", len(self._requests))
        return True

    def stats(self) -> CacheStats:
        """Return the counters."""
        return self._manager.stats(settled=False)

    def turn_off(self, *, drained: bool) -> OffSchedulerConnector:
        """Return the role that winds up what vLLM was promised. REQUIRES: `shutdown` was called.

        Args:
            drained: nothing touches device blocks any more. If not, what waits for us keeps its blocks for good: wrong
                bytes would be worse (D16).
        """
        states = self._requests.items() if drained else ()
        if not drained:
            logger.error("copies did not end; requests that wait for them stay held requests=%d", len(self._held))
        return OffSchedulerConnector.winding_up(states, self._tokens_per_block, self._step, self._layer_loads)

    def shutdown(self) -> bool:
        """Stop the manager; False when a copy may still touch device blocks. Idempotent."""
        self._stores.drop()
        if self._store_thread is not None:
            self._store_thread.stop()
        return self._manager.shutdown()

    # ---- inside

    def _match(self, state: RequestState, start: int, end: int) -> FlexKVGetTask | None:
        """Ask for blocks [start, end); None when none of them can be loaded."""
        request, keys = state.request, state.keys
        assert keys is not None
        key = keys.key(request, start)
        first_key = keys.key(request, 0) if start else key
        is_repeat = state.missed_at == start
        state.missed_at = start
        if self._manager.misses(key, first_key=first_key, num_blocks=end - start, is_repeat=is_repeat):
            return None
        sequence = keys.sequence(keys.contents(request, end))
        cpu_only = self._staging is not None and self._staging.is_over(state)
        task_id, found = self._manager.get_span(sequence, start, is_repeat=is_repeat, cpu_only=cpu_only)
        if found.num_blocks == 0:  # the task has ended already
            self._has_untaken = True
            return None
        state.missed_at = -1
        first = LoadState.MATCHED if self._staging is None else self._staging.first_state(task_id)
        return FlexKVGetTask(state.request.request_id, task_id, start, found.num_blocks, first)

    def _discard(self, match: FlexKVGetTask) -> None:
        if match.task_id is not None:
            self._discarded.append(match.task_id)

    def _drop_match(self, state: RequestState) -> None:
        if state.load is not None and not state.is_loading:
            if self._staging is not None:
                self._staging.forget(state.request.request_id)
            self._discard(state.load)
            state.load = None

    def _preempted(self, request_id: str) -> None:
        """Its blocks were freed, but the step that may overwrite them has not been sent out yet."""
        state = self._requests.get(request_id)
        if state is None:
            return
        if state.stores:
            self._stores.doom(state.stores)
        if state.computes_on_load and not self._layer_loads.is_planned(state.load):
            state.load = None  # what comes after it on the device's stream waits for it
        state.forget_blocks()
        state.has_loaded = state.is_loading  # resumed in this very step
        self._to_store.pop(request_id, None)
        state.may_store = True
        if state.finished:  # it ended between its preemption and this step
            self._unsettled[request_id] = state

    def _plan_stores(self, scheduler_output: SchedulerOutput) -> None:
        """Plan what this step's stores are. O(requests that got device blocks, or are due), not O(requests)."""
        scheduled = scheduler_output.num_scheduled_tokens
        for state in self._requests.follow(scheduler_output):
            if state.in_prompt or state.due_step <= self._step:
                self._look_for_blocks(state, scheduled)
        for state in self._due.pop(self._step, ()):
            if state.due_step == self._step:
                self._look_for_blocks(state, scheduled)
        for _ in range(max(MAX_STORES_PER_STEP, len(self._to_store) // BACKLOG_STEPS)):
            if not self._to_store:
                break
            request_id, state = self._to_store.popitem(last=False)
            self._order_store(state, state.request.num_computed_tokens + scheduled.get(request_id, 0))
            state.due_step = self._step + 1
            self._due.setdefault(state.due_step, []).append(state)

    def _look_for_blocks(self, state: RequestState, scheduled: Mapping[str, int]) -> None:
        """Queue the request if it has enough blocks to store, else note at which step it may have."""
        if state.keys is None or not self._may_store or not state.may_store:
            return
        if not self._layer_loads.may_store(state):
            state.due_step = self._step + 1
            self._due.setdefault(state.due_step, []).append(state)
            return
        request = state.request
        num_tokens = request.num_computed_tokens + scheduled.get(request.request_id, 0)
        state.in_prompt = state.num_stored_blocks < request.num_prompt_tokens // self._tokens_per_block
        wanted = state.num_stored_blocks + (1 if state.in_prompt else self._decode_store_blocks)
        num_missing_tokens = wanted * self._tokens_per_block - num_tokens
        if num_missing_tokens <= 0:
            self._to_store[request.request_id] = state
            state.due_step = 0
            return
        state.due_step = self._step + num_missing_tokens  # a step computes at least one
        self._due.setdefault(state.due_step, []).append(state)

    def _order_store(self, state: RequestState, num_computed_tokens: int) -> None:
        """Order whole blocks of confirmed tokens to be stored, if some have not been offered yet."""
        if state.keys is None or not self._may_store or not state.may_store:
            return
        num_blocks = min(num_computed_tokens // self._tokens_per_block, len(state.block_ids))
        if num_blocks <= state.num_stored_blocks:
            return
        num_blocks = min(num_blocks, state.keys.count(state.request))
        if num_blocks <= state.num_stored_blocks:
            return
        state.num_stored_blocks = num_blocks
        store = FlexKVPutTask(
            state, state.keys.contents(state.request, num_blocks), state.block_ids[:num_blocks], self._step
        )
        state.stores.add(store)
        self._stores.add(store)

    def _check_store_thread(self) -> None:
        if self._store_thread is not None:
            self._store_thread.check()

    def _begin_stores(self) -> None:
        if not self._stores.has_work:
            return
        if self._store_thread is not None:
            self._store_thread.begin()
        else:
            self._stores.work()
            self._stores.collect()

    def _rest(self) -> None:
        """Wait briefly for a transfer when the engine has nothing else to do, rather than let it spin."""
        is_waiting = self._loading or self._held or (self._staging is not None and self._staging.is_anybody_waiting)
        if self._last_step_was_empty and is_waiting and not self._unsettled:
            self._stores.work()
            self._stores.collect()
            self._note_results()
            if not self._unsettled:
                self._manager.wait_any(IDLE_WAIT_S)
        self._last_step_was_empty = True

    def _note_results(self) -> None:
        """Note what ended; results nobody waits for (cancelled, doomed) are taken with them."""
        for store in self._stores.take_ended():
            state = store.state
            if store not in state.stores:
                continue  # doomed when its request was preempted
            state.stores.remove(store)
            state.lacks_blocks |= not store.is_held
            if state.finished and not state.stores:
                self._unsettled[state.request.request_id] = state
        for response in self._stores.take_other_results():
            loading = self._loading.pop(response.task_id, None)
            if loading is not None:
                self._load_ended(loading, response)
                self._unsettled[loading.request.request_id] = loading
            else:
                self._layer_loads.note_end(response)
        for state in self._layer_loads.take_settled():
            if state.finished:
                self._order_store(state, state.request.num_computed_tokens)
                self._unsettled[state.request.request_id] = state

    def _load_ended(self, state: RequestState, response: KVResponse) -> None:
        load = state.load
        if load is None or load.task_id != response.task_id:
            return
        load.state = LoadState.DONE if response.status is KVResponseStatus.SUCCESS else LoadState.FAILED
        if load.state is LoadState.FAILED:
            logger.error(
                "load failed, its blocks are reported to the engine request_id=%s task_id=%d status=%s num_blocks=%d",
                load.request_id, load.task_id, response.status.name, load.num_blocks,
            )  # fmt: skip
