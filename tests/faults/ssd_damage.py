"""Random damage to the files of an SSD tier that is at rest, and what a manager must make of it.

A case: the files are as they were prepared, one or several regions of them are damaged, a manager starts, loads every
chain and compares all bytes, and its books must balance. What may be served is known exactly: a block counts as damaged
when a byte of it or of its record differs, and a chain must come up to its first damaged block, no more and no less.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.faults.ssd_rig import (
    HEADER_BYTES,
    RECORD_BYTES,
    SLOT_BYTES,
    TREE,
    SsdRig,
    chain_tokens,
    config_error,
)

CHAINS = {1: 5, 2: 1, 3: 7, 4: 4, 5: 3}  # 20 of 24 slots
NUM_SLOTS = 24
MAGICS = ((0, 8), (HEADER_BYTES - 16, HEADER_BYTES - 8))
Files = dict[str, bytearray]
Place = tuple[int, int]  # directory, slot in it


@dataclass(frozen=True)
class Prepared:
    """A tier at rest: its files, of each directory, and where each block lies."""

    roots: tuple[Path, ...]
    files: tuple[dict[str, bytes], ...]
    places: dict[int, list[Place]]

    def path(self, directory: int, name: str) -> Path:
        (found,) = [path for path in (self.roots[directory] / TREE).iterdir() if path.is_dir()]
        return found / name


def rig_in(roots: tuple[Path, ...], **config: object) -> SsdRig:
    return SsdRig(joined(roots), num_ssd_blocks=NUM_SLOTS, prefault_threads=1, copy_threads=1, **config)  # type: ignore[arg-type]


def joined(roots: tuple[Path, ...]) -> str:
    return ";".join(map(str, roots))


def prepare_for_damage(where: Path, num_directories: int) -> Prepared:
    roots = tuple(where / f"ssd{number}" for number in range(num_directories))
    where.mkdir(exist_ok=True)
    for version in (1, 0):  # an earlier life leaves its bytes in slots, and its records nowhere
        rig = rig_in(roots)
        for chain, num_blocks in CHAINS.items():
            assert rig.put(chain, num_blocks, version)
        if version:
            rig.manager.reset()
            rig.close()
    cache = rig.manager._engine._tier.cache
    assert cache is not None
    assert cache.ssd_cache_engine is not None
    places = {}
    for chain, num_blocks in CHAINS.items():
        match = cache.ssd_cache_engine.match(rig.manager.sequence(chain_tokens(chain, num_blocks)))
        assert match.num_ready == num_blocks
        places[chain] = [(slot % num_directories, slot // num_directories) for slot in match.slots().tolist()]
    rig.close()
    prepared = Prepared(roots, (), places)
    files = tuple(
        {name: prepared.path(number, name).read_bytes() for name in ("data", "records")}
        for number in range(num_directories)
    )
    return Prepared(roots, files, places)


# --- damage: each takes the files of all directories, and changes some bytes


def region(chance: random.Random, files: list[Files]) -> tuple[bytearray, int, int]:
    """Pick a file, half of the time records, and a region in it: few bytes or many, anywhere or on a boundary."""
    name = chance.choice(("records", "data"))
    content = chance.choice(files)[name]
    length = min(len(content), chance.choice((1, 1, 2, 7, 8, 16, 64, 512, 4096, 9000)))
    start = chance.randrange(len(content) - length + 1)
    if chance.random() < 0.3:
        start -= start % length
    if name == "records" and chance.random() < 0.7:  # most of the file are records of which few are valid
        start = min(start, len(content) - length)
        start = chance.randrange(HEADER_BYTES, max(HEADER_BYTES + 1, len(content) - length + 1))
    return content, start, length


def flip_a_bit(chance: random.Random, files: list[Files]) -> None:
    content, start, _ = region(chance, files)
    content[start] ^= 1 << chance.randrange(8)


def flip_bytes(chance: random.Random, files: list[Files]) -> None:
    content, start, length = region(chance, files)
    content[start : start + length] = bytes(byte ^ 0xFF for byte in content[start : start + length])


def make_random(chance: random.Random, files: list[Files]) -> None:
    content, start, length = region(chance, files)
    content[start : start + length] = chance.randbytes(length)


def make_zero(chance: random.Random, files: list[Files]) -> None:
    content, start, length = region(chance, files)
    content[start : start + length] = bytes(length)


def move_within(chance: random.Random, files: list[Files]) -> None:
    """A region is overwritten by what lies elsewhere in its file: a write that went astray."""
    content, start, length = region(chance, files)
    source = chance.randrange(len(content) - length + 1)
    content[start : start + length] = content[source : source + length]


def swap_slots(chance: random.Random, files: list[Files]) -> None:
    """Two slots change places: their records, their data, or both, so that each record fits the data beside it."""
    one, other = chance.choice(files), chance.choice(files)
    slots = chance.randrange(len(one["data"]) // SLOT_BYTES), chance.randrange(len(other["data"]) // SLOT_BYTES)
    for name, base, size in chance.choice((UNITS[:1], UNITS[1:], UNITS)):
        starts = [base + slot * size for slot in slots]
        contents = [bytes(file[name][at : at + size]) for file, at in zip((one, other), starts, strict=True)]
        for file, at, content in zip((other, one), reversed(starts), contents, strict=True):
            file[name][at : at + size] = content


def cut(chance: random.Random, files: list[Files]) -> None:
    content = chance.choice(files)[chance.choice(("records", "data"))]
    del content[chance.choice((chance.randrange(len(content)), len(content) // SLOT_BYTES // 2 * SLOT_BYTES)) :]


def append(chance: random.Random, files: list[Files]) -> None:
    chance.choice(files)[chance.choice(("records", "data"))].extend(chance.randbytes(chance.randrange(1, 6000)))


def tear_the_header(chance: random.Random, files: list[Files]) -> None:
    content = chance.choice(files)["records"]
    at = chance.choice((*range(64), *range(HEADER_BYTES - 16, HEADER_BYTES)))
    content[at] ^= chance.randrange(1, 256)


UNITS = (("records", HEADER_BYTES, RECORD_BYTES), ("data", 0, SLOT_BYTES))
DAMAGES = (
    flip_a_bit,
    flip_bytes,
    make_random,
    make_zero,
    move_within,
    swap_slots,
    cut,
    append,
    tear_the_header,
)
WEIGHTS = (4, 4, 4, 4, 3, 4, 2, 1, 1)


# --- what must come of it


def is_whole(prepared: Prepared, files: list[Files], place: Place) -> bool:
    directory, slot = place
    return all(
        files[directory][name][base + slot * size : base + (slot + 1) * size]
        == prepared.files[directory][name][base + slot * size : base + (slot + 1) * size]
        for name, base, size in UNITS
    )


def expected(prepared: Prepared, files: list[Files]) -> dict[int, int] | None:
    """Blocks of each chain that must be served; None when the start must be refused, since a file is not ours."""
    usable = []
    for own, before in zip(files, prepared.files, strict=True):
        header = own["records"][:HEADER_BYTES]
        header.extend(bytes(HEADER_BYTES - len(header)))
        is_empty = not any(header)
        if not is_empty and all(header[a:b] != before["records"][a:b] for a, b in MAGICS):
            return None
        usable.append(header == before["records"][:HEADER_BYTES])
    served = {}
    for chain, places in prepared.places.items():
        whole = [usable[place[0]] and is_whole(prepared, files, place) for place in places]
        served[chain] = whole.index(False) if False in whole else len(whole)
    return served


def check(prepared: Prepared, files: list[Files], chance: random.Random) -> str:
    """Start over these files and compare everything; returns what kind of case it was."""
    for directory, own in enumerate(files):
        for name, content in own.items():
            prepared.path(directory, name).write_bytes(content)
    must_serve = expected(prepared, files)
    if must_serve is None:
        message = config_error(joined(prepared.roots), num_ssd_blocks=NUM_SLOTS)
        assert "is not a file of this cache; remove it, or name another root" in message
        return "refused"
    for start in range(1 if chance.random() < 0.9 else 2):
        rig = rig_in(prepared.roots, ssd_io_engine=chance.choice(("io_uring", "threads")) if start else "auto")
        assert rig.manager.stats().ssd_slots_total == NUM_SLOTS
        chains = list(CHAINS)
        chance.shuffle(chains)
        served = {chain: rig.serve(chain, CHAINS[chain]) for chain in chains}
        assert served == must_serve
        rig.check_books()
        assert rig.num_held == sum(must_serve.values()), "what is bad, and what hangs on it, is dropped"
        rig.close()
    if must_serve == CHAINS:
        return "nothing lost"
    return "all lost" if not any(must_serve.values()) else "some lost"


def run_case(prepared: Prepared, seed: int) -> str:
    chance = random.Random(seed)
    files = [{name: bytearray(content) for name, content in own.items()} for own in prepared.files]
    damages = chance.choices(DAMAGES, WEIGHTS, k=chance.choice((1, 1, 1, 2, 5)))
    try:
        for damage in damages:
            damage(chance, files)
            if damage is cut:
                break
        return check(prepared, files, chance)
    except BaseException:
        print(f"seed {seed}: {[damage.__name__ for damage in damages]}", file=sys.stderr, flush=True)
        raise


def run_cases(where: Path, num_cases: int, first_seed: int) -> Counter[str]:
    """Run that many cases, over one directory and over two; returns how many of which kind there were."""
    kinds: Counter[str] = Counter()
    prepared = [prepare_for_damage(where / str(number), number) for number in (1, 2)]
    for seed in range(first_seed, first_seed + num_cases):
        kinds[run_case(prepared[seed % 2], seed)] += 1
    return kinds
