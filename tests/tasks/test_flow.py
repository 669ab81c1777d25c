"""TaskFlow and Recorder: an error while a completion is applied loses nothing; a trace is written outside the mutex."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.common.events import KVEvent
from flexkv.common.request import KVResponseStatus as Status
from flexkv.common.tracer import TraceOp, Tracer, read_trace
from flexkv.kvtask import KVTaskEngine
from flexkv.tasks import recorder as recorder_module
from tests.doubles import StorageDouble, TransferDouble
from tests.task_bench import NUM_BLOCKS, TPB, Bench, tokens


class BrokenCollector:
    """Cannot take a single event."""

    def publish(self, event: KVEvent) -> None:
        raise OSError("the router is gone")


def test_a_collector_that_raises_neither_fails_a_task_nor_leaks_a_pin(caplog: pytest.LogCaptureFixture) -> None:
    transfer = TransferDouble()
    config = CacheConfig(tokens_per_block=TPB, num_cpu_blocks=NUM_BLOCKS, evict_ratio=0.0)
    engine = KVTaskEngine(
        ModelConfig(1, 1, 8),
        config,
        transfer=transfer,
        storage=StorageDouble(NUM_BLOCKS),
        event_collector=BrokenCollector(),
    )
    ids = []
    for first in (0, 500):
        task_id, _ = engine.put_match(tokens(2, first))
        engine.launch(task_id, block_ids=[[first, first + 1]])
        ids.append(task_id)
    for graph_id in list(transfer.waiting):
        transfer.finish(graph_id)
    assert [response.status for response in engine.wait(ids, 0).values()] == [Status.SUCCESS] * 2
    assert engine.get_match(tokens(2))[1].all()
    engine.check_invariants()
    assert len([record for record in caplog.records if record.levelno > logging.INFO]) == 1
    assert "the router is gone" in caplog.text
    assert engine._recorder.num_lost_events == 2
    transfer.close()


def test_an_error_while_a_completion_is_applied_keeps_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    first, second = bench.put(2), bench.put(2, 500)
    for graph_id in bench.graph_ids:
        bench.transfer.finish(graph_id)
    with monkeypatch.context() as patch:
        patch.setattr(bench.engine._tier.cache.cpu_cache_engine, "publish", _raise)
        with pytest.raises(AssertionError, match="on purpose"):
            bench.engine.poll()
    assert bench.status(second) is Status.SUCCESS
    assert bench.engine.wait(first, 0)[first].status is Status.FAILED
    bench.check_nothing_is_held()


def _raise(*_: object) -> None:
    raise AssertionError("broken on purpose")


def test_the_trace_is_written_outside_the_mutex(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "FLUSH_EVERY_RECORDS", 4)
    path = tmp_path / "trace.jsonl"
    bench = Bench(trace_path=str(path))
    held: list[bool] = []
    flush = Tracer.flush

    def watched(tracer: Tracer) -> None:
        held.append(bench.engine._gate.lock.locked())
        flush(tracer)

    monkeypatch.setattr(Tracer, "flush", watched)
    for first in range(0, 5000, 1000):
        bench.engine.get_match(tokens(1, first))
    assert held == [], "a look-up never waits for the disk"
    bench.engine.poll()
    assert [record.op for record in read_trace(path)] == [TraceOp.GET, TraceOp.COMMIT] * 5
    bench.store(1)
    bench.engine.shutdown()
    assert [record.op for record in read_trace(path)][10:] == [TraceOp.PUT, TraceOp.COMMIT]
    assert held
    assert not any(held)


def test_a_trace_that_nobody_flushes_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "MAX_PENDING_RECORDS", 4)
    path = tmp_path / "trace.jsonl"
    bench = Bench(trace_path=str(path))
    for first in range(0, 5000, 1000):
        bench.engine.get_match(tokens(1, first))
    bench.engine.shutdown()
    records = list(read_trace(path))
    assert [record.op for record in records] == [TraceOp.GET, TraceOp.COMMIT] * 2 + [TraceOp.DROPPED]
    assert records[-1].num_blocks == 6


def test_every_request_of_a_trace_has_one_end(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    bench = Bench(trace_path=str(path))
    bench.store(1)
    first, second = (bench.engine.put_match(tokens(2, start))[0] for start in (1000, 2000))
    held, _ = bench.engine.put_match(tokens(1))  # ends before its batch is made
    bench.engine.launch([first, held, second], block_ids=[[1, 2], [], [3, 4]], as_batch=True)
    bench.transfer.finish(bench.graph_ids[-1])
    prefetch = bench.engine.prefetch_async(tokens(1))
    cancelled, live = (bench.engine.put_match(tokens(1, start))[0] for start in (3000, 4000))
    bench.engine.cancel(cancelled)
    bench.engine.launch([cancelled, live], block_ids=[[1], [2]], as_batch=True)
    bench.engine.shutdown()
    found: dict[int | None, list[TraceOp]] = {}
    for record in read_trace(path):
        found.setdefault(record.task_id, []).append(record.op)
    stored, given_up = [TraceOp.PUT, TraceOp.COMMIT], [TraceOp.PUT, TraceOp.ABORT]
    assert found == {
        1: stored,
        first: stored,
        second: stored,
        held: stored,
        prefetch: [TraceOp.PREFETCH, TraceOp.COMMIT],
        cancelled: given_up,
        live: given_up,
    }
