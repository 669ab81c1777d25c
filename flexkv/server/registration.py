"""One registration of a rank's KV tensors: the copy agent, what it must keep alive, and what is told of it.

The agent's threads write to the tensors. They are therefore let go only after the agent has stopped, whatever happens
to the client: `close`, garbage collection, or the end of the interpreter.
Thread safety: all methods, any thread.
"""

from __future__ import annotations

import threading
import time
import weakref
from dataclasses import dataclass

from flexkv import _core
from flexkv.common.debug import flexkv_logger
from flexkv.common.device_layout import DeviceLayoutSpec
from flexkv.common.ring_buffer import RingBuffer

__all__ = ["AgentReport", "Registration", "StepTicket"]

_logger = flexkv_logger(__name__)
ABANDON_TIMEOUT_S = 5.0
MAX_STEP_TICKETS = 64
STATE_CHECK_STEPS = 64
LEGACY_STREAM = 1
"""CUDA's name for the default stream, whose address is 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTicket:
    """A step that the worker has recorded; `time_s` is on the monotonic clock."""

    step: int
    time_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentReport:
    """What a copy agent has done since its tensors were registered, and where it is."""

    state: str  # IDLE, CONNECTING, REGISTERED, SERVING, REFUSED or STOPPED
    last_step: int
    last_error: str
    loads_done: int
    stores_done: int
    ops_failed: int
    ops_cancelled: int
    ops_outstanding: int
    bytes_loaded: int
    bytes_stored: int
    load_ns: int
    store_ns: int
    connections: int


class Registration:
    """The agent, and the tensors it may write to. When `owner` goes without `close`, the agent is stopped first."""

    def __init__(
        self, owner: object, rank: int, agent: _core.CopyAgent, tensors: list[object], spec: DeviceLayoutSpec
    ) -> None:
        self.agent = agent
        self._device = spec.device
        self._layer_ends = spec.layer_ends
        self._rank = rank
        self._steps: RingBuffer[StepTicket] = RingBuffer(MAX_STEP_TICKETS)
        self._steps_lock = threading.Lock()
        self._num_steps = 0
        self._reported_state = _core.AgentState.IDLE
        self._finalizer = weakref.finalize(owner, _stop_and_release, agent, tensors)  # also at exit

    def record_step(self, step: int, stream: int | None = None) -> None:
        """Let ops with this ticket run, behind what the stream holds. Now and then log a state that has changed."""
        self.agent.record_step(step, self._stream(stream))
        with self._steps_lock:
            self._steps.append(StepTicket(step=step, time_s=time.monotonic()))
            self._num_steps += 1
            is_due = self._num_steps % STATE_CHECK_STEPS == 0
        if is_due:
            self._note_state()

    def wait_for_layer(self, ticket: int, layer_name: str | None, stream: int | None = None) -> bool:
        """Have the stream wait until the layer's blocks are there. ValueError naming a layer that is not registered."""
        end = max(self._layer_ends.values()) if layer_name is None else self._layer_ends.get(layer_name)
        if end is None:
            raise ValueError(f"layer_name is {layer_name!r}, which is not registered")
        return self.agent.wait_layer(ticket, end, self._stream(stream))

    def _stream(self, stream: int | None) -> int:
        """Return the address of the stream that holds a step's work; 0 where there are no streams."""
        if self._device == "cpu":
            return 0
        if stream is None:
            import torch

            stream = int(torch.cuda.current_stream(torch.device(self._device)).cuda_stream)
        return stream or LEGACY_STREAM

    def recent_steps(self) -> list[StepTicket]:
        """Return the last tickets, oldest first."""
        with self._steps_lock:
            return list(self._steps)

    def report(self) -> AgentReport:
        """Return counters and state; log a state that has changed since the last report."""
        state = self._note_state()
        steps = self.recent_steps()
        return AgentReport(
            state=state.name,
            last_step=max((ticket.step for ticket in steps), default=0),
            last_error=self.agent.refusal or self.agent.last_error,
            **self.agent.stats(),
        )

    def _note_state(self) -> _core.AgentState:
        """Return the state; log it when it has changed since the last time.

        That the cache is not there yet is worth a line only once the engine is well into its steps.
        """
        state = self.agent.state
        with self._steps_lock:
            is_early = self._reported_state == _core.AgentState.IDLE and self._num_steps < STATE_CHECK_STEPS
            is_news = state != _core.AgentState.CONNECTING or not is_early
            has_changed = state != self._reported_state and is_news
            if has_changed:
                self._reported_state = state
        if has_changed:
            self._log_state(state)
        return state

    def _log_state(self, state: _core.AgentState) -> None:
        if state == _core.AgentState.REFUSED:
            _logger.warning("the cache refused this rank rank=%d reason=%s", self._rank, self.agent.refusal)
        elif state == _core.AgentState.CONNECTING:
            _logger.warning("the cache is not there, retrying rank=%d error=%s", self._rank, self.agent.last_error)
        elif state == _core.AgentState.SERVING:
            _logger.info("the cache serves this rank rank=%d", self._rank)

    def close(self, timeout_s: float) -> bool:
        """Stop the agent and let the tensors go. False, with nothing let go, when a copy did not end in time."""
        if not self.agent.stop(timeout_s):
            return False
        self._finalizer.detach()
        return True


def _stop_and_release(agent: _core.CopyAgent, tensors: list[object]) -> None:
    """Stop the agent of a client that was never shut down; only then may its tensors go."""
    if not agent.stop(ABANDON_TIMEOUT_S):
        _abandoned.append(tensors)


_abandoned: list[list[object]] = []  # tensors that a copy which never ended may still write to
