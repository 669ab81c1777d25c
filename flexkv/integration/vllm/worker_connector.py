"""The worker role: hands this rank's KV tensors to its copy agent and records which step the rank has reached.

Copies run in the agent's native threads. Not thread-safe; vLLM calls from the worker's main thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flexkv.common.debug import flexkv_logger
from flexkv.errors import CapacityError, DeviceError
from flexkv.integration.vllm.scheduler_role import StepNotice

if TYPE_CHECKING:
    from flexkv.server.client import KVTPClient

__all__ = ["FlexKVWorkerConnector"]

logger = flexkv_logger(__name__)

STOP_TIMEOUT_S = 5.0


class FlexKVWorkerConnector:
    """One rank's end.

    Args:
        client: owned; None when the engine's KV cache cannot be kept: then every call does nothing.
        num_blocks: blocks of the engine's block table; None: as many as the tensors have.
        layout_tag: what else must agree between ranks that share slots.
    """

    def __init__(self, client: KVTPClient | None, num_blocks: int | None = None, layout_tag: str = "") -> None:
        self._client = client
        self._num_blocks = num_blocks
        self._layout_tag = layout_tag
        self._notice: StepNotice | None = None
        self._is_registered = False

    def register_to_server(self, kv_caches: Mapping[str, Any]) -> None:
        """Describe the tensors (layer name -> tensor) and start the agent, which connects in the background.

        The tensors must stay where they are until `shutdown` has returned. Where the GPU cannot be used, FlexKV is off
        on this rank, with one WARNING, and the engine goes on.

        Raises:
            ConfigError: the tensors are on a kind of device that no blocks can be copied from.
            ValueError: the tensors cannot be described.
        """
        if self._client is None:
            return
        num_blocks = self._num_blocks
        if num_blocks is not None:
            kv_caches = {name: _by_blocks(tensor, num_blocks) for name, tensor in kv_caches.items()}
        try:
            self._client.register_to_server(kv_caches, num_blocks=num_blocks, layout_tag=self._layout_tag)
        except (DeviceError, CapacityError) as error:  # says what is wrong and what to do
            logger.warning("FlexKV is off on this rank: nothing is loaded or stored reason=%s", error)
            self.shutdown()
        else:
            self._is_registered = True

    def bind_step(self, notice: StepNotice | None) -> None:
        """A step runs; None when it has no notice for us."""
        self._notice = notice

    def record_step(self) -> None:
        """The step's work has been submitted: transfers that wait for it may run."""
        if self._client is not None and self._is_registered and self._notice is not None:
            self._client.record_step(self._notice.step)

    @property
    def step_to_name(self) -> int | None:
        """The step's number if its output must reach the scheduler, or be known there as this step's."""
        notice = self._notice
        return notice.step if notice is not None and (notice.outstanding or notice.is_timed) else None

    def failed_block_ids(self) -> set[int]:
        """Return the blocks whose load failed, as the scheduler role told."""
        return set(self._notice.failed_block_ids) if self._notice is not None else set()

    def shutdown(self) -> None:
        """Drain and stop the agent; afterwards the tensors may go. Bounded, idempotent."""
        client, self._client = self._client, None
        if client is not None:
            client.shutdown(STOP_TIMEOUT_S)


def _by_blocks(tensor: Any, num_blocks: int) -> Any:
    """Return a view whose dimension of blocks counts those of the block table.

    Attention kernels may cut a block into several of their own, side by side in the first dimension.
    """
    num_kernel_blocks = int(tensor.shape[0])
    if num_kernel_blocks > num_blocks and num_kernel_blocks % num_blocks == 0:
        return tensor.unflatten(0, (num_blocks, num_kernel_blocks // num_blocks))
    return tensor
