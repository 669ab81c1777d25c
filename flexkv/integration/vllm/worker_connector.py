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
LOAD_TIMEOUT_S = 5.0


class FlexKVWorkerConnector:
    """One rank's end.

    Args:
        client: owned; None when the engine's KV cache cannot be kept: then every call does nothing.
        num_blocks: blocks of the engine's block table; None: as many as the tensors have.
        layout_tag: what else must agree between ranks that share slots.
        load_timeout_s: a load by layers that has not begun by then fails.
    """

    def __init__(
        self,
        client: KVTPClient | None,
        num_blocks: int | None = None,
        layout_tag: str = "",
        load_timeout_s: float = LOAD_TIMEOUT_S,
    ) -> None:
        self._client = client
        self._num_blocks = num_blocks
        self._layout_tag = layout_tag
        self._load_timeout_s = load_timeout_s
        self._notice: StepNotice | None = None
        self._layer_names: tuple[str, ...] = ()  # once they are registered
        self._ticket: int | None = None  # of the load by layers that the step computes on
        self._lost: frozenset[int] = frozenset()  # its blocks, when it failed

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
            self._layer_names = tuple(kv_caches)

    def bind_step(self, notice: StepNotice | None) -> None:
        """A step runs; None when it has no notice for us.

        Where the step before was broken off, its load is waited for first: it may still be written. Raises as
        `wait_for_layer`.
        """
        self._finish_load()
        self._notice = notice
        self._lost = frozenset()
        if notice is None or not notice.layer_load:
            return
        if self._client is None or not self._layer_names:
            self._lost = notice.layer_load  # it never comes to this rank
            return
        self._ticket = notice.step
        self._client.expect_load(notice.step, self._load_timeout_s)

    def turned_off(self) -> FlexKVWorkerConnector:
        """Return the role of a rank that takes no part any more; it still tells what this step owes the scheduler."""
        off = FlexKVWorkerConnector(None)
        off._notice, off._lost = self._notice, self._lost
        return off

    @property
    def computes_on_load(self) -> bool:
        """Whether the step computes on a load by layers that has not been seen to end."""
        return self._ticket is not None

    def wait_for_layer(self, layer_name: str) -> None:
        """What is computed from now on waits for the layer's blocks of the step's load, if it has one.

        Raises TransferTimeout when the load has begun and does not end: nothing may be computed on its blocks.
        """
        if self._ticket is None or self._client is None or self._lost:
            return
        known = layer_name if layer_name in self._layer_names else None  # it reads the tensor of another layer
        if not self._client.wait_for_layer(self._ticket, known):
            self._note_lost()

    def record_step(self) -> None:
        """The step's work has been submitted: transfers that wait for it may run. Waits for the step's own load to end.

        Raises as `wait_for_layer`.
        """
        self._finish_load()
        if self._client is None or not self._layer_names or self._notice is None:
            return
        self._client.record_step(self._notice.step)

    def _finish_load(self) -> None:
        if self._ticket is None or self._client is None:
            return
        if not self._client.finish_load(self._ticket):
            self._note_lost()
        self._ticket = None

    def _note_lost(self) -> None:
        assert self._notice is not None
        if not self._lost:
            logger.error(
                "load by layers failed, its blocks are reported to the engine step=%d num_blocks=%d",
                self._notice.step,
                len(self._notice.layer_load),
            )
        self._lost = self._notice.layer_load

    @property
    def step_to_name(self) -> int | None:
        """The step's number if its output must reach the scheduler, or be known there as this step's."""
        notice = self._notice
        return notice.step if notice is not None and (notice.outstanding or notice.is_timed) else None

    def failed_block_ids(self) -> set[int]:
        """Return the blocks whose load failed: as the scheduler role told, and of the step's own load.

        Waits for that one to end: with speculative decoding vLLM asks before it says that the step was submitted.
        Raises as `wait_for_layer`.
        """
        self._finish_load()
        return set(self._notice.failed_block_ids | self._lost) if self._notice is not None else set()

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
