"""The shared vocabulary: names and values that all layers use, and nothing that acts."""

from __future__ import annotations

from flexkv.common.block import SequenceMeta
from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.common.events import AllCleared, BlocksRemoved, BlocksStored, KVEvent
from flexkv.common.metrics import CacheStats, Counters, MissReason, SkipReason
from flexkv.common.request import KVRequest, KVResponse, KVResponseStatus
from flexkv.common.storage import DeviceType, KVCacheLayout, KVCacheLayoutType, StorageHandle
from flexkv.common.tracer import Tracer
from flexkv.common.transfer import TransferOp, TransferOpGraph, TransferType

__all__ = [
    "AllCleared",
    "BlocksRemoved",
    "BlocksStored",
    "CacheConfig",
    "CacheStats",
    "Counters",
    "DeviceType",
    "KVCacheLayout",
    "KVCacheLayoutType",
    "KVEvent",
    "KVRequest",
    "KVResponse",
    "KVResponseStatus",
    "MissReason",
    "ModelConfig",
    "SequenceMeta",
    "SkipReason",
    "StorageHandle",
    "Tracer",
    "TransferOp",
    "TransferOpGraph",
    "TransferType",
]
