"""TransferManagerHandle: a TransferEngine and the StorageEngine whose pool it moves, started and stopped as one."""

from __future__ import annotations

from flexkv import _core
from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.errors import ServerError
from flexkv.storage.storage_engine import StorageEngine
from flexkv.transfer.transfer_engine import TransferEngine

__all__ = ["TransferManagerHandle"]


class TransferManagerHandle:
    """For those who drive transfers without a KVTaskEngine. Thread safety: all methods, any thread.

    Args:
        gpu_register_port: address of the socket on which GPU ranks register.
    """

    def __init__(self, model_config: ModelConfig, cache_config: CacheConfig, gpu_register_port: str) -> None:
        self.storage = StorageEngine(model_config, cache_config)
        self.transfer = TransferEngine.of_model(gpu_register_port, model_config)

    def start(self) -> None:
        """Listen for ranks. Does not block. Raises OSError when the socket cannot be had."""
        self.transfer.start()

    def open_pool(self, timeout_s: float) -> _core.HostPool:
        """Wait for every rank, then allocate the host pool for what they registered and give it to them. Once.

        Raises:
            ServerError: not all ranks registered within `timeout_s`.
            FlexKVError: memory cannot be had.
        """
        if not self.transfer.wait_ranks(timeout_s):
            num_ranks = len(self.transfer.ranks())
            raise ServerError(f"{num_ranks} GPU ranks registered within {timeout_s} s; check that all workers run")
        pool = self.storage.allocate_host_pool([rank.slot_bytes for rank in self.transfer.ranks()])
        self.transfer.set_pool(pool)
        return pool

    def shutdown(self, timeout_s: float = 5.0) -> bool:
        """Stop the transfers; False when something still ran after `timeout_s`. Idempotent."""
        return self.transfer.shutdown(timeout_s)
