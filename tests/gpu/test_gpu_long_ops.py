"""Long ops beside the engine's work, with its turns and slim kernels: every byte of them, by each mechanism."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")]

KIB, MIB = 1 << 10, 1 << 20
OP_BYTES = 256 * MIB
"""8 turns beside the engine's work, and twice what the stages hold."""


@pytest.fixture(scope="module")
def beside() -> Iterator[SimpleNamespace]:
    """Memory with random contents on both sides, and an engine's work."""
    from benchmarks import gpu_load
    from benchmarks.gpu_rig import Arena, Driver

    with Arena(Driver(), OP_BYTES, 2 * OP_BYTES) as arena:
        yield SimpleNamespace(arena=arena, product=gpu_load.product(), decode=gpu_load.decode(4, 2048))
    torch.cuda.empty_cache()


@pytest.mark.parametrize(("load", "slots"), [("product", "a run"), ("product", "random"), ("decode", "a run")])
@pytest.mark.parametrize(("num_planes", "chunk_bytes"), [(64, 4 * KIB), (64, 18 * KIB), (64, 64 * KIB), (1, 2 * MIB)])
def test_every_byte_arrives_beside_the_engines_work(
    beside: SimpleNamespace, num_planes: int, chunk_bytes: int, slots: str, load: str
) -> None:
    from benchmarks.gpu_load import Running
    from benchmarks.gpu_rig import Rig
    from benchmarks.gpu_slots import random_slots

    num_blocks = OP_BYTES // (num_planes * chunk_bytes)
    order = random_slots(num_blocks, num_blocks + num_blocks // 2, chunk_bytes) if slots == "random" else None
    with (
        Rig(beside.arena, chunk_bytes, num_planes, order) as rig,
        Running(getattr(beside, load), rig.record_step),
    ):
        assert rig.is_registered
        known = {"staged", "mixed", "zero_copy", "strided" if num_planes > 1 else "direct"}
        for way in ("load", "store", "both"):
            rig.verify(way)  # as they are chosen
        for way in ("load", "store", "both"):
            mechanisms = rig.mechanisms(way)
            assert set(mechanisms) == known | ({"batched"} if rig.has_batches else set())
            for mechanism in mechanisms:
                rig.use(mechanism)
                assert rig.verify_beside_work(way, mechanism)


def test_what_was_not_copied_is_found(beside: SimpleNamespace) -> None:
    from benchmarks.gpu_rig import Rig

    with Rig(beside.arena, 64 * KIB, 64) as rig:
        all_but_one = rig.num_blocks - 1
        for way, direction in (("load", 0), ("store", 1)):
            with pytest.raises(AssertionError, match="not what"):
                rig.verify(way, [rig.mover(direction, 0, all_but_one)])
            beside.arena.memory.copy_(beside.arena.expected)
