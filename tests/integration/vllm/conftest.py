"""A small cache and a small vLLM scheduler, so that the connector runs without either.

What takes `connector` runs twice: stores are made as each step is planned, and on the connector's own thread, which a
LockstepThread runs at those very moments.

FakeManager keeps keys instead of bytes. FakeScheduler hands out device blocks as vLLM does, calls the connector in
vLLM's order, and asserts what vLLM asserts. Nothing completes by itself: tests say when.
"""

from __future__ import annotations

import hashlib
import threading
from types import SimpleNamespace

import pytest

from flexkv.cache.span import BlockSpan
from flexkv.common.block import SequenceMeta
from flexkv.common.hash_utils import root_key
from flexkv.common.request import KVResponse, KVResponseStatus
from flexkv.integration.vllm.scheduler_connector import FlexKVSchedulerConnector
from flexkv.integration.vllm.store_thread import StoreThread
from flexkv.kvtask import StagingState

TOKENS_PER_BLOCK = 4


class FakeManager:
    """KVManager's verbs over a set of keys. Tasks end when a test calls `end`."""

    def __init__(self):
        self.lock = threading.Lock()  # of results: a test ends tasks while a thread polls
        self.ready = set()
        self.unready = set()
        self.arriving = []  # keys on their way from a slower tier, in order
        self.prefills = []
        self.tasks = {}
        self.ended = {}
        self.launches = []
        self.tickets = []  # of loads by layers
        self.num_matches = 0
        self.repeats = []  # of each match, whether it was asked as one
        self.is_shut_down = False
        self.is_working = False  # blocks go from tier to tier
        self.room = None  # blocks a put may still take; None: no limit

    def sequence(self, token_ids=None, namespace=None, *, block_hashes=None, num_tokens=None):
        root = root_key(b"model", namespace, 0, TOKENS_PER_BLOCK)
        return SequenceMeta(token_ids, TOKENS_PER_BLOCK, block_hashes=block_hashes, root=root, num_tokens=num_tokens)

    def get_span(self, sequence, start_block=0, *, is_repeat=False, cpu_only=False):
        self.num_matches += 1
        self.repeats.append(is_repeat)
        keys = [bytes(key) for key in sequence.block_hashes]
        there = self.ready if cpu_only else self.ready.union(self.arriving)
        end = next((index for index, key in enumerate(keys) if key not in there), len(keys))
        return self._create("get", keys, start_block, max(start_block, end))

    def staging(self, task_id):
        task = self.tasks[task_id]
        if task.state != "matched" or not self.ready.union(self.arriving).issuperset(task.keys):
            return StagingState.BROKEN
        return StagingState.READY if self.ready.issuperset(task.keys) else StagingState.PENDING

    def arrive(self, num_blocks=None):
        """The next blocks (all of them) have come from the slower tier."""
        count = len(self.arriving) if num_blocks is None else num_blocks
        self.ready.update(self.arriving[:count])
        self.arriving = self.arriving[count:]

    def note_prefill(self, num_tokens, seconds):
        self.prefills.append((num_tokens, seconds))

    def misses(self, key, *, first_key, num_blocks, is_repeat=False):
        assert num_blocks > 0
        assert first_key == key or self.sees(first_key) or not self.sees(key), "a block is held without its parent"
        if self.sees(key):
            return False  # the match follows
        self.num_matches += 1
        self.repeats.append(is_repeat)
        return True

    def sees(self, key):
        return key in self.ready or key in self.unready or key in self.arriving

    def put_span(self, sequence):
        keys = [bytes(key) for key in sequence.block_hashes]
        held = self.ready | self.unready
        start = next((index for index, key in enumerate(keys) if key not in held), len(keys))
        end = len(keys) if self.room is None else min(len(keys), start + self.room)
        task_id, span = self._create("put", keys, start, end)
        self.unready.update(keys[start:end])
        return task_id, span, self.ready.issuperset(keys[:start])

    def _create(self, kind, keys, start, end):
        task_id = len(self.tasks) + 1
        state = "matched" if end > start else "ended"
        task = SimpleNamespace(kind=kind, keys=keys[start:end], state=state, block_ids=None, doomed=False)
        self.tasks[task_id] = task
        if state == "ended":
            self.ended[task_id] = KVResponse(KVResponseStatus.SUCCESS, task_id)
        return task_id, BlockSpan(start, end)

    def launched(self, kind):
        """Return (device blocks, step that it waits for) of each launch of this kind."""
        return [(launch.blocks, launch.after_step) for launch in self.launches if launch.kind == kind]

    def launch(
        self, task_ids, *, block_ids, after_step, as_batch=False, timeout_s=None, layerwise_transfer=False, counter_id=0
    ):
        if layerwise_transfer:
            assert self.staging(*task_ids) is StagingState.READY, "all of it must be in host memory"
            self.tickets.append(counter_id)
        for task_id, blocks in zip(task_ids, block_ids, strict=True):
            task = self.tasks[task_id]
            assert task.state == "matched"
            assert len(blocks) == len(task.keys), "one block id for each block of the match"
            task.state, task.block_ids = "running", blocks.tolist()
            self.launches.append(SimpleNamespace(kind=task.kind, blocks=task.block_ids, after_step=after_step))
        if not as_batch or len(task_ids) < 2:
            return list(task_ids)
        parts = [self.tasks[task_id] for task_id in task_ids]
        for task_id in task_ids:
            self.tasks[task_id] = SimpleNamespace(kind="merged", state="ended", doomed=False)
        batch_id = len(self.tasks) + 1
        keys, blocks = ([item for part in parts for item in getattr(part, name)] for name in ("keys", "block_ids"))
        self.tasks[batch_id] = SimpleNamespace(
            kind=parts[0].kind, keys=keys, state="running", block_ids=blocks, doomed=False
        )
        return [batch_id]

    def cancel(self, task_ids):
        for task_id in task_ids:
            if self.tasks[task_id].state == "matched":
                self._end(task_id, KVResponseStatus.CANCELLED)

    def doom(self, task_ids):
        for task_id in task_ids:
            self.tasks[task_id].doomed = True

    def end(self, status=KVResponseStatus.SUCCESS, kind=None):
        """End all running tasks (of a kind)."""
        with self.lock:
            for task_id, task in self.tasks.items():
                if task.state == "running" and kind in (None, task.kind):
                    self._end(task_id, KVResponseStatus.CANCELLED if task.doomed else status)

    def _end(self, task_id, status):
        task = self.tasks[task_id]
        task.state, task.status = "ended", status
        self.ended[task_id] = KVResponse(status, task_id)
        if task.kind == "put":
            self.unready.difference_update(task.keys)
            if status is KVResponseStatus.SUCCESS:
                self.ready.update(task.keys)

    def poll(self):
        with self.lock:
            ended, self.ended = self.ended, {}
        return ended

    def wait_any(self, timeout_s):
        return bool(self.ended)

    def reset(self):
        self.end(kind="put", status=KVResponseStatus.CANCELLED)
        self.ready.clear()

    def shutdown(self):
        self.is_shut_down = True

    def states(self):
        return {task.state for task in self.tasks.values()}


class FakeRequest:
    """What the connector reads of vLLM's Request; hashes are chained over tokens and salt."""

    def __init__(self, request_id, num_tokens, seed=0, salt=None):
        self.request_id = request_id
        self.all_token_ids = [seed * 1000 + index for index in range(num_tokens)]
        self.num_computed_tokens = 0
        self.num_prompt_tokens = num_tokens
        self.cache_salt = salt
        self.lora_request = None
        self.mm_features = []
        self.prompt_embeds = None
        self.skip_reading_prefix_cache = False
        self.block_hashes = []
        self.update_hashes()

    @property
    def num_tokens(self):
        return len(self.all_token_ids)

    def append(self, *tokens):
        self.all_token_ids.extend(tokens)
        self.update_hashes()

    def update_hashes(self):
        for index in range(len(self.block_hashes), self.num_tokens // TOKENS_PER_BLOCK):
            parent = self.block_hashes[-1] if self.block_hashes else repr(self.cache_salt).encode()
            tokens = self.all_token_ids[index * TOKENS_PER_BLOCK : (index + 1) * TOKENS_PER_BLOCK]
            self.block_hashes.append(hashlib.sha256(parent + repr(tokens).encode()).digest())


class FakeBlocks:
    def __init__(self, ids):
        self.ids = ids

    def get_block_ids(self):
        return (list(self.ids),)


class FakeScheduler:
    """Calls one connector as vLLM 0.32's scheduler does, a step at a time."""

    def __init__(self, connector):
        self.connector = connector
        self.tables = {}  # request id -> device block ids
        self.requests = {}
        self.loading = set()
        self.lost = set()  # device blocks that the workers report with each output
        self.held = set()  # finished, blocks not freed
        self.preempted = []
        self.next_block = 100
        self.new, self.cached = [], {}
        self.num_scheduled = {}
        self.notice = None

    def admit(self, request, *, local_tokens=0, chunk=None):
        """Ask, allocate and schedule a new or resumed request; returns the tokens that are loaded.

        None: it is to be asked for again in the next step, as vLLM does.
        """
        self.requests[request.request_id] = request
        external, is_async = self.connector.get_num_new_matched_tokens(request, local_tokens)
        if external is None:
            assert not is_async
            return None
        assert external or not is_async
        total = local_tokens + external
        assert total < request.num_tokens
        request.num_computed_tokens = total
        if not is_async:
            total = min(request.num_tokens, total + (chunk or 10**9))
        self._allocate(request, total)
        self.connector.update_state_after_alloc(request, FakeBlocks(self.tables[request.request_id]), external)
        if is_async:
            self.loading.add(request.request_id)
        else:
            self._schedule_new(request, total - request.num_computed_tokens)
        return external

    def continue_loaded(self, request):
        """The load has ended: schedule the rest of the prompt."""
        assert request.request_id not in self.loading
        self._allocate(request, request.num_tokens)
        self.connector.update_state_after_alloc(request, FakeBlocks(self.tables[request.request_id]), 0)
        self._schedule_new(request, request.num_tokens - request.num_computed_tokens)

    def compute_rest(self, request):
        """Its load has ended: take that in, and compute the rest of the prompt."""
        assert self.step().finished_recving == {request.request_id}
        self.continue_loaded(request)
        self.step()

    def advance(self, request, num_tokens=1):
        """Schedule a running request."""
        before = len(self.tables[request.request_id])
        self._allocate(request, request.num_computed_tokens + num_tokens)
        self.cached[request.request_id] = self.tables[request.request_id][before:] or None
        self.num_scheduled[request.request_id] = num_tokens

    def preempt(self, request):
        self.tables[request.request_id] = []
        request.num_computed_tokens = 0
        self.preempted.append(request.request_id)

    def step(self, *, come_back=True):
        """End the schedule, run the workers, and take their output unless told not to. Returns that output."""
        cached = SimpleNamespace(
            req_ids=list(self.cached),
            new_block_ids=[None if ids is None else (ids,) for ids in self.cached.values()],
            resumed_req_ids=set(),
        )
        output = SimpleNamespace(
            scheduled_new_reqs=self.new,
            scheduled_cached_reqs=cached,
            num_scheduled_tokens=self.num_scheduled,
            total_num_scheduled_tokens=sum(self.num_scheduled.values()),
            preempted_req_ids=set(self.preempted),
            finished_req_ids=set(),
        )
        self.notice = self.connector.build_connector_meta(output)
        for request_id, count in self.num_scheduled.items():
            self.requests[request_id].num_computed_tokens += count
        self.new, self.cached, self.num_scheduled, self.preempted = [], {}, {}, []
        if come_back:
            return self.come_back(self.notice)
        return None

    def come_back(self, notice, *, as_none=False):
        """The workers' output of a step arrives. Asserts what vLLM asserts."""
        empty = None if as_none else set()
        output = SimpleNamespace(
            finished_sending=empty,
            finished_recving=None if as_none else set(),
            invalid_block_ids=notice.failed_block_ids | self.lost,
        )
        is_named = notice.outstanding or notice.is_timed
        self.connector.update_connector_output(output, notice.step if is_named else None)
        for request_id in output.finished_recving or ():
            assert request_id in self.loading
            self.loading.discard(request_id)
            if request_id in self.held:
                self.held.remove(request_id)
        for request_id in output.finished_sending or ():
            assert request_id in self.held
            assert request_id not in self.loading
            self.held.remove(request_id)
        return output

    def finish(self, request):
        """The request ends or is aborted; returns whether its blocks are held."""
        is_held, params = self.connector.request_finished(request)
        assert params is None
        is_held = is_held or request.request_id in self.loading
        if is_held:
            self.held.add(request.request_id)
        return is_held

    def _allocate(self, request, num_tokens):
        table = self.tables.setdefault(request.request_id, [])
        while len(table) * TOKENS_PER_BLOCK < num_tokens:
            table.append(self.next_block)
            self.next_block += 1

    def _schedule_new(self, request, num_tokens):
        table = list(self.tables[request.request_id])
        self.new.append(SimpleNamespace(req_id=request.request_id, block_ids=(table,)))
        self.num_scheduled[request.request_id] = num_tokens


@pytest.fixture
def manager():
    return FakeManager()


class LockstepThread(StoreThread):
    """Whoever wakes it waits for what it does."""

    def __init__(self, queue):
        self._working = threading.Lock()
        self._worked = threading.Event()
        super().__init__(queue)

    def _work(self):
        with self._working:
            try:
                super()._work()
            finally:
                self._worked.set()

    def begin(self):
        with self._working:  # it also works of its own accord: what it began before now does not count
            self._worked.clear()
        super().begin()
        assert self._worked.wait(20)

    def notice(self):
        self.begin()


@pytest.fixture(params=[False, True], ids=["in the step", "own thread"])
def make_connector(request, manager):
    made = []

    def make(**options):
        options = {"tokens_per_block": TOKENS_PER_BLOCK, "decode_store_blocks": 1} | options
        connector = FlexKVSchedulerConnector(options.pop("manager", manager), **options)
        if request.param:
            connector._store_thread = LockstepThread(connector._stores)
        made.append(connector)
        return connector

    yield make
    for connector in made:
        if connector._store_thread is not None:
            connector._store_thread.stop()
            assert not connector._store_thread.thread.is_alive()


@pytest.fixture
def connector(make_connector):
    return make_connector()


@pytest.fixture
def scheduler(connector):
    return FakeScheduler(connector)


@pytest.fixture
def make_request():
    return FakeRequest


@pytest.fixture
def run_to_end(manager, scheduler, make_request):
    """Run a prompt to its end with all stores done, so that the cache holds its whole blocks."""

    def run(num_tokens, seed=0, **options):
        request = make_request(f"warm-{seed}-{num_tokens}", num_tokens, seed, **options)
        scheduler.admit(request)
        scheduler.step()
        scheduler.finish(request)
        manager.end()
        scheduler.step()
        assert not scheduler.held
        return request

    return run
