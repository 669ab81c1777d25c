"""What bench_gpu_copy measures with: memory on both sides, our copies of scattered blocks, contiguous DMA.

    Arena    memory of the GPU with random contents, a copy of them to compare with, and host memory as the pool has it
    Rig      blocks scattered over an arena, as BlockCopies moves them
    Dma      the limit: contiguous pinned memory, copied by the driver's own calls (ctypes), 64 MiB each

Thread safety: movers may run in any thread, those of one direction one at a time.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import torch

from benchmarks.gpu_blocks import address_of, has_batches, planes_in, prefaulted_pool, tuned_copies
from benchmarks.gpu_rate import LOAD, STORE, Mover, parts_of, rate
from benchmarks.gpu_slots import Slots, fresh
from benchmarks.report import GIB, MIB
from flexkv import _core
from flexkv.server.registration import LEGACY_STREAM

DMA_BYTES = 64 * MIB
PIECE_BYTES = 128 * MIB
POISON_DEVICE, POISON_HOST = 0xA5, 0x5A
ATTEMPTS = 10
"""Of copies beside work: while the driver takes many pieces, an engine's thread may pause at just that moment."""
T = TypeVar("T")
_NON_BLOCKING_STREAM, _BLOCKING_EVENT, _UNTIMED_EVENT = 1, 1, 2


class TooLittleMemoryError(RuntimeError):
    """The GPU or the host has less than what was asked for needs."""


def check_room(device_bytes: int, host_bytes: int) -> None:
    """Raise TooLittleMemoryError unless an Arena, its Dma and a rig find room."""
    for what, needed, free in (
        ("GPU", 4 * device_bytes + GIB, torch.cuda.mem_get_info()[0]),
        ("host", host_bytes + device_bytes + GIB, _core.memory_headroom()),
    ):
        if free < needed:
            message = f"{device_bytes / GIB:.3g} GiB of blocks need {needed / GIB:.3g} GiB of {what} memory, "
            raise TooLittleMemoryError(f"{message}{free / GIB:.3g} GiB are free: choose smaller --sizes")


class Driver:
    """The CUDA driver's own calls: nothing of a framework stands between the clock and the DMA."""

    _SIGNATURES: tuple[tuple[str, tuple[Any, ...]], ...] = (
        ("cuCtxGetCurrent", (ctypes.POINTER(ctypes.c_void_p),)),
        ("cuCtxSetCurrent", (ctypes.c_void_p,)),
        ("cuCtxGetStreamPriorityRange", (ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))),
        ("cuStreamCreateWithPriority", (ctypes.POINTER(ctypes.c_void_p), ctypes.c_uint, ctypes.c_int)),
        ("cuStreamDestroy_v2", (ctypes.c_void_p,)),
        ("cuEventCreate", (ctypes.POINTER(ctypes.c_void_p), ctypes.c_uint)),
        ("cuEventDestroy_v2", (ctypes.c_void_p,)),
        ("cuEventRecord", (ctypes.c_void_p, ctypes.c_void_p)),
        ("cuEventSynchronize", (ctypes.c_void_p,)),
        ("cuMemcpyHtoDAsync_v2", (ctypes.c_uint64, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)),
        ("cuMemcpyDtoHAsync_v2", (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p)),
        ("cuMemHostRegister_v2", (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)),
        ("cuMemHostUnregister", (ctypes.c_void_p,)),
    )

    def __init__(self) -> None:
        torch.cuda.synchronize()  # the primary context is there, and this thread's
        library = ctypes.CDLL("libcuda.so.1")
        self._calls = {}
        for name, argument_types in self._SIGNATURES:
            call = getattr(library, name)
            call.argtypes, call.restype = argument_types, ctypes.c_int
            self._calls[name] = call
        context = ctypes.c_void_p()
        self.call("cuCtxGetCurrent", ctypes.byref(context))
        if not context.value:
            raise RuntimeError("no CUDA context is current, though torch has synchronized")
        self._context = context

    def call(self, name: str, *arguments: Any) -> None:
        """Call, and raise RuntimeError with the driver's number unless it succeeds."""
        result = self._calls[name](*arguments)
        if result:
            raise RuntimeError(f"{name} failed: CUDA error {result}")

    def enter(self) -> None:
        """Make the context current in this thread."""
        self.call("cuCtxSetCurrent", self._context)

    def stream(self) -> ctypes.c_void_p:
        """Return a new stream of the highest priority that does not wait for the default stream."""
        low, high, made = ctypes.c_int(), ctypes.c_int(), ctypes.c_void_p()
        self.call("cuCtxGetStreamPriorityRange", ctypes.byref(low), ctypes.byref(high))
        self.call("cuStreamCreateWithPriority", ctypes.byref(made), _NON_BLOCKING_STREAM, high)
        return made

    def event(self, *, is_blocking: bool) -> ctypes.c_void_p:
        """Return a new event: waits for it sleep until an interrupt, or else spin."""
        made = ctypes.c_void_p()
        self.call("cuEventCreate", ctypes.byref(made), _UNTIMED_EVENT | (_BLOCKING_EVENT if is_blocking else 0))
        return made


class Dma:
    """Contiguous pinned memory and as much of the GPU's, both with the same random contents."""

    def __init__(self, driver: Driver, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self._driver = driver
        self.device = torch.empty(total_bytes, dtype=torch.uint8, device="cuda").random_(0, 256)
        self.host = torch.empty(total_bytes, dtype=torch.uint8, pin_memory=True)
        self._streams = [driver.stream(), driver.stream()]
        self._events: list[ctypes.c_void_p] = []
        self.host.fill_(POISON_HOST)
        torch.cuda.synchronize()
        self.mover(STORE, 0, total_bytes)()
        check = self.device.clone()
        self.device.fill_(POISON_DEVICE)
        torch.cuda.synchronize()
        self.mover(LOAD, 0, total_bytes)()
        if not _equal(self.device, check):
            raise AssertionError("contiguous DMA brought back other bytes than it took")

    def mover(self, direction: int, begin: int, end: int, *, is_blocking: bool = False) -> Mover:
        """Return what moves bytes [begin, end); it waits by spinning unless told otherwise."""
        driver, stream = self._driver, self._streams[direction]
        event = driver.event(is_blocking=is_blocking)
        self._events.append(event)
        host, device = self.host.data_ptr(), self.device.data_ptr()
        pieces = [(at, min(DMA_BYTES, end - at)) for at in range(begin, end, DMA_BYTES)]

        def move() -> int:
            driver.enter()
            for at, size in pieces:
                if direction == LOAD:
                    driver.call("cuMemcpyHtoDAsync_v2", device + at, host + at, size, stream)
                else:
                    driver.call("cuMemcpyDtoHAsync_v2", host + at, device + at, size, stream)
            driver.call("cuEventRecord", event, stream)
            driver.call("cuEventSynchronize", event)
            return end - begin

        return move

    def movers(self, way: str, *, is_blocking: bool = False) -> list[Mover]:
        """Return one mover for each direction; both at once have a half each."""
        parts = parts_of(way, self.total_bytes)
        return [self.mover(direction, *part, is_blocking=is_blocking) for direction, part in parts.items()]

    def close(self) -> None:
        """Give streams and events back; no mover may be called any more."""
        for event in self._events:
            self._driver.call("cuEventDestroy_v2", event)
        for stream in self._streams:
            self._driver.call("cuStreamDestroy_v2", stream)
        self._events, self._streams = [], []


class Arena:
    """GPU memory, its expected contents, host memory as a pool has it, and the limit beside. A context manager."""

    def __init__(self, driver: Driver, device_bytes: int, host_bytes: int) -> None:
        check_room(device_bytes, host_bytes)
        self.device_bytes, self.host_bytes = device_bytes, host_bytes
        begin_s = time.perf_counter()
        num_slots = -(-host_bytes // (2 * MIB))
        threads = max(1, min(16, len(os.sched_getaffinity(0))))
        self.pool = prefaulted_pool(num_slots, 2 * MIB, threads)
        self.prefault_s = time.perf_counter() - begin_s
        self.host_base = address_of(self.pool)
        raw = (ctypes.c_uint8 * host_bytes).from_address(self.host_base)
        self.host = torch.from_numpy(np.frombuffer(raw, dtype=np.uint8))
        self.memory = torch.empty(device_bytes, dtype=torch.uint8, device="cuda").random_(0, 256)
        self.expected = self.memory.clone()
        self.dma = Dma(driver, device_bytes)

    def __enter__(self) -> Arena:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        torch.cuda.synchronize()
        self.dma.close()
        del self.dma, self.memory, self.expected, self.host, self.pool
        torch.cuda.empty_cache()


class Rig:
    """Blocks of `num_planes` chunks, scattered over all of an arena's GPU memory, and as many host slots.

    A context manager: at its end the host memory is free to be registered again. `slots`: where blocks lie on the host,
    in the order in which they are moved; default: one run.
    """

    def __init__(self, arena: Arena, chunk_bytes: int, num_planes: int, slots: Slots | None = None) -> None:
        self.chunk_bytes, self.slot_bytes = chunk_bytes, num_planes * chunk_bytes
        self._arena = arena
        stride = _core.slot_stride_bytes(self.slot_bytes)
        self.num_blocks = arena.device_bytes // self.slot_bytes
        num_slots = arena.host_bytes // stride
        self.slots = fresh(self.num_blocks) if slots is None else slots
        assert len(self.slots) == self.num_blocks
        assert self.slots.max() < num_slots
        used = self.num_blocks * self.slot_bytes
        self._shape = (num_planes, self.num_blocks, chunk_bytes)
        self._memory, self._expected = arena.memory[:used].view(self._shape), arena.expected[:used].view(self._shape)
        self._host = arena.host[: num_slots * stride].view(num_slots, stride)
        self.blocks = np.random.default_rng(chunk_bytes).permutation(self.num_blocks).astype(np.int64)
        planes = planes_in(arena.memory.data_ptr(), num_planes, self.num_blocks, chunk_bytes)
        self._copies: Any = tuned_copies(planes, self.num_blocks, arena.host_base, stride, num_slots)
        self._last_step = 0
        self._step_ends: Any = None
        self._checks = torch.cuda.Stream()  # the engine's work goes in another, and does not hold up what is checked
        self.is_registered = bool(self._host[0].is_pinned() and self._host[-1].is_pinned())

    def __enter__(self) -> Rig:
        for way in ("store", "load"):
            self.verify(way)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._copies = None
        del self._memory, self._expected, self._host

    def mover(self, direction: int, begin: int, end: int) -> Mover:
        """Return what moves blocks [begin, end)."""
        slots, blocks = self.slots[begin:end].copy(), self.blocks[begin:end].copy()
        return lambda: int(self._copies.copy(direction, slots, blocks))

    def record_step(self, stream: int) -> None:
        """An engine has put a step into its stream: copies then know that the GPU is busy.

        Steps grow over all engines: others are ignored.
        """
        self._last_step += 1
        self._copies.record_step(self._last_step, stream)
        ends = torch.cuda.Event()
        ends.record(torch.cuda.default_stream() if stream == LEGACY_STREAM else torch.cuda.ExternalStream(stream))
        self._step_ends = ends

    def is_engine_busy(self) -> bool:
        """Return whether the last step that was recorded has not ended."""
        return self._step_ends is not None and not self._step_ends.query()

    def movers(self, way: str) -> list[Mover]:
        """Return one mover for each direction; both at once have a half each."""
        return [self.mover(direction, *part) for direction, part in parts_of(way, self.num_blocks).items()]

    def movers_by(self, mechanism: str, way: str) -> list[Mover]:
        """The same by one mechanism: whoever has moved by it moves by no other any more, unless by another of these."""

        def forced(mover: Mover) -> Mover:
            def move() -> int:
                self.use(mechanism)
                return mover()

            return move

        return [forced(mover) for mover in self.movers(way)]

    def use(self, mechanism: str) -> None:
        """From now on move by this one only, unless it cannot."""
        self._copies.use_mechanism(mechanism)

    def mechanisms(self, way: str) -> list[str]:
        """Return the mechanisms that can move the way's blocks; choices are forced from then on."""
        found = []
        for name in self._copies.tuning()["mechanisms"]:
            self.use(name)
            parts = parts_of(way, self.num_blocks).items()
            if all(self._copies.mechanism_for(to, self.slots[slice(*part)].copy()) == name for to, part in parts):
                found.append(name)
        return found

    def moved_by(self, way: str) -> str:
        """Return the mechanism that moves the way's blocks beside what runs now; `loads/stores` that differ."""
        parts = parts_of(way, self.num_blocks).items()
        chosen = [self._copies.mechanism_for(to, self.slots[slice(*part)].copy()) for to, part in parts]
        return "/".join(dict.fromkeys(chosen))

    @property
    def has_batches(self) -> bool:
        """Whether the driver has them."""
        return has_batches(self._copies)

    def verify(self, way: str, movers: list[Mover] | None = None) -> None:
        """Poison what the way's movers write, run them at once (default: the rig's), and compare every byte of it.

        They copy as they do beside whatever the GPU is busy with meanwhile.

        Raises:
            AssertionError: a byte is not what it must be.
        """
        self._verify(way, self.movers(way) if movers is None else movers, lambda: None)

    def verify_beside_work(self, way: str, mechanism: str, movers: list[Mover] | None = None) -> bool:
        """The same while an engine works: whether it did, and this mechanism was chosen, just before and after.

        A few attempts are made for that.

        Raises:
            AssertionError: a byte is not what it must be.
        """
        moving = self.movers(way) if movers is None else movers
        for _ in range(ATTEMPTS):
            around = self._verify(way, moving, lambda: (self.is_engine_busy(), self.moved_by(way)))
            if around == [(True, mechanism)] * 2:
                return True
        return False

    def _verify(self, way: str, movers: list[Mover], look: Callable[[], T]) -> list[T]:
        """Return what `look` said right before and right after they moved."""
        torch.cuda.current_stream().synchronize()
        with torch.cuda.stream(self._checks):
            return self._verify_in_stream(way, movers, look)

    def _verify_in_stream(self, way: str, movers: list[Mover], look: Callable[[], T]) -> list[T]:
        parts = parts_of(way, self.num_blocks)
        if LOAD in parts:
            self._memory.index_fill_(1, self._block_ids(*parts[LOAD]), POISON_DEVICE)
        if way == "store":
            self._host.fill_(POISON_HOST)
        elif STORE in parts:
            for slot in self.slots[slice(*parts[STORE])].tolist():
                self._host[slot].fill_(POISON_HOST)
        self._checks.synchronize()
        around = [look()]
        rate(movers, 0.0, warm_calls=0, least_calls=1)
        around.append(look())
        if not _equal(self._memory.view(-1), self._expected.view(-1)):
            raise AssertionError(f"{way}: GPU memory is not what it must be, chunk {self.chunk_bytes}")
        if STORE in parts:
            self._check_host(*parts[STORE])
        return around

    def _check_host(self, begin: int, end: int) -> None:
        at_once = max(1, PIECE_BYTES // self.slot_bytes)
        for first in range(begin, end, at_once):
            piece = (first, min(end, first + at_once))
            there = self._host.index_select(0, self._slot_ids(*piece))[:, : self.slot_bytes].cuda()
            must = self._expected.index_select(1, self._block_ids(*piece)).permute(1, 0, 2).reshape(there.shape)
            if not torch.equal(there, must):
                raise AssertionError(f"blocks {piece}: host slots are not what they must be, chunk {self.chunk_bytes}")

    def _block_ids(self, begin: int, end: int) -> Any:
        return torch.from_numpy(self.blocks[begin:end]).cuda()

    def _slot_ids(self, begin: int, end: int) -> Any:
        return torch.from_numpy(self.slots[begin:end])


def _equal(one: Any, other: Any) -> bool:
    """Compare in pieces: a comparison takes as much memory again."""
    pieces = range(0, len(one), PIECE_BYTES)
    return all(torch.equal(one[at : at + PIECE_BYTES], other[at : at + PIECE_BYTES]) for at in pieces)
