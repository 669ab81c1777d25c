"""A GPU that cannot be used is an error of its own kind for who registers tensors, and no error for the engine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flexkv import _core
from flexkv.errors import CapacityError, ConfigError, DeviceError, FlexKVError
from flexkv.integration.vllm.scheduler_role import StepNotice
from flexkv.integration.vllm.worker_connector import FlexKVWorkerConnector
from flexkv.server import KVTPClient
from tests.doubles import DeviceTensor

CASES = [
    (RuntimeError("there is no CUDA driver: install it"), DeviceError, "there is no CUDA driver: install it"),
    (RuntimeError("the CUDA driver is for CUDA 11.8; update it"), DeviceError, "is for CUDA 11.8; update it"),
    (RuntimeError("the CUDA driver finds no GPU"), DeviceError, "finds no GPU"),
    (RuntimeError("cuModuleLoadData: CUDA_ERROR_INVALID_PTX"), DeviceError, "INVALID_PTX"),
    (MemoryError("cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY"), CapacityError, "OUT_OF_MEMORY; up to 128 MiB"),
]


@pytest.fixture
def client(tmp_path: Path) -> KVTPClient:
    return KVTPClient(f"ipc://{tmp_path}/flexkv.sock", tokens_per_block=16)


def agent_that_raises(error: Exception) -> Callable[..., _core.CopyAgent]:
    def make(**_arguments: object) -> _core.CopyAgent:
        raise error

    return make


@pytest.mark.parametrize(("error", "kind", "text"), CASES)
def test_who_registers_gets_an_error_that_says_so(
    client: KVTPClient, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[FlexKVError], text: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(_core, "CopyAgent", agent_that_raises(error))
        with pytest.raises(kind, match=f"KV tensors on cuda:0 cannot be copied: .*{text}") as caught:
            client.register_to_server([DeviceTensor("cuda:0")])
    assert not isinstance(caught.value, ConfigError)
    assert (caught.value.rank, caught.value.value, caught.value.__cause__) == (0, "cuda:0", error)
    assert client.state == _core.AgentState.IDLE
    client.register_to_server([np.zeros((4, 16), np.float16)], num_blocks=4)  # nothing was kept of the attempt
    assert client.shutdown()


@pytest.mark.parametrize(("error", "kind", "text"), CASES)
def test_the_engine_goes_on_and_one_line_says_that_flexkv_is_off(
    client: KVTPClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    kind: type[FlexKVError],
    text: str,
) -> None:
    monkeypatch.setattr(_core, "CopyAgent", agent_that_raises(error))
    worker = FlexKVWorkerConnector(client)
    with caplog.at_level(logging.WARNING, "flexkv"):
        worker.register_to_server({"layer.0": DeviceTensor("cuda:0")})
    (record,) = caplog.records
    line = record.getMessage()
    assert line.startswith("FlexKV is off on this rank: nothing is loaded or stored reason=KV tensors on cuda:0")
    assert text in line
    assert "\n" not in line
    assert record.exc_info is None
    worker.bind_step(StepNotice(step=1, outstanding=True, failed_block_ids=frozenset()))
    worker.record_step()
    assert worker.step_to_name == 1, "the scheduler's promises are still wound up"
    worker.shutdown()


def test_tensors_in_host_memory_need_no_driver(client: KVTPClient, caplog: pytest.LogCaptureFixture) -> None:
    worker = FlexKVWorkerConnector(client, 4)
    worker.register_to_server({"layer.0": np.zeros((4, 16), np.float16)})
    assert client.stats() is not None
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    worker.shutdown()


def test_a_lack_of_host_memory_is_not_taken_for_the_gpus(client: KVTPClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "CopyAgent", agent_that_raises(MemoryError("std::bad_alloc")))
    with pytest.raises(MemoryError, match=r"^std::bad_alloc$"):
        client.register_to_server([np.zeros((4, 16), np.float16)], num_blocks=4)


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="a CUDA driver is here")
def test_without_a_cuda_driver_the_line_says_what_to_install(client: KVTPClient) -> None:
    with pytest.raises(DeviceError, match=r"there is no CUDA driver: .*; install NVIDIA's for CUDA 12\.0 or later"):
        client.register_to_server({"layer.0": DeviceTensor("cuda:0")})
    assert client.state == _core.AgentState.IDLE
