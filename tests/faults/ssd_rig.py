"""A manager with an SSD tier, for tests that break what lies under it.

What a block holds is a function of its chain, place and version: any process can tell whether it was served the bytes
that were stored. `serve` lets no wrong byte pass.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np

from flexkv.common.request import KVResponseStatus as Status
from flexkv.errors import ConfigError
from flexkv.tasks.ssd_tier import SsdState
from tests.rig import NUM_GPU_BLOCKS, POISON, ROW_BYTES, TPB, Rig, eventually, slots_of, tokens

TREE = "flexkv-ssd-v1"
SLOT_BYTES = 4096  # of the rig's blocks, one page
HEADER_BYTES = 4096
RECORD_BYTES = 64
NUM_SSD_BLOCKS = 24
NUM_CPU_BLOCKS = 16
CALL_TIMEOUT_S = 20.0
NUM_LAYERS = 3
BLOCK_SHAPE = (NUM_LAYERS, 2, TPB, ROW_BYTES)
CHAIN_STRIDE = 10_000  # between the first tokens of two chains
EVICTING_CHAIN = 400_000


def chain_tokens(chain: int, num_blocks: int) -> np.ndarray:
    return tokens(num_blocks, first=chain * CHAIN_STRIDE)


def block_content(chain: int, block: int, version: int = 0) -> np.ndarray:
    name = f"{chain}/{block}/{version}".encode()
    size = int(np.prod(BLOCK_SHAPE))
    return np.frombuffer(hashlib.shake_128(name).digest(size), dtype=np.uint8).reshape(BLOCK_SHAPE)


def content(chain: int, num_blocks: int, version: int = 0) -> np.ndarray:
    """What `Gpu.read` gives of the first blocks of a chain."""
    return np.stack([block_content(chain, block, version) for block in range(num_blocks)], axis=1)


class SsdRig(Rig):
    """A manager with an SSD tier in `directory`, of which any number may follow each other there."""

    def __init__(
        self,
        directory: Path | str,
        *,
        num_ssd_blocks: int | None = NUM_SSD_BLOCKS,
        num_cpu_blocks: int = NUM_CPU_BLOCKS,
        wait: bool = True,
        **config: object,
    ) -> None:
        super().__init__(
            num_cpu_blocks=num_cpu_blocks,
            enable_ssd=True,
            ssd_cache_dir=str(directory),
            num_ssd_blocks=num_ssd_blocks,
            wait=wait,
            **({"ssd_write_queue_s": 3600.0, "fingerprint": "5e" * 16} | config),  # a slow disk drops no writes
        )
        self.gpu.poison()

    @property
    def state(self) -> SsdState:
        self.manager.is_ready()
        return self.manager._engine._ssd.state

    @property
    def num_held(self) -> int:
        """Blocks in the SSD tier."""
        return self.manager.stats().ssd_slots_used

    def put(self, chain: int, num_blocks: int, version: int = 0) -> bool:
        """Store the first blocks of a chain, and wait until they are on disk; whether all that was new was stored."""
        for layer, values in zip(self.gpu.layers, content(chain, num_blocks, version), strict=True):
            layer[:num_blocks] = values
        task_id, mask = self.manager.put_match(chain_tokens(chain, num_blocks))
        num_new = int(mask.sum()) // TPB
        self.manager.launch(task_id, [slots_of(range(num_blocks - num_new, num_blocks))])
        answer = self.manager.wait(task_id, timeout=CALL_TIMEOUT_S, completely=True)[task_id]
        self.gpu.poison()
        return answer.status is Status.SUCCESS

    def serve(self, chain: int, num_blocks: int, version: int = 0) -> int:
        """Load what is held of a chain, again after each failure; returns how many blocks came, and checks them all."""
        started_s = time.monotonic()
        for _ in range(num_blocks + 1):  # each failure costs the tier a block at least
            self.gpu.poison()
            task_id, mask = self.manager.get_match(chain_tokens(chain, num_blocks))
            num_loaded = int(mask.sum()) // TPB
            assert mask[: num_loaded * TPB].all(), "what is offered is a prefix"
            if num_loaded == 0:
                return 0
            self.manager.launch(task_id, [slots_of(range(num_loaded))])
            status = self.manager.wait(task_id, timeout=CALL_TIMEOUT_S)[task_id].status
            assert time.monotonic() - started_s < CALL_TIMEOUT_S
            assert self.gpu.untouched(range(num_loaded))
            loaded = self.gpu.read(range(num_loaded))
            expected = content(chain, num_loaded, version)
            if status is Status.SUCCESS:
                assert np.array_equal(loaded, expected), f"wrong bytes in chain {chain}"
                return num_loaded
            assert status is Status.FAILED
            touched = (loaded != POISON) & (loaded != expected)
            assert not touched.any(), "a load that failed has written what was not stored"
        raise AssertionError(f"chain {chain} was offered again and again, and never came")

    def forget_host_blocks(self) -> None:
        """Have the CPU tier drop all blocks: what is asked for next comes from the SSD."""
        num_blocks = self.manager._engine.num_blocks
        task_id, mask = self.manager.put_match(chain_tokens(EVICTING_CHAIN, num_blocks))
        assert mask.sum() == num_blocks * TPB
        self.manager.cancel(task_id)

    def check_books(self) -> None:
        """Every slot of both tiers is accounted for, and none is held by anything that has ended."""
        assert eventually(lambda: self.manager.stats().ssd_moves_running == 0)
        self.check_nothing_is_held()
        cache = self.manager._engine._tier.cache
        assert cache is not None
        ssd = cache.ssd_cache_engine
        if ssd is not None:
            assert ssd.index.num_pinned == ssd.index.num_unready == ssd.index.num_doomed == 0
            assert ssd.index.num_blocks == self.manager.stats().ssd_slots_used

    def check_serves_from_host(self, chain: int = 77, num_blocks: int = 3) -> None:
        """Whatever became of the SSD tier, the CPU tier takes blocks and gives them back."""
        assert self.put(chain, num_blocks)
        assert self.serve(chain, num_blocks) == num_blocks


def config_error(directory: Path | str, **config: object) -> str:
    """Start a manager that cannot work, and return what its `wait_ready` says; its CPU tier serves all the same."""
    rig = SsdRig(directory, wait=False, **config)  # type: ignore[arg-type]
    try:
        rig.manager.wait_ready(CALL_TIMEOUT_S)
    except ConfigError as error:
        return str(error)
    finally:
        rig.close()
    raise AssertionError("it started")


def only_sub_directory(directory: Path) -> Path:
    """The one of the only model that was ever served from here."""
    (found,) = [path for path in (directory / TREE).iterdir() if path.is_dir()]
    return found


def prepare(directory: Path, chains: dict[int, int], **config: object) -> Path:
    """Fill a tier with chains, {chain: blocks}, close it, and return its sub-directory."""
    rig = SsdRig(directory, **config)  # type: ignore[arg-type]
    for chain, num_blocks in chains.items():
        assert rig.put(chain, num_blocks)
    assert rig.num_held == sum(chains.values())
    rig.close()
    return only_sub_directory(directory)


assert NUM_GPU_BLOCKS >= NUM_CPU_BLOCKS
