"""WireAgent: a copy agent that copies nothing, one frame at a time, for tests of the TransferEngine's Python face.

It says the framed protocol of csrc/transfer/protocol.h by itself, so that it also holds the byte layout.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

MAGIC, VERSION = 0x564B4C46, 3
REGISTER, POOL, REFUSED, MAPPED, OP, CANCEL, ACK, BYE, LOST = range(1, 10)
DONE, FAILED, CANCELLED = range(3)
_HEADER = struct.Struct("<IHHI")
_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class WireOp:
    op_id: int
    after_step: int
    direction: int
    slots: tuple[int, ...]
    blocks: tuple[int, ...]


class WireAgent:
    """Connected on construction."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_TIMEOUT_S)
        self._socket.connect(path)

    def register(self, rank: int = 0, num_ranks: int = 1, *, slot_bytes: int = 4096, num_blocks: int = 100) -> None:
        tag = b"layout"
        self.send(REGISTER, struct.pack("<IIQQII", rank, num_ranks, num_blocks, slot_bytes, 16, len(tag)) + tag)

    def serve_pool(self) -> int:
        """Take POOL, close its descriptor, announce all slots as mapped; return how many there are."""
        header, fds, _, _ = socket.recv_fds(self._socket, _HEADER.size, 1)
        assert _HEADER.unpack(header)[2] == POOL
        assert len(fds) == 1
        os.close(fds[0])
        num_slots: int = struct.unpack("<QQQQ", self._take(32))[1]
        self.send(MAPPED, struct.pack("<Q", num_slots))
        return num_slots

    def take_op(self) -> WireOp:
        kind, body = self.receive()
        assert kind == OP, kind
        op_id, after_step, _layer_ticket, direction, count = struct.unpack_from("<QQQII", body)
        ids = struct.unpack_from(f"<{2 * count}q", body, 32)
        return WireOp(op_id, after_step, direction, ids[:count], ids[count:])

    def acknowledge(self, op_id: int, status: int = DONE) -> None:
        self.send(ACK, struct.pack("<QQQII", op_id, 4096, 1000, status, 0 if status == DONE else 5))

    def send(self, kind: int, body: bytes = b"") -> None:
        self._socket.sendall(_HEADER.pack(MAGIC, VERSION, kind, len(body)) + body)

    def send_raw(self, raw: bytes) -> None:
        self._socket.sendall(raw)

    def receive(self) -> tuple[int, bytes]:
        magic, version, kind, length = _HEADER.unpack(self._take(_HEADER.size))
        assert (magic, version) == (MAGIC, VERSION)
        return kind, self._take(length)

    def is_closed(self) -> bool:
        """Wait for what comes next; True when it is the end."""
        try:
            return self._socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._socket.close()

    def _take(self, count: int) -> bytes:
        taken = b""
        while len(taken) < count:
            part = self._socket.recv(count - len(taken))
            assert part, "the engine has closed"
            taken += part
        return taken
