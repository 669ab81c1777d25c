"""Registration: what goes wrong in an agent without ending it is said once."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest

from flexkv import _core
from flexkv.common.device_layout import DeviceLayoutSpec
from flexkv.server.registration import STATE_CHECK_STEPS, Registration

MEMORY = np.zeros(64, np.uint8)
PLANES = np.array([[MEMORY.ctypes.data, 64, 64]], np.uint64)
SPEC = DeviceLayoutSpec(num_blocks=1, planes=PLANES, slot_bytes=64, tag="", device="cuda:1")


class Agent:
    """Stands for a copy agent: has the counters that a test gives it."""

    state = _core.AgentState.IDLE
    refusal = ""
    last_error = ""

    def __init__(self) -> None:
        real = _core.CopyAgent(
            socket_path="/nowhere", rank=0, num_ranks=1, tokens_per_block=16, layout_tag="", copy_threads=1,
            num_blocks=1, planes=PLANES,
        )  # fmt: skip
        self.counters = real.stats()

    def stats(self) -> dict[str, object]:
        return dict(self.counters)

    def record_step(self, step: int, stream: int) -> None: ...

    def stop(self, timeout_s: float) -> bool:
        return True


class Owner: ...


@pytest.fixture
def agent() -> Agent:
    return Agent()


@pytest.fixture
def registration(agent: Agent) -> Iterator[Registration]:
    owner = Owner()
    yield Registration(owner, 3, agent, [], SPEC)  # type: ignore[arg-type]
    del owner


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.levelno == level]
    caplog.clear()
    return found


def test_a_copy_that_does_not_end_is_warned_of_once_and_its_end_is_told(
    agent: Agent, registration: Registration, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flexkv")
    assert not registration.report().is_load_stuck
    agent.counters["is_load_stuck"] = True
    assert registration.report().is_load_stuck
    for step in range(2 * STATE_CHECK_STEPS):
        registration.record_step(step, 5)
    (line,) = lines(caplog, logging.WARNING)
    assert line == (
        "a load does not end: its blocks are not used again before it has, others wait rank=3 device=cuda:1"
    )
    agent.counters["is_load_stuck"] = False
    agent.counters["is_store_stuck"] = True
    assert registration.report().is_store_stuck
    assert lines(caplog, logging.INFO) == ["the load that was stuck has ended rank=3"]


def test_a_worker_that_only_steps_warns_too(
    agent: Agent, registration: Registration, caplog: pytest.LogCaptureFixture
) -> None:
    agent.counters["is_store_stuck"] = True
    for step in range(STATE_CHECK_STEPS):
        registration.record_step(step, 5)
    (line,) = lines(caplog, logging.WARNING)
    assert line.startswith("a store does not end")


def test_memory_that_the_driver_refused_is_warned_of_once_all_is_tried(
    agent: Agent, registration: Registration, caplog: pytest.LogCaptureFixture
) -> None:
    agent.counters |= {"registered_bytes": 5, "unregistered_bytes": 7, "registration_error": "cuMemHostRegister: X"}
    report = registration.report()
    assert (report.registered_bytes, report.unregistered_bytes) == (5, 7)
    assert lines(caplog, logging.WARNING) == []
    agent.counters |= {"is_registration_complete": True, "unregistered_bytes": 9}
    registration.report()
    registration.report()
    (line,) = lines(caplog, logging.WARNING)
    assert line.endswith("rank=3 unregistered_bytes=9 registered_bytes=5 error=cuMemHostRegister: X")
    assert "ulimit -l" in line


def test_a_pool_that_is_all_registered_is_nothing_to_say(
    agent: Agent, registration: Registration, caplog: pytest.LogCaptureFixture
) -> None:
    agent.counters |= {"registered_bytes": 5, "is_registration_complete": True}
    registration.report()
    assert lines(caplog, logging.WARNING) == []
