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
from typing import Any

from flexkv import _core
from flexkv.common.debug import flexkv_logger
from flexkv.common.device_layout import DeviceLayoutSpec
from flexkv.common.ring_buffer import RingBuffer
from flexkv.server.copy_tuning import CopyTuning, CopyTuningReport

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
    registered_bytes: int = 0
    """Of host memory, with the GPU's driver; 0 without a GPU."""
    unregistered_bytes: int = 0
    """That the driver refused: copied to and from all the same, but slower."""
    is_registration_complete: bool = False
    registration_error: str = ""
    """What the driver said when it refused."""
    is_load_stuck: bool = False
    """A copy does not end; what it may still write to is not used again before it does."""
    is_store_stuck: bool = False
    copy_tuning: CopyTuningReport | None = None  # on a GPU: what copies what, and the figures for it


class Registration:
    """The agent, and the tensors it may write to. When `owner` goes without `close`, the agent is stopped first."""

    def __init__(
        self,
        owner: object,
        rank: int,
        agent: _core.CopyAgent,
        tensors: list[object],
        spec: DeviceLayoutSpec,
        tuning: CopyTuning | None = None,
    ) -> None:
        self.agent = agent
        self._tuning = tuning
        self._device = spec.device
        self._layer_ends = spec.layer_ends
        self._rank = rank
        self._steps: RingBuffer[StepTicket] = RingBuffer(MAX_STEP_TICKETS)
        self._steps_lock = threading.Lock()
        self._num_steps = 0
        self._reported_state = _core.AgentState.IDLE
        self._reported_stuck: dict[str, bool] = {}
        self._has_reported_refusal = False
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
            self._note_health(self.agent.stats())

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
        stats = self.agent.stats()
        self._note_health(stats)
        steps = self.recent_steps()
        return AgentReport(
            state=state.name,
            last_step=max((ticket.step for ticket in steps), default=0),
            last_error=self.agent.refusal or self.agent.last_error,
            copy_tuning=None if self._tuning is None else self._tuning.report(),
            **stats,
        )

    def _note_state(self) -> _core.AgentState:
        """Return the state; log it when it has changed since the last time.

        That the cache is not there yet is worth a line only once the engine is well into its steps.
        """
        if self._tuning is not None:
            self._tuning.note()
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

    def _note_health(self, stats: dict[str, Any]) -> None:
        """Log a copy that does not end, when it begins and ends to be so, and once what the driver did not register."""
        with self._steps_lock:
            stuck = {name: stats[f"is_{name}_stuck"] for name in ("load", "store")}
            changed = [name for name, is_stuck in stuck.items() if is_stuck != self._reported_stuck.get(name, False)]
            self._reported_stuck = stuck
            is_refused = bool(stats["unregistered_bytes"]) and stats["is_registration_complete"]
            is_news = is_refused and not self._has_reported_refusal
            self._has_reported_refusal = is_refused
        for name in changed:
            if stuck[name]:
                _logger.warning(
                    "a %s does not end: its blocks are not used again before it has, others wait rank=%d device=%s",
                    name,
                    self._rank,
                    self._device,
                )
            else:
                _logger.info("the %s that was stuck has ended rank=%d", name, self._rank)
        if is_news:
            _logger.warning(
                "the driver refused to register host memory, copies to and from it are slower: raise the limit of "
                "locked memory (ulimit -l) rank=%d unregistered_bytes=%d registered_bytes=%d error=%s",
                self._rank,
                stats["unregistered_bytes"],
                stats["registered_bytes"],
                stats["registration_error"],
            )

    def close(self, timeout_s: float) -> bool:
        """Stop the agent and let the tensors go. False, with nothing let go, when a copy did not end in time."""
        if not self.agent.stop(timeout_s):
            return False
        if self._tuning is not None:
            self._tuning.finish(timeout_s)
        self._finalizer.detach()
        return True


def _stop_and_release(agent: _core.CopyAgent, tensors: list[object]) -> None:
    """Stop the agent of a client that was never shut down; only then may its tensors go."""
    if not agent.stop(ABANDON_TIMEOUT_S):
        _abandoned.append(tensors)


_abandoned: list[list[object]] = []  # tensors that a copy which never ended may still write to
