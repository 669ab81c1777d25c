"""The face of flexkv.common and flexkv.integration, pinned."""

from __future__ import annotations

import subprocess
import sys

import flexkv.common
import flexkv.integration
from flexkv.common import KVResponseStatus


def test_common_shows_the_shared_vocabulary() -> None:
    assert flexkv.common.__all__ == [
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
    assert all(hasattr(flexkv.common, name) for name in flexkv.common.__all__)


def test_integration_shows_its_config() -> None:
    assert flexkv.integration.__all__ == ["FlexKVConfig"]


def test_the_states_of_a_response_are_those_of_the_contract() -> None:
    names = ["SUCCESS", "NOTFOUND", "UNREADY", "TIMEOUT", "CANCELLED", "FAILED"]
    assert [status.name for status in KVResponseStatus] == names


def test_importing_common_and_the_config_starts_no_thread_and_needs_neither_torch_nor_an_engine() -> None:
    code = (
        "import sys, threading, flexkv.common, flexkv.integration.config\n"
        "assert threading.active_count() == 1\n"
        "assert not {'torch', 'vllm', 'sglang'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
