"""Native objects that wait while they are destroyed let other Python threads run meanwhile.

A peer that runs Python answers what the destructor waits for: it could not while the GIL is held.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flexkv import _core
from flexkv._core import OpType
from tests.transfer.wire_agent import ACK, BYE, CANCEL, CANCELLED, MAGIC, OP, REGISTER, VERSION, WireAgent

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 20.0
NUM_OPS = 40_000  # their acknowledgements fill any socket
_HEADER = struct.Struct("<IHHI")


@pytest.fixture
def one_thread_at_a_time() -> Iterator[None]:
    """A thread goes on until it lets the GIL go by itself."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(60.0)
    yield
    sys.setswitchinterval(before_s)


def drop(holder: list[object]) -> threading.Thread:
    """Destroy the only object in `holder` in a thread of its own, and return when that has begun."""
    begins = threading.Event()

    def body() -> None:
        begins.set()
        holder.clear()

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    assert begins.wait(TIMEOUT_S)
    return thread


def engine_with_a_running_op(path: str) -> tuple[list[object], WireAgent]:
    """Return the only reference to an engine, and the agent that has op 1 in hand."""
    engine = _core.TransferEngine(path)
    engine.start()
    agent = WireAgent(path)
    agent.register()
    assert engine.wait_ranks(TIMEOUT_S)
    engine.set_pool(_core.HostPool(4, [4096]))
    agent.serve_pool()
    assert engine.wait_slots(4, TIMEOUT_S)
    ids = np.zeros(1, np.int64)
    engine.submit(1, [(1, OpType.H2D, ids, ids, 0, [])], TIMEOUT_S)
    assert agent.take_op().op_id == 1
    return [engine], agent


def test_a_dropped_engine_drains_while_python_runs(tmp_path: Path, one_thread_at_a_time: None) -> None:
    holder, agent = engine_with_a_running_op(str(tmp_path / "engine.sock"))
    thread = drop(holder)
    assert agent.receive()[0] == CANCEL
    agent.acknowledge(1, CANCELLED)  # the engine still listens
    assert agent.is_closed()
    agent.close()
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()


# The interpreter is ending when the destructor in the daemon thread comes back for the GIL: what it waits for is
# answered from the last module's end.
ENDS_AMID_A_DESTRUCTOR = """
import os, select, struct, sys
from tests.transfer import test_gil

class Last:
    def __init__(self, fd, ack):
        self.fd, self.ack, self.os, self.poll = fd, ack, os, select.select
    def __del__(self):
        self.os.write(self.fd, self.ack)
        assert self.os.read(self.fd, 1) == b""  # the engine has let go
        self.os.close(self.fd)
        self.poll([], [], [], 0.3)  # for the thread to do what it must not
        self.os.write(1, b"the end")

holder, agent = test_gil.engine_with_a_running_op(sys.argv[1])
test_gil.drop(holder)
assert agent.receive()[0] == test_gil.CANCEL
fd = os.dup(agent._socket.fileno())
agent.close()
os.set_blocking(fd, True)
ack = struct.pack("<IHHIQQQII", test_gil.MAGIC, test_gil.VERSION, test_gil.ACK, 32, 1, 0, 0, test_gil.CANCELLED, 0)
sys.modules["the last"] = Last(fd, ack)
"""


def test_an_interpreter_that_ends_amid_a_destructor_does_not_abort(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ENDS_AMID_A_DESTRUCTOR, str(tmp_path / "engine.sock")]
    done = subprocess.run(command, cwd=ROOT, timeout=60, check=False, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"the end", b"")


def test_a_dropped_agent_says_goodbye_while_python_runs(tmp_path: Path, one_thread_at_a_time: None) -> None:
    path = str(tmp_path / "engine.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        memory = np.zeros((4, 4096), np.uint8)
        planes = np.array([[memory.ctypes.data, 4096, 4096]], np.uint64)
        agent = _core.CopyAgent(path, 0, 1, 16, "layout", 1, 4, planes)
        agent.start()
        listener.settimeout(TIMEOUT_S)
        engine, _ = listener.accept()
    with engine:
        engine.settimeout(TIMEOUT_S)
        assert receive(engine) == REGISTER
        op = _HEADER.pack(MAGIC, VERSION, OP, 32) + struct.pack("<QQQII", 1, 0, 0, 0, 0)
        engine.sendall(op * NUM_OPS)  # without a pool each of them fails at once
        holder: list[object] = [agent]
        del agent
        thread = drop(holder)
        kinds = {ACK: 0, BYE: 0}
        while kinds[BYE] == 0:
            kinds[receive(engine)] += 1
        assert kinds[ACK] <= NUM_OPS
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()


def receive(engine: socket.socket) -> int:
    """Take the next frame of the agent; return its type."""
    _, _, kind, length = _HEADER.unpack(take(engine, _HEADER.size))
    take(engine, length)
    return int(kind)


def take(engine: socket.socket, size: int) -> bytes:
    """Take so many bytes. A socket with a timeout never blocks in the kernel: MSG_WAITALL means nothing to it."""
    taken = b""
    while len(taken) < size:
        part = engine.recv(size - len(taken))
        assert part, "the agent closed in the middle of a frame"
        taken += part
    return taken
