"""Real SSD caches for tests of the command: written by a KVManager, or made empty by a store."""

from __future__ import annotations

from pathlib import Path

from flexkv import _core
from flexkv.common.request import KVResponseStatus
from tests.rig import READY_TIMEOUT_S, Rig, eventually, tokens

EXTENT_BYTES = 8192
TREE = "flexkv-ssd-v1"


def open_store(root: Path, fingerprint: str, *, model: str = "a model", num_slots: int = 4) -> _core.SsdStore:
    """Open or make a store without blocks; serves from there until it is stopped."""
    capacity_bytes = 4 * _core.ssd_footprint_bytes(num_slots, EXTENT_BYTES)
    return _core.SsdStore([str(root)], fingerprint, model, [EXTENT_BYTES], 16, capacity_bytes)


def make_store(root: Path, fingerprint: str, *, model: str = "a model") -> None:
    """Make a store without blocks, closed."""
    assert open_store(root, fingerprint, model=model).stop(5.0)


class Cache:
    """A KVManager with an SSD tier; serves until `close`. Its stores are of one model."""

    def __init__(self, *roots: Path, num_ssd_blocks: int = 16, model: str = "a model") -> None:
        names = ";".join(str(root) for root in roots)
        self.rig = Rig(enable_ssd=True, ssd_cache_dir=names, num_ssd_blocks=num_ssd_blocks, model_name=model)
        assert eventually(lambda: self._num_blocks() is not None, READY_TIMEOUT_S)

    def _num_blocks(self) -> int | None:
        cache = self.rig.manager._engine._tier.cache
        tier = None if cache is None else cache.ssd_cache_engine
        return None if tier is None else tier.index.num_blocks - tier.index.num_unready

    def write(self, num_blocks: int, first: int = 0) -> None:
        """Store blocks and wait until they are on disk."""
        before = self._num_blocks()
        assert before is not None
        assert self.rig.store(tokens(num_blocks, first), range(num_blocks)) is KVResponseStatus.SUCCESS
        assert eventually(lambda: self.rig.manager.num_running == 0 and self._num_blocks() == before + num_blocks)

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
