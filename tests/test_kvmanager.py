"""KVManager over real ranks in this process: bytes, batches, tickets, fences, threads."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.common.events import BlocksStored
from flexkv.common.request import KVResponseStatus as Status
from flexkv.common.tracer import TraceOp, read_trace
from flexkv.errors import ConfigError
from flexkv.kvmanager import EventBuffer, KVManager
from flexkv.kvtask import KVTaskEngine
from flexkv.server.client import KVTPClient
from tests.rig import NUM_GPU_BLOCKS, TPB, Rig, eventually, slots_of, tokens


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


def test_bytes_come_back_into_other_blocks_and_nowhere_else(rig: Rig) -> None:
    source, target = [3, 60, 9, 1, 33], [5, 4, 63, 0, 17]
    expected = rig.gpu.read(source)
    assert rig.store(tokens(5), source) is Status.SUCCESS
    rig.gpu.poison()
    assert rig.load(tokens(5), target) is Status.SUCCESS
    assert np.array_equal(rig.gpu.read(target), expected)
    assert rig.gpu.untouched(target)
    rig.check_nothing_is_held()


def test_every_rank_gets_its_own_bytes() -> None:
    rig = Rig(num_ranks=2)
    expected = [gpu.read([7, 2, 40]) for gpu in rig.gpus]
    assert rig.store(tokens(3), [7, 2, 40]) is Status.SUCCESS
    for gpu in rig.gpus:
        gpu.poison()
    assert rig.load(tokens(3), [1, 50, 2]) is Status.SUCCESS
    for gpu, bytes_of_rank in zip(rig.gpus, expected, strict=True):
        assert np.array_equal(gpu.read([1, 50, 2]), bytes_of_rank)
        assert gpu.untouched([1, 50, 2])
    rig.close()


def test_a_part_that_is_on_the_gpu_is_not_loaded(rig: Rig) -> None:
    expected = rig.gpu.read([10, 11, 12, 13])
    rig.store(tokens(4), [10, 11, 12, 13])
    rig.gpu.poison()
    not_on_gpu = np.arange(4 * TPB) >= 2 * TPB
    task_id, mask = rig.manager.get_match(tokens(4), not_on_gpu)
    assert np.array_equal(mask, not_on_gpu)
    rig.manager.launch([task_id], [slots_of([20, 21])])
    assert np.array_equal(rig.manager.wait([task_id])[task_id].return_mask, not_on_gpu)
    assert np.array_equal(rig.gpu.read([20, 21]), expected[:, 2:])
    assert rig.gpu.untouched([20, 21])


def test_match_and_launch_in_one_moves_the_same_bytes(rig: Rig) -> None:
    expected = rig.gpu.read([3, 4, 5])
    put = rig.manager.put_async(tokens(3), slots_of([3, 4, 5]))
    assert rig.manager.wait(put)[put].status is Status.SUCCESS
    rig.gpu.poison()
    wanted = np.arange(4 * TPB) >= TPB
    get = rig.manager.get_async(tokens(4), slots_of([30, 31, 32]), wanted)
    response = rig.manager.wait(get)[get]
    assert response.status is Status.SUCCESS
    assert np.flatnonzero(response.return_mask).tolist() == list(range(TPB, 3 * TPB))
    assert np.array_equal(rig.gpu.read([30, 31]), expected[:, 1:])
    assert rig.gpu.untouched([30, 31])


def test_a_batch_is_one_task_and_its_parts_are_gone(rig: Rig) -> None:
    expected = rig.gpu.read([1, 2, 3, 4, 5])
    rig.store(tokens(3), [1, 2, 3])
    rig.store(tokens(2, first=500), [4, 5])
    rig.gpu.poison()
    first, _ = rig.manager.get_match(tokens(3))
    nothing, _ = rig.manager.get_match(tokens(3, first=900))
    second, _ = rig.manager.get_match(tokens(2, first=500))
    slots = [slots_of([11, 12, 13]), slots_of([]), slots_of([14, 15])]
    (batch,) = rig.manager.launch([first, nothing, second], slots, as_batch=True)
    answers = rig.manager.wait([batch, first, nothing, second])
    assert answers[batch].status is Status.SUCCESS
    assert int(answers[batch].return_mask.sum()) == 5 * TPB
    assert {answers[part].status for part in (first, nothing, second)} == {Status.NOTFOUND}
    assert np.array_equal(rig.gpu.read([11, 12, 13, 14, 15]), expected)
    assert rig.manager.stats().routes[0].num_ops == 1  # type: ignore[index]
    rig.check_nothing_is_held()


def test_a_batch_may_load_one_block_to_several_places(rig: Rig) -> None:
    expected = rig.gpu.read([1, 2, 3])
    rig.store(tokens(3), [1, 2, 3])
    rig.gpu.poison()
    pair = [rig.manager.get_match(tokens(length))[0] for length in (3, 2)]
    (batch,) = rig.manager.launch(pair, block_ids=[[11, 12, 13], [14, 15]], as_batch=True)
    assert rig.manager.wait(batch)[batch].status is Status.SUCCESS
    assert np.array_equal(rig.gpu.read([11, 12, 13]), expected)
    assert np.array_equal(rig.gpu.read([14, 15]), expected[:, :2])
    rig.check_nothing_is_held()


def test_puts_can_be_launched_as_a_batch(rig: Rig) -> None:
    first, _ = rig.manager.put_match(tokens(2))
    second, _ = rig.manager.put_match(tokens(2, first=500))
    (batch,) = rig.manager.launch([first, second], [slots_of([1, 2]), slots_of([3, 4])], as_batch=True)
    assert rig.manager.wait(batch)[batch].status is Status.SUCCESS
    rig.gpu.fill()
    assert rig.load(tokens(2, first=500), [8, 9]) is Status.SUCCESS


def test_engine_hashes_and_namespaces_name_blocks(rig: Rig) -> None:
    hashes = [bytes([n]) * 32 for n in range(5)]
    task_id, _ = rig.manager.put_match(block_hashes=hashes)
    rig.manager.launch(task_id, block_ids=[np.arange(5)])
    assert rig.manager.wait(task_id)[task_id].status is Status.SUCCESS
    for arguments, expected in (
        ({"block_hashes": hashes}, 5),
        ({"block_hashes": hashes, "num_tokens": 3 * TPB + 1}, 3),
        ({"block_hashes": hashes, "namespace": []}, 5),
        ({"block_hashes": hashes, "namespace": ["a"]}, 0),
        ({"token_ids": tokens(5)}, 0),
        ({"block_hashes": hashes[:2] + [bytes([n + 100]) * 32 for n in range(3)]}, 2),
    ):
        found, mask = rig.manager.get_match(**arguments)  # type: ignore[arg-type]
        assert mask.sum() == expected * TPB, arguments
        rig.manager.cancel(found)
    rig.check_nothing_is_held()


def test_namespaces_share_nothing_whatever_their_boundaries(rig: Rig) -> None:
    names: list[list[str] | None] = [None, ["ab"], ["a", "b"], ["b", "a"], ["a"], [""]]
    for block, namespace in enumerate(names):
        task_id = rig.manager.put_async(tokens(1), slots_of([block]), None, namespace)
        assert rig.manager.wait(task_id)[task_id].return_mask.sum() == TPB, "nobody else's block is found"
    task_id, mask = rig.manager.get_match(tokens(1), None, False, [])
    assert mask.all(), "None and [] are the same namespace"
    rig.manager.cancel(task_id)


def test_a_sequence_can_be_extended_and_stored_chunk_by_chunk(rig: Rig) -> None:
    hashes = [bytes([n]) * 32 for n in range(6)]
    sequence = rig.manager.sequence(block_hashes=hashes[:2])
    for end in (2, 4, 6):
        if end > 2:
            sequence.extend_block_hashes(hashes[end - 2 : end])
        task_id, mask = rig.manager.put_match(sequence=sequence)
        assert np.flatnonzero(mask).tolist() == list(range((end - 2) * TPB, end * TPB))
        rig.manager.launch(task_id, block_ids=[np.array([end, end + 1])])
    task_id, mask = rig.manager.get_match(block_hashes=hashes, start_block=1, end_block=5)
    rig.manager.cancel(task_id)
    assert rig.manager.wait_any(5.0)
    while rig.manager.num_running:
        assert rig.manager.wait_any(5.0)
        rig.manager.poll()
    task_id, mask = rig.manager.get_match(block_hashes=hashes, start_block=1, end_block=5)
    assert np.flatnonzero(mask).tolist() == list(range(TPB, 5 * TPB))
    rig.manager.cancel(task_id)


def test_an_op_waits_for_its_step(rig: Rig) -> None:
    task_id, _ = rig.manager.put_match(tokens(2))
    rig.manager.launch(task_id, [slots_of([1, 2])], after_step=7)
    rig.client.record_step(6)
    assert rig.manager.wait(task_id, timeout=0.05)[task_id].status is Status.TIMEOUT
    expected = rig.gpu.read([1, 2]) ^ 0xFF
    for layer in rig.gpu.layers:
        layer[[1, 2]] ^= 0xFF  # the step that computes the blocks
    rig.client.record_step(7)
    assert rig.manager.wait(task_id)[task_id].status is Status.SUCCESS
    rig.gpu.poison()
    rig.load(tokens(2), [3, 4])
    assert np.array_equal(rig.gpu.read([3, 4]), expected)


def test_a_doomed_store_is_never_found(rig: Rig) -> None:
    task_id, _ = rig.manager.put_match(tokens(2))
    rig.manager.launch(task_id, [slots_of([1, 2])], after_step=9)
    rig.manager.doom(task_id)
    assert rig.manager.wait(task_id, timeout=5)[task_id].status is Status.CANCELLED
    rig.client.record_step(9)
    found, mask = rig.manager.get_match(tokens(2))
    assert not mask.any()
    assert rig.manager.wait(found)[found].status is Status.SUCCESS
    rig.check_nothing_is_held()


def test_reset_empties_and_waits_for_what_runs(rig: Rig) -> None:
    rig.store(tokens(3), [1, 2, 3])
    waiting, _ = rig.manager.get_match(tokens(3))
    stored, _ = rig.manager.put_match(tokens(2, first=100))
    rig.manager.launch(stored, [slots_of([4, 5])], after_step=5)
    rig.manager.reset()
    rig.manager.reset()
    assert rig.manager.wait([waiting, stored], timeout=5)[waiting].status is Status.CANCELLED
    for first in (0, 100):
        _, mask = rig.manager.get_match(tokens(2, first=first))
        assert not mask.any()
    assert rig.manager.stats().slots_used == 0
    rig.check_nothing_is_held()


def test_a_launch_after_a_reset_moves_nothing(rig: Rig) -> None:
    rig.store(tokens(3), [1, 2, 3])
    task_id, _ = rig.manager.get_match(tokens(3))
    rig.manager.reset()
    rig.gpu.poison()
    assert rig.manager.launch(task_id, [slots_of([6, 7, 8])]) == [task_id]
    assert rig.manager.wait(task_id)[task_id].status is Status.CANCELLED
    assert rig.gpu.untouched([])


def test_shutdown_ends_what_waits_and_later_requests_are_misses() -> None:
    rig = Rig()
    rig.store(tokens(2), [1, 2])
    matched, _ = rig.manager.get_match(tokens(2))
    running, _ = rig.manager.put_match(tokens(3, first=100))
    rig.manager.launch(running, [slots_of([4, 5, 6])], after_step=99)
    answers: dict[int, Status] = {}
    waiter = threading.Thread(target=lambda: answers.update(status_of(rig.manager, running)))
    waiter.start()
    rig.manager.shutdown()
    rig.manager.shutdown()
    waiter.join(10)
    assert answers[running] in (Status.CANCELLED, Status.FAILED)
    assert rig.manager.wait(matched)[matched].status is Status.CANCELLED
    rig.check_nothing_is_held()
    late, mask = rig.manager.get_match(tokens(2))
    assert not mask.any()
    assert rig.manager.wait(late)[late].status is Status.SUCCESS
    assert not rig.manager.put_match(tokens(2))[1].any()
    rig.manager.reset()
    assert not rig.manager.wait_any(1.0) or rig.manager.poll()
    for client in rig.clients:
        client.shutdown()


def status_of(manager: KVManager, task_id: int) -> dict[int, Status]:
    return {i: answer.status for i, answer in manager.wait(task_id, timeout=20).items()}


def test_before_ranks_register_everything_is_a_miss() -> None:
    manager = KVManager(ModelConfig(1, 1, 8), CacheConfig(tokens_per_block=TPB, num_cpu_blocks=4))
    manager.start()
    assert not manager.is_ready()
    assert not manager.wait_ready(0.02)
    for match in (manager.get_match, manager.put_match):
        task_id, mask = match(tokens(2))
        assert not mask.any()
        assert manager.launch(task_id, [slots_of([])]) == [task_id]
        assert manager.wait(task_id)[task_id].status is Status.SUCCESS
    manager.shutdown()


def test_blocks_of_another_size_are_a_configuration_error() -> None:
    rig = Rig(wait=False, tokens_per_block=2 * TPB)
    with pytest.raises(ConfigError, match=r"tokens_per_block is 8.*set tokens_per_block=4"):
        rig.manager.wait_ready(20)
    assert not rig.manager.get_match(tokens(4))[1].any()
    rig.close()


def test_memory_that_cannot_be_had_is_a_configuration_error() -> None:
    rig = Rig(wait=False, num_cpu_blocks=1 << 31)
    with pytest.raises(ConfigError, match="host pool"):
        rig.manager.wait_ready(20)
    rig.close()


def test_a_pool_is_as_large_as_the_bytes_given() -> None:
    rig = Rig(num_cpu_blocks=None, cpu_cache_bytes=10 * 4096)  # type: ignore[arg-type]
    assert rig.manager.stats().slots_total == 10
    rig.close()


def test_events_and_trace_tell_what_happened(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    config = CacheConfig(tokens_per_block=TPB, num_cpu_blocks=4, evict_ratio=0.0, trace_path=str(path))
    manager = KVManager(ModelConfig(1, 1, 8), config, event_collector=EventBuffer())
    manager.start()
    client = KVTPClient(manager.gpu_register_port, tokens_per_block=TPB)
    client.register_to_server([np.zeros((NUM_GPU_BLOCKS, TPB, 8), dtype=np.uint8)], block_dim=0)
    assert manager.wait_ready(20)
    for first in (0, 1000):
        task_id = manager.put_async(tokens(3, first), slots_of([1, 2, 3]))
        manager.wait(task_id)
    kinds = [type(event).__name__ for event in manager.take_events()]
    assert kinds == ["BlocksStored", "BlocksRemoved", "BlocksStored"]
    assert manager.take_events() == []
    manager.shutdown()
    client.shutdown()
    ops = [record.op for record in read_trace(path)]
    assert ops == [TraceOp.PUT, TraceOp.COMMIT, TraceOp.EVICT, TraceOp.PUT, TraceOp.COMMIT]


def test_events_are_only_kept_when_asked_for(rig: Rig) -> None:
    rig.store(tokens(2), [1, 2])
    assert rig.manager.take_events() == []
    assert BlocksStored.__name__ == "BlocksStored"


def test_all_waiters_of_a_task_are_told(rig: Rig) -> None:
    task_id, _ = rig.manager.put_match(tokens(2))
    rig.manager.launch(task_id, [slots_of([1, 2])], after_step=3)
    asleep = threading.Barrier(9)
    answers: list[Status] = []

    def wait() -> None:
        asleep.wait(10)
        answers.append(rig.manager.wait(task_id, timeout=10)[task_id].status)

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    asleep.wait(10)
    assert eventually(lambda: rig.manager._engine._gate.num_sleepers == 8)
    rig.client.record_step(3)
    for _ in range(100):
        rig.manager.put_match(tokens(1, first=77))  # drains what the sleepers wait for
    for thread in threads:
        thread.join(10)
    assert answers == [Status.SUCCESS] * 8
    assert rig.manager.wait(task_id)[task_id].status is Status.NOTFOUND


VERBS = [name for name, verb in vars(KVTaskEngine).items() if inspect.isfunction(verb) and not name.startswith("_")]


@pytest.mark.parametrize("name", VERBS)
def test_a_manager_has_every_verb_of_the_task_engine_as_its_own(name: str) -> None:
    verb, ours = getattr(KVTaskEngine, name), getattr(KVManager, name)
    assert inspect.signature(ours) == inspect.signature(verb)
    assert ours.__doc__ == verb.__doc__
    assert (ours.__module__, ours.__qualname__) == (KVManager.__module__, f"KVManager.{name}")


def test_a_verb_can_be_called_on_the_class_and_on_an_instance(rig: Rig) -> None:
    task_id, _ = KVManager.get_match(rig.manager, tokens(1))
    assert KVManager.try_wait(rig.manager, task_id).keys() == rig.manager.try_wait(task_id).keys() == {task_id}
    assert rig.manager.poll().keys() == {task_id}
    assert rig.manager.poll() == {}
