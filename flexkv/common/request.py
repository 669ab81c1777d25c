"""What an engine asks (KVRequest) and what it is told (KVResponse). Values; safe to share between threads."""

from __future__ import annotations

from collections.abc import Callable
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


class KVResponse:
    """Answer of a wait. A value.

    Args:
        status: how the task stands.
        task_id: which task.
        return_mask: the mask, or what makes it when somebody asks: most callers do not, and it is as long as a prompt.
    """

    __slots__ = ("_mask", "status", "task_id")

    def __init__(
        self,
        status: KVResponseStatus,
        task_id: int,
        return_mask: BoolArray | Callable[[], BoolArray] | None = None,
    ) -> None:
        self.status = status
        self.task_id = task_id
        self._mask = return_mask

    @property
    def return_mask(self) -> BoolArray | None:
        """The tokens that were loaded or written, one entry per token of the request.

        None when there is no such task or nothing is known yet.
        """
        mask = self._mask  # read once: another thread may put the array in its place
        if callable(mask):
            mask = self._mask = mask()
        return mask

    def __repr__(self) -> str:
        return f"KVResponse({self.status.name}, task_id={self.task_id})"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KVRequest:
    """One GET, PUT or PREFETCH, after its arguments have been checked.

    Blocks [start_block, end_block) of the sequence are asked for: those a GET may load, or a PUT may write (from
    block 0). `expiry_s` is on the task engine's clock; None means never. `is_repeat`: it was a miss and is asked
    for again; if it still is a miss, that is not counted. `cpu_only`: nothing is brought from lower tiers.
    """

    type: KVRequestType
    sequence: SequenceMeta
    start_block: int
    end_block: int
    priority: int = 0
    tenant: int = 0
    expiry_s: int | None = None
    is_repeat: bool = False
    cpu_only: bool = False
