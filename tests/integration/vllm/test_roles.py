"""The scheduler role is made: it waits for the workers, within its bound, and what cannot work is a ConfigError."""

from __future__ import annotations

import logging
import socket
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from flexkv.common.address import own_socket
from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.errors import ConfigError
from flexkv.integration.vllm import roles
from flexkv.integration.vllm.scheduler_connector import FlexKVSchedulerConnector
from flexkv.integration.vllm.scheduler_off import OffSchedulerConnector
from flexkv.server.client import KVTPClient
from tests.rig import eventually

TPB = 16


@pytest.fixture
def config():
    address = own_socket()
    return SimpleNamespace(
        model_config=ModelConfig(1, 1, 8),
        cache_config=CacheConfig(tokens_per_block=TPB, num_cpu_blocks=4),
        server_recv_port=address,
        gpu_register_port=f"{address}_gpu_register",
        engine_hashes_usable=True,
        ssd_pipelined_loads=False,
        enable_layerwise_transfer=False,
    )


@pytest.fixture
def vllm_config():
    transfer = SimpleNamespace(kv_load_failure_policy="fail", is_kv_consumer=True, is_kv_producer=True)
    return SimpleNamespace(kv_transfer_config=transfer, scheduler_config=SimpleNamespace(async_scheduling=True))


@pytest.fixture
def register(config):
    clients = []

    def register(tokens_per_block=TPB):
        client = KVTPClient(config.gpu_register_port, tokens_per_block=tokens_per_block)
        client.register_to_server([np.zeros((6, tokens_per_block, 8), dtype=np.uint8)], block_dim=0)
        clients.append(client)

    yield register
    for client in clients:
        assert client.shutdown()


def groups(block_size=TPB):
    spec = type("FullAttentionSpec", (), {"block_size": block_size, "non_causal": False, "tokens_per_state": 1})()
    return SimpleNamespace(kv_cache_groups=[SimpleNamespace(kv_cache_spec=spec)], hash_block_size=block_size)


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_it_is_made_as_soon_as_the_workers_have_registered(config, vllm_config, register, caplog):
    timer = threading.Timer(0.05, register)  # a worker that comes after the role has begun to wait
    timer.start()
    role = roles.make_scheduler_role(config, vllm_config, groups())
    timer.join()
    assert isinstance(role, FlexKVSchedulerConnector)
    assert role._manager.is_ready()
    assert warnings_of(caplog) == []
    assert role.shutdown()


def test_workers_that_do_not_come_are_waited_for_within_the_bound_and_warned_of(
    config, vllm_config, register, caplog, monkeypatch
):
    monkeypatch.setattr(roles, "READY_WAIT_S", 0.05)
    role = roles.make_scheduler_role(config, vllm_config, groups())
    (warning,) = warnings_of(caplog)
    assert "the workers have not registered yet" in warning
    register()
    assert role._manager.wait_ready(20), "they may come later"
    assert role.shutdown()


def test_a_cache_that_cannot_work_is_a_configuration_error_and_leaves_no_socket(
    config, vllm_config, register, tmp_path
):
    register(2 * TPB)
    with pytest.raises(ConfigError, match="tokens_per_block") as caught:
        roles.make_scheduler_role(config, vllm_config, groups())
    assert caught.tb is not None, "its frames hold the manager: nothing is stopped by being dropped"
    with pytest.raises(OSError, match=r"No such file|refused"):
        _connect(config.gpu_register_port)


def _connect(address):
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(address.removeprefix("ipc://"))


def test_another_block_size_than_vllms_is_a_configuration_error(config, vllm_config):
    with pytest.raises(ConfigError, match=r"block_size is 16.*--block-size 32") as caught:
        roles.make_scheduler_role(config, vllm_config, groups(32))
    assert caught.value.key == "block_size"


def test_a_socket_that_cannot_be_had_is_an_error_and_stops_what_was_started(config, vllm_config, tmp_path):
    taken = tmp_path / "taken"
    taken.touch()
    config.gpu_register_port = f"ipc://{taken}"
    with pytest.raises(ConfigError, match=r"cannot be listened for at .*taken.*is not a socket") as caught:
        roles.make_scheduler_role(config, vllm_config, groups())
    assert caught.value.key == "gpu_register_port"


def test_vllms_own_connector_class_is_warned_of_for_it_forwards_no_resets(config, vllm_config, register, caplog):
    register()
    role = roles.make_scheduler_role(config, vllm_config, None)
    (warning,) = warnings_of(caplog)
    assert "does not forward cache resets" in warning
    assert "kv_connector_module_path=flexkv.integration.vllm.connector" in warning
    assert role.shutdown()


def spec_of(name):
    return type(name, (), {"block_size": TPB, "non_causal": False, "tokens_per_state": 1})()


@pytest.mark.parametrize(
    ("names", "is_refused"),
    [(["MLAAttentionSpec", "MLAAttentionSpec"], False), (["MLAAttentionSpec", "FullAttentionSpec"], True)],
)
def test_ranks_with_layers_that_are_no_replicas_of_each_other_are_refused(
    config, vllm_config, monkeypatch, caplog, names, is_refused
):
    config.model_config = ModelConfig(2, 1, 8, use_mla=True, tp_size=2)
    config.num_ranks = 2
    config.cache_config = CacheConfig(tokens_per_block=TPB, num_cpu_blocks=4, copy_threads=1)
    monkeypatch.setattr(roles, "READY_WAIT_S", 0.05 if is_refused else 20.0)
    several = spec_of("UniformTypeKVCacheSpecs")
    several.kv_cache_specs = {str(index): spec_of(name) for index, name in enumerate(names)}
    group = SimpleNamespace(kv_cache_spec=several)
    kv_cache_config = SimpleNamespace(kv_cache_groups=[group], hash_block_size=TPB, num_blocks=6)
    workers = []
    for rank in (0, 1):
        monkeypatch.setattr(roles, "_rank_of_this_process", lambda rank=rank: (rank, 0))
        workers.append(roles.make_worker_role(config, vllm_config, kv_cache_config))
        workers[-1].register_to_server({"0": np.zeros((6, TPB, 8), dtype=np.uint8)})
    role = roles.make_scheduler_role(config, vllm_config, kv_cache_config)
    assert role._manager.is_ready() is not is_refused
    if is_refused:
        assert eventually(lambda: "REFUSED" in {worker._client.state.name for worker in workers})
        assert "has layers of which each rank holds a part" in caplog.text
        assert "FullAttentionSpec" in caplog.text
    else:
        assert {worker._client.state.name for worker in workers} == {"SERVING"}
    for worker in workers:
        worker.shutdown()
    assert role.shutdown()


def test_a_cache_of_another_kind_turns_the_role_off_without_a_socket(config, vllm_config, caplog):
    several = groups()
    several.kv_cache_groups *= 2
    assert isinstance(roles.make_scheduler_role(config, vllm_config, several), OffSchedulerConnector)
    (warning,) = warnings_of(caplog)
    assert "2 KV cache groups" in warning


def test_pipelined_loads_need_the_policy_that_recomputes_what_failed(config, vllm_config, register):
    config.ssd_pipelined_loads = True
    with pytest.raises(ConfigError, match=r"kv_load_failure_policy is 'fail': .*to 'recompute'"):
        roles.make_scheduler_role(config, vllm_config, groups())
    vllm_config.kv_transfer_config.kv_load_failure_policy = "recompute"
    register()
    assert roles.make_scheduler_role(config, vllm_config, groups()).shutdown()


def test_layers_wait_only_under_our_own_connector_class(config, vllm_config):
    config.enable_layerwise_transfer = True
    with pytest.raises(ConfigError, match=r"own connector class.*kv_connector_module_path") as caught:
        roles.make_scheduler_role(config, vllm_config, None)
    assert caught.value.key == "enable_layerwise_transfer"


def test_layers_do_not_wait_where_vllm_zeroes_blocks_of_the_step_that_computes_on_them(config, vllm_config):
    config.enable_layerwise_transfer = True
    vllm_config.kv_transfer_config.kv_load_failure_policy = "fail"
    with pytest.raises(ConfigError, match=r"zeroes new blocks") as caught:
        roles.make_scheduler_role(config, vllm_config, SimpleNamespace(**vars(groups()), needs_kv_cache_zeroing=True))
    assert caught.value.key == "enable_layerwise_transfer"


@pytest.mark.parametrize(("policy", "is_asynchronous"), [("fail", True), ("recompute", False), ("recompute", True)])
def test_layers_wait_unless_vllm_were_to_recompute_a_load_behind_a_step_that_is_under_way(
    config, vllm_config, register, policy, is_asynchronous
):
    config.enable_layerwise_transfer = True
    vllm_config.kv_transfer_config.kv_load_failure_policy = policy
    vllm_config.scheduler_config.async_scheduling = is_asynchronous
    if is_asynchronous and policy == "recompute":
        with pytest.raises(ConfigError, match=r"to 'fail', or --no-async-scheduling") as caught:
            roles.make_scheduler_role(config, vllm_config, groups())
        assert caught.value.key == "enable_layerwise_transfer"
        return
    register()
    role = roles.make_scheduler_role(config, vllm_config, groups())
    assert role._layer_loads._enabled
    assert role.shutdown()


@pytest.mark.parametrize(("is_pipelined", "timeout_s"), [(False, 1.5), (True, None)])
def test_requests_are_kept_waiting_for_the_ssd_tier_unless_loads_are_pipelined(
    config, vllm_config, register, tmp_path, is_pipelined, timeout_s
):
    settings = {
        "enable_ssd": True,
        "ssd_cache_dir": str(tmp_path),
        "num_ssd_blocks": 8,
        "ssd_stage_timeout_s": 1.5,
    }
    config.cache_config = CacheConfig(tokens_per_block=TPB, num_cpu_blocks=4, fingerprint="ab" * 16, **settings)
    config.ssd_pipelined_loads = is_pipelined
    vllm_config.kv_transfer_config.kv_load_failure_policy = "recompute"
    register()
    role = roles.make_scheduler_role(config, vllm_config, groups())
    assert (role._staging is None) is is_pipelined
    assert role._staging is None or role._staging._timeout_s == timeout_s
    assert role._prefill_clock is not None
    assert role.shutdown()
