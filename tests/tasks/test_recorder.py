"""Recorder: what it counts of completions."""

from __future__ import annotations

from flexkv._core import CompletionKind, OpStatus, OpType
from flexkv.common.config import CacheConfig
from flexkv.common.transfer import TransferType
from flexkv.tasks.recorder import Recorder
from tests.doubles import CompletionDouble


def ended(route: OpType, num_blocks: int) -> CompletionDouble:
    done = OpStatus.DONE
    return CompletionDouble(
        CompletionKind.OP, 1, done, bytes=10 * num_blocks, seconds=0.5, type=route, num_blocks=num_blocks
    )


def test_an_op_is_counted_on_the_route_and_with_the_blocks_that_its_completion_names() -> None:
    recorder = Recorder(CacheConfig(tokens_per_block=4, num_cpu_blocks=8), None, lambda: 0.0)
    recorder.op_ended(ended(OpType.DISK2H, 3), failed=False)
    recorder.op_ended(ended(OpType.H2D, 5), failed=False)
    recorder.op_ended(ended(OpType.H2D, 7), failed=True)
    recorder.op_ended(ended(OpType.VIRTUAL, 0), failed=False)
    used = {route: counters for route, counters in recorder.counters.routes.items() if counters.num_ops}
    assert set(used) == {TransferType.DISK2H, TransferType.H2D}
    assert (used[TransferType.DISK2H].num_blocks, used[TransferType.DISK2H].bytes) == (3, 30)
    loads = used[TransferType.H2D]
    assert (loads.num_ops, loads.num_blocks, loads.num_failed) == (2, 5, 1)
