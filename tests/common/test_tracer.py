"""The tracer: what is recorded can be read back, bounded, and trouble with the disk stays here."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flexkv.common.tracer import TraceOp, Tracer, TraceRecord, read_trace, read_trace_header
from flexkv.errors import StorageIOError

KEYS = np.arange(48, dtype=np.uint8).reshape(3, 16)


def make_tracer(path: Path, **arguments: int) -> Tracer:
    return Tracer(path, tokens_per_block=16, num_blocks=100, policy="lru", **arguments)


def test_records_come_back_in_order_with_their_keys(tmp_path: Path) -> None:
    tracer = make_tracer(tmp_path / "trace")
    tracer.record(
        TraceOp.GET, 1.5, task_id=7, keys=KEYS, matched=2, ready=1, start=1, num_blocks=0, reason="not_stored_yet"
    )
    tracer.record(TraceOp.RESET, 2.0)
    tracer.close()
    get, reset = read_trace(tmp_path / "trace")
    assert (get.op, get.time_s, get.task_id, get.matched, get.ready, get.start) == (TraceOp.GET, 1.5, 7, 2, 1, 1)
    assert get.reason == "not_stored_yet"
    assert np.array_equal(get.key_array, KEYS)
    assert reset == TraceRecord(op=TraceOp.RESET, time_s=2.0)
    assert reset.key_array.shape == (0, 16)


def test_the_header_describes_the_cache(tmp_path: Path) -> None:
    make_tracer(tmp_path / "trace").close()
    header = read_trace_header(tmp_path / "trace")
    assert (header.tokens_per_block, header.num_blocks, header.policy) == (16, 100, "lru")
    assert list(read_trace(tmp_path / "trace")) == []


def test_nothing_is_written_before_a_flush(tmp_path: Path) -> None:
    tracer = make_tracer(tmp_path / "trace")
    tracer.flush()
    size = (tmp_path / "trace").stat().st_size
    tracer.record(TraceOp.RESET, 0.0)
    assert (tmp_path / "trace").stat().st_size == size
    tracer.flush()
    assert (tmp_path / "trace").stat().st_size > size
    tracer.close()


def test_records_beyond_the_buffer_are_dropped_and_counted(tmp_path: Path) -> None:
    tracer = make_tracer(tmp_path / "trace", max_buffered=2)
    for time_s in range(5):
        tracer.record(TraceOp.RESET, float(time_s))
    tracer.flush()
    tracer.record(TraceOp.RESET, 9.0)
    tracer.close()
    records = list(read_trace(tmp_path / "trace"))
    assert [record.op for record in records] == [TraceOp.RESET, TraceOp.RESET, TraceOp.DROPPED, TraceOp.RESET]
    assert records[2].num_blocks == tracer.num_dropped == 3


def test_what_is_recorded_while_a_flush_writes_comes_with_the_next(tmp_path: Path) -> None:
    tracer = make_tracer(tmp_path / "trace")
    tracer.record(TraceOp.RESET, 1.0)
    file = tracer._file
    assert file is not None

    class Busy:
        """A file to which records come while it writes."""

        def write(self, data: bytes) -> int:
            tracer.record(TraceOp.RESET, 2.0)
            tracer.flush()  # another thread's: it neither waits nor writes
            return file.write(data)

        def flush(self) -> None:
            file.flush()

    tracer._file = Busy()  # type: ignore[assignment]
    tracer.flush()
    tracer._file = file
    assert tracer.num_buffered == 1
    assert [record.time_s for record in read_trace(tmp_path / "trace")] == [1.0]
    tracer.close()
    assert [record.time_s for record in read_trace(tmp_path / "trace")] == [1.0, 2.0]


def test_close_is_idempotent_and_later_records_are_ignored(tmp_path: Path) -> None:
    tracer = make_tracer(tmp_path / "trace")
    tracer.close()
    tracer.record(TraceOp.RESET, 0.0)
    tracer.close()
    assert list(read_trace(tmp_path / "trace")) == []


def test_only_the_owner_can_read_a_trace(tmp_path: Path) -> None:
    make_tracer(tmp_path / "trace").close()
    assert stat.S_IMODE((tmp_path / "trace").stat().st_mode) == 0o600


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageIOError, match="trace_path") as caught:
        make_tracer(tmp_path / "missing" / "trace")
    assert caught.value.errno == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_turns_the_tracer_off_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    tracer = make_tracer(Path("/dev/full"))
    for _ in range(2):
        tracer.record(TraceOp.RESET, 0.0)
        tracer.flush()
    tracer.close()
    assert [record.levelname for record in caplog.records if "trace stopped" in record.message] == ["WARNING"]


def test_a_last_line_without_its_end_is_left_out(tmp_path: Path) -> None:
    tracer = make_tracer(tmp_path / "trace")
    tracer.record(TraceOp.GET, 1.0, keys=KEYS)
    tracer.record(TraceOp.RESET, 2.0)
    tracer.close()
    content = (tmp_path / "trace").read_bytes()
    (tmp_path / "trace").write_bytes(content[:-5])
    assert [record.op for record in read_trace(tmp_path / "trace")] == [TraceOp.GET]


@pytest.mark.parametrize("content", [b"", b"hello\n", b'{"flexkv_trace":99,"tokens_per_block":16}\n'])
def test_what_is_no_trace_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "trace").write_bytes(content)
    with pytest.raises(ValueError, match="trace"):
        list(read_trace(tmp_path / "trace"))


def test_a_malformed_line_is_refused_with_its_number(tmp_path: Path) -> None:
    make_tracer(tmp_path / "trace").close()
    with (tmp_path / "trace").open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(ValueError, match="line 2"):
        list(read_trace(tmp_path / "trace"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(list(TraceOp)), st.floats(0, 1e6), st.integers(0, 4), st.text(max_size=5))))
def test_any_records_survive_the_file(tmp_path: Path, records: list[tuple[TraceOp, float, int, str]]) -> None:
    tracer = make_tracer(tmp_path / "trace")
    for op, time_s, num_keys, reason in records:
        tracer.record(op, time_s, keys=np.full((num_keys, 16), num_keys, dtype=np.uint8), reason=reason)
    tracer.close()
    back = [(r.op, r.time_s, len(r.key_array), r.reason) for r in read_trace(tmp_path / "trace")]
    assert back == records
