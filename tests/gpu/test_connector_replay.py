"""Recorded connector calls of a real vLLM, replayed over tensors on a GPU whose kernels are late. Needs no vLLM.

tests/replay says what a replay does; the same on a CPU: tests/integration/vllm/test_replay.py. With several GPUs the
ranks of tensor parallelism are on GPUs of their own.
"""

from __future__ import annotations

import pytest

from tests.replay.live import Live
from tests.replay.memory import ORDERS, Geometry
from tests.replay.rank import WrongBytesError
from tests.replay.recording import Recording, load

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")]

NAMES = ("mp", "mp-apart", "mp-async", "mp-async-tp2", "uni", "uni-async")
LATE_CYCLES = 40_000_000
"""About 20 ms of a GPU: much longer than a transfer that waits for nothing."""


def geometry(order: str = "LBNHC", dtype: str = "bf16") -> Geometry:
    return Geometry(order=order, dtype=dtype, device="cuda", channels=128)


def check_replay(recording: Recording, cuda_geometry: Geometry, **options: bool) -> None:
    with Live(recording, cuda_geometry, **options) as live:
        live.run()
        assert live.connector.num_loads >= recording.num_loads // 2
        assert live.connector.num_held > 0 or recording.is_apart  # stores of the last steps may have ended
        assert live.scheduler.num_preemptions > 0


@pytest.mark.parametrize("is_late", [False, True], ids=["as recorded", "late"])
@pytest.mark.parametrize("name", NAMES)
def test_every_step_reads_what_was_computed_or_loaded(name: str, is_late: bool) -> None:
    check_replay(load(name), geometry(), is_late=is_late)


@pytest.mark.parametrize("order", ORDERS)
def test_both_shards_of_every_layout_come_back(order: str) -> None:
    check_replay(load("mp-async-tp2"), geometry(order, "int8"))


@pytest.mark.parametrize("name", ["uni", "mp-async-tp2"])
def test_latent_vectors_come_back(name: str) -> None:
    check_replay(load(name), Geometry.mla(dtype="bf16", device="cuda"))


@pytest.mark.parametrize("name", ["mp-async", "uni-async"])
def test_fences_keep_loads_from_blocks_of_steps_in_flight(name: str) -> None:
    check_replay(load(name), geometry(), defers_frees=False)


@pytest.mark.parametrize("is_late", [False, True], ids=["as recorded", "late"])
@pytest.mark.parametrize("name", NAMES)
def test_layers_wait_for_their_blocks(name: str, is_late: bool) -> None:
    with Live(load(name), geometry(), is_late=is_late, by_layers=True) as live:
        live.run()
        assert live.connector.num_by_layers > live.connector.num_loads // 3


@pytest.mark.parametrize("order", ORDERS)
def test_layers_wait_for_their_blocks_in_every_layout(order: str) -> None:
    with Live(load("mp-async-tp2"), geometry(order, "int8"), by_layers=True) as live:
        live.run()
        assert live.connector.num_by_layers > 0


# ---- what the checks find


def test_loads_of_zeros_are_found() -> None:
    with Live(load("uni"), geometry()) as live:
        live.connector.on_drop = live.zero_host_blocks
        with pytest.raises(WrongBytesError, match="request 2 token 0"):
            live.run()


@pytest.mark.parametrize("name", ["uni", "mp-async"])
def test_stores_that_do_not_wait_for_their_step_are_found(name: str) -> None:
    with (
        Live(load(name), geometry(), unfenced=("loads", "stores"), sleep_cycles=LATE_CYCLES) as live,
        pytest.raises(WrongBytesError),
    ):
        live.run()


def test_loads_that_do_not_wait_for_the_step_before_are_found() -> None:
    """Without vLLM's own care: it hands blocks of a step in flight out only after it."""
    with (
        Live(
            load("uni-async"), geometry(), defers_frees=False, unfenced=("loads",), sleep_cycles=LATE_CYCLES // 4
        ) as live,
        pytest.raises(WrongBytesError),
    ):
        live.run()


@pytest.mark.parametrize("name", NAMES)
def test_layers_that_do_not_wait_are_found(name: str) -> None:
    with (
        Live(load(name), geometry(), by_layers=True, unfenced=("layers",), sleep_cycles=0) as live,
        pytest.raises(WrongBytesError, match="before layer 0"),
    ):
        live.run()
