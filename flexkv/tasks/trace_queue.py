"""TraceQueue: records of a trace wait here, so that nobody writes to a disk under the task engine's mutex.

Thread safety: `add` under one lock of its callers; `flush` and `close` on any thread, without that lock.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from flexkv.common.tracer import TraceOp, Tracer

__all__ = ["TraceQueue"]


class TraceQueue:
    """A bounded queue in front of a Tracer, which it owns. What does not fit is counted in the trace."""

    def __init__(self, tracer: Tracer, max_pending: int) -> None:
        self._tracer = tracer
        self._max_pending = max_pending
        self._pending: deque[tuple[TraceOp, float, dict[str, Any]]] = deque()
        self._num_dropped = 0
        self._num_reported = 0
        self._last_time_s = 0.0
        self._writing = threading.Lock()
        self._closed = False

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, op: TraceOp, time_s: float, **fields: Any) -> None:
        """Keep one record; the fields are those of Tracer.record. O(1); no I/O."""
        if self._closed:
            return
        self._last_time_s = time_s
        if len(self._pending) >= self._max_pending:
            self._num_dropped += 1
        else:
            self._pending.append((op, time_s, fields))

    def flush(self) -> None:
        """Write what waits, unless another thread is at it. Blocks for the disk."""
        if self._writing.acquire(blocking=False):
            try:
                self._write()
            finally:
                self._writing.release()

    def close(self) -> None:
        """Write what waits and close the file. Idempotent."""
        with self._writing:
            self._closed = True
            self._write()
            self._tracer.close()

    def _write(self) -> None:
        for _ in range(len(self._pending)):  # one thread at a time takes; adding goes on meanwhile
            op, time_s, fields = self._pending.popleft()
            self._tracer.record(op, time_s, **fields)
        num_dropped = self._num_dropped
        if num_dropped != self._num_reported:
            self._tracer.record(TraceOp.DROPPED, self._last_time_s, num_blocks=num_dropped - self._num_reported)
            self._num_reported = num_dropped
        self._tracer.flush()
