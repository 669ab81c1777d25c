"""KVManager with an SSD tier, over real files and real ranks in this process: the right bytes come back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from flexkv.common.events import BlocksStored
from flexkv.common.request import KVResponseStatus as Status
from flexkv.common.transfer import TransferType
from flexkv.kvtask import StagingState
from flexkv.tasks.recorder import EventBuffer
from flexkv.tasks.ssd_tier import SsdState
from tests.rig import NUM_GPU_BLOCKS, TPB, Rig, eventually, slots_of, tokens

NUM_SSD_BLOCKS = 96
TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Geometry:
    """What ranks register."""

    block_shape: tuple[int, ...]
    view_as: str = "uint8"
    num_ranks: int = 1
    use_mla: bool = False


GEOMETRIES = {
    "MHA": Geometry((2, TPB, 2, 256), "float16"),
    "MLA": Geometry((TPB, 1152), "float16"),
    "two ranks": Geometry((2, TPB, 128), "float16", 2),
    "odd bytes": Geometry((2, TPB, 333)),
    "MLA, two ranks": Geometry((TPB, 1152), "float16", 2, use_mla=True),
    "MLA, two ranks, each for itself": Geometry((TPB, 1152), "float16", 2),
}
Start = Callable[..., Rig]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start managers in one place, one after the other."""
    rigs: list[Rig] = []

    def start(
        geometry: str = "MHA", *, num_directories: int = 1, events: EventBuffer | None = None, **config: object
    ) -> Rig:
        close_all()
        shape = GEOMETRIES[geometry]
        directories = [tmp_path / f"ssd{index}" for index in range(num_directories)]
        settings: dict[str, object] = {
            "ssd_cache_dir": [str(directory) for directory in directories],
            "num_ssd_blocks": NUM_SSD_BLOCKS,
            "num_cpu_blocks": 64,  # half of them may wait for their write
            "ssd_write_queue_s": 3600.0,  # a slow disk drops no writes
        } | config
        rig = Rig(
            num_ranks=shape.num_ranks,
            use_mla=shape.use_mla,
            block_shape=shape.block_shape,
            view_as=shape.view_as,
            events=events,
            enable_ssd=True,
            fingerprint="f1a6",
            **settings,  # type: ignore[arg-type]
        )
        rigs.append(rig)
        assert state_of(rig) is SsdState.SERVING
        return rig

    def close_all() -> None:
        while rigs:
            rigs.pop().close()

    yield start
    close_all()


def state_of(rig: Rig) -> SsdState:
    return rig.manager._engine._ssd.state


def store_name(rig: Rig) -> str:
    """The sub-directory it serves from; those of others make room for it."""
    (root,) = rig.manager._engine.cache_config.ssd_cache_dir
    (records,) = Path(root).glob("*/*/records")
    return records.parent.name


def io_engines_of(rig: Rig) -> set[str]:
    store = rig.manager._engine._ssd.store
    assert store is not None
    return {device.io_engine for device in store.devices()}


def keep(rig: Rig, num_blocks: int, first: int = 0) -> list[np.ndarray]:
    """Store the first GPU blocks as a document, down to the SSD tier; returns their bytes, rank by rank."""
    for gpu in rig.gpus:
        gpu.fill()
    expected = [gpu.read(range(num_blocks)) for gpu in rig.gpus]
    task_id, mask = rig.manager.put_match(tokens(num_blocks, first))
    assert mask.all()
    rig.manager.launch(task_id, [slots_of(range(num_blocks))])
    assert rig.manager.wait(task_id, TIMEOUT_S, completely=True)[task_id].status is Status.SUCCESS
    return expected


def check_comes_back(rig: Rig, expected: list[np.ndarray], first: int = 0) -> None:
    """Load all of a document to the last GPU blocks, and nothing else."""
    num_blocks = expected[0].shape[1]
    target = list(range(NUM_GPU_BLOCKS - num_blocks, NUM_GPU_BLOCKS))
    for gpu in rig.gpus:
        gpu.poison()
    assert rig.load(tokens(num_blocks, first), target) is Status.SUCCESS
    for gpu, bytes_of_rank in zip(rig.gpus, expected, strict=True):
        assert np.array_equal(gpu.read(target), bytes_of_rank)
        assert gpu.untouched(target)


def check_nothing_is_held(rig: Rig) -> None:
    assert eventually(lambda: rig.manager.stats().ssd_moves_running == 0)
    rig.check_nothing_is_held()
    cache = rig.manager._engine._tier.cache
    assert cache is not None
    assert cache.ssd_cache_engine is not None
    index = cache.ssd_cache_engine.index
    assert index.num_pinned == index.num_unready == index.num_doomed == 0


@pytest.mark.parametrize("io_engine", ["auto", "threads"])
@pytest.mark.parametrize("num_directories", [1, 3])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_bytes_survive_a_restart(start: Start, geometry: str, num_directories: int, io_engine: str) -> None:
    settings = {"num_directories": num_directories, "ssd_io_engine": io_engine}
    rig = start(geometry, **settings)
    assert io_engine == "auto" or io_engines_of(rig) == {"threads"}
    long, short = keep(rig, 29), keep(rig, 3, first=5000)
    check_comes_back(rig, long)
    check_nothing_is_held(rig)

    rig = start(geometry, **settings)
    assert rig.manager.stats().ssd_slots_used == 32
    check_comes_back(rig, long)
    check_comes_back(rig, short, first=5000)
    stats = rig.manager.stats()
    assert (stats.ssd_staged_blocks, stats.ssd_bad_blocks, stats.hit_blocks) == (32, 0, 32)
    assert stats.routes[TransferType.DISK2H].num_blocks == 32
    check_nothing_is_held(rig)


def test_a_restart_with_the_other_io_engine_and_its_directories_finds_the_same(start: Start) -> None:
    expected = keep(start(num_directories=2, ssd_io_engine="threads"), 20)
    check_comes_back(start(num_directories=2, ssd_io_engine="auto"), expected)


def test_another_geometry_finds_nothing_of_the_first_one(start: Start) -> None:
    keep(start("MHA"), 8)
    rig = start("odd bytes")
    assert not rig.manager.get_match(tokens(8))[1].any()
    other = keep(rig, 8)
    check_comes_back(start("odd bytes"), other)


def test_replicas_are_on_disk_once_and_are_not_read_as_a_store_that_has_each_of_them(start: Start) -> None:
    rig = start("MLA, two ranks")
    keep(rig, 8)
    stride = -(-3 * TPB * 1152 // 4096) * 4096
    store = rig.manager._engine._ssd.store
    assert store is not None
    assert store.slot_bytes == stride
    assert rig.manager.stats().routes[TransferType.H2DISK].bytes == 8 * stride
    names = [store_name(rig)]
    for other in ("MLA, two ranks, each for itself", "MLA"):
        rig = start(other)
        assert not rig.manager.get_match(tokens(8))[1].any()
        names.append(store_name(rig))
    assert len(set(names)) == 3


def test_a_document_half_in_host_memory_comes_from_both_tiers(start: Start) -> None:
    rig = start(num_cpu_blocks=32)
    expected = keep(rig, 16)
    keep(rig, 24, first=5000)  # evicts the end of the first one
    task_id, mask = rig.manager.get_match(tokens(16), cpu_only=True)
    assert mask.sum() // TPB == 8
    rig.manager.cancel(task_id)
    check_comes_back(rig, expected)
    assert rig.manager.stats().ssd_staged_blocks == 8
    check_nothing_is_held(rig)


def test_more_than_fits_into_host_memory_comes_back_piece_by_piece(start: Start) -> None:
    rig = start(num_cpu_blocks=16)
    documents = {first: keep(rig, 8, first) for first in range(0, 10_000, 1000)}
    for first in (3000, 0, 9000, 6000, 3000):
        check_comes_back(rig, documents[first], first)
    check_nothing_is_held(rig)


def test_a_load_waits_for_the_reads_it_was_launched_before(start: Start) -> None:
    expected = keep(start(), 30)
    rig = start()
    rig.gpu.poison()
    task_id, mask = rig.manager.get_match(tokens(30))
    assert mask.all()
    rig.manager.launch(task_id, [slots_of(range(30))])
    assert rig.manager.wait(task_id, TIMEOUT_S)[task_id].status is Status.SUCCESS
    assert np.array_equal(rig.gpu.read(range(30)), expected[0])


def test_staged_blocks_are_in_host_memory_and_checked_before_the_launch(start: Start) -> None:
    keep(start(), 30)
    rig = start()
    task_id, _ = rig.manager.get_match(tokens(30))
    assert eventually(lambda: rig.manager.staging(task_id) is StagingState.READY)
    assert rig.manager.stats().ssd_staged_blocks == 30
    rig.manager.launch(task_id, [slots_of(range(30))])
    assert rig.manager.wait(task_id, TIMEOUT_S)[task_id].status is Status.SUCCESS


def test_a_prefetch_brings_blocks_to_host_memory(start: Start) -> None:
    expected = keep(start("two ranks"), 20)
    rig = start("two ranks")
    task_id = rig.manager.prefetch_async(tokens(20))
    assert rig.manager.wait(task_id, TIMEOUT_S)[task_id].status is Status.SUCCESS
    task_id, mask = rig.manager.get_match(tokens(20), cpu_only=True)
    assert mask.all()
    rig.manager.cancel(task_id)
    check_comes_back(rig, expected)
    assert rig.manager.stats().routes[TransferType.DISK2H].num_blocks == 20
    check_nothing_is_held(rig)


@pytest.mark.parametrize("num_directories", [1, 2])
def test_a_flipped_byte_on_disk_is_a_miss_and_never_bytes(
    start: Start, tmp_path: Path, num_directories: int, caplog: pytest.LogCaptureFixture
) -> None:
    rig = start(num_directories=num_directories)
    expected = keep(rig, 20)
    needle = expected[0][0, 11].tobytes()  # the first layer of block 11
    rig.close()
    rig.manager.shutdown()
    found = 0
    for path in tmp_path.rglob("*"):
        if path.is_file() and (at := path.read_bytes().find(needle)) >= 0:
            found += 1
            with path.open("r+b") as file:
                file.seek(at + 5)
                file.write(bytes([needle[5] ^ 0x10]))
    assert found == 1
    rig = start(num_directories=num_directories)
    assert rig.manager.stats().ssd_slots_used == 20
    task_id, _ = rig.manager.get_match(tokens(20))
    assert eventually(lambda: rig.manager.staging(task_id) is not StagingState.PENDING)
    assert rig.manager.staging(task_id) is StagingState.BROKEN
    rig.manager.cancel(task_id)
    rig.gpu.poison()
    assert rig.load(tokens(20), range(11)) is not None
    assert np.array_equal(rig.gpu.read(range(11)), expected[0][:, :11])
    stats = rig.manager.stats()
    assert (stats.ssd_bad_blocks, stats.ssd_slots_used) == (1, 11)
    assert "ssd block is bad" in caplog.text
    check_nothing_is_held(rig)
    expected = keep_again(rig, expected)
    check_comes_back(start(num_directories=num_directories), expected)


def keep_again(rig: Rig, expected: list[np.ndarray]) -> list[np.ndarray]:
    """Store a document of which a part is held; the bytes are those of before."""
    num_blocks = expected[0].shape[1]
    for layer, values in zip(rig.gpu.layers, expected[0], strict=True):
        layer[:num_blocks] = values
    task_id, mask = rig.manager.put_match(tokens(num_blocks))
    num_held = num_blocks - int(mask.sum()) // TPB
    assert num_held == 11
    rig.manager.launch(task_id, [slots_of(range(num_held, num_blocks))])
    assert rig.manager.wait(task_id, TIMEOUT_S, completely=True)[task_id].status is Status.SUCCESS
    return expected


def test_a_hundred_gets_at_once_cause_one_read_and_all_have_the_right_bytes(start: Start) -> None:
    num_gets, num_blocks = 100, 12
    expected = keep(start(), num_blocks)
    rig = start(num_cpu_blocks=24)
    rig.gpu.poison()
    gate = threading.Barrier(num_gets)
    statuses: list[Status] = []

    def get(number: int) -> None:
        target = [(number * num_blocks + block) % NUM_GPU_BLOCKS for block in range(num_blocks)]
        gate.wait(TIMEOUT_S)
        task_id = rig.manager.get_async(tokens(num_blocks), slots_of(target))
        statuses.append(rig.manager.wait(task_id, TIMEOUT_S)[task_id].status)

    threads = [threading.Thread(target=get, args=(number,)) for number in range(num_gets)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [Status.SUCCESS] * num_gets
    stats = rig.manager.stats()
    assert stats.ssd_staged_blocks == stats.routes[TransferType.DISK2H].num_blocks == num_blocks
    assert stats.loaded_blocks == num_gets * num_blocks
    check_comes_back(rig, expected)
    check_nothing_is_held(rig)


def test_what_was_reset_is_found_neither_now_nor_after_a_restart(start: Start) -> None:
    rig = start(num_directories=2)
    keep(rig, 20)
    rig.manager.reset()
    assert not rig.manager.get_match(tokens(20))[1].any()
    after = keep(rig, 6, first=5000)
    rig = start(num_directories=2)
    assert not rig.manager.get_match(tokens(20))[1].any()
    check_comes_back(rig, after, first=5000)
    check_nothing_is_held(rig)


def test_events_of_restored_blocks_name_their_tenants_whoever_is_heard_of_first(start: Start) -> None:
    manager = start().manager
    first_tokens = {"anna": 0, "berta": 5000, 7: 9000}
    for tenant, first in first_tokens.items():
        task_id = manager.put_async(tokens(3, first), slots_of([1, 2, 3]), tenant=tenant)
        assert manager.wait(task_id, TIMEOUT_S, completely=True)[task_id].status is Status.SUCCESS
    events = EventBuffer()
    manager = start(events=events).manager
    restored = {bytes(event.keys[0]): event.tenant for event in events.take() if isinstance(event, BlocksStored)}
    for tenant, first in reversed(first_tokens.items()):
        key = bytes(manager.sequence(tokens(1, first)).block_hashes[0])
        assert restored[key] == manager._engine._reader.tenant_number(tenant) > 0
    assert len(set(restored.values())) == len(restored) == 3


def test_expired_blocks_are_not_found_after_a_restart(start: Start) -> None:
    rig = start()
    task_id = rig.manager.put_async(tokens(3), slots_of([1, 2, 3]), ttl_s=0.5)
    assert rig.manager.wait(task_id, TIMEOUT_S, completely=True)[task_id].status is Status.SUCCESS
    keep(rig, 3, first=5000)

    def is_gone() -> bool:
        return start().manager.stats().ssd_slots_used == 3

    assert eventually(is_gone)
