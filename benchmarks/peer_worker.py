"""Runs one peer on given inputs, in an environment that has it. Prints one JSON line: work -> microseconds per call.

    .venv/peers/bin/python -m benchmarks.peer_worker NAME SEED NUM_PROMPTS PROMPT_BLOCKS NUM_ROUNDS

Prompts are made from the seed as benchmarks.peers.prompts makes them: the same tokens for every peer and for ours.
What a peer answers is checked. A peer that cannot be imported says why.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import json
import os
import statistics
import sys
from array import array
from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np

from benchmarks.peers import BLOCK_TOKENS, prompts
from benchmarks.report import times_us

Times = dict[str, float]
Prompts = np.ndarray


def run_vllm(tokens: Prompts, num_rounds: int) -> Times:
    """VLLM's block hasher with its sha256 variants, and its CPU offloading manager with LRU."""
    import vllm.v1.core.kv_cache_utils as kv_cache_utils
    from vllm import SamplingParams
    from vllm.utils.hashing import get_hash_fn_by_name
    from vllm.v1.request import Request

    lists = [prompt.tolist() for prompt in tokens]
    times: Times = {}
    for name in ("sha256", "sha256_cbor"):
        hash_fn = get_hash_fn_by_name(name)
        kv_cache_utils.init_none_hash(hash_fn)
        hasher = kv_cache_utils.get_request_block_hasher(BLOCK_TOKENS, hash_fn)
        request = Request("request", lists[0], SamplingParams(max_tokens=1), None)
        expect(len(hasher(request)), tokens.shape[1] // BLOCK_TOKENS)
        times[f"hash: vLLM, {name}"] = median_us(lambda hasher=hasher, request=request: hasher(request), num_rounds)
    return times | _vllm_offloading(tokens, num_rounds)


def _vllm_offloading(tokens: Prompts, num_rounds: int) -> Times:
    from vllm.v1.kv_offload.base import LookupResult, ReqContext, make_offload_key
    from vllm.v1.kv_offload.cpu.manager import CPUOffloadingManager

    num_blocks = tokens.shape[1] // BLOCK_TOKENS
    rng = np.random.default_rng(0)
    keys = [
        [make_offload_key(row.tobytes(), 0) for row in rng.integers(0, 256, (num_blocks, 32), dtype=np.uint8)]
        for _ in range(len(tokens) + num_rounds)
    ]
    resident, fresh = keys[: len(tokens)], iter(keys[len(tokens) :])
    manager = CPUOffloadingManager(num_blocks * len(tokens))
    contexts = iter([ReqContext(req_id=str(index)) for index in range(len(tokens) + 2 * num_rounds)])

    def store(chain: list[Any]) -> None:
        context = next(contexts)
        output = manager.prepare_store(chain, context)
        expect(len(output.keys_to_store), num_blocks)
        manager.complete_store(chain, context)

    def match(chain: list[Any]) -> None:
        context = next(contexts)
        hits = 0
        for key in chain:
            if manager.lookup(key, context) is not LookupResult.HIT:
                break
            hits += 1
        spec = manager.prepare_load(chain[:hits], context)
        manager.complete_load(chain[:hits], context)
        expect(len(spec.block_ids), num_blocks)

    for chain in resident:
        store(chain)
    picks = iter(rng.integers(0, len(resident), num_rounds))
    return {
        "match: vLLM, offloading manager, look-up and prepare": median_us(
            lambda: match(resident[next(picks)]), num_rounds
        ),
        "insert: vLLM, offloading manager, evicting as much": median_us(lambda: store(next(fresh)), num_rounds),
    }


def run_lmcache(tokens: Prompts, num_rounds: int) -> Times:
    """LMCache's hashing of chunks, at the same block size; its look-up needs a running server."""
    os.environ["LMCACHE_LOG_LEVEL"] = "ERROR"
    from lmcache.v1.config import LMCacheEngineConfig
    from lmcache.v1.multiprocess.token_hasher import TokenHasher
    from lmcache.v1.token_database import ChunkedTokenDatabase

    listed = tokens[0].tolist()
    num_blocks = len(listed) // BLOCK_TOKENS
    hasher = TokenHasher(BLOCK_TOKENS, "blake3")
    expect(len(hasher.compute_chunk_hashes(listed)), num_blocks)
    config = LMCacheEngineConfig.from_defaults(chunk_size=BLOCK_TOKENS, pre_caching_hash_algorithm="sha256_cbor")
    database = ChunkedTokenDatabase(config, None)

    def process() -> list[Any]:
        return list(database.process_tokens(tokens=listed, make_key=False))

    expect(len(process()), num_blocks)
    return {
        "hash: LMCache, blake3": median_us(lambda: hasher.compute_chunk_hashes(listed), num_rounds),
        "hash: LMCache, sha256_cbor": median_us(process, num_rounds),
    }


class _Inert(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands for packages that SGLang imports for GPUs and images, and never calls here."""

    names = ("IPython", "torchvision", "triton", "sgl_kernel")

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """Claim the names."""
        is_inert = name.partition(".")[0] in self.names
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if is_inert else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Return a module that has any attribute."""
        made: Any = MagicMock(name=spec.name)
        made.__name__, made.__path__, made.__spec__, made.__file__ = spec.name, [], spec, None
        made.__version__ = "0"
        return made

    def exec_module(self, module: ModuleType) -> None:
        """Nothing runs."""


def run_sglang(tokens: Prompts, num_rounds: int) -> Times:
    """SGLang's RadixCache in Python, in pages of the same size, and the hash of its storage tiers."""
    for name in ("torch._dynamo", "torch._inductor.select_algorithm", "torch._inductor.compile_fx", "transformers"):
        importlib.import_module(name)  # they ask whether triton is there; it is not
    sys.meta_path.insert(0, _Inert())
    import torch
    from sglang.srt.mem_cache.base_prefix_cache import EvictParams, InsertParams, MatchPrefixParams
    from sglang.srt.mem_cache.radix_cache import RadixCache, RadixKey
    from sglang.srt.mem_cache.utils import get_hash_str

    num_tokens, num_blocks = tokens.shape[1], tokens.shape[1] // BLOCK_TOKENS
    allocator = SimpleNamespace(
        device=torch.device("cpu"), free=lambda slots: None, free_segment=lambda slots, start_pos=0: None
    )
    cache = RadixCache.create_simulated(mock_allocator=allocator, page_size=BLOCK_TOKENS)
    keys = [RadixKey(array("q", prompt.tolist())) for prompt in tokens]
    slots = torch.arange(num_tokens)
    rng = np.random.default_rng(0)
    fresh = iter([RadixKey(array("q", rng.integers(0, 152_000, num_tokens).tolist())) for _ in range(num_rounds)])
    for key in keys:
        cache.insert(InsertParams(key=key, value=slots))

    def match() -> None:
        found = cache.match_prefix(MatchPrefixParams(key=keys[int(rng.integers(len(keys)))]))
        expect(int(found.device_prefix_len), num_tokens)
        cache.inc_lock_ref(found.last_device_node)
        cache.dec_lock_ref(found.last_device_node)

    def evict() -> None:
        cache.evict(EvictParams(num_tokens=num_tokens))

    listed = tokens[0].tolist()
    expect(len(get_hash_str(listed, None, BLOCK_TOKENS)), num_blocks)
    return {
        "hash: SGLang, native SHA-256": median_us(lambda: get_hash_str(listed, None, BLOCK_TOKENS), num_rounds),
        "match: SGLang, Python radix tree": median_us(match, num_rounds),
        "insert: SGLang, Python radix tree": median_us(
            lambda: cache.insert(InsertParams(key=next(fresh), value=slots)), num_rounds
        ),
        "evict: SGLang, per block of whole prompts": median_us(evict, min(num_rounds, len(keys))) / num_blocks,
    }


def expect(found: int, wanted: int) -> None:
    """Raise unless the peer did what is timed."""
    if found != wanted:
        raise AssertionError(f"{found} where {wanted} was due")


def median_us(work: Callable[[], object], num_rounds: int) -> float:
    return statistics.median(times_us(work, num_rounds))


RUNNERS = {"vllm": run_vllm, "lmcache": run_lmcache, "sglang": run_sglang}


def main(arguments: Sequence[str]) -> None:
    name = arguments[0]
    seed, num_prompts, prompt_blocks, num_rounds = (int(argument) for argument in arguments[1:])
    try:
        times = RUNNERS[name](prompts(seed, num_prompts, prompt_blocks), num_rounds)
        answer: dict[str, Any] = {"times_us": times}
    except (ImportError, AttributeError, TypeError) as error:  # not there, or another version than the pinned one
        answer = {"reason": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1:])
