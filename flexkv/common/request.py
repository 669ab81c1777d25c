"""What an engine asks (KVRequest) and what it is told (KVResponse). Values; safe to share between threads."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NewType

from flexkv.common.block import BoolArray, SequenceMeta

__all__ = ["KVRequest", "KVRequestType", "KVResponse", "KVResponseStatus", "TaskId"]

TaskId = NewType("TaskId", int)


class KVRequestType(Enum):
    """GET brings blocks to the GPU, PUT keeps them, PREFETCH brings them from lower tiers to the host."""

    GET = "get"
    PUT = "put"
    PREFETCH = "prefetch"


class KVResponseStatus(Enum):
    """How a task stands.

    NOTFOUND: no such id. UNREADY: not launched. TIMEOUT: still running when the wait ended; the task runs on.
    SUCCESS, CANCELLED and FAILED are final.
    """

    SUCCESS = "success"
    NOTFOUND = "notfound"
    UNREADY = "unready"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, eq=False)
class KVResponse:
    """Answer of a wait.

    `return_mask`: the tokens that were loaded or written, one entry per token of the request; None when there is no
    such task or nothing is known yet.
    """

    status: KVResponseStatus
    task_id: int
    return_mask: BoolArray | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KVRequest:
    """One GET, PUT or PREFETCH, after its arguments have been checked.

    Blocks [start_block, end_block) of the sequence are asked for: those a GET may load, or a PUT may write (from
    block 0). `expiry_s` is on the task engine's clock; None means never.
    """

    type: KVRequestType
    sequence: SequenceMeta
    start_block: int
    end_block: int
    priority: int = 0
    tenant: int = 0
    expiry_s: int | None = None
