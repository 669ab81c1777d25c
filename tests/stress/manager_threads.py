"""Many threads on one KVManager with two in-process ranks: every verb at random, every load's bytes verified.

    python -m tests.stress.manager_threads SECONDS [SEED]

Plainly and short it is a unit test (test_manager_threads.py); scripts/sanitized_python.sh runs it over a core built
with sanitizers. Each thread has GPU blocks of its own. A block's bytes say which document and depth they belong to.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

import numpy as np

from flexkv.common.request import KVResponseStatus as Status
from tests.rig import NUM_GPU_BLOCKS, TPB, Rig, eventually, slots_of, tokens

NUM_THREADS = 12
NUM_DOCUMENTS = 6
BLOCKS_PER_THREAD = NUM_GPU_BLOCKS // NUM_THREADS
MAX_LENGTH = BLOCKS_PER_THREAD // 2
JOIN_TIMEOUT_S = 120.0


class Stress:
    """One manager under many threads, for a time; then the manager is shut down under them, or first left quiet."""

    def __init__(self, seed: int) -> None:
        self.rig = Rig(num_ranks=2, num_cpu_blocks=14)
        self.counts: Counter[str] = Counter()
        self.errors: list[str] = []
        self._seed = seed
        self._step = 0
        self._ending = threading.Event()
        self._shut_down = threading.Event()
        self._lock = threading.Lock()

    def run(self, seconds: float, *, shutdown_under_them: bool) -> None:
        """Raises AssertionError when a load brought wrong bytes, a thread hung, or something is held at the end."""
        threads = [threading.Thread(target=self._guarded, args=(number,)) for number in range(NUM_THREADS)]
        for thread in threads:
            thread.start()
        self._ending.wait(seconds)
        if shutdown_under_them:
            self._shut_down.set()
            assert self.rig.manager.shutdown(20), "a copy still ran after the shutdown"
        self._ending.set()
        for thread in threads:
            thread.join(JOIN_TIMEOUT_S)
        assert not any(thread.is_alive() for thread in threads), "a thread hangs"
        assert self.errors == [], self.errors[:5]
        if not shutdown_under_them:
            self.rig.manager.reset()
            self.rig.check_nothing_is_held()
            assert self.rig.manager.stats().slots_used == 0
        self.rig.manager.check_invariants()
        self.rig.close()

    def _guarded(self, number: int) -> None:
        random = np.random.default_rng([self._seed, number])
        own = list(range(number * BLOCKS_PER_THREAD, (number + 1) * BLOCKS_PER_THREAD))
        verbs = [self._store, self._store, self._load, self._load, self._load_batch, self._cancel, self._observe]
        try:
            while not self._ending.is_set():
                verb = self._odd_job if random.random() < 0.08 else verbs[int(random.integers(len(verbs)))]
                self._count(verb.__name__)
                verb(random, own)
        except BaseException as error:
            self._fail(f"thread {number}: {error!r}")
            raise

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def _fail(self, what: str) -> None:
        with self._lock:
            self.errors.append(what)
        self._ending.set()

    def _ended(self, task_id: int) -> Status:
        """How the task ended; its GPU blocks are free again."""
        status = self.rig.manager.wait(task_id, timeout=60, completely=True)[task_id].status
        expected = {Status.SUCCESS, Status.CANCELLED}
        if self._shut_down.is_set():
            expected |= {Status.FAILED, Status.NOTFOUND}
        if status not in expected:
            self._fail(f"a task ended as {status}")
        return status

    def _document(self, random: np.random.Generator) -> tuple[int, np.ndarray]:
        document = int(random.integers(NUM_DOCUMENTS))
        return document, tokens(int(random.integers(1, MAX_LENGTH + 1)), first=1000 * document)

    def _store(self, random: np.random.Generator, own: list[int]) -> None:
        document, ids = self._document(random)
        blocks = own[: len(ids) // TPB]
        for gpu in self.rig.gpus:
            for layer in gpu.layers:
                for depth, block in enumerate(blocks):
                    layer[block] = document * 10 + depth + 1
        task_id = self.rig.manager.put_async(ids, slots_of(blocks), after_step=self._ticket(random))
        if random.random() < 0.2:
            (self.rig.manager.doom if random.random() < 0.5 else self.rig.manager.cancel)(task_id)
        if self._ended(task_id) is not Status.SUCCESS:
            # It will never be committed, but its copy may go on reading what is overwritten next: right, yet a race.
            assert eventually(lambda: self._is_released(task_id)), "a store was never released"

    def _is_released(self, task_id: int) -> bool:
        self.rig.manager.is_ready()  # takes in what has ended
        tasks = self.rig.manager._engine._tasks.graph_to_task
        return all(task.task_id != task_id for task in list(tasks.values()))

    def _load(self, random: np.random.Generator, own: list[int]) -> None:
        document, ids = self._document(random)
        task_id, mask = self.rig.manager.get_match(ids)
        blocks = own[: int(mask.sum()) // TPB]
        self.rig.manager.launch(task_id, [slots_of(blocks)], after_step=self._ticket(random))
        if self._ended(task_id) is Status.SUCCESS:
            self._verify(document, blocks)

    def _load_batch(self, random: np.random.Generator, own: list[int]) -> None:
        parts = [(*self._document(random), own[:MAX_LENGTH]), (*self._document(random), own[MAX_LENGTH:])]
        task_ids, placed = [], []
        for document, ids, blocks in parts:
            task_id, mask = self.rig.manager.get_match(ids)
            task_ids.append(task_id)
            placed.append((document, blocks[: int(mask.sum()) // TPB]))
        slots = [slots_of(blocks) for _, blocks in placed]
        (batch,) = self.rig.manager.launch(task_ids, slots, as_batch=True)
        if self._ended(batch) is Status.SUCCESS:
            for document, blocks in placed:
                self._verify(document, blocks)

    def _verify(self, document: int, blocks: list[int]) -> None:
        for gpu in self.rig.gpus:
            for layer in gpu.layers:
                for depth, block in enumerate(blocks):
                    if (layer[block] != document * 10 + depth + 1).any():
                        self._fail(f"wrong bytes of document {document} at depth {depth}")

    def _cancel(self, random: np.random.Generator, own: list[int]) -> None:
        match: Callable[[np.ndarray], tuple[int, np.ndarray]] = self.rig.manager.get_match
        if random.random() < 0.5:
            match = self.rig.manager.put_match
        task_id, _ = match(self._document(random)[1])
        self.rig.manager.cancel(task_id)
        self.rig.manager.wait(task_id, timeout=60)

    def _observe(self, random: np.random.Generator, own: list[int]) -> None:
        self.rig.manager.stats()
        self.rig.manager.take_events()
        self.rig.manager.check_invariants()
        assert self.rig.manager.num_running >= 0
        for client in self.rig.clients:
            client.stats()

    def _odd_job(self, random: np.random.Generator, own: list[int]) -> None:
        if random.random() < 0.2:
            self.rig.manager.reset()
            return
        for client in self.rig.clients:
            client.hold(True)
        for client in self.rig.clients:
            client.hold(False)

    def _ticket(self, random: np.random.Generator) -> int:
        """A step that is recorded now or was before; sometimes after the op has been sent."""
        with self._lock:
            self._step += 1
            step = self._step
        if random.random() < 0.5:
            self._record(step)
            return step
        threading.Timer(0.001, self._record, (step,)).start()
        return step

    def _record(self, step: int) -> None:
        for client in self.rig.clients:
            client.record_step(step)


def main(seconds: float, seed: int) -> Counter[str]:
    """Run both endings, half the time each."""
    counts: Counter[str] = Counter()
    for shutdown_under_them in (False, True):
        stress = Stress(seed)
        stress.run(seconds / 2, shutdown_under_them=shutdown_under_them)
        counts += stress.counts
    return counts


if __name__ == "__main__":
    started_s = time.monotonic()
    chosen_seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() % 1_000_000
    print(f"stress: seed {chosen_seed}", flush=True)
    done = main(float(sys.argv[1]), chosen_seed)
    print(
        f"stress: {sum(done.values())} calls in {time.monotonic() - started_s:.1f} s, seed {chosen_seed}: {dict(done)}"
    )
