"""A process that puts, loads, evicts and resets without end is killed at a random instant, again and again.

After each kill a manager starts over what is left and must serve right bytes only, all that was reported as written,
and nothing of before a reset. In a roomy tier nothing is evicted, so all that was reported since the last reset must be
there; in a tight one what was reported last. The writer of the next cycle goes on where this one ended.
"""

from __future__ import annotations

import logging
import multiprocessing
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from tests.faults.ssd_rig import SsdRig, chain_tokens

NUM_CHAINS = 12
MAX_BLOCKS = 8
ROOMY, TIGHT = NUM_CHAINS * MAX_BLOCKS, 40
MAX_LIFE_S = 0.15
START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 10.0


@dataclass
class Known:
    """What a reader of a writer's reports knows of the tier."""

    version: int = 0
    written: dict[int, int] = field(default_factory=dict)  # blocks of a chain that were reported as written
    last: int = -1  # the chain that was reported last
    is_resetting: bool = False
    num_reports: int = 0


def rig_of(directory: str, num_ssd_blocks: int) -> SsdRig:
    return SsdRig(directory, num_cpu_blocks=2 * MAX_BLOCKS, num_ssd_blocks=num_ssd_blocks)


def blocks_on_ssd(rig: SsdRig, chain: int) -> int:
    cache = rig.manager._engine._tier.cache
    assert cache is not None
    assert cache.ssd_cache_engine is not None
    return int(cache.ssd_cache_engine.match(rig.manager.sequence(chain_tokens(chain, MAX_BLOCKS))).num_ready)


def write_until_killed(reports: Connection, directory: str, num_ssd_blocks: int, seed: int, version: int) -> None:
    """The writer. Reports: ("written", chain, blocks), ("resets", version), ("reset", version)."""
    logging.getLogger("flexkv").setLevel(logging.ERROR)
    chance = random.Random(seed)
    rig = rig_of(directory, num_ssd_blocks)
    reports.send(("started", 0, 0))
    while True:
        chain, num_blocks = chance.randrange(NUM_CHAINS), chance.randint(1, MAX_BLOCKS)
        what = chance.random()
        if what < 0.1:
            version += 1
            reports.send(("resets", version, 0))
            rig.manager.reset()
            reports.send(("reset", version, 0))
        elif what < 0.25:
            rig.serve(chain, num_blocks, version)
        else:
            assert rig.put(chain, num_blocks, version)
            held = blocks_on_ssd(rig, chain)
            assert held >= num_blocks, "nothing was dropped"
            # Where room is short only what was just put is sure to be the newest: what else is held of the chain is not.
            reports.send(("written", chain, held if num_ssd_blocks == ROOMY else num_blocks))


def note(known: Known, report: tuple[str, int, int]) -> None:
    what, number, num_blocks = report
    known.num_reports += 1
    if what == "written":
        known.written[number] = num_blocks
        known.last = number
    elif what == "resets":
        known.is_resetting = True
    elif what == "reset":
        known.is_resetting = False
        known.version, known.written, known.last = number, {}, -1


def life_of_a_writer(directory: str, num_ssd_blocks: int, seed: int, known: Known) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    reports, writers_end = context.Pipe(duplex=False)
    arguments = (writers_end, directory, num_ssd_blocks, seed, known.version)
    writer = context.Process(target=write_until_killed, args=arguments, daemon=True)
    writer.start()
    writers_end.close()
    try:
        assert reports.poll(START_TIMEOUT_S)
        assert reports.recv() == ("started", 0, 0)
        writer.join(random.Random(seed).uniform(0, MAX_LIFE_S))
        assert writer.exitcode is None, "it ends only when it is killed"
    finally:
        writer.kill()
        writer.join(END_TIMEOUT_S)
    try:
        while True:
            note(known, reports.recv())
    except EOFError:
        reports.close()


def served_version(rig: SsdRig, known: Known) -> int:
    """Of a reset that the kill hit: whether what is there, if anything, is of before or of after it."""
    if not known.is_resetting:
        return known.version
    for chain in known.written:
        if blocks_on_ssd(rig, chain):
            return known.version
    return known.version + 1


def check_what_is_left(directory: str, num_ssd_blocks: int, known: Known) -> str:
    rig = rig_of(directory, num_ssd_blocks)
    rig.check_books()
    num_restored = rig.num_held
    version = served_version(rig, known)
    if version != known.version:
        known.version, known.written, known.last = version, {}, -1
    known.is_resetting = False
    served = {chain: rig.serve(chain, MAX_BLOCKS, version) for chain in range(NUM_CHAINS)}
    assert sum(served.values()) == num_restored, "all that was found is whole, and nothing else is there"
    must = known.written if num_ssd_blocks == ROOMY else {c: n for c, n in known.written.items() if c == known.last}
    missing = {chain: (num_blocks, served[chain]) for chain, num_blocks in must.items() if served[chain] < num_blocks}
    assert not missing, f"written, and gone: {missing}"
    rig.check_books()
    assert rig.num_held == num_restored
    rig.close()
    known.written = {chain: num_blocks for chain, num_blocks in served.items() if num_blocks}
    known.last = -1
    return "blocks left" if num_restored else "nothing left"


def run_cycles(where: Path, num_cycles: int, first_seed: int) -> Counter[str]:
    """Run that many cycles, by turns on a roomy and on a tight tier; returns what there was."""
    counts: Counter[str] = Counter()
    known = {ROOMY: Known(), TIGHT: Known()}
    for seed in range(first_seed, first_seed + num_cycles):
        num_ssd_blocks = (ROOMY, TIGHT)[seed % 2]
        directory = str(where / str(num_ssd_blocks))
        own = known[num_ssd_blocks]
        before, version = own.num_reports, own.version
        try:
            life_of_a_writer(directory, num_ssd_blocks, seed, own)
            counts["in the midst of a reset"] += own.is_resetting
            counts[check_what_is_left(directory, num_ssd_blocks, own)] += 1
        except BaseException:
            print(f"seed {seed}: {own}", file=sys.stderr, flush=True)
            raise
        counts["reports"] += own.num_reports - before
        counts["resets"] += own.version - version
    return counts
