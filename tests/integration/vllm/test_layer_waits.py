"""Loads by layers, the worker role: layers wait for their blocks, and what is lost is reported with its own step."""

from __future__ import annotations

import logging
import time

import numpy as np
import pytest

from flexkv.errors import DeviceError, ServerError, TransferTimeout
from flexkv.integration.vllm.scheduler_role import StepNotice
from flexkv.integration.vllm.worker_connector import FlexKVWorkerConnector
from tests.rig import Rig, eventually, tokens

BLOCKS = frozenset({3, 4})
LAYERS = ("model.0", "model.1")


class FakeClient:
    """KVTPClient's verbs for steps, written down. `lost_at`: the call from which on the load has failed."""

    def __init__(self, lost_at: str = "", broken_at: str = "") -> None:
        self.calls: list[tuple[object, ...]] = []
        self._lost_at, self._broken_at = lost_at, broken_at

    def _call(self, name: str, *arguments: object) -> bool:
        self.calls.append((name, *arguments))
        if self._broken_at == name:
            raise TransferTimeout("it does not end")
        return self._lost_at != name

    def register_to_server(self, kv_caches: object, **options: object) -> None:
        if self._broken_at == "register":
            raise DeviceError("no GPU")

    def expect_load(self, ticket: int, timeout_s: float) -> None:
        self._call("expect", ticket, timeout_s)

    def wait_for_layer(self, ticket: int, layer_name: str | None) -> bool:
        return self._call("wait", ticket, layer_name)

    def finish_load(self, ticket: int) -> bool:
        return self._call("finish", ticket)

    def record_step(self, step: int) -> None:
        self._call("record", step)

    def shutdown(self, timeout_s: float) -> bool:
        return True


def worker_of(client: FakeClient | None) -> FlexKVWorkerConnector:
    worker = FlexKVWorkerConnector(client, load_timeout_s=7.0)  # type: ignore[arg-type]
    worker.register_to_server({name: np.zeros((6, 4, 8), dtype=np.uint8) for name in LAYERS})
    return worker


def notice(step: int = 5, failed: frozenset[int] = frozenset(), load: frozenset[int] = BLOCKS) -> StepNotice:
    return StepNotice(step, True, failed, load)


def run_step(worker: FlexKVWorkerConnector, one: StepNotice | None) -> set[int]:
    """Make a step's calls in vLLM's order, and return what it reports."""
    worker.bind_step(one)
    for name in LAYERS:
        worker.wait_for_layer(name)
    worker.record_step()
    assert not worker.computes_on_load
    return worker.failed_block_ids()


def test_it_is_expected_first_waited_for_layer_by_layer_and_has_ended_before_the_step_is_recorded() -> None:
    client = FakeClient()
    assert run_step(worker_of(client), notice()) == set()
    assert client.calls == [
        ("expect", 5, 7.0),
        ("wait", 5, "model.0"),
        ("wait", 5, "model.1"),
        ("finish", 5),
        ("record", 5),
    ]


def test_the_load_of_a_step_that_was_broken_off_has_ended_before_the_next_one_begins() -> None:
    client = FakeClient()
    worker = worker_of(client)
    worker.bind_step(notice(5))
    worker.wait_for_layer("model.0")
    assert run_step(worker, notice(6)) == set()
    assert [call[:2] for call in client.calls][:4] == [("expect", 5), ("wait", 5), ("finish", 5), ("expect", 6)]


def test_a_layer_that_reads_anothers_tensor_waits_for_all() -> None:
    client = FakeClient()
    worker = worker_of(client)
    worker.bind_step(notice())
    worker.wait_for_layer("model.1.shares_model.0")
    assert client.calls[-1] == ("wait", 5, None)


def test_steps_without_such_a_load_wait_for_nothing() -> None:
    client = FakeClient()
    worker = worker_of(client)
    assert run_step(worker, notice(4, load=frozenset())) == set()
    assert run_step(worker, notice()) == set()
    assert run_step(worker, notice(6, load=frozenset())) == set()
    assert run_step(worker, None) == set()
    assert [call[:2] for call in client.calls if call[0] in ("wait", "finish", "record")] == [
        ("record", 4),
        ("wait", 5),
        ("wait", 5),
        ("finish", 5),
        ("record", 5),
        ("record", 6),
    ]


@pytest.mark.parametrize("lost_at", ["wait", "finish"])
def test_lost_blocks_are_reported_with_their_step_beside_those_that_it_names_and_only_then(
    lost_at: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = FakeClient(lost_at)
    worker = worker_of(client)
    assert run_step(worker, notice(failed=frozenset({9}))) == {3, 4, 9}
    assert [call[0] for call in client.calls][-2:] == ["finish", "record"], "the load has ended all the same"
    assert [call[0] for call in client.calls].count("wait") == (1 if lost_at == "wait" else 2)
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "step=5 num_blocks=2" in line
    assert run_step(worker, notice(6, load=frozenset())) == set()


def test_asked_before_the_step_was_submitted_it_waits_for_the_load_to_end() -> None:
    """With speculative decoding vLLM reads the blocks before `wait_for_save`."""
    client = FakeClient("finish")
    worker = worker_of(client)
    worker.bind_step(notice())
    assert worker.failed_block_ids() == BLOCKS
    assert not worker.computes_on_load
    worker.record_step()
    assert [call[0] for call in client.calls] == ["expect", "finish", "record"]


@pytest.mark.parametrize("client", [None, FakeClient(broken_at="register")], ids=["no cache", "no GPU"])
def test_a_rank_that_is_off_reports_what_it_does_not_get(client: FakeClient | None) -> None:
    worker = worker_of(client)
    assert run_step(worker, notice(failed=frozenset({9}))) == {3, 4, 9}
    assert run_step(worker, notice(6, load=frozenset())) == set()
    assert client is None or client.calls == []


def test_a_rank_that_was_never_registered_reports_what_it_does_not_get() -> None:
    worker = FlexKVWorkerConnector(FakeClient())  # type: ignore[arg-type]
    assert run_step(worker, notice()) == BLOCKS


@pytest.mark.parametrize("broken_at", ["expect", "wait", "finish"])
def test_while_an_error_is_raised_the_step_still_counts_as_computing_on_its_load(broken_at: str) -> None:
    """Then the adapter must not go on as if nothing was (tests/e2e/test_layers.py)."""
    worker = worker_of(FakeClient(broken_at=broken_at))
    with pytest.raises(TransferTimeout):
        run_step(worker, notice())
    assert worker.computes_on_load


def test_a_client_without_tensors_raises_rather_than_waiting_for_nothing(tmp_path: object) -> None:
    from flexkv.server.client import KVTPClient

    client = KVTPClient(f"{tmp_path}/socket", tokens_per_block=4)
    for call in (
        lambda: client.expect_load(1, 1.0),
        lambda: client.wait_for_layer(1, None),
        lambda: client.finish_load(1),
    ):
        with pytest.raises(ServerError, match="register_to_server"):
            call()


def test_a_rank_that_is_turned_off_within_a_step_still_tells_what_the_step_owes() -> None:
    worker = worker_of(FakeClient(lost_at="finish"))
    worker.bind_step(notice(failed=frozenset({90})))
    worker.record_step()
    off = worker.turned_off()
    assert off.failed_block_ids() == {90, *BLOCKS}
    assert off.step_to_name == worker.step_to_name
    off.bind_step(None)
    assert off.failed_block_ids() == set()


@pytest.mark.parametrize("why", ["another rank is gone", "it was cancelled", "the cache was reset"])
def test_a_load_that_never_reaches_its_agent_is_reported_at_once(why: str) -> None:
    rig = Rig(num_ranks=2)
    try:
        assert rig.store(tokens(2), [1, 2]).name == "SUCCESS"
        task_id, mask = rig.manager.get_match(tokens(2))
        assert mask.all()
        if why == "another rank is gone":
            assert rig.clients[1].shutdown()
            assert eventually(lambda: not rig.manager._engine._transfer.ranks()[1].connected)  # type: ignore[attr-defined]
        elif why == "it was cancelled":
            rig.manager.cancel([task_id])
        else:
            rig.manager.reset()
        worker = FlexKVWorkerConnector(rig.client, load_timeout_s=120.0)
        worker._layer_names = ("0", "1", "2")
        worker.bind_step(notice())
        begin_s = time.monotonic()
        rig.manager.launch([task_id], block_ids=[[3, 4]], layerwise_transfer=True, counter_id=5)
        worker.wait_for_layer("not one of them")
        worker.record_step()
        assert worker.failed_block_ids() == BLOCKS
        assert time.monotonic() - begin_s < 60.0
    finally:
        rig.close()
