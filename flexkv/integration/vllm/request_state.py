"""What the scheduler role knows of one request: its keys, its device blocks, the tasks that touch them. Plain state.

A request's life with us:

    asked -> staging, over steps -> matched, within one step -> loading -> running, storing block by block -> gone
                                    not scheduled: the match is cancelled
                                    finished: held until its stores have ended
    preempted while running: its stores are doomed, its block table is forgotten, it starts over
    aborted while loading: held until the load ends
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from flexkv.common.block import IdArray, SequenceMeta
from flexkv.integration.vllm.request_keys import BlockContents, RequestKeys

if TYPE_CHECKING:
    from vllm.v1.request import Request

__all__ = ["FlexKVGetTask", "FlexKVPutTask", "LoadState", "RequestState"]


class LoadState(Enum):
    """STAGING -> MATCHED -> PLANNED -> RUNNING -> DONE | FAILED -> TOLD ; PLANNED -> FAILED ; the first two -> dropped.

    STAGING: on its way from a slower tier to host memory, over several steps; vLLM is told to ask again. MATCHED:
    offered to vLLM, pins held. PLANNED: vLLM allocated blocks; launched at the end of the step.
    FAILED: vLLM must be told the device blocks before it is told that the load ended. TOLD: one step's notice names
    them, and no other one ever will: until that step has come back, vLLM must not give the blocks to anybody else.
    """

    STAGING = "staging"
    MATCHED = "matched"
    PLANNED = "planned"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    TOLD = "told"


@dataclass(slots=True)
class FlexKVGetTask:
    """A load: blocks ``[start_block, start_block + num_blocks)`` of the request."""

    request_id: str
    task_id: int | None
    start_block: int
    num_blocks: int
    state: LoadState = LoadState.MATCHED
    by_layers: bool = False
    """vLLM does not wait for it: the step it is planned in computes on it, and the workers wait layer by layer."""
    block_ids: IdArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))


@dataclass(slots=True, eq=False)
class FlexKVPutTask:
    """A store: the first ``len(contents)`` blocks of the request are to be held, as far as they are not."""

    state: RequestState
    contents: BlockContents
    block_ids: list[int]
    """Its device blocks that have them once `step` has run: as many or more."""
    step: int
    task_id: int | None = None
    """Of the batch it was launched in."""
    sequence: SequenceMeta | None = None
    """Its blocks with their keys, once they were made."""
    is_doomed: bool = False
    is_held: bool = False
    """Once ended: whether all its blocks were held then, and nobody was still writing one of them."""


@dataclass(slots=True)
class RequestState:
    """One request. `keys` is None when it must not be cached."""

    request: Request
    keys: RequestKeys | None
    block_ids: list[int] = field(default_factory=list)
    """Its device blocks, in order, as of the last step it was scheduled in."""
    num_stored_blocks: int = 0
    """Blocks from the start that have been offered for storing."""
    due_step: int = 0
    """The step at which it is looked at again for blocks to store; 0: with its next device blocks."""
    in_prompt: bool = True
    """Whether blocks of its prompt have not been offered yet."""
    load: FlexKVGetTask | None = None
    stores: set[FlexKVPutTask] = field(default_factory=set)
    """Those that have not ended; what was doomed for a preemption does not count."""
    lacks_blocks: bool = False
    """A store of it ended without all its blocks being held: they are offered again at its end."""
    missed_at: int = -1
    """The block from which nothing was found when it was last asked for; vLLM asks anew while it has no room."""
    stage_until_s: float | None = None
    """When it is not kept waiting for slower tiers any longer; None: it has not been."""
    may_load: bool = True
    may_store: bool = True
    finished: bool = False
    """vLLM is done with it and waits for us to let its blocks go."""
    has_loaded: bool = False
    """A load into its present device blocks was accepted."""

    @property
    def is_loading(self) -> bool:
        """Whether a load was accepted and has not been settled: vLLM waits for it, or a step computes on it."""
        return self.load is not None and self.load.state not in (LoadState.STAGING, LoadState.MATCHED)

    @property
    def computes_on_load(self) -> bool:
        """Whether its blocks come, or came, by layers, and the load has not been seen to end."""
        return self.load is not None and self.load.by_layers and self.is_loading

    @property
    def holds_blocks(self) -> bool:
        """Whether it has device blocks with contents: computed, loaded, or being loaded."""
        return bool(self.block_ids) or self.has_loaded

    def forget_blocks(self) -> None:
        """Its device blocks were taken away."""
        self.block_ids = []
        self.num_stored_blocks = 0
        self.due_step = 0
        self.in_prompt = True
        self.missed_at = -1
        self.stage_until_s = None
        self.stores = set()
        self.lacks_blocks = False
        self.has_loaded = False
