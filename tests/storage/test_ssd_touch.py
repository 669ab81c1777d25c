"""SsdStore.touch as Python calls it; what it does is in csrc/tests/test_ssd_touch.cpp."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexkv import _core
from tests.cli.ssd_cache import Cache, store_folders

NUM_BLOCKS = 3


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    cache = Cache(tmp_path)
    cache.write(NUM_BLOCKS)
    yield cache
    cache.close()


def store_of(cache: Cache) -> _core.SsdStore:
    store = cache.rig.manager._engine._ssd.store
    assert isinstance(store, _core.SsdStore)
    return store


def records_of(root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slots in the order of use, their times of use, keys."""
    (folder,) = store_folders(root)
    slots, used_at_us, _, keys, *_ = _core.SsdReader(str(root), folder.name).read_records()
    order = np.argsort(used_at_us)
    return slots[order], used_at_us[order], keys[order]


@pytest.mark.parametrize("as_bytes", [True, False])
def test_a_touched_block_was_used_last_once_the_store_has_stopped(cache: Cache, tmp_path: Path, as_bytes: bool) -> None:
    slots, used_at_us, keys = records_of(tmp_path)
    key = keys[0].tobytes() if as_bytes else keys[0]
    store_of(cache).touch(int(slots[0]), key, expiry_s=5, priority=7)
    cache.close()
    slots_now, used_at_us_now, _ = records_of(tmp_path)
    assert slots_now.tolist() == [*slots[1:], slots[0]]
    assert used_at_us_now[:-1].tolist() == used_at_us[1:].tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"slot": -1}, "slot -1 is out of range"),
        ({"slot": 1 << 40}, "is out of range"),
        ({"key": bytes(15)}, "key must be bytes of length 16, got 15"),
        ({"key": np.zeros(17, dtype=np.uint8)}, "key must have 16 bytes, got 17"),
        ({"key": np.zeros(16, dtype=np.int64)}, "key must be a C-contiguous, 1-D uint8 array"),
        ({"key": np.zeros((1, 16), dtype=np.uint8)}, "key must be a C-contiguous, 1-D uint8 array"),
        ({"expiry_s": -1}, "expiry_s must be in"),
        ({"expiry_s": 1 << 32}, "expiry_s must be in"),
        ({"priority": 8}, "priority must be in"),
    ],
)
def test_what_no_record_can_have_is_refused(cache: Cache, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        store_of(cache).touch(**({"slot": 0, "key": bytes(16)} | arguments))


@pytest.mark.parametrize("key", [None, "0123456789abcdef", 5])
def test_a_key_that_is_none_is_refused(cache: Cache, key: object) -> None:
    with pytest.raises(TypeError, match="key must be"):
        store_of(cache).touch(0, key)  # type: ignore[arg-type]
