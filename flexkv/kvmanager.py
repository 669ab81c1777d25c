"""KVManager: the one object an integration holds. Its verbs are the KVTaskEngine's, in the same process.

Thread safety: all methods, any thread. Nothing waits without a bound; `start` does not block.

    manager = KVManager(model_config, cache_config)
    manager.start()                                       # ranks register with KVTPClient(manager.gpu_register_port)
    task_id, mask = manager.get_match(token_ids)          # True = tokens that can be loaded
    manager.launch(task_id, [slots_of(mask)])             # or manager.cancel(task_id)
    manager.wait(task_id)[task_id].status                 # KVResponseStatus.SUCCESS
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flexkv.cache.span import BlockSpan
from flexkv.common.address import own_socket, register_address
from flexkv.common.block import BoolArray, SequenceMeta
from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.common.events import EventCollector, KVEvent
from flexkv.common.hash_utils import Keys
from flexkv.common.metrics import CacheStats
from flexkv.common.request import KVResponse
from flexkv.errors import ConfigError
from flexkv.kvtask import EventBuffer, KVTaskEngine
from flexkv.tasks.requests import SequenceArguments, TaskIds

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["EventBuffer", "KVManager"]


class KVManager:
    """What an engine asks its KV cache.

    Args:
        dp_client_id: number of this engine; 0, since one cache serves one engine in this version.
        server_recv_port: address of the service, ``ipc:///path`` or a path; names `gpu_register_port`. Default: one of
            this process's own.
        gpu_register_port: address on which GPU ranks register; default: server_recv_port + ``_gpu_register``.
        event_collector: takes KV events under the task engine's lock; an EventBuffer is emptied by `take_events`.

    Raises:
        ConfigError: naming the setting.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        cache_config: CacheConfig,
        dp_client_id: int = 0,
        server_recv_port: str = "",
        gpu_register_port: str = "",
        event_collector: EventCollector | None = None,
    ) -> None:
        if dp_client_id != 0:
            message = f"dp_client_id is {dp_client_id!r}; one cache serves one engine in this version, use 0"
            raise ConfigError(message, key="dp_client_id", value=dp_client_id)
        self.server_recv_port = server_recv_port or own_socket()
        self.gpu_register_port = gpu_register_port or register_address(self.server_recv_port)
        self._engine = KVTaskEngine(model_config, cache_config, self.gpu_register_port, event_collector=event_collector)

    @property
    def model_config(self) -> ModelConfig:
        """The model's shape."""
        return self._engine.model_config

    @property
    def cache_config(self) -> CacheConfig:
        """What is kept, and where."""
        return self._engine.cache_config

    def start(self) -> None:
        """Let GPU ranks register. Does not block. Raises OSError or FlexKVError when the socket cannot be had."""
        self._engine.start()

    def is_ready(self) -> bool:
        """Return whether every GPU rank has registered and slots can be handed out.

        Raises ConfigError when that can never be.
        """
        return self._engine.is_ready()

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until `is_ready`; False after `timeout_s`."""
        return self._engine.wait_ready(timeout_s)

    def shutdown(self, timeout_s: float = 5.0) -> bool:
        """Stop, with what runs drained for `timeout_s`. Idempotent; later requests are misses.

        Returns: True when nothing touches any GPU block or slot any more; False: a copy may still run.
        """
        return self._engine.shutdown(timeout_s)

    def sequence(
        self,
        token_ids: object = None,
        namespace: Sequence[str] | None = None,
        *,
        block_hashes: Sequence[bytes] | Keys | None = None,
        num_tokens: int | None = None,
    ) -> SequenceMeta:
        """Return a handle of a prompt for the verbs' `sequence=`: its keys are computed once. It can be extended."""
        return self._engine.sequence(token_ids, namespace, block_hashes=block_hashes, num_tokens=num_tokens)

    def get_match(
        self,
        token_ids: object = None,
        token_mask: object = None,
        cpu_only: bool = False,
        namespace: Sequence[str] | None = None,
        **arguments: Unpack[SequenceArguments],
    ) -> tuple[int, BoolArray]:
        """Return a task id and the mask of tokens that can be loaded; see KVTaskEngine.get_match."""
        return self._engine.get_match(token_ids, token_mask, cpu_only, namespace, **arguments)

    def put_match(
        self,
        token_ids: object = None,
        token_mask: object = None,
        namespace: Sequence[str] | None = None,
        **arguments: Unpack[SequenceArguments],
    ) -> tuple[int, BoolArray]:
        """Return a task id and the mask of tokens still to be written; see KVTaskEngine.put_match."""
        return self._engine.put_match(token_ids, token_mask, namespace, **arguments)

    def get_span(self, sequence: SequenceMeta, start_block: int = 0) -> tuple[int, BlockSpan]:
        """Return a task id and the blocks that can be loaded: `get_match` without a mask, for integrations."""
        return self._engine.get_span(sequence, start_block)

    def put_span(self, sequence: SequenceMeta) -> tuple[int, BlockSpan]:
        """Return a task id and the blocks still to be written: `put_match` without a mask, for integrations."""
        return self._engine.put_span(sequence)

    def get_async(
        self,
        token_ids: object,
        slot_mapping: object,
        token_mask: object = None,
        namespace: Sequence[str] | None = None,
        *,
        after_step: int = 0,
        timeout_s: float | None = None,
        **arguments: Unpack[SequenceArguments],
    ) -> int:
        """Match and launch a load in one; one slot for each True of `token_mask`, or for each token."""
        return self._engine.get_async(
            token_ids, slot_mapping, token_mask, namespace, after_step=after_step, timeout_s=timeout_s, **arguments
        )

    def put_async(
        self,
        token_ids: object,
        slot_mapping: object,
        token_mask: object = None,
        namespace: Sequence[str] | None = None,
        *,
        after_step: int = 0,
        timeout_s: float | None = None,
        **arguments: Unpack[SequenceArguments],
    ) -> int:
        """Match and launch a store in one; one slot for each True of `token_mask`, or for each token."""
        return self._engine.put_async(
            token_ids, slot_mapping, token_mask, namespace, after_step=after_step, timeout_s=timeout_s, **arguments
        )

    def prefetch_async(
        self, token_ids: object = None, namespace: Sequence[str] | None = None, **arguments: Unpack[SequenceArguments]
    ) -> int:
        """Bring blocks from lower tiers to the CPU tier; with the CPU tier alone it is done at once."""
        return self._engine.prefetch_async(token_ids, namespace, **arguments)

    def launch(
        self,
        task_ids: TaskIds,
        slot_mappings: object = None,
        as_batch: bool = False,
        layerwise_transfer: bool = False,
        counter_id: int = 0,
        *,
        block_ids: object = None,
        after_step: int = 0,
        timeout_s: float | None = None,
    ) -> list[int]:
        """Start matched tasks; as a batch, several of one kind become one. See KVTaskEngine.launch."""
        return self._engine.launch(
            task_ids,
            slot_mappings,
            as_batch,
            layerwise_transfer,
            counter_id,
            block_ids=block_ids,
            after_step=after_step,
            timeout_s=timeout_s,
        )

    def cancel(self, task_ids: TaskIds) -> None:
        """Release everything of un-launched tasks; running ones run on."""
        self._engine.cancel(task_ids)

    def doom(self, task_ids: TaskIds) -> None:
        """Never commit these stores: the engine took their GPU blocks away. See KVTaskEngine.doom."""
        self._engine.doom(task_ids)

    def wait(self, task_ids: TaskIds, timeout: float = 20.0, completely: bool = False) -> dict[int, KVResponse]:
        """Wait until every task has ended, at most `timeout` seconds, and take the results of those that have."""
        return self._engine.wait(task_ids, timeout, completely)

    def try_wait(self, task_ids: TaskIds) -> dict[int, KVResponse]:
        """Return the responses of those tasks that have ended; their results stay until the first `wait` or `poll`."""
        return self._engine.try_wait(task_ids)

    def poll(self) -> dict[int, KVResponse]:
        """Take the results of all tasks that have ended, without waiting."""
        return self._engine.poll()

    def wait_any(self, timeout_s: float) -> bool:
        """Wait until there is a result to take; False after `timeout_s`, or when nothing runs that could end."""
        return self._engine.wait_any(timeout_s)

    def reset(self) -> None:
        """Empty all tiers, and wait (bounded) until transfers in flight have ended. Idempotent."""
        self._engine.reset()

    def stats(self) -> CacheStats:
        """Return the counters at this moment."""
        return self._engine.stats()

    def take_events(self) -> list[KVEvent]:
        """Return the KV events since the last call; none unless `event_collector` is an EventBuffer."""
        return self._engine.take_events()

    @property
    def num_running(self) -> int:
        """Tasks that are launched and have not ended."""
        return self._engine.num_running

    def check_invariants(self) -> None:
        """Raise when slots, pins or reservations do not add up. O(capacity)."""
        self._engine.check_invariants()
