"""A request as the connector reads it (vLLM's Request), and as the scheduler of the replay keeps it."""

from __future__ import annotations

import hashlib
import random
from enum import Enum

from tests.replay.recording import RequestRecord

VOCABULARY = 512


class Status(Enum):
    """WAITING -> LOADING -> WAITING -> RUNNING -> FINISHED, and RUNNING -> PREEMPTED, which is as WAITING."""

    WAITING = "waiting"
    PREEMPTED = "preempted"
    LOADING = "loading"
    RUNNING = "running"
    FINISHED = "finished"


class Request:
    """Tokens that are known, and counts of those that are computed. Its answer is the one that was recorded.

    An aborted request may get further than it did in the recording: its answer goes on with tokens made up from its
    number.
    """

    cache_salt = None
    lora_request = None
    mm_features: tuple[object, ...] = ()
    prompt_embeds = None
    skip_reading_prefix_cache = False

    def __init__(self, number: int, record: RequestRecord, tokens_per_block: int) -> None:
        self.number = number
        self.request_id = str(number)
        self.num_prompt_tokens = len(record.prompt)
        self.max_tokens = record.max_tokens
        self.num_answered = 0
        self.num_to_answer = record.max_tokens if record.reason == "ABORTED" else len(record.output)
        source = random.Random(number)
        missing = self.num_to_answer - len(record.output)
        self.every_token = [*record.prompt, *record.output, *(source.randrange(VOCABULARY) for _ in range(missing))]
        self._hashes = block_hashes(self.every_token, tokens_per_block)
        self._tokens_per_block = tokens_per_block
        self.status = Status.WAITING
        self.table: list[int] = []
        self.num_computed_tokens = 0
        self.num_cached_blocks = 0
        self.num_awaited = 0  # tokens that steps in flight will answer; only asynchronous scheduling counts them
        self.num_in_flight = 0  # tokens in steps whose output was not taken
        self.num_stale = 0  # those of them from before a preemption
        self.was_preempted = False
        self.in_prompt = False  # after the last step that was planned tokens are known that are not computed
        self.last_step = 0  # that it was scheduled in, counting those with tokens

    @property
    def num_tokens(self) -> int:
        return self.num_prompt_tokens + self.num_answered

    @property
    def all_token_ids(self) -> list[int]:
        return self.every_token[: self.num_tokens]

    @property
    def block_hashes(self) -> list[bytes]:
        return self._hashes[: self.num_tokens // self._tokens_per_block]

    @property
    def is_finished(self) -> bool:
        return self.status is Status.FINISHED

    @property
    def holds_blocks(self) -> bool:
        return self.num_computed_tokens > 0 or self.status is Status.LOADING


def block_hashes(tokens: list[int], tokens_per_block: int) -> list[bytes]:
    """Return the hashes of whole blocks, each over all tokens up to its end."""
    hashes: list[bytes] = []
    for start in range(0, len(tokens) - tokens_per_block + 1, tokens_per_block):
        parent = hashes[-1] if hashes else b"the beginning"
        hashes.append(hashlib.sha256(parent + repr(tokens[start : start + tokens_per_block]).encode()).digest())
    return hashes
