"""Blocks of GPU memory, host slots, and what copies between them, as benchmarks make them. No GPU in here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from benchmarks.gpu_rate import WAIT_S
from flexkv import _core

FIRST_WITH_BATCHES = 12080


def planes_in(address: int, num_planes: int, num_blocks: int, chunk_bytes: int) -> npt.NDArray[np.uint64]:
    """Return the planes of a tensor of shape (planes, blocks, chunk bytes) at this address.

    Shape (planes, 3): address of block 0, bytes from block to block, bytes of a chunk.
    """
    starts = address + np.arange(num_planes, dtype=np.uint64) * np.uint64(num_blocks * chunk_bytes)
    each = np.full(num_planes, chunk_bytes, dtype=np.uint64)
    return np.stack([starts, each, each], axis=1)


def prefaulted_pool(num_slots: int, slot_bytes: int, threads: int = 2) -> _core.HostPool:
    """Return a pool of one shard whose memory is there. Raises RuntimeError."""
    pool = _core.HostPool(num_slots, [slot_bytes], prefault_threads=threads)
    if not pool.wait_prefaulted(num_slots, WAIT_S):
        raise RuntimeError(f"host memory was not there after {WAIT_S:.0f} s, errno {pool.prefault_error}")
    return pool


def address_of(pool: _core.HostPool) -> int:
    """Return the address of the first shard's slot 0."""
    return int(pool.view(0, 0).__array_interface__["data"][0])


def has_batches(copies: _core.BlockCopies) -> bool:
    """Return whether the driver takes copies in batches, which it does from CUDA 12.8 on."""
    return int(copies.tuning()["driver"]) >= FIRST_WITH_BATCHES


def usable_copies(
    planes: npt.NDArray[np.uint64], num_blocks: int, host: int, stride: int, num_slots: int, device: str = "cuda"
) -> _core.BlockCopies:
    """Return what copies between blocks and slots (`host`: address of slot 0), once the device may use all slots.

    Its mechanisms may still be measured. Raises RuntimeError.
    """
    copies = _core.BlockCopies(device, num_blocks, planes, host, stride, num_slots)
    if not copies.wait_usable(WAIT_S):
        raise RuntimeError(f"host memory was not usable after {WAIT_S:.0f} s")
    return copies


def tuned_copies(
    planes: npt.NDArray[np.uint64], num_blocks: int, host: int, stride: int, num_slots: int, device: str = "cuda"
) -> _core.BlockCopies:
    """The same, once its mechanisms are measured, too."""
    copies = usable_copies(planes, num_blocks, host, stride, num_slots, device)
    if not copies.wait_tuned(WAIT_S):
        raise RuntimeError(f"copies were not tuned after {WAIT_S:.0f} s")
    return copies
