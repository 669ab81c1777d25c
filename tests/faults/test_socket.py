"""Garbage on the registration socket while a real rank works: the rank is unaffected, memory bounded."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from flexkv.common.request import KVResponseStatus as Status
from tests.rig import Rig, eventually, tokens
from tests.transfer.wire_agent import ACK, MAGIC, OP, REGISTER, VERSION

MAX_BODY_BYTES = 64 << 20
MAX_GREETINGS = 64
GROWTH_BYTES = 48 << 20
NUM_ROUNDS = 30


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


def connect(rig: Rig) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.settimeout(20)
    peer.connect(rig.manager.gpu_register_port.removeprefix("ipc://"))
    return peer


def header(*, magic: int = MAGIC, version: int = VERSION, kind: int = REGISTER, length: int = 0) -> bytes:
    return struct.pack("<IHHI", magic, version, kind, length)


def send_with_descriptor(peer: socket.socket) -> None:
    memory = os.memfd_create("nobody asked for it", os.MFD_CLOEXEC)
    socket.send_fds(peer, [header()[:3]], [memory])
    os.close(memory)


def flood(peer: socket.socket) -> None:
    """A frame that claims the most there is, and much of its body."""
    peer.sendall(header(kind=OP, length=MAX_BODY_BYTES))
    peer.sendall(bytes(8 << 20))


GARBAGE: dict[str, Callable[[socket.socket], None]] = {
    "random bytes": lambda peer: peer.sendall(random.Random(7).randbytes(3000)),
    "a truncated header": lambda peer: peer.sendall(header()[:7]),
    "a truncated frame": lambda peer: peer.sendall(header(length=40) + bytes(11)),
    "a huge length": lambda peer: peer.sendall(header(length=0xFFFFFFFF)),
    "a huge frame": flood,
    "an old version": lambda peer: peer.sendall(header(version=0, length=32) + bytes(32)),
    "a wrong magic": lambda peer: peer.sendall(header(magic=0xDEADBEEF)),
    "an acknowledgement of nothing": lambda peer: peer.sendall(header(kind=ACK, length=32) + bytes(32)),
    "descriptors without a frame": send_with_descriptor,
    "nothing": lambda peer: None,
}
ENDLESS = {"a truncated header", "a truncated frame", "nothing"}


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def num_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_leaves_a_working_rank_alone_and_takes_no_memory(rig: Rig, what: str) -> None:
    expected = rig.gpu.read([1, 2, 3])
    assert rig.store(tokens(3), [1, 2, 3]) is Status.SUCCESS
    before_bytes, before_fds = resident_bytes(), num_descriptors()
    kept: list[socket.socket] = []
    done = threading.Event()

    def offend() -> None:
        for number in range(NUM_ROUNDS):
            peer = connect(rig)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it was shown the door already
                GARBAGE[what](peer)
            if number % 2:
                kept.append(peer)  # and hangs
            else:
                peer.close()
        done.set()

    offender = threading.Thread(target=offend)
    offender.start()
    num_loads = 0
    while not done.is_set() or num_loads < 20:
        rig.gpu.poison()
        assert rig.load(tokens(3), [7, 8, 9]) is Status.SUCCESS
        assert np.array_equal(rig.gpu.read([7, 8, 9]), expected)
        assert rig.gpu.untouched([7, 8, 9])
        num_loads += 1
    offender.join(20)
    assert resident_bytes() - before_bytes < GROWTH_BYTES
    transfer = rig.manager._engine._transfer
    if what not in ENDLESS:
        assert eventually(lambda: transfer.protocol_errors >= NUM_ROUNDS // 2)  # type: ignore[attr-defined]
    for peer in kept:
        if what not in ENDLESS:
            assert is_closed(peer)
        peer.close()
    assert eventually(lambda: num_descriptors() <= before_fds)
    assert transfer.ranks()[0].connected  # type: ignore[attr-defined]
    rig.check_nothing_is_held()


def is_closed(peer: socket.socket) -> bool:
    try:
        return peer.recv(1) == b""
    except ConnectionResetError:
        return True


def test_peers_that_connect_and_hang_are_dropped_oldest_first_and_a_rank_still_gets_in(rig: Rig) -> None:
    peers = [connect(rig) for _ in range(MAX_GREETINGS + 10)]
    assert all(is_closed(peer) for peer in peers[:10])
    transfer = rig.manager._engine._transfer
    assert "too many connections without REGISTER" in transfer.last_protocol_error, "not for their age"  # type: ignore[attr-defined]
    assert rig.client.unregister()
    rig.client.register_to_server(rig.gpu.layers, block_dim=0)
    assert eventually(lambda: rig.store(tokens(3), [1, 2, 3]) is Status.SUCCESS), "once its slots are mapped"
    for peer in peers:
        peer.close()


def test_only_the_owner_can_reach_the_socket(rig: Rig) -> None:
    path = rig.manager.gpu_register_port.removeprefix("ipc://")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    directory = os.stat(os.path.dirname(path))
    assert (stat.S_IMODE(directory.st_mode), directory.st_uid) == (0o700, os.getuid())
