"""TransferManagerHandle: transfers without a task engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.common.storage import DeviceType
from flexkv.errors import ServerError
from flexkv.transfer_manager import TransferManagerHandle
from tests.transfer.wire_agent import WireAgent

TIMEOUT_S = 20.0


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/engine/flexkv.sock"


def test_the_pool_has_what_the_ranks_registered(address: str) -> None:
    model = ModelConfig(num_layers=2, num_kv_heads=2, head_size=8, tp_size=2)
    manager = TransferManagerHandle(model, CacheConfig(num_cpu_blocks=5), address)
    manager.start()
    agents = [WireAgent(manager.transfer.socket_path) for _ in range(2)]
    for rank, agent in enumerate(agents):
        agent.register(rank, 2, slot_bytes=1000 + rank)
    pool = manager.open_pool(TIMEOUT_S)
    assert [agent.serve_pool() for agent in agents] == [5, 5]
    assert [pool.slot_bytes(rank) for rank in range(2)] == [1000, 1001]
    assert manager.storage.get_storage_handle(DeviceType.CPU).data is pool
    for agent in agents:
        agent.close()
    assert manager.shutdown(TIMEOUT_S)
    assert manager.shutdown(TIMEOUT_S)


def test_ranks_that_never_come_are_an_error_with_a_bound(address: str) -> None:
    manager = TransferManagerHandle(ModelConfig(1, 1, 8), CacheConfig(), address)
    manager.start()
    with pytest.raises(ServerError, match="0 GPU ranks"):
        manager.open_pool(0.01)
    assert manager.shutdown(TIMEOUT_S)
