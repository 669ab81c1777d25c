"""Real SSD caches for tests of the command: written by a KVManager, or made empty by a store."""

from __future__ import annotations

from pathlib import Path

from flexkv import _core
from flexkv.common.request import KVResponseStatus
from tests.rig import READY_TIMEOUT_S, Rig, eventually, tokens

EXTENT_BYTES = 8192
TREE = "flexkv-ssd-v1"


def open_store(root: Path, fingerprint: str, *, model: str = "a model") -> _core.SsdStore:
    """Open or make a store of four slots without blocks; serves from there until it is stopped."""
    capacity_bytes = _core.ssd_footprint_bytes(4, EXTENT_BYTES)
    return _core.SsdStore([str(root)], fingerprint, model, [EXTENT_BYTES], 16, capacity_bytes)


def make_store(root: Path, fingerprint: str, *, model: str = "a model") -> None:
    """Leave a store without blocks, beside what is there: made elsewhere, since it would take all the capacity."""
    elsewhere = root.parent / f"making-{fingerprint}"
    assert open_store(elsewhere, fingerprint, model=model).stop(5.0)
    (root / TREE).mkdir(mode=0o700, exist_ok=True)
    (root / TREE / "lock").touch(0o600)
    (elsewhere / TREE / fingerprint).rename(root / TREE / fingerprint)


class Cache:
    """A KVManager with an SSD tier; serves until `close`. Its stores are of one model."""

    def __init__(self, *roots: Path, num_ssd_blocks: int = 16, model: str = "a model") -> None:
        names = ";".join(str(root) for root in roots)
        self.rig = Rig(
            enable_ssd=True, ssd_cache_dir=names, num_ssd_blocks=num_ssd_blocks, model_name=model, fingerprint="f1a6"
        )
        assert eventually(lambda: self._num_blocks() is not None, READY_TIMEOUT_S)

    def _num_blocks(self) -> int | None:
        self.rig.manager.check_invariants()  # what has completed is taken in
        cache = self.rig.manager._engine._tier.cache
        tier = None if cache is None else cache.ssd_cache_engine
        return None if tier is None else tier.index.num_blocks - tier.index.num_unready

    def write(self, num_blocks: int, first: int = 0) -> None:
        """Store blocks and wait until they are on disk."""
        self.rig.gpu.fill()
        before = self._num_blocks()
        assert before is not None
        assert self.rig.store(tokens(num_blocks, first), range(num_blocks)) is KVResponseStatus.SUCCESS
        assert eventually(lambda: self._num_blocks() == before + num_blocks)

    def reset(self) -> None:
        self.rig.manager.reset()

    def close(self) -> None:
        self.rig.close()


def written(root: Path, num_blocks: int, *, model: str = "a model") -> None:
    """Leave a store with that many blocks."""
    cache = Cache(root, model=model)
    cache.write(num_blocks)
    cache.close()


def store_folders(root: Path) -> list[Path]:
    return sorted(path for path in (root / TREE).iterdir() if path.is_dir())


def flip(path: Path, offset: int) -> None:
    """Flip a bit of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def record_offset(slot: int) -> int:
    return 4096 + 64 * slot


def crc64(data: bytes) -> int:
    """CRC-64/NVME, bit by bit."""
    value = (1 << 64) - 1
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x9A6C9329AC4BC9B5 if value & 1 else 0)
    return value ^ ((1 << 64) - 1)


def record_with(folder: Path, slot: int, *, used_ago_us: int | None = None, expiry_s: int | None = None) -> None:
    """Write a slot's record again with other times, and with the checksum that belongs to it."""
    with (folder / "records").open("r+b") as file:
        file.seek(16)
        store_id = file.read(16)
        file.seek(record_offset(slot))
        record = bytearray(file.read(64))
        if used_ago_us is not None:
            used_at_us = int.from_bytes(record[40:47], "little") - used_ago_us
            record[40:47] = used_at_us.to_bytes(7, "little")
        if expiry_s is not None:
            record[52:56] = expiry_s.to_bytes(4, "little")
        record[56:64] = crc64(store_id + slot.to_bytes(8, "little") + record[:56]).to_bytes(8, "little")
        file.seek(record_offset(slot))
        file.write(record)
