"""Bad input to the task engine: an error that names the argument, nothing changed, no pin left."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.common.request import KVResponseStatus as Status
from flexkv.kvtask import KVTaskEngine
from tests.task_bench import TPB, Bench, tokens


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.engine.shutdown()
    bench.transfer.close()


MATCH_CASES: list[tuple[str, dict[str, object]]] = [
    ("token_ids", {"token_ids": tokens(2).reshape(2, TPB)}),
    ("token_ids", {"token_ids": tokens(2) * 1.0}),
    ("token_ids", {"token_ids": [-1, 2, 3, 4]}),
    ("token_ids", {"token_ids": [1 << 32] * TPB}),
    ("token_ids", {"token_ids": "abcd"}),
    ("token_ids", {}),
    ("token_mask", {"token_ids": tokens(2), "token_mask": np.ones(3, dtype=bool)}),
    ("token_mask", {"token_ids": tokens(2), "token_mask": np.ones(8, dtype=np.int8)}),
    ("token_mask", {"token_ids": tokens(2), "token_mask": np.ones((2, 4), dtype=bool)}),
    ("namespace", {"token_ids": tokens(2), "namespace": "abc"}),
    ("namespace", {"token_ids": tokens(2), "namespace": [1]}),
    ("namespace", {"token_ids": tokens(2), "namespace": [["a"]]}),
    ("namespace", {"token_ids": tokens(2), "namespace": 5}),
    ("num_tokens", {"token_ids": tokens(2), "num_tokens": 3}),
    ("num_tokens", {"block_hashes": [b"a" * 32], "num_tokens": -1}),
    ("hash", {"block_hashes": [b"a" * 32, b"b"]}),
    ("hash", {"block_hashes": [b"a" * 40]}),
    ("sequence", {"sequence": tokens(2)}),
    ("end_block", {"token_ids": tokens(2), "end_block": 3}),
    ("end_block", {"token_ids": tokens(2), "end_block": -1}),
    ("end_block", {"token_ids": tokens(2), "end_block": 1, "token_mask": np.ones(8, dtype=bool)}),
    ("start_block", {"token_ids": tokens(2), "start_block": -1}),
    ("start_block", {"token_ids": tokens(2), "start_block": True}),
    ("priority", {"token_ids": tokens(2), "priority": 8}),
    ("priority", {"token_ids": tokens(2), "priority": 1.5}),
    ("ttl_s", {"token_ids": tokens(2), "ttl_s": 0}),
    ("ttl_s", {"token_ids": tokens(2), "ttl_s": float("nan")}),
    ("tenant", {"token_ids": tokens(2), "tenant": 70000}),
]


@pytest.mark.parametrize(("name", "arguments"), MATCH_CASES)
@pytest.mark.parametrize("verb", ["get_match", "put_match"])
def test_a_bad_request_names_the_argument_and_changes_nothing(
    bench: Bench, verb: str, name: str, arguments: dict[str, object]
) -> None:
    bench.store(2)
    before = bench.engine.stats()
    with pytest.raises(ValueError, match=name):
        getattr(bench.engine, verb)(**arguments)
    after = bench.engine.stats()
    assert (before.slots_used, before.get_requests, before.put_requests) == (
        after.slots_used,
        after.get_requests,
        after.put_requests,
    )
    bench.check_nothing_is_held()


def test_a_sequence_is_given_alone(bench: Bench) -> None:
    sequence = bench.engine.sequence(tokens(2))
    for name, value in (("token_ids", tokens(2)), ("namespace", ["a"]), ("block_hashes", [b"a"]), ("num_tokens", 8)):
        with pytest.raises(ValueError, match=f"{name} is given beside sequence"):
            bench.engine.get_match(sequence=sequence, **{name: value})  # type: ignore[arg-type]
    other = KVTaskEngine(
        ModelConfig(1, 1, 8), CacheConfig(tokens_per_block=8), transfer=bench.transfer, storage=bench.storage
    )
    with pytest.raises(ValueError, match="sequence has 4 tokens per block"):
        other.get_match(sequence=sequence)


def slots(*blocks: int) -> np.ndarray:
    return np.concatenate([np.arange(TPB) + block * TPB for block in blocks])


LAUNCH_CASES: list[tuple[str, Callable[[int, int], dict[str, object]]]] = [
    ("task_ids", lambda a, b: {"task_ids": [a, 999], "slot_mappings": [slots(1, 2), slots(1)]}),
    ("task_ids", lambda a, b: {"task_ids": [a, a], "slot_mappings": [slots(1, 2), slots(1, 2)]}),
    ("task_ids", lambda a, b: {"task_ids": "12", "slot_mappings": [slots(1, 2)]}),
    ("task_ids", lambda a, b: {"task_ids": [float(a)], "slot_mappings": [slots(1, 2)]}),
    ("task_ids", lambda a, b: {"task_ids": True, "slot_mappings": [slots(1, 2)]}),
    ("slot_mappings", lambda a, b: {"task_ids": [a, b]}),
    ("slot_mappings", lambda a, b: {"task_ids": [a, b], "slot_mappings": [slots(1, 2)]}),
    ("slot_mappings", lambda a, b: {"task_ids": [a], "slot_mappings": 5}),
    ("slot_mappings", lambda a, b: {"task_ids": [a], "slot_mappings": [slots(1, 2)], "block_ids": [[1, 2]]}),
    (r"slot_mappings\[1\]", lambda a, b: {"task_ids": [a, b], "slot_mappings": [slots(1, 2), slots(3)]}),
    (r"slot_mappings\[1\]", lambda a, b: {"task_ids": [a, b], "slot_mappings": [slots(1, 2), slots(3, 4)[::-1]]}),
    (r"slot_mappings\[1\]", lambda a, b: {"task_ids": [a, b], "slot_mappings": [slots(1, 2), slots(3, 4) + 1]}),
    (r"slot_mappings\[1\]", lambda a, b: {"task_ids": [a, b], "slot_mappings": [slots(1, 2), slots(3, 1024)]}),
    (r"slot_mappings\[1\]", lambda a, b: {"task_ids": [a, b], "slot_mappings": [slots(1, 2), slots(3, 3)]}),
    (r"slot_mappings\[0\]", lambda a, b: {"task_ids": a, "slot_mappings": slots(1, 2).astype(np.int32)}),
    (r"slot_mappings\[0\]", lambda a, b: {"task_ids": a, "slot_mappings": slots(1, 2) * 1.0}),
    (r"block_ids\[1\]", lambda a, b: {"task_ids": [a, b], "block_ids": [[1, 2], [3, -4]]}),
    (r"block_ids\[1\]", lambda a, b: {"task_ids": [a, b], "block_ids": [[1, 2], [3]]}),
    (r"block_ids\[1\]", lambda a, b: {"task_ids": [a, b], "block_ids": [[1, 2], [3, 5000]]}),
    ("block_ids", lambda a, b: {"task_ids": [a, b], "block_ids": [[1, 2], [2, 3]], "as_batch": True}),
    ("after_step", lambda a, b: {"task_ids": [a], "block_ids": [[1, 2]], "after_step": -1}),
    ("after_step", lambda a, b: {"task_ids": [a], "block_ids": [[1, 2]], "after_step": 1.0}),
    ("timeout_s", lambda a, b: {"task_ids": [a], "block_ids": [[1, 2]], "timeout_s": 0}),
    ("timeout_s", lambda a, b: {"task_ids": [a], "block_ids": [[1, 2]], "timeout_s": float("inf")}),
    ("counter_id", lambda a, b: {"task_ids": [a], "block_ids": [[1, 2]], "layerwise_transfer": True}),
    ("task_ids", lambda a, b: {"task_ids": [a], "block_ids": [[1, 2]], "layerwise_transfer": True, "counter_id": 1}),
]


@pytest.mark.parametrize(("name", "arguments"), LAUNCH_CASES)
def test_a_bad_launch_names_the_argument_and_launches_nothing(
    bench: Bench, name: str, arguments: Callable[[int, int], dict[str, object]]
) -> None:
    first, _ = bench.engine.put_match(tokens(2))
    second, _ = bench.engine.put_match(tokens(2, 500))
    with pytest.raises(ValueError, match=name):
        bench.engine.launch(**arguments(first, second))  # type: ignore[arg-type]
    assert bench.graph_ids == []
    assert bench.status(first) is bench.status(second) is Status.UNREADY
    assert bench.engine.launch([first, second], [slots(1, 2), slots(3, 4)]) == [first, second]
    assert len(bench.graph_ids) == 2


def test_nothing_is_launched_twice_and_a_batch_is_of_one_kind(bench: Bench) -> None:
    bench.store(1)
    get, _ = bench.engine.get_match(tokens(1))
    put, _ = bench.engine.put_match(tokens(1, 500))
    with pytest.raises(ValueError, match="one kind"):
        bench.engine.launch([get, put], block_ids=[[1], [2]], as_batch=True)
    bench.engine.launch([get, put], block_ids=[[1], [2]])
    with pytest.raises(ValueError, match="launched already"):
        bench.engine.launch(get, block_ids=[[1]])


@pytest.mark.parametrize(
    ("slot_mapping", "mask"),
    [
        (slots(1), None),
        (slots(1, 2)[::-1], None),
        (slots(1, 2000), None),
        (slots(1, 2).astype(np.int32), None),
        (slots(3, 3), None),
        (slots(1, 2)[:3], np.arange(2 * TPB) >= TPB),
    ],
)
@pytest.mark.parametrize("verb", ["get_async", "put_async"])
def test_a_bad_mapping_of_a_whole_request_changes_nothing(
    bench: Bench, verb: str, slot_mapping: np.ndarray, mask: np.ndarray | None
) -> None:
    bench.store(2)
    used = bench.engine.stats().slots_used
    with pytest.raises(ValueError, match=r"slot_mapping|token_mask"):
        getattr(bench.engine, verb)(tokens(2), slot_mapping, mask)
    assert bench.engine.stats().slots_used == used
    assert bench.graph_ids == []
    bench.check_nothing_is_held()


@pytest.mark.parametrize("timeout", [None, -1, float("nan"), float("inf"), "5", True])
def test_a_wait_has_a_bound(bench: Bench, timeout: object) -> None:
    with pytest.raises(ValueError, match="timeout"):
        bench.engine.wait(1, timeout=timeout)  # type: ignore[arg-type]


def test_lists_and_numpy_ids_are_taken(bench: Bench) -> None:
    task_id, mask = bench.engine.put_match(tokens(2).tolist())
    assert mask.all()
    ids = np.array([task_id])
    assert bench.engine.launch(ids, [slots(1, 2).tolist()]) == [task_id]
    bench.transfer.finish(*bench.graph_ids)
    assert bench.engine.wait(ids)[task_id].status is Status.SUCCESS
    assert bench.engine.wait([]) == {}
