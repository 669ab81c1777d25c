"""The stress of manager_threads.py, plainly and short."""

from __future__ import annotations

import random

from tests.stress.manager_threads import main


def test_threads_at_random_get_the_right_bytes_and_leave_nothing_held() -> None:
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")
    counts = main(2.0, seed)
    assert all(counts[verb] > 0 for verb in ("_store", "_load", "_load_batch", "_cancel", "_observe"))
