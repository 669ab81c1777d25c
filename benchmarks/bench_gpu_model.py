"""How soon is the first token there when a prompt's KV is brought back, not computed, on a real-shaped model?

A transformers Llama with a paged KV cache (benchmarks/paged_model.py), blocks scattered; a KVManager and its copy agent
in the same process. Unit: milliseconds from a request's arrival on the host (its tokens, as numpy) until the first
token's logits are on the host, everything included: hashing, match, launch, copies, computing what is left. Medians.

    recompute   the whole prompt is computed, in chunks
    own hit     the loaded part lies on the GPU: only the rest is computed, as after a hit of the engine's own cache
    floor       own hit + bytes / link, the link measured by contiguous pinned copies in the same minute
    load        the whole load, then the rest is computed; must be within 15 % of the floor
    layerwise   each layer begins when its own blocks are there

`--lengths`: so many tokens are loaded and half a block and one are computed, as for a prompt seen before. `--mixed
65536+2048`: so many loaded, so many new. In each case: prefill, put, loads into other blocks than those computed,
poisoned before and compared byte by byte after; then all blocks are poisoned, loaded again, and decoding goes on. The
first token's logits must be bit for bit those computed from the blocks that were never dropped, and the tokens after it
the same, else the run fails. The difference to the logits of the recompute (other chunks, other rounding) is printed.

    python -m benchmarks.bench_gpu_model                  a table; an 80 GB GPU, 24 GiB of host memory
    python -m benchmarks.bench_gpu_model --quick          up to 16k tokens
    python -m benchmarks.bench_gpu_model --model tiny --device cpu --lengths 512
    python -m benchmarks.bench_gpu_model --tiny           a smoke test, on what there is; without torch it does nothing
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import GIB, KIB, MIB, Figure, emit, emit_skipped, number, parser, say, table
from flexkv import CacheConfig

try:
    import torch
    import transformers

    from benchmarks.model_rig import WAIT_S, Link, Rig, check
    from benchmarks.paged_model import SHAPES, make_model
except ModuleNotFoundError as error:  # a machine without an engine's packages
    if error.name not in ("torch", "transformers"):
        raise
    MISSING = f"{error.name} is not installed"
else:
    MISSING = ""

MAX_RECOMPUTE_S = 3.0
"""Computing a prompt again and again ends here; one that takes longer is computed once."""
MAX_WINDOW = 9
"""Tokens that a step of decoding computes at most."""
MAX_OF_FLOOR = 1.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Tokens that are loaded, in whole blocks, and tokens after them that are computed."""

    loaded: int
    computed: int

    @property
    def num_tokens(self) -> int:
        """All of the prompt."""
        return self.loaded + self.computed

    def __str__(self) -> str:
        return f"{self.loaded:,} + {self.computed:,} tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table; times in milliseconds."""

    loaded: int
    computed: int
    load_mib: float
    link_gbs: float
    store_gbs: float
    recompute_ms: float
    own_hit_ms: float
    link_ms: float
    load_ms: float
    load_alone_ms: float
    layerwise_ms: float
    max_difference: float


class Trial:
    """One case on a rig: what its first token takes in each way, and whether it is the right one."""

    def __init__(self, rig: Rig, case: Case, chunk: int, num_decoded: int) -> None:
        self.rig, self.case, self.chunk, self.num_decoded = rig, case, chunk, num_decoded
        self.tokens = rig.rng.integers(0, rig.model.vocab_size, case.num_tokens).astype(np.int64)
        self.source = rig.kept.whole_blocks(case.loaded)
        self.target = rig.other.whole_blocks(case.loaded)
        self.modes = ("load", "layerwise")
        self.load_alone_s: list[float] = []

    def recompute(self) -> Any:
        """Compute the whole prompt. Returns the logits, on the host, like all of these."""
        return self.rig.model.prefill(self.tokens, 0, self.rig.kept, self.chunk).cpu()

    def own_hit(self) -> Any:
        """Compute what is left where the rest was computed."""
        return self.rig.model.prefill(self.tokens, self.case.loaded, self.rig.kept, self.chunk).cpu()

    def load(self) -> Any:
        """Bring it back, then compute what is left."""
        task = self.rig.match(self.tokens, self.case.loaded)
        begin_s = time.perf_counter()
        self.rig.load(task, self.target)
        self.load_alone_s.append(time.perf_counter() - begin_s)
        return self.rig.model.prefill(self.tokens, self.case.loaded, self.rig.other, self.chunk).cpu()

    def layerwise(self) -> Any:
        """Bring it back layer by layer, and compute meanwhile."""
        task = self.rig.match(self.tokens, self.case.loaded)
        before_layer = self.rig.begin_layerwise(task, self.target)
        logits = self.rig.model.prefill(self.tokens, self.case.loaded, self.rig.other, self.chunk, before_layer)
        self.rig.end_layerwise(task)
        return logits.cpu()

    def timed(self, what: Callable[[], Any]) -> tuple[float, Any]:
        """Return the seconds of a request that finds the device at rest, and its logits."""
        self.rig.synchronize()
        begin_s = time.perf_counter()
        logits = what()
        return time.perf_counter() - begin_s, logits

    def run(self, link: Link, rounds: int) -> Row:
        """Measure and verify."""
        rig, case = self.rig, self.case
        rig.model.poison(np.concatenate([rig.kept.block_ids, rig.other.block_ids]))
        rig.model.prefill(self.tokens[: 2 * self.chunk], 0, rig.kept, self.chunk)  # to warm up
        recompute_s, full = self.recompute_s()
        store_s = self.put_s()
        reference = self.own_hit()  # never dropped
        check(bool(torch.isfinite(reference).all()), "the logits are no numbers")
        expected = self.decode(reference, rig.kept)
        link_gbs = link.gbs()
        taken = self.rounds(reference, rounds)
        self.drop(reference, expected)
        num_bytes = len(self.source) * rig.model.block_bytes
        return Row(
            loaded=case.loaded,
            computed=case.computed,
            load_mib=num_bytes / MIB,
            link_gbs=link_gbs,
            store_gbs=num_bytes / 1e9 / store_s,
            recompute_ms=recompute_s * 1e3,
            own_hit_ms=taken["own_hit"] * 1e3,
            link_ms=num_bytes / link_gbs / 1e6,
            load_ms=taken["load"] * 1e3,
            load_alone_ms=statistics.median(self.load_alone_s) * 1e3,
            layerwise_ms=taken["layerwise"] * 1e3,
            max_difference=float((full.float() - reference.float()).abs().max()),
        )

    def put_s(self) -> float:
        """Keep the part that will be loaded, three times anew; returns the median time."""
        samples = []
        for _ in range(3):
            self.rig.manager.reset()
            self.rig.synchronize()
            samples.append(self.rig.put(self.tokens[: self.case.loaded], self.rig.kept))
        return statistics.median(samples)

    def recompute_s(self) -> tuple[float, Any]:
        """Return the median time to compute the whole prompt, and the logits; the first of several does not count."""
        samples, logits = [], None
        while not samples or (len(samples) < 4 and sum(samples) + samples[-1] < MAX_RECOMPUTE_S):
            seconds, logits = self.timed(self.recompute)
            samples.append(seconds)
        return statistics.median(samples[1:] or samples), logits

    def rounds(self, reference: Any, rounds: int) -> dict[str, float]:
        """Take turns with each way; returns median seconds. Whatever it takes, the bytes and logits must be right."""
        samples: dict[str, list[float]] = {mode: [] for mode in ("own_hit", *self.modes)}
        for at in range(rounds + 1):
            for mode, taken in samples.items():
                self.rig.model.poison(self.rig.other.block_ids)
                seconds, logits = self.timed(getattr(self, mode))
                check(torch.equal(logits, reference), f"{self.case}: other logits by {mode}")
                if mode in self.modes:
                    check(self.rig.model.same(self.target, self.source), f"{self.case}: other bytes by {mode}")
                if at > 0:
                    taken.append(seconds)
        return {mode: statistics.median(taken) for mode, taken in samples.items()}

    def decode(self, logits: Any, table: Any) -> tuple[list[int], Any]:
        """Go on from the prompt; see PagedModel.decode. No token that was loaded is computed anew."""
        window = min(self.case.computed, MAX_WINDOW)
        return self.rig.model.decode(self.tokens, logits, table, self.num_decoded, window)

    def drop(self, reference: Any, expected: tuple[list[int], Any]) -> None:
        """Go on decoding from what was brought back once nothing is left of what was computed: all is the same."""
        model = self.rig.model
        for mode in self.modes:
            model.poison(np.concatenate([self.rig.kept.block_ids, self.rig.other.block_ids]))
            logits = getattr(self, mode)()
            check(torch.equal(logits, reference), f"{self.case}: other logits after the drop, by {mode}")
            found, steps = self.decode(logits, self.rig.other)
            check(found == expected[0], f"{self.case}: tokens {found} by {mode}, not {expected[0]}")
            check(torch.equal(steps, expected[1]), f"{self.case}: other logits while decoding, by {mode}")


def figures_of(row: Row) -> list[Figure]:
    """Return what a row must reach."""
    work = str(Case(loaded=row.loaded, computed=row.computed))
    floor_ms = row.own_hit_ms + row.link_ms
    found = [
        Figure(question=f"{work}: first token by load", unit="of own hit + bytes / link", ours=row.load_ms / floor_ms,
               must=MAX_OF_FLOOR, peer=f"{number(row.load_ms)} ms; floor, ms", peers=floor_ms),
        Figure(question="... times sooner than by recompute", unit="x", ours=row.recompute_ms / row.load_ms,
               peer="recompute, ms", peers=row.recompute_ms),
    ]  # fmt: skip
    found.append(
        Figure(question="... layer by layer", unit="of the time by load", ours=row.layerwise_ms / row.load_ms,
               must=1.0, peer="layerwise, ms", peers=row.layerwise_ms)
    )  # fmt: skip
    return found


def table_of(rows: list[Row]) -> str:
    """Return all rows side by side."""
    header = (
        "loaded", "computed", "MiB", "recompute ms", "own hit ms", "bytes/link ms", "load ms", "of own hit + link",
        "load alone GB/s", "store GB/s", "link GB/s", "layerwise ms", "of load", "max difference",
    )  # fmt: skip
    lines = []
    for row in rows:
        alone_gbs = row.load_mib * MIB / 1e6 / row.load_alone_ms
        ratio = row.load_ms / (row.own_hit_ms + row.link_ms)
        cells = (
            row.load_mib, row.recompute_ms, row.own_hit_ms, row.link_ms, row.load_ms, ratio, alone_gbs, row.store_gbs,
            row.link_gbs, row.layerwise_ms, row.layerwise_ms / row.load_ms, row.max_difference,
        )  # fmt: skip
        lines.append((f"{row.loaded:,}", f"{row.computed:,}", *map(number, cells)))
    return table(header, lines)


def cases_of(options: argparse.Namespace) -> list[Case]:
    """Return the cases, shortest first. Raises ValueError for what is no whole number of blocks."""
    tail = options.block_size // 2 + 1
    cases = [Case(loaded=length, computed=tail) for length in options.lengths]
    for mixed in options.mixed:
        loaded, _, computed = mixed.partition("+")
        cases.append(Case(loaded=int(loaded), computed=int(computed)))
    for case in cases:
        if case.loaded % options.block_size or case.loaded < 1 or case.computed < 1:
            raise ValueError(f"{case}: give blocks of {options.block_size} tokens to load, and some to compute")
    return sorted(cases, key=lambda case: case.num_tokens)


def rig_of(options: argparse.Namespace, cases: list[Case], device: str) -> Rig:
    """Make the model, pages for two prompts of the longest kind, and a host pool."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = make_model(SHAPES[options.model], device, dtype, options.seed, options.weights)
    config, size = model.config, options.block_size
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    block_bytes = 2 * size * config.num_hidden_layers * config.num_key_value_heads * head_size * dtype.itemsize
    needed = max(case.loaded for case in cases) // size
    num_slots = math.ceil(1.1 * needed) if options.host_gib is None else int(options.host_gib * GIB / block_bytes)
    num_blocks = 2 * -(-(cases[-1].num_tokens + options.decode) // size)
    cache = CacheConfig(tokens_per_block=size, num_cpu_blocks=num_slots, prefault_threads=8, transfer_timeout_s=WAIT_S)
    begin_s = time.perf_counter()
    rig = Rig(model, cache, num_blocks, options.seed)
    taken_s = time.perf_counter() - begin_s
    sizes = f"{num_blocks} blocks on the device, {num_slots} in host memory, {number(block_bytes / KIB)} KiB each"
    say(f"{sizes}; ready after {number(taken_s)} s")
    return rig


def measure(options: argparse.Namespace, device: str) -> list[Row]:
    """Run all cases."""
    cases, rows = cases_of(options), []
    with closing(rig_of(options, cases, device)) as rig:
        link = Link(rig.model.device, (8 if options.tiny else 1024) * MIB)
        for case in cases:
            row = Trial(rig, case, options.chunk, options.decode).run(link, options.rounds)
            rows.append(row)
            layerwise = "" if row.layerwise_ms is None else f", layerwise {number(row.layerwise_ms)}"
            beside = f"own hit {number(row.own_hit_ms)}, bytes / link {number(row.link_ms)}"
            say(f"{case}: recompute {number(row.recompute_ms)} ms, load {number(row.load_ms)}{layerwise}; {beside}")
        rig.manager.check_invariants()
    return rows


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the options (default: the command line's); what --quick and --tiny set is set."""
    options = parser(__doc__)
    options.add_argument("--model", choices=("llama-3-8b", "tiny"), default="llama-3-8b", help="random weights")
    options.add_argument("--weights", type=Path, metavar="DIR", help="a checkpoint of transformers' instead")
    options.add_argument("--device", choices=("cuda", "cpu"), help="default: a GPU if there is one")
    options.add_argument("--lengths", type=int, nargs="*", help="tokens that are loaded")
    options.add_argument("--mixed", nargs="*", metavar="LOADED+NEW", help="tokens that are loaded, and new ones")
    options.add_argument("--chunk", type=int, default=8192, help="tokens of a prompt that are computed at once, about")
    options.add_argument("--decode", type=int, default=16, help="tokens that are decoded")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--block-size", type=int, default=16, help="tokens")
    options.add_argument(
        "--host-gib", type=float, help="host pool; default: what the longest prompt needs, and a tenth"
    )
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--quick", action="store_true", help="up to 16k tokens, fewer rounds")
    found = options.parse_args(words)
    lengths, mixed = [4096, 16384, 32768, 65536, 131072], ["32768+4096", "65536+2048"]
    if found.quick:
        lengths, mixed, found.rounds = [4096, 16384], ["16384+2048"], 3
    if found.tiny:
        lengths, mixed, found.rounds = [128, 512], ["256+70"], 2
        found.model, found.chunk, found.decode = "tiny", 128, 6
    if found.lengths is None and found.mixed is None:
        found.lengths, found.mixed = lengths, mixed
    found.lengths, found.mixed = found.lengths or [], found.mixed or []
    return found


def main() -> None:
    options = arguments()
    no_gpu = MISSING or ("" if torch.cuda.is_available() else "no GPU is here")
    device = options.device or ("cpu" if options.tiny and no_gpu else "cuda")
    why_not = MISSING or (no_gpu if device == "cuda" else "")
    if why_not:
        emit_skipped("gpu_model", options, why_not)
        return
    rows = measure(options, device)
    emit(
        "gpu_model",
        options,
        [figure for row in rows for figure in figures_of(row)],
        [asdict(row) for row in rows],
        model=str(options.weights or options.model),
        device=torch.cuda.get_device_name() if device == "cuda" else "cpu",
        torch=torch.__version__,
        transformers=transformers.__version__,
    )
    say(table_of(rows))


if __name__ == "__main__":
    main()
