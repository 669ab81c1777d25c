"""Random damage to a tier at rest, and kill -9 of one at work: some in each run, many in the longer campaigns.

python -m tests.faults.test_ssd_campaigns damage|kills NUMBER FIRST_SEED
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.faults.ssd_damage import run_cases
from tests.faults.ssd_kills import run_cycles

NUM_CASES, NUM_LONG_CASES = 200, 10_000
NUM_KILLS, NUM_LONG_KILLS = 20, 200


def seed_of_today() -> int:
    """A campaign tries other cases each day; what fails prints its seed."""
    return int(time.time()) // 86_400 * NUM_LONG_CASES


def test_whatever_is_damaged_in_the_files_only_right_bytes_are_served_up_to_the_first_damaged_block(ssd: Path) -> None:
    kinds = run_cases(ssd, NUM_CASES, first_seed=0)
    assert sum(kinds.values()) == NUM_CASES
    assert kinds["some lost"] > NUM_CASES // 3
    assert min(kinds["all lost"], kinds["nothing lost"], kinds["refused"]) > 0


def test_after_kill_9_at_any_instant_what_was_written_is_there_and_nothing_else(ssd: Path) -> None:
    counts = run_cycles(ssd, NUM_KILLS, first_seed=0)
    assert counts["blocks left"] > 0
    assert counts["reports"] > 2 * NUM_KILLS


@pytest.mark.long
def test_10000_random_damages_to_the_files_serve_no_wrong_byte(ssd: Path) -> None:
    first_seed = seed_of_today()
    print(first_seed, run_cases(ssd, NUM_LONG_CASES, first_seed))


@pytest.mark.long
def test_200_kills_of_a_writer_leave_what_was_written_and_nothing_else(tmp_path: Path) -> None:
    first_seed = seed_of_today()
    print(first_seed, run_cycles(tmp_path, NUM_LONG_KILLS, first_seed))


def main() -> None:
    logging.getLogger("flexkv").setLevel(logging.CRITICAL)
    campaign = {"damage": run_cases, "kills": run_cycles}[sys.argv[1]]
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as where:
        counts = campaign(Path(where), int(sys.argv[2]), int(sys.argv[3]))
    print(f"{sys.argv[1:]}: {dict(counts)} in {time.monotonic() - started_s:.0f} s")


if __name__ == "__main__":
    main()
