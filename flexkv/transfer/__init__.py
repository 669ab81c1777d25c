"""Moves bytes: graphs of ops over routes."""

from flexkv.transfer.scheduler import TransferScheduler
from flexkv.transfer.transfer_engine import TransferEngine
from flexkv.transfer.worker import CPUSSDDiskTransferWorker, GPUCPUTransferWorker

__all__ = ["CPUSSDDiskTransferWorker", "GPUCPUTransferWorker", "TransferEngine", "TransferScheduler"]
