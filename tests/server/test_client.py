"""KVTPClient: registering never waits, mistakes are named, tensors are kept as long as they may be written."""

from __future__ import annotations

import gc
import logging
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flexkv import _core
from flexkv.common.storage import KVCacheLayout
from flexkv.errors import ConfigError, ServerError
from flexkv.server import KVTPClient
from tests.doubles import DeviceTensor

NUM_BLOCKS = 6
TIMEOUT_S = 20.0


def kv_caches(num_blocks: int = NUM_BLOCKS) -> dict[str, np.ndarray]:
    return {f"layer.{i}": np.zeros((2, num_blocks, 16, 2, 8), np.float16) for i in range(2)}


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/engine/flexkv.sock"


@pytest.fixture
def client(address: str) -> Iterator[KVTPClient]:
    client = KVTPClient(address, tokens_per_block=16)
    yield client
    assert client.shutdown(TIMEOUT_S)


def start_engine(address: str, num_ranks: int = 1) -> _core.TransferEngine:
    engine = _core.TransferEngine(address.removeprefix("ipc://"), num_ranks)
    engine.start()
    return engine


def test_registering_returns_at_once_and_the_engine_may_come_later(client: KVTPClient, address: str) -> None:
    begin = time.monotonic()
    client.register_to_server(kv_caches())
    assert time.monotonic() - begin < 5.0
    assert not client.wait_ready(0.05)
    assert client.state == _core.AgentState.CONNECTING
    engine = start_engine(address)
    assert engine.wait_ranks(TIMEOUT_S)
    (rank,) = engine.ranks()
    assert (rank.rank, rank.num_blocks, rank.tokens_per_block) == (0, NUM_BLOCKS, 16)
    assert rank.slot_bytes == 2 * 2 * 16 * 2 * 8 * 2
    engine.set_pool(_core.HostPool(4, [rank.slot_bytes]))
    assert client.wait_ready(TIMEOUT_S)
    assert client.state == _core.AgentState.SERVING
    assert engine.stop(TIMEOUT_S)


def test_a_refused_rank_says_why_once(client: KVTPClient, address: str, caplog: pytest.LogCaptureFixture) -> None:
    engine = start_engine(address, num_ranks=3)
    with caplog.at_level(logging.WARNING, "flexkv"):
        client.register_to_server(kv_caches())  # believes in one rank
        assert not client.wait_ready(TIMEOUT_S)
        report = client.stats()
        client.stats()
    assert report is not None
    assert report.state == "REFUSED"
    assert "ranks" in report.last_error
    assert [record.getMessage() for record in caplog.records if "refused" in record.message] == [
        f"the cache refused this rank rank=0 reason={report.last_error}"
    ]
    assert engine.stop(TIMEOUT_S)


def test_a_worker_that_only_steps_says_that_the_cache_is_not_there(
    client: KVTPClient, caplog: pytest.LogCaptureFixture
) -> None:
    client.register_to_server(kv_caches())
    assert not client.wait_ready(0.2), "nobody listens"
    for step in range(200):
        client.record_step(step)
    (record,) = [record for record in caplog.records if record.levelno > logging.INFO]
    assert "the cache is not there" in record.getMessage()


def test_steps_are_recorded_and_remembered(client: KVTPClient) -> None:
    assert client.recent_steps() == []
    client.record_step(3)  # before registering: nobody waits for it
    client.register_to_server(kv_caches())
    for step in range(100):
        client.record_step(step)
    assert [ticket.step for ticket in client.recent_steps()] == list(range(36, 100))
    report = client.stats()
    assert report is not None
    assert report.last_step == 99


def test_tensors_are_kept_until_shutdown(client: KVTPClient) -> None:
    caches = kv_caches()
    kept = weakref.ref(caches["layer.0"])
    client.register_to_server(caches)
    del caches
    gc.collect()
    assert kept() is not None
    assert client.shutdown(TIMEOUT_S)
    gc.collect()
    assert kept() is None
    assert client.shutdown(TIMEOUT_S)
    with pytest.raises(ServerError, match="has been shut down"):
        client.register_to_server(kv_caches())


def test_a_client_that_is_dropped_stops_its_agent_before_its_tensors_go(address: str) -> None:
    engine = start_engine(address)
    client = KVTPClient(address, tokens_per_block=16)
    caches = kv_caches()
    kept = weakref.ref(caches["layer.0"])
    client.register_to_server(caches)
    assert engine.wait_ranks(TIMEOUT_S)
    del caches, client
    gc.collect()
    assert kept() is None
    deadline_s = time.monotonic() + TIMEOUT_S
    while engine.ranks()[0].connected and time.monotonic() < deadline_s:
        engine.wait(0.01)
    assert not engine.ranks()[0].connected
    assert engine.stop(TIMEOUT_S)


def test_unregistered_tensors_can_be_registered_again(client: KVTPClient, address: str) -> None:
    engine = start_engine(address)
    client.register_to_server(kv_caches())
    assert engine.wait_ranks(TIMEOUT_S)
    engine.set_pool(_core.HostPool(4, [engine.ranks()[0].slot_bytes]))
    assert client.wait_ready(TIMEOUT_S)
    with pytest.raises(ServerError, match="registered already"):
        client.register_to_server(kv_caches())
    assert client.unregister(TIMEOUT_S)
    assert client.state == _core.AgentState.IDLE
    assert client.stats() is None
    client.register_to_server(kv_caches())
    assert client.wait_ready(TIMEOUT_S)
    assert engine.stop(TIMEOUT_S)


def test_the_engines_own_layout_gives_block_size_and_count(address: str) -> None:
    client = KVTPClient(address)
    layout = KVCacheLayout("LAYERWISE", 2, 2, 16, 2, 8)
    with pytest.raises(ValueError, match="num_blocks or block_dim"):
        client.register_to_server(kv_caches(num_blocks=2), layout)  # 2 blocks, K and V: nobody can tell
    client.register_to_server(kv_caches(num_blocks=2), layout, block_dim=1)
    assert client.shutdown(TIMEOUT_S)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"gpu_register_port": ""}, "gpu_register_port"),
        ({"gpu_register_port": "tcp://127.0.0.1:5"}, "gpu_register_port"),
        ({"gpu_register_port": "relative.sock"}, "gpu_register_port"),
        ({"gpu_register_port": "ipc:///" + "x" * 108}, "gpu_register_port"),
        ({"rank": 1}, "rank"),
        ({"rank": -1}, "rank"),
        ({"num_ranks": 0}, "num_ranks"),
        ({"device_id": "0"}, "device_id"),
        ({"tokens_per_block": 24}, "tokens_per_block"),
        ({"copy_threads": 0}, "copy_threads"),
    ],
)
def test_a_bad_setting_is_named(arguments: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        KVTPClient(**({"gpu_register_port": "ipc:///x", "tokens_per_block": 16} | arguments))  # type: ignore[arg-type]
    assert caught.value.key == key


def test_bad_registrations_change_nothing(address: str) -> None:
    client = KVTPClient(address)
    with pytest.raises(ConfigError, match="tokens_per_block is not given"):
        client.register_to_server(kv_caches())
    layout = KVCacheLayout("LAYERWISE", 2, NUM_BLOCKS, 16, 2, 8)
    with pytest.raises(ConfigError, match="indexer_buffers"):
        client.register_to_server(kv_caches(), layout, [np.zeros(3)], None)
    with pytest.raises(ValueError, match=r"'layer.1' is a str"):
        client.register_to_server({"layer.0": np.zeros((3, 4)), "layer.1": "x"}, layout)
    assert client.state == _core.AgentState.IDLE
    with pytest.raises(ConfigError, match="kv_layout has blocks of 16"):
        KVTPClient(address, tokens_per_block=32).register_to_server(kv_caches(), layout)
    client.register_to_server(kv_caches(), layout)
    assert client.shutdown(TIMEOUT_S)


def test_a_tensor_on_a_device_without_a_backend_is_refused_by_name(address: str) -> None:
    with pytest.raises(ConfigError, match=r"'layer.0' is on device 'xpu:0'") as caught:
        KVTPClient(address, tokens_per_block=16).register_to_server({"layer.0": DeviceTensor("xpu:0")})
    assert caught.value.value == "xpu:0"


def test_tensors_on_several_devices_are_refused(address: str) -> None:
    tensors = {"layer.0": DeviceTensor("cuda:0"), "layer.1": DeviceTensor("cuda:1")}
    with pytest.raises(ValueError, match="several devices: cuda:0, cuda:1"):
        KVTPClient(address, tokens_per_block=16).register_to_server(tensors)


def test_ranks_are_named_by_their_device_when_not_given(address: str) -> None:
    assert KVTPClient(address, device_id=2, num_ranks=4).rank == 2
    assert KVTPClient(address, 0, 1, 0).rank == 0  # one rank on the second device
    assert KVTPClient(address, device_id=3, num_ranks=4, rank=1, pp_rank=0).intra_client_id == "0-1"
