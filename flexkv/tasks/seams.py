"""What the task engine needs of the layers that move and own bytes, as protocols: where a test's doubles stand.

The product's sides are flexkv.transfer.transfer_engine.TransferEngine and flexkv.storage.storage_engine.StorageEngine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from flexkv.common.block import IdArray
from flexkv.common.hash_utils import Keys
from flexkv.common.transfer import TransferOpGraph

__all__ = ["Completion", "DiskStore", "Pool", "Rank", "ScanColumns", "Storage", "Transfer"]

ScanColumns = tuple[
    IdArray,
    Keys,
    Keys,
    npt.NDArray[np.uint32],
    npt.NDArray[np.uint16],
    npt.NDArray[np.uint8],
    npt.NDArray[np.uint8],
]


class Rank(Protocol):
    """A registered GPU rank (`_core.RankInfo`)."""

    @property
    def rank(self) -> int:
        """Number of the rank."""

    @property
    def slot_bytes(self) -> int:
        """Bytes of one block on it."""

    @property
    def tokens_per_block(self) -> int:
        """Tokens of one block."""

    @property
    def layout_tag(self) -> str:
        """The order of the bytes in a block."""


class Completion(Protocol):
    """One completion (`_core.Completion`): of an op, of a graph's status, or of its release."""

    @property
    def kind(self) -> Any:
        """A `_core.CompletionKind`."""

    @property
    def type(self) -> Any:
        """Of an op: its route, a `_core.OpType`."""

    @property
    def num_blocks(self) -> int:
        """Of an op: blocks it was to move, whether it did or not."""

    @property
    def status(self) -> Any:
        """A `_core.OpStatus`."""

    @property
    def graph_id(self) -> int:
        """The graph it is about."""

    @property
    def op_id(self) -> int:
        """Of an op: which."""

    @property
    def bytes(self) -> int:
        """Of an op: bytes moved over all ranks."""

    @property
    def seconds(self) -> float:
        """Of an op: copy time of the slowest rank."""

    @property
    def error(self) -> str:
        """What went wrong and where; empty when done."""

    @property
    def queued_seconds(self) -> float:
        """Of a disk op: how long its first block waited; `seconds` counts from then."""

    @property
    def failed_blocks(self) -> Sequence[int]:
        """Of a disk op that failed: positions of the blocks that were not moved well, ascending."""

    @property
    def num_bad_checksums(self) -> int:
        """Of these, how many were read, but are not what was written."""

    @property
    def io_errno(self) -> int:
        """Why the first of the others failed; 0: none did."""


class Pool(Protocol):
    """The host tier's bytes (`_core.HostPool`)."""

    @property
    def num_slots(self) -> int:
        """Slots of each shard."""

    @property
    def slots_prefaulted(self) -> int:
        """Slots whose memory is there."""

    @property
    def prefault_error(self) -> int:
        """The errno that ended prefaulting early; 0: none."""


class DiskStore(Protocol):
    """The SSD tier's bytes (`_core.SsdStore`)."""

    @property
    def num_slots(self) -> int:
        """Slots, each for one block of all ranks."""

    @property
    def slot_bytes(self) -> int:
        """Bytes of a slot."""

    def scan(self) -> ScanColumns:
        """Return what lies there, also what is expired. Once. Waits for the disk. Raises OSError.

        Slots, keys (n, 16), parents (n, 16), expiry in seconds since 1970, tenants, groups, priorities; the least
        recently used first.
        """

    def touch(self, slot: int, key: Keys, expiry_s: int = 0, priority: int = 0) -> None:
        """Have the record of a block say that it is used now; expiry (since 1970) and priority are raised to these.

        Does not wait: it is done when the disk has nothing better to do. Passed over when that block is not there.
        """

    def renew(self) -> None:
        """Forget all blocks, durably. Waits for the disk. Raises OSError."""

    def stop(self, timeout_s: float) -> bool:
        """Drain, make durable, let go; False when a read or write may still be running. Idempotent."""

    def devices(self) -> Sequence[Any]:
        """Return how each directory stands (`_core.SsdDeviceInfo`)."""


class Storage(Protocol):
    """Allocates the pool, and opens the SSD tier's files."""

    def allocate_host_pool(self, slot_bytes: Sequence[int]) -> Any:
        """Return a Pool with one shard of slots per group of replicas, for the bytes that each rank registered.

        Raises FlexKVError, OSError or ValueError.
        """

    def open_ssd_store(self, ranks: Sequence[Rank]) -> DiskStore:
        """Open the SSD tier for what the ranks registered. Waits for the disk.

        Raises ConfigError (it can never work), StoreBusyError (later it may), OSError.
        """


class Transfer(Protocol):
    """Runs graphs.

    Each submitted graph gets two completions, `graph_status` and then `graph_released`, each exactly once.
    """

    @property
    def socket_path(self) -> str:
        """Where ranks register."""

    @property
    def event_fd(self) -> int:
        """Readable while `poll` would return something."""

    @property
    def num_device_blocks(self) -> int:
        """Device blocks that every rank has, as registered last. Cheap."""

    @property
    def slots_available(self) -> int:
        """Slots that every connected rank can use and that are prefaulted."""

    def start(self) -> None:
        """Listen for ranks. Does not block."""

    def shutdown(self, timeout_s: float) -> bool:
        """Cancel what waits and drain what runs; False when something still ran after `timeout_s`. Idempotent."""

    def ranks(self) -> Sequence[Rank]:
        """Return the ranks that have ever registered."""

    def set_pool(self, pool: Any) -> None:
        """Give the pool to the ranks. Once."""

    def set_disk(self, store: Any) -> None:
        """Have DISK2H and H2DISK run on a DiskStore. Once, after `set_pool`."""

    def submit_transfer_graph(self, graph: TransferOpGraph, timeout_s: float) -> None:
        """Start a graph. Raises ValueError, RuntimeError, OSError or FlexKVError; nothing was started then."""

    def cancel(self, graph_id: int) -> None:
        """Cancel the ops of a graph that do not run yet. Unknown ids are passed over."""

    def lose_load(self, layer_ticket: int) -> None:
        """Tell the workers that no load by layers comes with this ticket. Of submitted graphs they learn without it."""

    def poll(self) -> Sequence[Completion]:
        """Return and take what was completed. Does not block."""
