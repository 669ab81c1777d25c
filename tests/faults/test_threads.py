"""Many threads on one manager: every verb at once, with the bytes of each load compared."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest

from flexkv.common.request import KVResponseStatus as Status
from tests.rig import NUM_GPU_BLOCKS, TPB, Rig, slots_of, tokens

NUM_THREADS = 32
NUM_OWN_BLOCKS = NUM_GPU_BLOCKS // NUM_THREADS
JOIN_S = 100.0


class Crowd:
    """Threads with two GPU blocks each, over six documents. A block's bytes say its document and depth."""

    def __init__(self, num_turns: int) -> None:
        self.rig = Rig(num_cpu_blocks=20)
        self.manager = self.rig.manager
        self.num_turns = num_turns
        self.start = threading.Barrier(NUM_THREADS)
        self.errors: list[str] = []
        self.num_loaded = 0
        self.steps = itertools.count(1)

    def work(self, number: int) -> None:
        random = np.random.default_rng(number)
        own = [number * NUM_OWN_BLOCKS + i for i in range(NUM_OWN_BLOCKS)]
        self.start.wait(20)
        try:
            for _ in range(self.num_turns):
                document, length = int(random.integers(0, 6)), int(random.integers(1, NUM_OWN_BLOCKS + 1))
                turn = random.choice(["cancel", "reset", "put", "get", "doom"], p=[0.1, 0.02, 0.4, 0.4, 0.08])
                getattr(self, turn)(document, own[:length])
        except (ValueError, RuntimeError, AssertionError, OSError) as error:
            self.errors.append(repr(error))

    def cancel(self, document: int, own: list[int]) -> None:
        ids = self.tokens_of(document, len(own))
        self.manager.cancel([self.manager.get_match(ids)[0], self.manager.put_match(ids)[0]])

    def reset(self, document: int, own: list[int]) -> None:
        self.manager.reset()

    def put(self, document: int, own: list[int]) -> None:
        self.fill(document, own)
        task_id = self.manager.put_async(self.tokens_of(document, len(own)), slots_of(own))
        status = self.manager.wait(task_id)[task_id].status
        assert status in (Status.SUCCESS, Status.CANCELLED), status

    def doom(self, document: int, own: list[int]) -> None:
        self.fill(document, own)
        step = next(self.steps)
        task_id = self.manager.put_async(self.tokens_of(document, len(own)), slots_of(own), after_step=step)
        self.manager.doom(task_id)
        self.fill(9, own)  # what the engine writes there next; a copy of it must never be found
        self.rig.client.record_step(step)
        self.manager.wait(task_id)

    def get(self, document: int, own: list[int]) -> None:
        task_id, mask = self.manager.get_match(self.tokens_of(document, len(own)))
        count = int(mask.sum()) // TPB
        self.manager.launch(task_id, [slots_of(own[:count])])
        if self.manager.wait(task_id)[task_id].status is Status.SUCCESS:
            self.num_loaded += count
            for depth, block in enumerate(own[:count]):
                for layer in self.rig.gpu.layers:
                    assert (layer[block] == document * 10 + depth + 1).all(), f"wrong bytes of document {document}"

    def fill(self, document: int, own: list[int]) -> None:
        for depth, block in enumerate(own):
            for layer in self.rig.gpu.layers:
                layer[block] = document * 10 + depth + 1

    @staticmethod
    def tokens_of(document: int, length: int) -> np.ndarray:
        return tokens(length, first=1000 * document)

    def run(self) -> None:
        threads = [threading.Thread(target=self.work, args=(number,)) for number in range(NUM_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(JOIN_S)
        assert not any(thread.is_alive() for thread in threads)
        assert self.errors == []
        assert self.num_loaded > 0
        self.manager.reset()
        self.rig.check_nothing_is_held()
        assert self.manager.stats().slots_used == 0
        self.rig.close()


def test_32_threads_share_one_manager_and_every_load_brings_the_bytes_of_its_prefix() -> None:
    Crowd(num_turns=60).run()


@pytest.mark.long
@pytest.mark.parametrize("round_number", range(5))
def test_32_threads_go_on_for_long(round_number: int) -> None:
    Crowd(num_turns=1000).run()
