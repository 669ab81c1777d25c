"""From what an engine passes to a verb to a KVRequest: checks everything before anything is changed.

RequestReader knows the roots of namespaces and the numbers of tenants. Thread-safe; nothing is hashed under a lock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from flexkv.cache.namespace_roots import NamespaceRoots
from flexkv.cache.radixtree import NEVER_S
from flexkv.cache.span import BlockSpan, get_span, put_span
from flexkv.common.block import BoolArray, IdArray, SequenceMeta, as_id_vector, as_mask, as_slot_mapping
from flexkv.common.checks import as_int, is_int
from flexkv.common.config import CacheConfig
from flexkv.common.hash_utils import Keys
from flexkv.common.request import KVRequest, KVRequestType
from flexkv.tasks.tenants import MAX_TENANTS, TenantNumbers

__all__ = [
    "GpuMappings",
    "RequestReader",
    "SequenceArguments",
    "TaskIds",
    "as_task_ids",
    "as_timeout",
    "check_gpu_blocks",
]

TaskIds = int | Iterable[int]
_MAX_PRIORITY = 7


class SequenceArguments(TypedDict, total=False):
    """Optional keywords of all verbs that take tokens.

    sequence: what `sequence()` returned, in place of tokens, hashes and namespace: the same prefix is never hashed
    twice.
    block_hashes: the engine's own content hashes, one per block; num_tokens: when only hashes are given.
    start_block, end_block: the blocks in question, in place of a token mask (a PUT starts at 0).
    priority: 0 (evicted first) to 7. ttl_s: seconds until the blocks expire. tenant: a name, or a number below 65536.
    The number of a name follows from it, but for rare collisions: see flexkv/tasks/tenants.py.
    """

    sequence: SequenceMeta | None
    block_hashes: Sequence[bytes] | Keys | None
    num_tokens: int | None
    start_block: int | None
    end_block: int | None
    priority: int | None
    ttl_s: float | None
    tenant: int | str | None


def as_task_ids(task_ids: TaskIds) -> list[int]:
    """Return task ids as a list of int. Raises ValueError naming task_ids."""
    if is_int(task_ids):
        return [int(task_ids)]
    if isinstance(task_ids, (str, bytes, bool)) or not isinstance(task_ids, Iterable):
        raise ValueError(f"task_ids is {task_ids!r}; give a task id or a list of them")
    ids = list(task_ids)
    for index, task_id in enumerate(ids):
        if not is_int(task_id):
            raise ValueError(f"task_ids[{index}] is {task_id!r}; a task id is an integer")
    return [int(task_id) for task_id in ids]


def as_timeout(timeout: object, name: str = "timeout", *, minimum_s: float = 0.0) -> float:
    """Return seconds.

    Raises ValueError unless it is a finite number of at least `minimum_s`: nothing waits without a bound.
    """
    if (
        isinstance(timeout, bool)
        or not isinstance(timeout, (int, float))
        or not math.isfinite(timeout)
        or timeout < minimum_s
    ):
        raise ValueError(f"{name} is {timeout!r}; give finite seconds, at least {minimum_s:g}")
    return float(timeout)


def _as_ttl(ttl_s: object) -> float:
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, (int, float)) or not ttl_s > 0:
        raise ValueError(f"ttl_s is {ttl_s!r}; give seconds above 0")
    return float(ttl_s)


def check_gpu_blocks(blocks: IdArray, name: str, num_gpu_blocks: int) -> None:
    """Raise ValueError naming `name` when a block is out of range or named twice."""
    if len(blocks) == 0:
        return
    if int(blocks.max()) >= num_gpu_blocks:
        raise ValueError(f"{name} names GPU block {int(blocks.max())}; the GPU has {num_gpu_blocks} blocks")
    ordered = np.sort(blocks)
    twice = ordered[1:] == ordered[:-1]
    if twice.any():
        raise ValueError(f"{name} names GPU block {int(ordered[1:][twice][0])} twice")


class GpuMappings:
    """The GPU blocks of the tasks of a launch: a slot mapping or block ids for each.

    Raises ValueError unless exactly one of both is given, with one entry per task; for a single id the entry itself may
    be given.
    """

    def __init__(
        self, task_ids: TaskIds, num_tasks: int, slot_mappings: object, block_ids: object, tokens_per_block: int
    ) -> None:
        if (slot_mappings is None) == (block_ids is None):
            raise ValueError("slot_mappings and block_ids: give exactly one of them")
        self.name = "slot_mappings" if block_ids is None else "block_ids"
        self._tokens_per_block = tokens_per_block
        given = slot_mappings if block_ids is None else block_ids
        if not isinstance(task_ids, Iterable) and not _is_list_of_vectors(given):
            given = [given]
        if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
            raise ValueError(f"{self.name} is a {type(given).__name__}; give a list with one entry for each task")
        self._entries = list(given)
        if len(self._entries) != num_tasks:
            raise ValueError(
                f"{self.name} has {len(self._entries)} entries for {num_tasks} tasks; give one for each task"
            )

    def blocks(self, index: int, span: BlockSpan, num_gpu_blocks: int) -> IdArray:
        """Return the GPU block ids for the blocks of the task at `index`. Shape: (span.num_blocks,).

        Raises ValueError: another number of entries, slots that form no blocks, or a block that is out of range or
        named twice.
        """
        name = f"{self.name}[{index}]"
        if self.name == "slot_mappings":
            blocks = as_slot_mapping(
                self._entries[index], span.num_blocks * self._tokens_per_block, self._tokens_per_block, name
            )
        else:
            blocks = as_id_vector(self._entries[index], name)
            if len(blocks) != span.num_blocks:
                raise ValueError(
                    f"{name} has {len(blocks)} block ids; it needs {span.num_blocks}, one for each masked block"
                )
        check_gpu_blocks(blocks, name, num_gpu_blocks)
        return blocks

    def all_blocks(self, spans: Sequence[BlockSpan], num_gpu_blocks: int) -> list[IdArray]:
        """Return the GPU block ids of each task of a batch; a block may be named by one of them only."""
        blocks = [self.blocks(index, span, num_gpu_blocks) for index, span in enumerate(spans)]
        check_gpu_blocks(np.concatenate(blocks), self.name, num_gpu_blocks)
        return blocks


def _is_list_of_vectors(value: object) -> bool:
    """Tell ``[slots]`` from ``slots``, for a single task."""
    return isinstance(value, (list, tuple)) and len(value) == 1 and hasattr(value[0], "__len__")


@dataclass(frozen=True, slots=True)
class _Meta:
    priority: int
    tenant: int
    expiry_s: int | None


class RequestReader:
    """Makes requests. `now_s` returns whole seconds on the task engine's clock."""

    def __init__(self, cache_config: CacheConfig, now_s: Callable[[], int]) -> None:
        self._tokens_per_block = cache_config.tokens_per_block
        self._now_s = now_s
        self._roots = NamespaceRoots(cache_config)
        self._tenants = TenantNumbers()

    def sequence(
        self,
        token_ids: object = None,
        namespace: Sequence[str] | None = None,
        *,
        block_hashes: Sequence[bytes] | Keys | None = None,
        num_tokens: int | None = None,
    ) -> SequenceMeta:
        """Return the chain of a prompt; its keys are not computed yet. Raises ValueError naming the argument."""
        root = self._roots.root_of(namespace)
        return SequenceMeta(
            token_ids, self._tokens_per_block, namespace, block_hashes=block_hashes, root=root, num_tokens=num_tokens
        )

    def get(
        self, token_ids: object, token_mask: object, namespace: Sequence[str] | None, arguments: SequenceArguments
    ) -> tuple[KVRequest, BoolArray | None]:
        """Return the request of a GET and its mask (None: all True). Raises ValueError naming the argument."""
        sequence = self._sequence_of(token_ids, namespace, arguments)
        mask = self._mask_of(token_mask, sequence, arguments)
        span = get_span(mask, sequence.num_tokens, self._tokens_per_block)
        start, end = self._clip(span, sequence, arguments, first=arguments.get("start_block"))
        return self._request(KVRequestType.GET, sequence, start, end, arguments), mask

    def put(
        self, token_ids: object, token_mask: object, namespace: Sequence[str] | None, arguments: SequenceArguments
    ) -> tuple[KVRequest, BoolArray | None]:
        """Return the request of a PUT and its mask (None: all True). Raises ValueError naming the argument."""
        if arguments.get("start_block"):
            raise ValueError(f"start_block is {arguments['start_block']!r}; a put starts at block 0")
        sequence = self._sequence_of(token_ids, namespace, arguments)
        mask = self._mask_of(token_mask, sequence, arguments)
        span = put_span(mask, sequence.num_tokens, self._tokens_per_block)
        start, end = self._clip(span, sequence, arguments, first=None)
        return self._request(KVRequestType.PUT, sequence, start, end, arguments), mask

    def prefetch(self, token_ids: object, namespace: Sequence[str] | None, arguments: SequenceArguments) -> KVRequest:
        """Return the request of a PREFETCH. Raises ValueError naming the argument."""
        sequence = self._sequence_of(token_ids, namespace, arguments)
        return self._request(KVRequestType.PREFETCH, sequence, 0, sequence.num_blocks, arguments)

    def _sequence_of(
        self, token_ids: object, namespace: Sequence[str] | None, arguments: SequenceArguments
    ) -> SequenceMeta:
        sequence = arguments.get("sequence")
        block_hashes, num_tokens = arguments.get("block_hashes"), arguments.get("num_tokens")
        if sequence is None:
            return self.sequence(token_ids, namespace, block_hashes=block_hashes, num_tokens=num_tokens)
        if not isinstance(sequence, SequenceMeta):
            raise ValueError(f"sequence is a {type(sequence).__name__}; give what sequence() returned")
        given = {"token_ids": token_ids, "namespace": namespace, "block_hashes": block_hashes, "num_tokens": num_tokens}
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{name} is given beside sequence; leave it out")
        if sequence.tokens_per_block != self._tokens_per_block:
            raise ValueError(
                f"sequence has {sequence.tokens_per_block} tokens per block; this cache has {self._tokens_per_block}"
            )
        return sequence

    def _mask_of(self, token_mask: object, sequence: SequenceMeta, arguments: SequenceArguments) -> BoolArray | None:
        if token_mask is None:
            return None
        for name in ("start_block", "end_block"):
            if arguments.get(name) is not None:
                raise ValueError(f"{name} is given beside token_mask; give one of them")
        return as_mask(token_mask, sequence.num_tokens)

    @staticmethod
    def _clip(
        span: BlockSpan, sequence: SequenceMeta, arguments: SequenceArguments, *, first: int | None
    ) -> tuple[int, int]:
        num_blocks = sequence.num_blocks
        last = arguments.get("end_block")
        end = min(span.end, num_blocks) if last is None else as_int("end_block", last, 0, num_blocks)
        start = span.start if first is None else as_int("start_block", first, 0, sequence.num_tokens)
        return min(start, end), end

    def _request(
        self, kind: KVRequestType, sequence: SequenceMeta, start: int, end: int, arguments: SequenceArguments
    ) -> KVRequest:
        meta = self._meta(arguments)
        return KVRequest(
            type=kind,
            sequence=sequence,
            start_block=start,
            end_block=end,
            priority=meta.priority,
            tenant=meta.tenant,
            expiry_s=meta.expiry_s,
        )

    def _meta(self, arguments: SequenceArguments) -> _Meta:
        priority, ttl_s, tenant = arguments.get("priority"), arguments.get("ttl_s"), arguments.get("tenant")
        level = 0 if priority is None else as_int("priority", priority, 0, _MAX_PRIORITY)
        lifetime_s = math.inf if ttl_s is None else _as_ttl(ttl_s)
        expiry_s = None if math.isinf(lifetime_s) else min(NEVER_S, self._now_s() + math.ceil(lifetime_s))
        return _Meta(level, 0 if tenant is None else self.tenant_number(tenant), expiry_s)

    def tenant_number(self, tenant: int | str) -> int:
        """Return the number that stands for a tenant. Raises ValueError when it stands for another one already."""
        if isinstance(tenant, str):
            return self._tenants.of_name(tenant)
        return self._tenants.of_number(as_int("tenant", tenant, 0, MAX_TENANTS))
