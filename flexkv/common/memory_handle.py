"""Handles of memory: an engine's KV tensor, and a segment of the host pool. Values: nothing is owned or kept alive.

A `KVTensorHandle` says where a tensor lies in the process that owns it: addresses are never used in another one, where
only the description (shape, strides, dtype) has a meaning. A `HostSegmentHandle` can cross processes: whoever may read
the owner's descriptors (the same user) maps the same bytes with `map`.
Immutable, safe to share between threads; both can be pickled and encoded by msgspec.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from flexkv.errors import StorageIOError

__all__ = ["HostSegmentHandle", "KVTensorHandle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KVTensorHandle:
    """Where a tensor lies. Strides are in elements; `device` is as torch writes it ("cpu", "cuda:0")."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int
    dtype: str
    device: str = "cpu"

    @classmethod
    def of(cls, tensor: object, name: str = "tensor") -> KVTensorHandle:
        """Return the handle of a torch tensor or numpy array. The caller keeps it alive.

        Raises:
            ValueError: naming `name`: not a tensor, read-only, or without memory.
        """
        if callable(getattr(tensor, "data_ptr", None)):
            handle = _of_torch(tensor)
        else:
            interface = getattr(tensor, "__array_interface__", None)
            if not isinstance(interface, Mapping):
                raise ValueError(f"{name} is a {type(tensor).__name__}; it must be a torch tensor or a numpy array")
            handle = _of_array(tensor, interface, name)
        if handle.address == 0 or 0 in handle.shape:
            raise ValueError(f"{name} has no memory: shape {handle.shape}, address {handle.address:#x}")
        return handle


def _of_torch(tensor: Any) -> KVTensorHandle:
    return KVTensorHandle(
        address=int(tensor.data_ptr()),
        shape=tuple(int(size) for size in tensor.shape),
        strides=tuple(int(stride) for stride in tensor.stride()),
        itemsize=int(tensor.element_size()),
        dtype=str(tensor.dtype).removeprefix("torch."),
        device=str(tensor.device),
    )


def _of_array(array: Any, interface: Mapping[str, Any], name: str) -> KVTensorHandle:
    address, read_only = interface["data"]
    if read_only:
        raise ValueError(f"{name} is read-only; loads write to it")
    itemsize = int(array.dtype.itemsize)
    if itemsize == 0 or any(stride % itemsize for stride in array.strides):
        raise ValueError(f"{name} has strides of {array.strides} bytes for items of {itemsize} bytes")
    return KVTensorHandle(
        address=int(address),
        shape=tuple(int(size) for size in interface["shape"]),
        strides=tuple(int(stride) // itemsize for stride in array.strides),
        itemsize=itemsize,
        dtype=str(array.dtype),
    )


class _Pool(Protocol):
    """What is read from a HostPool."""

    @property
    def num_slots(self) -> int: ...
    @property
    def generation(self) -> int: ...
    def fd(self, shard: int) -> int: ...
    def slot_bytes(self, shard: int) -> int: ...
    def stride_bytes(self, shard: int) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSegmentHandle:
    """One shard of a host pool: slot s is `slot_bytes` long and begins at s * stride_bytes.

    Valid while the owner (process `pid`) keeps the pool of this `generation`.
    """

    pid: int
    fd: int
    inode: int  # of the memfd: a descriptor's number is used again
    generation: int
    shard: int
    num_slots: int
    slot_bytes: int
    stride_bytes: int

    @classmethod
    def of(cls, pool: _Pool, shard: int) -> HostSegmentHandle:
        """Return the handle of a shard of this process's pool."""
        return cls(
            pid=os.getpid(),
            fd=pool.fd(shard),
            inode=os.fstat(pool.fd(shard)).st_ino,
            generation=pool.generation,
            shard=shard,
            num_slots=pool.num_slots,
            slot_bytes=pool.slot_bytes(shard),
            stride_bytes=pool.stride_bytes(shard),
        )

    @property
    def size_bytes(self) -> int:
        """Bytes of all slots, padding included."""
        return self.num_slots * self.stride_bytes

    def slot_range(self, slot: int) -> slice:
        """Return where a slot's bytes are in a mapping. Raises ValueError when there is no such slot."""
        if not 0 <= slot < self.num_slots:
            raise ValueError(f"slot is {slot}; it must be in [0, {self.num_slots})")
        begin = slot * self.stride_bytes
        return slice(begin, begin + self.slot_bytes)

    def map(self) -> mmap.mmap:
        """Map the segment, shared and writable, in any process of the same user. The caller closes the mapping.

        Raises:
            StorageIOError: the owner or its pool has gone, or the segment is not what the handle says.
        """
        path = f"/proc/{self.pid}/fd/{self.fd}"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            message = f"cannot open the host segment of process {self.pid}: {error}"
            raise StorageIOError(message, path=path, errno=error.errno) from error
        try:
            info = os.fstat(fd)
            if info.st_ino != self.inode or info.st_size < self.size_bytes:
                message = f"{path} is not the host segment of {self.size_bytes} bytes that its handle says"
                raise StorageIOError(message, path=path)
            return mmap.mmap(fd, self.size_bytes, mmap.MAP_SHARED)
        except OSError as error:
            if isinstance(error, StorageIOError):
                raise
            message = f"cannot map the host segment of process {self.pid}: {error}"
            raise StorageIOError(message, path=path, errno=error.errno) from error
        finally:
            os.close(fd)
