"""The task engine with an SSD tier against simulated bytes on GPU, host and disk, over doubles that fail and delay.

Bytes are chains of tokens. What a double says it moved is moved here; what failed is scribbled over until its release.
A disk outlives engines: it keeps records and bytes, some of which rot. A read of bytes that are not those of the key is
reported as a bad checksum, as the native store does; so whatever the cache holds ready must be right, byte for byte,
after every step, and a load never brings anything else.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flexkv.cache.cache_engine import GlobalCacheEngine
from flexkv.common.request import KVResponseStatus as Status
from flexkv.common.transfer import TransferOp, TransferOpGraph, TransferType
from flexkv.kvtask import StagingState
from tests.doubles import BadBlocks, DiskStoreDouble, RecordDouble, scan_of
from tests.stateful.campaigns import every_run, long_campaign
from tests.stateful.simulated_bytes import TPB, Content, Memory, config, content_of, start_engine, tokens_of

NUM_HOST_SLOTS = 20
NUM_DISK_SLOTS = 32
CONFIG = config(
    NUM_HOST_SLOTS,
    max_quarantined_fraction=1.0,
    enable_ssd=True,
    fingerprint="f1a6",
    ssd_cache_dir=("/ssd",),
    num_ssd_blocks=NUM_DISK_SLOTS,
)
CHAINS = st.one_of(
    st.integers(1, 12).map(lambda length: [0] * length),  # a third of the requests share one long document
    st.integers(0, 11).map(lambda length: [1, *[2] * length]),
    st.lists(st.integers(0, 2), min_size=1, max_size=5),
)
DISK = (TransferType.DISK2H, TransferType.H2DISK)


@dataclass
class Platter:
    """What lies on a disk: outlives the engines that are started on it."""

    records: dict[int, RecordDouble] = field(default_factory=dict)  # in order of writing
    contents: dict[int, Content] = field(default_factory=dict)
    rotten: set[int] = field(default_factory=set)  # slots that changed behind the engine's back
    num_renewals: int = 0

    def write(self, slot: int, record: RecordDouble, content: Content) -> None:
        self.erase(slot)
        self.records[slot], self.contents[slot] = record, content

    def erase(self, slot: int) -> None:
        self.records.pop(slot, None)
        self.contents.pop(slot, None)
        self.rotten.discard(slot)


class PlatterStore(DiskStoreDouble):
    """An SSD tier on a platter."""

    def __init__(self, platter: Platter) -> None:
        super().__init__(NUM_DISK_SLOTS)
        self.platter = platter

    def scan(self) -> tuple[np.ndarray, ...]:
        return scan_of(list(self.platter.records.values()))

    def renew(self) -> None:
        for slot in list(self.platter.records):
            self.platter.erase(slot)
        self.platter.num_renewals += 1


@dataclass
class Model:
    kind: str
    chain: list[int]
    start: int = 0
    end: int = 0
    graph_id: int | None = None
    blocks: list[int] = field(default_factory=list)


class SsdTaskMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock_s = 100.0
        self.platter = Platter()
        self.known: dict[bytes, Content] = {}  # what the bytes of a key are
        self.start_engine()

    def start_engine(self) -> None:
        self.engine, self.double = start_engine(CONFIG, lambda: self.clock_s, PlatterStore(self.platter))
        self.memory = Memory()
        self.tasks: dict[int, Model] = {}
        self.ended_ops: dict[int, bool] = {}  # whether it was done
        self.renewals_at: dict[int, int] = {}  # by graph: when it was submitted

    @initialize(lengths=st.lists(st.integers(0, 12), max_size=3))
    def something_lies_on_the_disk(self, lengths: list[int]) -> None:
        for length in lengths:
            self.put([0] * length, None)
            self.note_graphs()
            self.everything_ends()
        self.restart(is_killed=False, data=None)

    # --- helpers

    @property
    def cache(self) -> GlobalCacheEngine:
        cache = self.engine._tier.cache
        assert cache is not None
        return cache

    def learn(self, chain: list[int]) -> None:
        for index, key in enumerate(self.engine.sequence(tokens_of(chain)).block_hashes):
            self.known[key.tobytes()] = content_of(chain, index)

    def note_graphs(self) -> None:
        for graph_id in self.double.waiting:
            self.renewals_at.setdefault(graph_id, self.platter.num_renewals)

    def graph_of(self, graph_id: int) -> TransferOpGraph:
        return self.double.waiting.get(graph_id) or self.double.decided[graph_id]

    def is_outdated(self, graph_id: int) -> bool:
        return self.renewals_at[graph_id] != self.platter.num_renewals

    def can_finish(self, graph_id: int) -> bool:
        """Whether all ops of other graphs that it waits for are done."""
        own = self.double.waiting[graph_id].ops
        return all(self.ended_ops.get(op_id, op_id in own) for op in own.values() for op_id in op.predecessors)

    def move_block(self, op: TransferOp, at: int) -> bool:
        """Copy one block; False when it is read and is not what it should be."""
        src, dst = int(op.src_block_ids[at]), int(op.dst_block_ids[at])
        host = self.memory.host
        if op.transfer_type is TransferType.D2H:
            host[dst] = self.memory.gpu[src]
        elif op.transfer_type is TransferType.H2D:
            self.memory.gpu[dst] = host[src]
        elif op.transfer_type is TransferType.H2DISK:
            assert op.disk is not None
            assert op.disk.parents is not None
            key, parent = op.disk.keys[at].tobytes(), op.disk.parents[at].tobytes()
            assert host[src] == self.known[key], "what is written is not what it is said to be"
            self.platter.write(dst, RecordDouble(dst, key, parent, expiry_s=op.disk.expiry_s), host[src])
        else:
            assert op.disk is not None
            record = self.platter.records.get(src)
            if record is None or record.key != op.disk.keys[at].tobytes() or src in self.platter.rotten:
                self.memory.scribble_host([dst])
                return False
            host[dst] = self.platter.contents[src]
        return True

    def scribble(self, op: TransferOp) -> None:
        if op.transfer_type in (TransferType.D2H, TransferType.DISK2H):
            self.memory.scribble_host(op.dst_block_ids.tolist())
        elif op.transfer_type is TransferType.H2DISK:
            for dst in op.dst_block_ids.tolist():
                self.platter.erase(dst)

    def end_disk_graph(self, graph_id: int, broken: dict[int, int]) -> None:
        """End a move as its bytes tell. `broken`: by index of the op, at which block the disk fails."""
        bad: dict[int, BadBlocks] = {}
        for index, op in enumerate(self.graph_of(graph_id)):
            failed, error, checksums = [], 0, 0
            for at in range(len(op.src_block_ids)):
                if self.is_outdated(graph_id):
                    failed.append(at)
                elif broken.get(index, -1) == at:
                    failed.append(at)
                    error = errno.EIO
                elif not self.move_block(op, at):
                    failed.append(at)
                    checksums += 1
            for at in failed:
                one = replace_ids(op, at)
                self.scribble(one)
            if failed:
                bad[index] = BadBlocks(tuple(failed), checksums, error)
            self.ended_ops[op.op_id] = not failed
        if bad:
            self.double.fail(graph_id, bad)
        else:
            self.double.done_late(graph_id)
        self.fail_dependents()

    def fail_dependents(self) -> None:
        """What waits for an op that is not done never runs."""
        for graph_id, graph in list(self.double.waiting.items()):
            waits = {op_id for op in graph for op_id in op.predecessors}
            if graph_id in self.double.waiting and any(self.ended_ops.get(op_id) is False for op_id in waits):
                self.end_badly(graph_id, "fail")

    def end_badly(self, graph_id: int, how: str) -> None:
        for op in self.double.waiting[graph_id]:
            self.ended_ops[op.op_id] = False
            self.scribble(op)
        getattr(self.double, how)(graph_id)
        self.fail_dependents()

    def finish_gpu_graph(self, graph_id: int) -> None:
        for op in self.double.waiting[graph_id]:
            for at in range(len(op.src_block_ids)):
                self.move_block(op, at)
            self.ended_ops[op.op_id] = True
        self.double.done_late(graph_id)
        for model in self.tasks.values():
            if model.graph_id == graph_id and model.kind == "get":
                assert len(model.blocks) == model.end - model.start
                self.memory.check_loaded(model.chain, model.start, model.blocks)

    def release(self, graph_id: int) -> None:
        if not self.double.is_done(graph_id):
            for op in self.double.decided[graph_id]:
                if not self.ended_ops[op.op_id] and op.transfer_type not in DISK:
                    self.scribble(op)
        self.double.release(graph_id)

    def end(self, graph_id: int) -> None:
        """End a graph well, if that is possible."""
        if not self.can_finish(graph_id):
            return
        if any(op.transfer_type in DISK for op in self.double.waiting[graph_id]):
            self.end_disk_graph(graph_id, {})
        else:
            self.finish_gpu_graph(graph_id)

    def everything_ends(self) -> None:
        for _ in range(1000):
            self.engine.try_wait([])
            self.note_graphs()
            if not self.double.waiting and not self.double.decided:
                return
            for graph_id in list(self.double.waiting):
                if graph_id in self.double.waiting:
                    self.end(graph_id)
            for graph_id in list(self.double.decided):
                self.release(graph_id)
        raise AssertionError("graphs wait for each other")

    # --- requests

    @rule(chain=CHAINS, start=st.sampled_from([0, 0, 1, 2]), cpu_only=st.sampled_from([False, False, False, True]))
    def match(self, chain: list[int], start: int, cpu_only: bool) -> None:
        self.learn(chain)
        start = min(start, len(chain))
        task_id, span = self.engine.get_span(self.engine.sequence(tokens_of(chain)), start, cpu_only=cpu_only)
        if span.num_blocks:
            assert span.start == start
            self.tasks[task_id] = Model("get", chain, span.start, span.end)
            if cpu_only:
                assert self.engine.staging(task_id) is StagingState.READY

    @rule(chain=CHAINS, is_loaded=st.booleans())
    def serve(self, chain: list[int], is_loaded: bool) -> None:
        """A request from its start to its end, with nothing in its way: load what is there, store the rest."""
        self.match(chain, 0, cpu_only=False)
        for task_id in self.unlaunched()[-1:]:
            if not is_loaded and self.tasks[task_id].chain == chain:
                self.everything_ends()
            self.launch(task_id)
        self.put(chain, None)
        if is_loaded:
            self.everything_ends()

    @rule(chain=CHAINS, ttl_s=st.sampled_from([None, None, None, 2.5, 500.0]))
    def put(self, chain: list[int], ttl_s: float | None) -> None:
        self.learn(chain)
        task_id, mask = self.engine.put_match(tokens_of(chain), ttl_s=ttl_s)
        touched = np.flatnonzero(mask) // TPB
        if len(touched):
            self.tasks[task_id] = Model("put", chain, int(touched[0]), int(touched[-1]) + 1)
            self.launch(task_id)

    def launch(self, task_id: int) -> None:
        model = self.tasks[task_id]
        model.blocks = self.memory.take_blocks(model.end - model.start)
        before = set(self.double.waiting)
        self.engine.launch(task_id, block_ids=[np.array(model.blocks, dtype=np.int64)])
        started = set(self.double.waiting) - before
        if not started:
            assert self.engine.wait(task_id, 0)[task_id].status in (Status.FAILED, Status.CANCELLED)
            del self.tasks[task_id]
            return
        (model.graph_id,) = started
        if model.kind == "put":
            self.memory.compute(model.chain, model.start, model.blocks)

    @precondition(lambda self: self.unlaunched())
    @rule(data=st.data(), is_patient=st.booleans())
    def launch_a_match(self, data: st.DataObject, is_patient: bool) -> None:
        task_id = data.draw(st.sampled_from(self.unlaunched()))
        state = self.engine.staging(task_id)
        if is_patient and state is StagingState.PENDING:
            return
        if is_patient and state is StagingState.BROKEN:
            self.engine.cancel(task_id)
            del self.tasks[task_id]
            return
        self.launch(task_id)

    def unlaunched(self) -> list[int]:
        return sorted(i for i, model in self.tasks.items() if model.kind == "get" and model.graph_id is None)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def cancel_or_doom(self, data: st.DataObject) -> None:
        task_id = data.draw(st.sampled_from(sorted(self.tasks)))
        model = self.tasks[task_id]
        if model.graph_id is None:
            self.engine.cancel(task_id)
            del self.tasks[task_id]
        elif model.kind == "put":
            self.engine.doom(task_id)
            self.memory.scribble_gpu(model.blocks)

    @rule(chain=CHAINS)
    def prefetch(self, chain: list[int]) -> None:
        self.learn(chain)
        self.engine.prefetch_async(tokens_of(chain))

    # --- what ranks and disk do

    @precondition(lambda self: self.double.waiting)
    @rule(data=st.data(), is_released=st.booleans())
    def a_graph_is_done(self, data: st.DataObject, is_released: bool) -> None:
        graph_id = data.draw(st.sampled_from(sorted(self.double.waiting)))
        self.end(graph_id)
        if is_released and graph_id in self.double.decided:
            self.release(graph_id)

    @precondition(lambda self: self.double.waiting)
    @rule(data=st.data(), how=st.sampled_from(["disk", "disk", "time_out", "fail"]))
    def a_graph_ends_badly(self, data: st.DataObject, how: str) -> None:
        graphs = self.disk_graphs() if how == "disk" else sorted(self.double.waiting)
        if not graphs:
            return
        graph_id = data.draw(st.sampled_from(graphs))
        if how == "disk":
            sizes = [len(op.src_block_ids) for op in self.double.waiting[graph_id]]
            index = data.draw(st.integers(0, len(sizes) - 1))
            self.end_disk_graph(graph_id, {index: data.draw(st.integers(0, sizes[index] - 1))})
        else:
            self.end_badly(graph_id, how)

    def disk_graphs(self) -> list[int]:
        return sorted(i for i, graph in self.double.waiting.items() if any(op.transfer_type in DISK for op in graph))

    @precondition(lambda self: self.double.decided)
    @rule(data=st.data())
    def a_graph_is_released(self, data: st.DataObject) -> None:
        self.release(data.draw(st.sampled_from(sorted(self.double.decided))))

    @rule()
    def it_quietens(self) -> None:
        self.everything_ends()

    # --- the rest

    @rule(
        data=st.data(), what=st.sampled_from(["rot", "rot", "evict", "evict", "time", "lease", "reset", "stop", "kill"])
    )
    def something_rare(self, data: st.DataObject, what: str) -> None:
        if what == "rot" and self.platter.records:
            self.platter.rotten.add(data.draw(st.sampled_from(sorted(self.platter.records))))
        elif what == "evict":  # so that what lies on disk is wanted
            self.cache.cpu_cache_engine.recycle(self.cache.cpu_cache_engine.take(NUM_HOST_SLOTS))
        elif what in ("time", "lease"):
            self.time_passes(3.0 if what == "time" else 700.0)
        elif what == "reset":
            self.reset()
        elif what in ("stop", "kill"):
            self.restart(is_killed=what == "kill", data=data)

    def reset(self) -> None:
        self.engine.reset()
        for task_id in self.unlaunched():
            del self.tasks[task_id]
        assert self.cache.cpu_cache_engine.index.num_blocks == 0
        assert not self.platter.records

    def time_passes(self, seconds: float) -> None:
        self.clock_s += seconds
        if seconds > 600:  # leases end
            self.engine.try_wait([])
            for task_id in self.unlaunched():
                del self.tasks[task_id]

    @rule()
    def results_are_taken(self) -> None:
        for task_id, answer in self.engine.poll().items():
            model = self.tasks.pop(task_id, None)
            if model is not None and model.kind == "get" and answer.status is Status.SUCCESS:
                assert answer.return_mask is not None
                assert answer.return_mask.sum() == (model.end - model.start) * TPB

    def restart(self, is_killed: bool, data: st.DataObject | None) -> None:
        """A new engine on the same disk. A kill leaves some blocks of each write in flight, and others not."""
        old_engine, old_transfer = self.engine, self.double
        if not is_killed:
            self.engine.cancel(self.unlaunched())
            self.everything_ends()
            self.nothing_is_held()
        elif data is not None:
            for graph_id in self.disk_graphs():
                for op in self.double.waiting[graph_id]:
                    self.tear(op, data, self.is_outdated(graph_id))
        self.start_engine()
        old_transfer.drains = not is_killed
        old_engine.shutdown(0.0)
        old_transfer.close()

    def tear(self, op: TransferOp, data: st.DataObject, is_outdated: bool) -> None:
        if op.transfer_type is not TransferType.H2DISK:
            return
        for at in range(len(op.src_block_ids)):
            end = data.draw(st.sampled_from(["as before", "erased", "written"]))
            if end == "written" and not is_outdated:
                self.move_block(op, at)
            elif end != "as before":
                self.scribble(replace_ids(op, at))

    @invariant()
    def everything_adds_up(self) -> None:
        self.note_graphs()
        self.engine.check_invariants()
        self.note_graphs()
        cpu, ssd = self.cache.cpu_cache_engine.index, self.cache.ssd_cache_engine
        assert ssd is not None
        for key, content in self.known.items():
            slot = cpu.find(key)
            if slot is not None and cpu.is_ready(slot):
                assert self.memory.host[slot] == content, "a block is ready in the CPU tier that is not what it says"
            slot = ssd.index.find(key)
            if slot is not None and ssd.index.is_ready(slot) and slot not in self.platter.rotten:
                record = self.platter.records.get(slot)
                assert record is not None, "a block is in the SSD tier that is not on disk"
                assert record.key == key
                assert self.platter.contents[slot] == content

    def nothing_is_held(self) -> None:
        self.engine.check_invariants()
        assert self.cache.num_live_reservations == self.cache.arrivals.num_slots == 0
        for tier in (self.cache.cpu_cache_engine, self.cache.ssd_cache_engine):
            assert tier is not None
            assert tier.index.num_pinned == tier.index.num_doomed == tier.index.num_unready == 0
            assert tier.mempool.num_quarantined_blocks == tier.num_reserved == tier.ledger.num_quarantined_blocks == 0
        assert self.engine.stats().tasks_running == self.engine.stats().ssd_moves_running == 0

    def teardown(self) -> None:
        self.engine.cancel(self.unlaunched())
        self.everything_ends()
        self.nothing_is_held()
        self.engine.reset()
        stats = self.engine.stats()
        assert stats.slots_used == stats.ssd_slots_used == 0
        assert self.engine.shutdown(0.0)
        self.double.close()


def replace_ids(op: TransferOp, at: int) -> TransferOp:
    """The op of one of its blocks."""
    disk = None if op.disk is None else replace(op.disk, keys=op.disk.keys[at : at + 1])
    return TransferOp(
        None, None, op.transfer_type, op.src_block_ids[at : at + 1], op.dst_block_ids[at : at + 1], disk=disk
    )


TestSsdTasks = every_run(SsdTaskMachine, 60)
test_a_long_campaign = long_campaign(SsdTaskMachine, 2000)
