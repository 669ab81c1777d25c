"""Native core of FlexKV."""

from collections.abc import Sequence
import enum
from typing import Annotated

import numpy
import numpy.typing
from numpy.typing import NDArray


def hash_token_blocks(tokens: numpy.typing.NDArray[numpy.int64], tokens_per_block: int, parent: bytes) -> numpy.typing.NDArray[numpy.uint8]:
    """
    Chained keys of the whole blocks of the tokens, after the key `parent`. Shape: [n, 16].
    """

def mix_engine_hashes(hashes: list[bytes] | tuple[bytes, ...] | numpy.typing.NDArray[numpy.uint8], root: bytes, start: int = 0) -> numpy.typing.NDArray[numpy.uint8]:
    """
    Keys of the engine's hashes[start:], all of one width from 1 to 39 bytes. Shape: [n - start, 16].
    """

def mix_engine_hash(hash: bytes, root: bytes) -> bytes:
    """Key of one engine hash, as mix_engine_hashes makes it."""

def sha256(data: bytes) -> bytes:
    """SHA-256 of the bytes."""

def hash_uses_sha_ni() -> bool:
    """True when the CPU's SHA instructions are in use."""

class SlotPool:
    """
    Which slots of a tier are free. Not thread-safe: the owner holds a lock.
    """

    def __init__(self, capacity: int, available: int) -> None: ...

    def allocate(self, n: int) -> Annotated[NDArray[numpy.int64], dict(shape=(None,))]:
        """Hand out n slots, as few runs. RuntimeError when fewer are free."""

    def adopt(self, slots: numpy.typing.NDArray[numpy.int64]) -> None:
        """Take these free slots. All or, with ValueError, none."""

    def free(self, slots: numpy.typing.NDArray[numpy.int64]) -> None:
        """Give used slots back. All or, with ValueError, none."""

    def quarantine(self, slots: numpy.typing.NDArray[numpy.int64]) -> None:
        """Set used slots aside. All or, with ValueError, none."""

    def release(self, slots: numpy.typing.NDArray[numpy.int64]) -> None:
        """Free quarantined slots. All or, with ValueError, none."""

    def set_available(self, available: int) -> None:
        """Let slots below `available` be handed out."""

    def reset(self) -> None:
        """Make all available slots free."""

    def is_used(self, slot: int) -> bool: ...

    def mean_free_run(self) -> float:
        """Mean length of the runs of free slots. O(capacity / 64)."""

    def check_invariants(self) -> None:
        """Raise RuntimeError naming what is broken. O(capacity)."""

    @property
    def capacity(self) -> int: ...

    @property
    def available(self) -> int: ...

    @property
    def num_free(self) -> int: ...

    @property
    def num_used(self) -> int: ...

    @property
    def num_quarantined(self) -> int: ...

class InsertStatus(enum.Enum):
    """What became of an insert; the caller keeps its slots unless INSERTED."""

    INSERTED = 0

    CONFLICT = 1

    PARENT_GONE = 2

class Match:
    """The longest prefix of a chain that an index holds. A value."""

    @property
    def num_visible(self) -> int:
        """Blocks present, from the chain's start."""

    @property
    def num_ready(self) -> int:
        """Of these, how many from the start have their bytes."""

    @property
    def deepest_visible(self) -> int:
        """Slot of block num_visible-1, or -1."""

    @property
    def deepest_ready(self) -> int:
        """Slot of block num_ready-1, the one to pin, or -1."""

    @property
    def first_expired(self) -> int:
        """
        Slot of block num_visible when it is present but expired, else -1. Drop it before inserting there.
        """

    @property
    def runs(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None, 2))]:
        """
        Slots of the visible blocks as (start, length), in chain order. Shape: [r, 2].
        """

    def slots(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,))]:
        """Slots of the visible blocks. Shape: [num_visible]."""

    def slots_range(self, begin: int, end: int) -> Annotated[NDArray[numpy.int64], dict(shape=(None,))]:
        """Slots of blocks begin to end-1. Shape: [end - begin]."""

class PrefixIndex:
    """
    Which blocks a tier holds, by the chain of their keys. Not thread-safe: the owner holds a lock.
    """

    def __init__(self, capacity: int, policy: str = 'lru') -> None: ...

    def match(self, keys: numpy.typing.NDArray[numpy.uint8], now_s: int) -> Match:
        """
        Find the longest prefix of the chain that is present and not expired. Recency stays as it is.
        """

    def insert(self, keys: numpy.typing.NDArray[numpy.uint8], start: int, slots: numpy.typing.NDArray[numpy.int64], tenant: int = 0, priority: int = 0, group: int = 0, expiry_s: int = 4294967295) -> InsertStatus:
        """
        Insert keys[start:] in the slots, unready, as children of keys[start-1]. All or nothing.
        """

    def restore(self, slots: numpy.typing.NDArray[numpy.int64], keys: numpy.typing.NDArray[numpy.uint8], parents: numpy.typing.NDArray[numpy.uint8], expiry_s: numpy.typing.NDArray[numpy.uint32], tenants: numpy.typing.NDArray[numpy.uint16], groups: numpy.typing.NDArray[numpy.uint8], priorities: numpy.typing.NDArray[numpy.uint8], now_s: int) -> numpy.typing.NDArray[numpy.int64]:
        """
        Fill an empty index with ready blocks, rows in order of use. Returns the rows restored, parents first, one stretch of rows for each leaf.
        """

    def mark_ready(self, slots: numpy.typing.NDArray[numpy.int64]) -> None:
        """Say that the bytes of these blocks are there."""

    def pin(self, slot: int) -> None:
        """Keep a block and its ancestors from eviction."""

    def raise_meta(self, slot: int, priority: int, expiry_s: int) -> None:
        """
        Raise priority and expiry of a pinned block and its ancestors, where theirs are lower.
        """

    def unpin(self, slot: int) -> Annotated[NDArray[numpy.int64], dict(shape=(None,))]:
        """
        End one pin; the block counts as used now. Returns the slots that are gone.
        """

    def drop(self, slot: int) -> Annotated[NDArray[numpy.int64], dict(shape=(None,))]:
        """
        Make a block and its descendants invisible. Returns the slots gone at once; pinned ones go with the last pin.
        """

    def evict(self, n: int) -> Annotated[NDArray[numpy.int64], dict(shape=(None,))]:
        """
        Evict up to n blocks in policy order, leaves first. Returns their slots.
        """

    def reset(self) -> Annotated[NDArray[numpy.int64], dict(shape=(None,))]:
        """Drop everything. Returns the slots gone at once. O(capacity)."""

    def keys_of(self, slots: numpy.typing.NDArray[numpy.int64]) -> numpy.typing.NDArray[numpy.uint8]:
        """Keys of the slots. Shape: [n, 16]."""

    def find(self, key: bytes) -> int:
        """Slot of a visible block, or -1."""

    def meta_of(self, slot: int) -> tuple[int, int, int, int]:
        """Tenant, priority, group and expiry_s of a block."""

    def count_ready(self, slots: numpy.typing.NDArray[numpy.int64]) -> int:
        """How many of the leading slots hold ready blocks."""

    def pins_of(self, slot: int) -> int: ...

    def is_ready(self, slot: int) -> bool: ...

    def check_invariants(self) -> None:
        """Raise RuntimeError naming what is broken. O(capacity)."""

    @property
    def capacity(self) -> int: ...

    @property
    def num_blocks(self) -> int: ...

    @property
    def num_doomed(self) -> int: ...

    @property
    def num_unready(self) -> int: ...

    @property
    def num_pinned(self) -> int: ...

    @property
    def num_evictable(self) -> int: ...

    @property
    def memory_bytes(self) -> int: ...

def eviction_policy_names() -> list[str]: ...

class SsdBusyError(RuntimeError):
    pass

class SsdDeviceInfo:
    """One directory of an SsdStore and what it has done; a value."""

    @property
    def path(self) -> str: ...

    @property
    def io_engine(self) -> str:
        """'io_uring' or 'threads'."""

    @property
    def why_not_io_uring(self) -> str:
        """Empty when it is io_uring, or was not asked for."""

    @property
    def is_direct(self) -> bool:
        """O_DIRECT is in force."""

    @property
    def origin(self) -> str:
        """
        What was found: 'warm', 'made', 'other geometry', 'other version' or 'damaged'; all but 'warm' are empty.
        """

    @property
    def removed(self) -> list[str]:
        """Fingerprints that had to make room."""

    @property
    def queued_reads(self) -> int:
        """Blocks that were not started."""

    @property
    def queued_writes(self) -> int: ...

    @property
    def in_flight(self) -> int:
        """Blocks."""

    @property
    def queued_touches(self) -> int: ...

    @property
    def dropped_touches(self) -> int:
        """There were too many: uses are not on disk."""

    @property
    def bytes_read(self) -> int:
        """Of good blocks."""

    @property
    def bytes_written(self) -> int: ...

    @property
    def read_errors(self) -> int:
        """Blocks."""

    @property
    def write_errors(self) -> int: ...

    @property
    def bad_checksums(self) -> int: ...

def ssd_footprint_bytes(num_slots: int, slot_bytes: int) -> int:
    """What so many slots take in one directory, with their records."""

def crc64(data: bytes | NDArray[numpy.uint8]) -> int:
    """CRC-64/NVME of the bytes: the checksum of blocks and records on disk."""

def crc64_implementation() -> str:
    """'vpclmulqdq-512', 'vpclmulqdq-256', 'pclmulqdq' or 'portable'."""

def time_disk(pool: HostPool, path: str, places: numpy.typing.NDArray[numpy.int64], depth: int, is_write: bool, io_engine: str = 'auto') -> float:
    """
    Seconds that a disk engine alone takes to move all slots of a pool to or from places of a file, in units of a slot; what is written over is gone. For benchmarks. OSError, ValueError.
    """

class SsdStore:
    """The bytes of the SSD tier; see csrc/storage/ssd_store.h."""

    def __init__(self, directories: Sequence[str], fingerprint: str, model: str, extent_bytes: Sequence[int], tokens_per_block: int, capacity_bytes: int, io_engine: str = 'auto', read_depth: int = 16, write_depth: int = 8) -> None:
        """
        Open the directories. SsdBusyError: somebody serves from one, try again later. ValueError: it cannot work as configured. OSError.
        """

    @property
    def num_slots(self) -> int: ...

    @property
    def slot_bytes(self) -> int: ...

    def scan(self) -> tuple[NDArray[numpy.int64], NDArray[numpy.uint8], NDArray[numpy.uint8], NDArray[numpy.uint32], NDArray[numpy.uint16], NDArray[numpy.uint8], NDArray[numpy.uint8]]:
        """
        What lies in it, also what is expired: slots, keys [n, 16], parents [n, 16], expiry_s, tenants, groups, priorities; the least recently used first. Once, before set_disk. OSError.
        """

    def touch(self, slot: int, key: bytes | NDArray[numpy.uint8], expiry_s: int = 0, priority: int = 0) -> None:
        """
        Say that a block was used elsewhere: its record gets the time of now, and at least that expiry (since 1970; 4294967295: never) and priority. `key`: 16 bytes, or shape [16]. It is written later, at the latest by `stop`; nothing happens when the slot does not hold that block. Does not block. ValueError.
        """

    def renew(self) -> None:
        """Forget all blocks, durably; also those of ops in flight. OSError."""

    def stop(self, timeout_s: float) -> bool:
        """
        Drop what is not started, drain what is, make all durable. False when I/O was still in flight. Idempotent.
        """

    @property
    def is_stopped(self) -> bool:
        """stop was called."""

    def devices(self) -> list[SsdDeviceInfo]:
        """One SsdDeviceInfo for each directory."""

class SsdHeaderState(enum.IntEnum):
    """What the header of a record file says of it."""

    OK = 0

    EMPTY = 1

    FOREIGN = 2
    """Not a file of ours, or one that cannot be read."""

    OTHER_VERSION = 3

    DAMAGED = 4

class SsdCheck(enum.IntEnum):
    """What was found of a block."""

    WHOLE = 0

    DAMAGED = 1
    """Its bytes are not those of its record."""

    CHANGED = 2
    """Written, emptied or forgotten meanwhile."""

    UNREADABLE = 3
    """The device gave an error."""

class SsdListing:
    """One sub-directory of an SSD directory; a value."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def state(self) -> SsdHeaderState: ...

    @property
    def is_busy(self) -> bool:
        """Somebody serves from it."""

    @property
    def footprint_bytes(self) -> int:
        """Of its files."""

    @property
    def used_at_s(self) -> int:
        """When it was last opened or closed for serving, since 1970; or 0."""

    @property
    def model(self) -> str:
        """As the rest, when `state` is OK."""

    @property
    def num_slots(self) -> int: ...

    @property
    def tokens_per_block(self) -> int: ...

    @property
    def slot_bytes(self) -> int: ...

class SsdCleared:
    """Fingerprints, by what became of them; a value."""

    @property
    def removed(self) -> list[str]: ...

    @property
    def busy(self) -> list[str]:
        """Served from: left as they are."""

    @property
    def foreign(self) -> list[str]:
        """Not ours: left as they are."""

def list_ssd_directories(root: str) -> list[SsdListing]:
    """
    What lies below an SSD directory, in the order of fingerprints; nothing where there is no cache. OSError.
    """

def clear_ssd_directories(root: str, fingerprint: str = '') -> SsdCleared:
    """
    Remove one sub-directory, or all. SsdBusyError: another process changes them, try again. ValueError, OSError.
    """

class SsdReader:
    """Reads one sub-directory beside whoever serves from it. For one thread."""

    def __init__(self, root: str, fingerprint: str) -> None:
        """ValueError: there is none, or its header is not OK. OSError."""

    def read_records(self) -> tuple[NDArray[numpy.uint64], NDArray[numpy.uint64], NDArray[numpy.uint32], NDArray[numpy.uint8], NDArray[numpy.uint64], int]:
        """
        In the order of use: slots, used_at_us, expiry_s and keys [n, 16] of blocks; then the slots of damaged records, and how many records are of before the store was last emptied. OSError.
        """

    def check(self, first: int, count: int) -> NDArray[numpy.uint8]:
        """
        An SsdCheck for each of the blocks that read_records gave last, from row `first` on. Reads all their bytes.
        """

class OpType(enum.IntEnum):
    """The route of an op."""

    H2D = 0

    D2H = 1

    DISK2H = 2

    H2DISK = 3

    REMOTE2H = 4

    H2REMOTE = 5

    VIRTUAL = 6

class OpStatus(enum.IntEnum):
    """
    WAITING -> RUNNING -> DONE | FAILED | TIMED_OUT | CANCELLED; WAITING -> CANCELLED.
    """

    WAITING = 0

    RUNNING = 1

    DONE = 2

    FAILED = 3

    TIMED_OUT = 4

    CANCELLED = 5

class CompletionKind(enum.IntEnum):
    """What a completion is about."""

    OP = 0

    GRAPH_STATUS = 1

    GRAPH_RELEASED = 2

class Completion:
    """One op or graph that has come to its end; a value."""

    @property
    def kind(self) -> CompletionKind: ...

    @property
    def type(self) -> OpType:
        """Of kind OP: its route; else VIRTUAL."""

    @property
    def num_blocks(self) -> int:
        """Of kind OP: blocks it was to move, whether it did or not; else 0."""

    @property
    def graph_id(self) -> int: ...

    @property
    def op_id(self) -> int:
        """Of kind OP; else -1."""

    @property
    def status(self) -> OpStatus: ...

    @property
    def bytes(self) -> int:
        """Of kind OP: moved, over all ranks."""

    @property
    def seconds(self) -> float:
        """Of kind OP: the slowest rank's copy time, or the disk's."""

    @property
    def error(self) -> str:
        """What went wrong and where; empty when DONE."""

    @property
    def failed_blocks(self) -> list[int]:
        """
        Of a disk op that ran and is not DONE: positions of the blocks that were not moved well, ascending.
        """

    @property
    def num_bad_checksums(self) -> int:
        """Of a disk op: blocks whose bytes were not theirs."""

    @property
    def queued_seconds(self) -> float:
        """Of a disk op: how long its first block waited."""

    @property
    def io_errno(self) -> int:
        """Of a disk op: errno of the first block that met one; 0: none."""

class RankInfo:
    """What a rank has registered, and whether it is there; a value."""

    @property
    def rank(self) -> int: ...

    @property
    def pid(self) -> int: ...

    @property
    def num_blocks(self) -> int: ...

    @property
    def slot_bytes(self) -> int: ...

    @property
    def tokens_per_block(self) -> int: ...

    @property
    def layout_tag(self) -> str: ...

    @property
    def connected(self) -> bool: ...

    @property
    def slots_mapped(self) -> int: ...

class HostPool:
    """
    The host tier's bytes: one sealed memfd per shard; see csrc/transfer/host_pool.h.
    """

    def __init__(self, num_slots: int, slot_bytes: Sequence[int], prefault_threads: int = 2, use_hugetlb: bool = True) -> None:
        """
        Reserve num_slots slots in each shard and prefault them in the background. OSError when memory is short.
        """

    @property
    def num_slots(self) -> int: ...

    @property
    def num_shards(self) -> int: ...

    @property
    def generation(self) -> int:
        """Random; new for every pool."""

    @property
    def page_kind(self) -> str:
        """'hugetlb', 'thp' or '4k'."""

    @property
    def slots_prefaulted(self) -> int: ...

    @property
    def prefault_error(self) -> int:
        """errno that ended prefaulting early; 0: none."""

    def slot_bytes(self, shard: int) -> int: ...

    def stride_bytes(self, shard: int) -> int: ...

    def fd(self, shard: int) -> int:
        """The shard's memfd; the pool owns it."""

    def wait_prefaulted(self, slots: int, timeout_s: float) -> bool:
        """Wait until that many slots are prefaulted; False after the timeout."""

    def view(self, shard: int, slot: int) -> Annotated[NDArray[numpy.uint8], dict(shape=(None,))]:
        """
        The slot's bytes as a writable uint8 array that keeps the pool alive (tests, checksums).
        """

def slot_stride_bytes(slot_bytes: int) -> int:
    """Bytes from a slot to the next: slot_bytes padded to 4 KiB."""

def memory_headroom() -> int:
    """
    Bytes this process can still take: the least of MemAvailable and what its control groups have left.
    """

class TransferEngine:
    """Runs graphs of transfer ops; see csrc/transfer/transfer_engine.h."""

    def __init__(self, socket_path: str, num_ranks: int = 1, max_graphs: int = 65536, replicas: int = 1) -> None:
        """
        Each `replicas` ranks, one after the other, hold the same bytes and share a shard of the pool.
        """

    def start(self) -> None:
        """Listen for copy agents; once. OSError when the path is taken."""

    def stop(self, timeout_s: float) -> bool:
        """
        Cancel what waits, drain what runs, disconnect. False when an op is still in an agent's hands. Idempotent.
        """

    def ranks(self) -> list[RankInfo]:
        """Ranks that have ever registered."""

    def wait_ranks(self, timeout_s: float) -> bool:
        """Wait until every rank has registered; False after the timeout."""

    @property
    def num_device_blocks(self) -> int:
        """
        Device blocks that every rank has, as registered last; 0 before all have.
        """

    def set_pool(self, pool: HostPool) -> None:
        """
        Give the pool, of one shard for each group of replicas, to the agents; once, after all ranks registered.
        """

    def set_disk(self, store: SsdStore) -> None:
        """
        Start an SsdStore and hand it disk ops from now on; after set_pool. Another may follow when the former was stopped.
        """

    @property
    def slots_available(self) -> int:
        """Slots that may be handed out; never shrinks."""

    def wait_slots(self, slots: int, timeout_s: float) -> bool:
        """Wait until slots_available >= slots; False after the timeout."""

    def submit(self, graph_id: int, ops: Sequence[tuple[int, int, NDArray[numpy.int64], NDArray[numpy.int64], int, list[int]] | tuple[int, int, NDArray[numpy.int64], NDArray[numpy.int64], int, list[int], tuple[NDArray[numpy.uint8], NDArray[numpy.uint8] | None, int, int, int, int] | None] | tuple[int, int, NDArray[numpy.int64], NDArray[numpy.int64], int, list[int], tuple[NDArray[numpy.uint8], NDArray[numpy.uint8] | None, int, int, int, int] | None, int]], timeout_s: float) -> None:
        """
        Submit a graph: a list of (op_id, type, src, dst, after_step, predecessors), and of disk ops a seventh, the chain: (keys, parents, expiry_s, tenant, group, priority), parents None for DISK2H; of a load by layers an eighth, its layer ticket. ValueError or RuntimeError: nothing was submitted.
        """

    def cancel(self, graph_id: int) -> None:
        """Cancel what no agent has started; an unknown graph is ignored."""

    def lose_load(self, layer_ticket: int) -> None:
        """
        Tell the workers that no load by layers comes with this ticket. Of graphs that were submitted they are told without it. ValueError for 0.
        """

    def poll(self, max: int = 4096) -> list[Completion]:
        """Take the completions that wait, at most `max`."""

    def wait(self, timeout_s: float) -> bool:
        """
        Wait until poll would return something; False after the timeout or when stopped.
        """

    @property
    def event_fd(self) -> int:
        """Readable while completions wait; owned by the engine."""

    @property
    def num_graphs(self) -> int:
        """Graphs held: not yet released."""

    @property
    def protocol_errors(self) -> int:
        """Peers disconnected or turned away."""

    @property
    def last_protocol_error(self) -> str: ...

class AgentState(enum.Enum):
    """
    Where a copy agent is: IDLE, CONNECTING, REGISTERED, SERVING, REFUSED, STOPPED.
    """

    IDLE = 0

    CONNECTING = 1

    REGISTERED = 2

    SERVING = 3

    REFUSED = 4

    STOPPED = 5

class CopyAgent:
    """
    Native threads that move one rank's blocks; see csrc/transfer/copy_agent.h.
    """

    def __init__(self, socket_path: str, rank: int, num_ranks: int, tokens_per_block: int, layout_tag: str, copy_threads: int, num_blocks: int, planes: Annotated[NDArray[numpy.uint64], dict(shape=(None, 3), order='C', device='cpu', writable=False)], device: str = 'cpu', layer_ends: Sequence[int] = []) -> None:
        """
        Describe the rank. planes: uint64[p, 3] of base address, block stride and chunk length in bytes. device: 'cpu' or 'cuda'. layer_ends: where in a block's bytes the layers end, ascending. RuntimeError: the device cannot be used, and why. MemoryError: it has no memory left.
        """

    def start(self) -> None:
        """Connect in the background and serve; returns at once. Once only."""

    def stop(self, timeout_s: float) -> bool:
        """
        Drain running ops, cancel queued ones, say goodbye. False when a copy did not end in time. Idempotent.
        """

    def record_step(self, step: int, stream: int = 0) -> None:
        """
        The engine's step `step` is computed, or on its way in `stream` (a CUDA stream's address): ops with after_step <= step may run, after that. Steps not beyond the last one are ignored. RuntimeError.
        """

    def expect_load(self, ticket: int, timeout_s: float) -> None:
        """
        The step that begins computes on what the load with this layer ticket brings, at the latest so long after now. ValueError unless tickets grow, or when 16 are expected and not finished.
        """

    def wait_layer(self, ticket: int, end_bytes: int, stream: int = 0) -> bool:
        """
        Have the stream (a CUDA stream's address; 0: this thread) wait until the first `end_bytes` bytes of the load's blocks are there. False: the load failed. ValueError, RuntimeError.
        """

    def finish_load(self, ticket: int) -> bool:
        """
        Wait until the load has ended: whether all of it is there. ValueError, RuntimeError.
        """

    def hold(self, held: bool) -> None:
        """While held no op starts (for tests)."""

    def wait_serving(self, timeout_s: float) -> bool:
        """
        Wait until ops are served; False after the timeout, or when refused or stopped.
        """

    @property
    def state(self) -> AgentState: ...

    @property
    def refusal(self) -> str:
        """The engine's reason, when refused."""

    @property
    def last_error(self) -> str:
        """Why a copy failed, or else the last connection; empty when none has."""

    def stats(self) -> dict:
        """Counters since start."""

    def give_copy_figures(self, us: Annotated[NDArray[numpy.float64], dict(shape=(16, 6), order='C', device='cpu', writable=False)]) -> bool:
        """
        Use figures of an earlier measurement: microseconds, one row for each of tuning()['cells'], in order of tuning()['mechanisms']; 0: not measured. Before start. False without a GPU, or when there are some already.
        """

    def wait_tuned(self, timeout_s: float) -> bool:
        """
        Wait until the mechanisms are measured, given, or will not be; False after the timeout.
        """

    def tuning(self) -> dict:
        """
        Which mechanism copies what, and the figures for it; see csrc/bindings/copy_tuning.h. Empty without a GPU.
        """

class CopyEngine:
    """Moves blocks between device planes and host slots with CPU threads."""

    def __init__(self, num_threads: int) -> None: ...

    def copy(self, planes: Annotated[NDArray[numpy.uint64], dict(shape=(None, 3), order='C', device='cpu', writable=False)], num_blocks: int, host_base: int, stride: int, num_slots: int, direction: int, slots: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], blocks: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> int:
        """
        Copy slots[i] to blocks[i] (direction 0) or back (1); returns the bytes moved. One call at a time.
        """

class BlockCopies:
    """
    Moves blocks between a device and host slots as an agent does, without one: for benchmarks and tests. The memory must stay while it lives.
    """

    def __init__(self, device: str, num_blocks: int, planes: Annotated[NDArray[numpy.uint64], dict(shape=(None, 3), order='C', device='cpu', writable=False)], host_base: int, stride: int, num_slots: int) -> None:
        """
        device: 'cpu' or 'cuda'. RuntimeError: the device cannot be used, and why. MemoryError: it has no memory left.
        """

    def wait_usable(self, timeout_s: float) -> bool:
        """Wait until the device may use all host slots; False after the timeout."""

    def release_host(self) -> None:
        """
        Let the device forget the host slots, as when the connection to a manager is lost: slowly while the engine works. Nothing may be copied any more.
        """

    def copy(self, direction: int, slots: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], blocks: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], after_step: int = 0) -> int:
        """
        Copy slots[i] to blocks[i] (direction 0) or back (1), once the work of `after_step` is done; returns the bytes moved. One call at a time for each direction. RuntimeError: the device failed.
        """

    def record_step(self, step: int, stream: int) -> None:
        """
        What the stream holds now belongs to steps up to this one; ignored unless it is beyond the last one.
        """

    def wait_tuned(self, timeout_s: float) -> bool:
        """
        Wait until the mechanisms are measured, or will not be; False after the timeout.
        """

    def tuning(self) -> dict:
        """As CopyAgent.tuning."""

    def use_mechanism(self, name: str) -> None:
        """
        Use this one from now on, wherever it can be; nothing is measured any more.
        """

    def mechanism_for(self, direction: int, slots: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> str:
        """
        The name of what a copy of these slots would use now; empty without a GPU.
        """

def copy_nontemporal(dst: int, src: int, bytes: int) -> None:
    """
    Copy one range between two addresses with stores that bypass the caches (for benchmarks).
    """
