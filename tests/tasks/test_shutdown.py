"""Shutting a task engine down: the transfer engine always stops, and the caller learns whether it did."""

from __future__ import annotations

import pytest

from flexkv.common.request import KVResponseStatus as Status
from tests.task_bench import Bench


def test_shutdown_says_whether_anything_may_still_be_touched_and_can_be_repeated() -> None:
    bench = Bench()
    bench.store(2)
    load = bench.load(2)
    bench.transfer.drains = False
    assert bench.engine.shutdown() is False
    assert bench.status(load) is Status.FAILED
    assert bench.engine.stats().slots_quarantined == 2
    assert bench.engine.shutdown() is False
    bench.transfer.drains = True
    assert bench.engine.shutdown() is True
    assert bench.engine.shutdown() is True
    bench.check_nothing_is_held()


def test_the_transfer_engine_is_stopped_whatever_goes_wrong_before(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.store(1)
    load = bench.load(1)

    def refresh(now_s: float) -> None:
        raise AssertionError("broken on purpose")

    monkeypatch.setattr(bench.engine._tier, "refresh", refresh)
    with pytest.raises(AssertionError, match="on purpose"):
        bench.engine.shutdown()
    assert bench.transfer.stopped
    assert bench.engine.shutdown() is True
    assert bench.engine.wait(load)[load].status is Status.SUCCESS
    bench.check_nothing_is_held()
