"""A load by layers that never reaches the transfer engine: whoever waits for its ticket is told."""

from __future__ import annotations

import numpy as np
import pytest

from flexkv.common.request import KVResponseStatus as Status
from flexkv.errors import ServerError
from tests.task_bench import TPB, Bench, tokens

TICKET = 7


def matched(bench: Bench) -> int:
    bench.store(2)
    task_id, mask = bench.engine.get_match(tokens(2))
    assert mask.sum() == 2 * TPB
    return task_id


def launch(bench: Bench, task_id: int, *, by_layers: bool = True) -> None:
    bench.engine.launch(
        task_id,
        block_ids=[np.arange(2) + 100],
        layerwise_transfer=by_layers,
        counter_id=TICKET if by_layers else 0,
    )


def test_nobody_is_told_of_a_load_that_is_submitted_whatever_becomes_of_it() -> None:
    bench = Bench()
    task_id = matched(bench)
    launch(bench, task_id)
    bench.transfer.fail(bench.graph_ids[-1])
    bench.engine.poll()
    assert bench.transfer.lost_tickets == []


@pytest.mark.parametrize("how", ["cancelled", "reset"])
def test_of_a_load_that_ended_before_its_launch_the_workers_are_told(how: str) -> None:
    bench = Bench()
    task_id = matched(bench)
    if how == "reset":
        bench.engine.reset()
    else:
        bench.engine.cancel(task_id)
    launch(bench, task_id)
    assert bench.transfer.lost_tickets == [TICKET]
    assert bench.status(task_id) is Status.CANCELLED


@pytest.mark.parametrize("error", [RuntimeError("too many graphs"), ServerError("gone")])
def test_of_a_load_that_the_transfer_engine_refuses_the_workers_are_told(error: Exception) -> None:
    bench = Bench()
    task_id = matched(bench)
    bench.transfer.refusal = error
    launch(bench, task_id)
    assert bench.transfer.lost_tickets == [TICKET]
    assert bench.status(task_id) is Status.FAILED
    bench.check_nothing_is_held()


def test_a_load_without_ticket_and_a_launch_that_raises_tell_nobody() -> None:
    bench = Bench()
    task_id = matched(bench)
    with pytest.raises(ValueError, match="block_ids"):
        bench.engine.launch(task_id, block_ids=[np.arange(9)], layerwise_transfer=True, counter_id=TICKET)
    bench.engine.cancel(task_id)
    launch(bench, task_id, by_layers=False)
    assert bench.transfer.lost_tickets == []
