"""Tracer: records every request and decision, so that a run can be replayed against a cache engine.

One JSON object a line. The first line describes the recording (`TraceHeader`), each other one is a `TraceRecord` with
the full keys of the blocks (base64), so that a replay needs no tokens. Prompts are never written.

`record` only appends to memory: nobody writes to a disk under the task engine's mutex. The owner calls `flush` at a
quiet moment and `close` at the end; between them at most `max_buffered` records wait, further ones are dropped and
counted (`num_dropped`, also in the trace).
Thread safety: `record` under one lock of its callers; all else on any thread, without that lock.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import BinaryIO

import msgspec
import numpy as np

from flexkv.common.debug import flexkv_logger
from flexkv.common.hash_utils import KEY_BYTES, Keys
from flexkv.errors import StorageIOError

__all__ = ["TraceHeader", "TraceOp", "TraceRecord", "Tracer", "read_trace", "read_trace_header"]

TRACE_FORMAT_VERSION = 1
_logger = flexkv_logger(__name__)


class TraceOp(Enum):
    """What was asked or decided."""

    GET = "get"
    PUT = "put"
    PREFETCH = "prefetch"
    COMMIT = "commit"
    ABORT = "abort"
    EVICT = "evict"
    RESET = "reset"
    DROPPED = "dropped"  # so many records are missing here (`num_blocks`)


class TraceHeader(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """First line: what the records mean."""

    flexkv_trace: int
    tokens_per_block: int
    num_blocks: int = 0
    policy: str = ""


class TraceRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line. `time_s` is on the task engine's clock.

    GET: `keys` of the request, `matched` blocks visible, `ready` of these, `start` first block asked for,
    `num_blocks` planned.
    PUT: `keys` of the request, `matched` blocks held already, `num_blocks` planned. PREFETCH: `keys` if it has any.
    COMMIT, ABORT: the request with this `task_id` ends, `reason` says how; each has one end, also in a batch.
    EVICT: `keys` of the victims in the CPU tier.
    """

    op: TraceOp
    time_s: float
    task_id: int | None = None
    keys: bytes = b""  # msgspec writes bytes as base64
    matched: int = 0
    ready: int = 0
    start: int = 0
    num_blocks: int = 0
    reason: str = ""

    @property
    def key_array(self) -> Keys:
        """The keys. Read-only. Shape: (n, 16)."""
        return np.frombuffer(self.keys, dtype=np.uint8).reshape(-1, KEY_BYTES)


class Tracer:
    """Writes a trace to `path`, which is created or emptied, readable by its owner only.

    Raises:
        StorageIOError: the file cannot be opened. Later errors are logged once, and the tracer turns itself off.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        tokens_per_block: int,
        num_blocks: int = 0,
        policy: str = "",
        max_buffered: int = 65536,
    ) -> None:
        self.path = os.fspath(path)
        self.num_dropped = 0
        self._max_buffered = max_buffered
        self._buffer: deque[tuple[TraceRecord, Keys | None]] = deque()
        self._num_reported = 0
        self._last_time_s = 0.0
        self._writing = threading.Lock()
        self._encoder = msgspec.json.Encoder()
        header = TraceHeader(
            flexkv_trace=TRACE_FORMAT_VERSION, tokens_per_block=tokens_per_block, num_blocks=num_blocks, policy=policy
        )
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            self._file: BinaryIO | None = os.fdopen(descriptor, "wb")
            # Not in the file's own buffer, of which a forked child that ends would write its copy.
            self._unwritten_header = self._encoder.encode(header) + b"\n"
        except OSError as error:
            message = f"trace_path {self.path!r} cannot be written: {error.strerror}; give another path or unset it"
            raise StorageIOError(message, path=self.path, errno=error.errno) from error

    def record(
        self,
        op: TraceOp,
        time_s: float,
        *,
        task_id: int | None = None,
        keys: Keys | None = None,
        matched: int = 0,
        ready: int = 0,
        start: int = 0,
        num_blocks: int = 0,
        reason: str = "",
    ) -> None:
        """Append one record to the buffer. O(1); no I/O. `keys` must not be written to afterwards."""
        if self._file is None:
            return
        self._last_time_s = time_s
        if len(self._buffer) >= self._max_buffered:
            self.num_dropped += 1
            return
        record = TraceRecord(
            op=op,
            time_s=time_s,
            task_id=task_id,
            matched=matched,
            ready=ready,
            start=start,
            num_blocks=num_blocks,
            reason=reason,
        )
        self._buffer.append((record, keys))

    @property
    def num_buffered(self) -> int:
        """Records that wait for a flush."""
        return len(self._buffer)

    def flush(self) -> None:
        """Write what waits, unless another thread is at it. Blocks for the disk."""
        if self._writing.acquire(blocking=False):
            try:
                self._write()
            finally:
                self._writing.release()

    def _write(self) -> None:
        waiting = [self._buffer.popleft() for _ in range(len(self._buffer))]  # recording goes on meanwhile
        if self._file is None:
            return
        records = [
            record if keys is None else msgspec.structs.replace(record, keys=keys.tobytes()) for record, keys in waiting
        ]
        num_missing = self.num_dropped - self._num_reported
        if num_missing:
            records.append(TraceRecord(op=TraceOp.DROPPED, time_s=self._last_time_s, num_blocks=num_missing))
            self._num_reported += num_missing
        try:
            self._file.write(self._unwritten_header + self._encoder.encode_lines(records))
            self._unwritten_header = b""
            self._file.flush()
        except OSError as error:
            _logger.warning("trace stopped path=%s error=%s", self.path, error.strerror)
            self._abandon()

    def _abandon(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:  # its buffer cannot be written either
                _logger.debug("trace close path=%s error=%s", self.path, error.strerror)

    def close(self) -> None:
        """Write what waits and close the file. Idempotent."""
        with self._writing:
            self._write()
            self._abandon()


def read_trace_header(path: str | os.PathLike[str]) -> TraceHeader:
    """Return the first line. Raises ValueError when this is no trace of a known version."""
    with open(path, "rb") as file:
        return _decode_header(file.readline(), os.fspath(path))


def _decode_header(line: bytes, path: str) -> TraceHeader:
    try:
        header = msgspec.json.decode(line, type=TraceHeader)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path!r} is no trace: {error}") from error
    if header.flexkv_trace != TRACE_FORMAT_VERSION:
        raise ValueError(f"{path!r} has trace format {header.flexkv_trace}; this version reads {TRACE_FORMAT_VERSION}")
    return header


def read_trace(path: str | os.PathLike[str]) -> Iterator[TraceRecord]:
    """Yield the records in order. A last line without its end (the writer died) is left out.

    Raises:
        ValueError: naming the line that is malformed.
    """
    decoder = msgspec.json.Decoder(TraceRecord)
    with open(path, "rb") as file:
        _decode_header(file.readline(), os.fspath(path))
        for number, line in enumerate(file, 2):
            if not line.endswith(b"\n"):
                return
            try:
                yield decoder.decode(line)
            except msgspec.DecodeError as error:
                raise ValueError(f"{os.fspath(path)!r} line {number} is malformed: {error}") from error
