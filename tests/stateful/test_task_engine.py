"""The task engine against a model of task states and simulated memory, over a transfer double that fails and delays.

Model: what `wait(timeout=0)` must answer for every id there ever was. Memory: bytes are chains of tokens; a store
copies GPU to host when the double finishes it, one that failed scribbles over its slots until it is released; a doomed
store's GPU blocks are overwritten at once. So any commit of what must not be committed, and any slot reused too early,
shows as wrong bytes. Teardown ends everything: nothing stays pinned.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flexkv.common.request import KVResponseStatus as Status
from flexkv.common.transfer import TransferType
from tests.stateful.campaigns import every_run, long_campaign
from tests.stateful.simulated_bytes import TPB, Memory, config, start_engine, tokens_of

CONFIG = config(14, max_quarantined_fraction=0.5)
CHAINS = st.one_of(
    st.integers(0, 6).map(lambda length: [0] * length),  # half of the requests share one long document
    st.lists(st.integers(0, 2), min_size=0, max_size=6),
)


@dataclass
class Model:
    """What is known of one task."""

    kind: str
    parts: list[tuple[list[int], int, int]]  # chain, first block, end block
    expected: Status = Status.UNREADY
    graph_id: int | None = None
    blocks: list[int] = field(default_factory=list)
    doomed: bool = False

    def spans(self) -> Iterator[tuple[list[int], int, list[int]]]:
        """Yield chain, first block and GPU blocks of each part."""
        assert len(self.blocks) == sum(end - start for _, start, end in self.parts)
        blocks = iter(self.blocks)
        for chain, start, end in self.parts:
            yield chain, start, list(itertools.islice(blocks, end - start))


class TaskEngineMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock_s = 100.0
        self.engine, self.transfer = start_engine(CONFIG, lambda: self.clock_s)
        self.memory = Memory()
        self.tasks: dict[int, Model] = {}

    @initialize(length=st.integers(0, 6))
    def something_is_stored(self, length: int) -> None:
        self.end_well(self.run([0] * length, "put"))

    # --- helpers

    def of(self, kind: str | None, *states: Status) -> list[int]:
        return sorted(i for i, t in self.tasks.items() if t.expected in states and kind in (None, t.kind))

    def in_flight(self) -> list[int]:
        return [i for i, t in self.tasks.items() if t.graph_id is not None and t.graph_id in self.transfer.waiting]

    def unreleased(self) -> list[int]:
        return [i for i, t in self.tasks.items() if t.graph_id is not None and t.graph_id in self.transfer.decided]

    def new_task(self, kind: str, task_id: int, mask: np.ndarray, chain: list[int]) -> None:
        assert task_id not in self.tasks
        touched = np.flatnonzero(mask)
        assert len(mask) == len(chain) * TPB
        assert len(touched) % TPB == 0
        start, end = (int(touched[0]) // TPB, (int(touched[-1]) + 1) // TPB) if len(touched) else (0, 0)
        assert len(touched) == (end - start) * TPB, "one contiguous span of whole blocks"
        model = Model(kind, [(chain, start, end)])
        if end == start:
            model.expected = Status.SUCCESS
        self.tasks[task_id] = model

    def fill(self, model: Model) -> None:
        """The engine computes the blocks it is going to store."""
        for chain, start, blocks in model.spans():
            self.memory.compute(chain, start, blocks)

    def copy(self, graph_id: int) -> None:
        for op in self.transfer.waiting.get(graph_id) or self.transfer.decided[graph_id]:
            store = op.transfer_type is TransferType.D2H
            gpu, host = self.memory.gpu, self.memory.host
            source, target = (gpu, host) if store else (host, gpu)
            for src, dst in zip(op.src_block_ids.tolist(), op.dst_block_ids.tolist(), strict=True):
                target[dst] = source[src]

    def scribble(self, graph_id: int) -> None:
        for graphs in (self.transfer.waiting, self.transfer.decided):
            for op in graphs.get(graph_id, ()):
                if op.transfer_type is TransferType.D2H:
                    self.memory.scribble_host(op.dst_block_ids.tolist())

    # --- requests

    @rule(chain=CHAINS, known=st.integers(0, 4), ask=st.sampled_from(["mask", "block", "hashes"]))
    def get_match(self, chain: list[int], known: int, ask: str) -> None:
        known = min(known, len(chain) * TPB)
        if ask == "mask":
            mask = np.arange(len(chain) * TPB) >= known
            task_id, answer = self.engine.get_match(tokens_of(chain), mask)
            assert mask.sum() == len(mask) - known, "the caller's mask is not modified"
        else:
            sequence = self.engine.sequence(tokens_of(chain))
            task_id, answer = self.engine.get_match(sequence=sequence, start_block=-(-known // TPB))
        self.new_task("get", task_id, answer, chain)
        _, start, end = self.tasks[task_id].parts[0]
        assert end == start or start == -(-known // TPB)

    @rule(chain=CHAINS, ttl_s=st.sampled_from([None, 2.5]))
    def put_match(self, chain: list[int], ttl_s: float | None) -> None:
        task_id, answer = self.engine.put_match(tokens_of(chain), ttl_s=ttl_s)
        self.new_task("put", task_id, answer, chain)

    @rule(chain=CHAINS, kind=st.sampled_from(["get", "get", "put"]))
    def match_and_launch(self, chain: list[int], kind: str) -> None:
        self.run(chain, kind)

    @rule(chain=CHAINS)
    def serve(self, chain: list[int]) -> None:
        """A request with nothing in its way: what is there is loaded, and the rest is stored."""
        self.end_well(self.run(chain, "get"))
        self.end_well(self.run(chain, "put"))

    def end_well(self, model: Model) -> None:
        if model.graph_id is not None:
            self.end(model, "finish")

    def run(self, chain: list[int], kind: str) -> Model:
        blocks = self.memory.take_blocks(len(chain))
        slots = (np.repeat(np.array(blocks, dtype=np.int64), TPB) * TPB + np.tile(np.arange(TPB), len(chain))).astype(
            np.int64
        )
        before = set(self.transfer.waiting)
        run = self.engine.get_async if kind == "get" else self.engine.put_async
        task_id = run(tokens_of(chain), slots)
        started = set(self.transfer.waiting) - before
        model = self.tasks[task_id] = Model(kind, [(chain, 0, 0)], Status.SUCCESS)
        if started:
            model.graph_id = started.pop()
            (op,) = self.transfer.waiting[model.graph_id]
            used = (op.dst_block_ids if kind == "get" else op.src_block_ids).tolist()
            start = blocks.index(used[0])
            model.parts = [(chain, start, start + len(used))]
            model.blocks, model.expected = used, Status.TIMEOUT
            if kind == "put":
                self.fill(model)
        return model

    @precondition(lambda self: self.of(None, Status.UNREADY))
    @rule(data=st.data(), refuse=st.sampled_from([False, False, False, True]))
    def launch(self, data: st.DataObject, refuse: bool) -> None:
        task_id = data.draw(st.sampled_from(self.of(None, Status.UNREADY)))
        model = self.tasks[task_id]
        _, start, end = model.parts[0]
        model.blocks = self.memory.take_blocks(end - start)
        before = set(self.transfer.waiting)
        self.transfer.refusal = RuntimeError("too many graphs") if refuse else None
        assert self.engine.launch(task_id, block_ids=[np.array(model.blocks, dtype=np.int64)]) == [task_id]
        self.transfer.refusal = None
        self.started(model, before, refuse)

    @precondition(lambda self: len(self.of("get", Status.UNREADY)) > 1 or len(self.of("put", Status.UNREADY)) > 1)
    @rule(data=st.data(), refuse=st.sampled_from([False, False, True]))
    def launch_as_batch(self, data: st.DataObject, refuse: bool) -> None:
        kind = data.draw(st.sampled_from([k for k in ("get", "put") if len(self.of(k, Status.UNREADY)) > 1]))
        ids = data.draw(st.lists(st.sampled_from(self.of(kind, Status.UNREADY)), min_size=2, max_size=4, unique=True))
        batch = Model(kind, [part for i in ids for part in self.tasks[i].parts])
        blocks = [self.memory.take_blocks(end - start) for _, start, end in batch.parts]
        batch.blocks = [block for own in blocks for block in own]
        before = set(self.transfer.waiting)
        self.transfer.refusal = OSError("socket is gone") if refuse else None
        (batch_id,) = self.engine.launch(
            ids, block_ids=[np.array(own, dtype=np.int64) for own in blocks], as_batch=True
        )
        self.transfer.refusal = None
        for task_id in ids:
            self.tasks[task_id].expected = Status.NOTFOUND
        assert batch_id not in self.tasks
        self.tasks[batch_id] = batch
        self.started(batch, before, refuse)

    def started(self, model: Model, before: set[int], refused: bool) -> None:
        if refused:
            model.expected = Status.FAILED
            return
        (model.graph_id,) = set(self.transfer.waiting) - before
        model.expected = Status.TIMEOUT
        if model.kind == "put":
            self.fill(model)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        task_id = data.draw(st.sampled_from(sorted(self.tasks)))
        self.engine.cancel([task_id])
        if self.tasks[task_id].expected is Status.UNREADY:
            self.tasks[task_id].expected = Status.CANCELLED

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def doom(self, data: st.DataObject) -> None:
        task_id = data.draw(st.sampled_from(sorted(self.tasks)))
        model = self.tasks[task_id]
        self.engine.doom(task_id)
        if model.expected is Status.UNREADY:
            model.expected = Status.CANCELLED
        elif model.kind == "put" and model.expected is Status.TIMEOUT:
            model.doomed = True
            self.memory.scribble_gpu(model.blocks)

    # --- what the ranks do

    @precondition(lambda self: self.in_flight())
    @rule(
        data=st.data(), end=st.sampled_from(["finish", "finish", "done_late", "fail", "time_out", "acknowledge_cancel"])
    )
    def an_op_ends(self, data: st.DataObject, end: str) -> None:
        self.end(self.tasks[data.draw(st.sampled_from(self.in_flight()))], end)

    def end(self, model: Model, end: str) -> None:
        graph_id = model.graph_id
        assert graph_id is not None
        if end == "acknowledge_cancel" and graph_id not in self.transfer.cancelled:
            return
        done = end in ("finish", "done_late")
        if done:
            self.copy(graph_id)
        else:
            self.scribble(graph_id)
        getattr(self.transfer, end)(graph_id)
        if done:
            model.expected = Status.CANCELLED if model.doomed else Status.SUCCESS
            if model.kind == "get":
                for chain, start, blocks in model.spans():
                    self.memory.check_loaded(chain, start, blocks)
        elif end == "acknowledge_cancel":
            model.expected = Status.CANCELLED
        elif model.kind == "put":
            model.expected = Status.CANCELLED if model.doomed else Status.FAILED

    @precondition(lambda self: self.unreleased())
    @rule(data=st.data())
    def a_rank_lets_go(self, data: st.DataObject) -> None:
        model = self.tasks[data.draw(st.sampled_from(self.unreleased()))]
        assert model.graph_id is not None
        done = self.transfer.is_done(model.graph_id)
        if not done:
            self.scribble(model.graph_id)
        self.transfer.release(model.graph_id)
        if model.kind == "get" and not done:
            model.expected = Status.FAILED

    @precondition(lambda self: self.unreleased())
    @rule(data=st.data())
    def a_copy_completes_after_its_timeout(self, data: st.DataObject) -> None:
        """The right bytes arrive, too late: the slots are free from then on, and what they hold is nobody's."""
        model = self.tasks[data.draw(st.sampled_from(self.unreleased()))]
        graph_id = model.graph_id
        assert graph_id is not None
        done = self.transfer.is_done(graph_id)
        if not done:
            self.copy(graph_id)
        self.transfer.release(graph_id)
        if model.kind == "get" and not done:
            model.expected = Status.FAILED

    # --- results

    def check_answer(self, task_id: int, status: Status, mask: np.ndarray | None) -> None:
        model = self.tasks[task_id]
        assert status is model.expected
        if status is Status.SUCCESS:
            assert mask is not None
            assert mask.sum() == sum(end - start for _, start, end in model.parts) * TPB
        elif status in (Status.FAILED, Status.CANCELLED):
            assert mask is not None
            assert not mask.any()
        else:
            assert mask is None

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def wait(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.sampled_from([*sorted(self.tasks), 10**9]), unique=True, max_size=5))
        answers = self.engine.wait(ids, timeout=0)
        assert set(answers) == set(ids), "never a missing key"
        for task_id, answer in answers.items():
            if task_id == 10**9:
                assert answer.status is Status.NOTFOUND
                continue
            self.check_answer(task_id, answer.status, answer.return_mask)
            if answer.status in (Status.SUCCESS, Status.FAILED, Status.CANCELLED):
                self.tasks[task_id].expected = Status.NOTFOUND

    @rule()
    def try_wait(self) -> None:
        answers = self.engine.try_wait(list(self.tasks))
        assert sorted(answers) == self.of(None, Status.SUCCESS, Status.FAILED, Status.CANCELLED)
        for task_id, answer in answers.items():
            self.check_answer(task_id, answer.status, answer.return_mask)

    @rule()
    def poll(self) -> None:
        answers = self.engine.poll()
        assert sorted(answers) == self.of(None, Status.SUCCESS, Status.FAILED, Status.CANCELLED)
        for task_id, answer in answers.items():
            self.check_answer(task_id, answer.status, answer.return_mask)
            self.tasks[task_id].expected = Status.NOTFOUND

    # --- the rest

    @rule()
    def reset(self) -> None:
        self.engine.reset()
        for task_id in self.of(None, Status.UNREADY):
            self.tasks[task_id].expected = Status.CANCELLED
        _, mask = self.engine.get_match(tokens_of([0]))
        assert not mask.any()
        self.engine.poll()
        for model in self.tasks.values():
            if model.expected in (Status.SUCCESS, Status.FAILED, Status.CANCELLED):
                model.expected = Status.NOTFOUND

    @rule(seconds=st.sampled_from([0.5, 3.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock_s += seconds
        if seconds > 600:  # leases end
            for task_id in self.of(None, Status.UNREADY):
                self.tasks[task_id].expected = Status.CANCELLED

    @invariant()
    def everything_adds_up(self) -> None:
        self.engine.check_invariants()
        assert self.engine.num_running == len(self.of(None, Status.TIMEOUT))
        late = [self.tasks[task_id] for task_id in self.unreleased()]
        in_quarantine = sum(
            len(model.blocks) for model in late if model.doomed or not self.transfer.is_done(model.graph_id or 0)
        )
        assert self.engine.stats().slots_quarantined == in_quarantine

    def teardown(self) -> None:
        self.engine.cancel(list(self.tasks))
        for graph_id in list(self.transfer.waiting):
            self.transfer.fail(graph_id)
        for graph_id in list(self.transfer.decided):
            self.transfer.release(graph_id)
        self.engine.check_invariants()
        stats = self.engine.stats()
        cache = self.engine._tier.cache
        assert cache is not None
        index = cache.cpu_cache_engine.index
        assert index.num_pinned == index.num_doomed == index.num_unready == 0
        assert cache.num_live_reservations == stats.slots_quarantined == stats.tasks_running == 0
        self.engine.reset()
        assert self.engine.stats().slots_used == 0
        self.engine.shutdown()
        self.transfer.close()


TestTaskEngine = every_run(TaskEngineMachine, 100)
test_a_long_campaign = long_campaign(TaskEngineMachine, 3000)
