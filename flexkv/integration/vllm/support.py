"""Which KV caches of vLLM this version can keep: one group of full attention (MHA, GQA, MLA), one block table.

Answers a reason, not an exception: an engine with another cache must serve on without FlexKV, and say so once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm.v1.kv_cache_interface import KVCacheConfig, KVCacheSpec

__all__ = ["unreplicated_layers", "unsupported_groups", "unsupported_layers"]


def unsupported_groups(kv_cache_config: KVCacheConfig) -> str | None:
    """Return why this KV cache cannot be kept, or None. For the roles that are given vLLM's KVCacheConfig."""
    groups = kv_cache_config.kv_cache_groups
    if len(groups) != 1:
        names = ", ".join(type(group.kv_cache_spec).__name__ for group in groups) or "none"
        return f"the model has {len(groups)} KV cache groups ({names}); one group of full attention is supported"
    specs = getattr(groups[0].kv_cache_spec, "kv_cache_specs", None)
    wrong = _not_full_attention(specs.values() if specs is not None else [groups[0].kv_cache_spec])
    if wrong:
        return f"its KV cache group is {', '.join(wrong)}; one group of full attention is supported"
    hash_block_size = getattr(kv_cache_config, "hash_block_size", None)
    block_size = groups[0].kv_cache_spec.block_size
    if hash_block_size is not None and hash_block_size != block_size:
        return f"blocks hold {block_size} tokens but are hashed by {hash_block_size}; the two must be equal"
    return None


def unsupported_layers(specs: Iterable[KVCacheSpec], hybrid_manager_off: bool) -> str | None:
    """Return why these layers cannot be kept, or None. For the worker that is given no KVCacheConfig.

    With the hybrid manager off vLLM treats local attention beside full attention as full attention: one group.
    """
    specs = list(specs)
    wrong = _not_full_attention(specs)
    promoted = {"SlidingWindowSpec", "ChunkedLocalAttentionSpec"}
    is_mixed = any(not _not_full_attention([spec]) for spec in specs)
    if wrong and not (hybrid_manager_off and is_mixed and promoted.issuperset(wrong)):
        return f"the model has layers of {', '.join(wrong)}; one group of full attention is supported"
    return None


def unreplicated_layers(specs: Iterable[KVCacheSpec]) -> list[str]:
    """Names of the kinds of specs, but MLA's, of which each tensor parallel rank holds other bytes."""
    return sorted({type(spec).__name__ for spec in specs} - {"MLAAttentionSpec"})


def _not_full_attention(specs: Iterable[KVCacheSpec]) -> list[str]:
    """Names of the kinds of specs that are not plain full attention, MLA included.

    A layer that is not causal writes blocks that depend on later tokens: no prefix of it can be kept.
    """
    plain = {"FullAttentionSpec", "MLAAttentionSpec"}
    names = set()
    for spec in specs:
        name = type(spec).__name__
        if name not in plain:
            names.add(name)
        elif getattr(spec, "non_causal", False):
            names.add(f"{name}(non_causal)")
        elif getattr(spec, "tokens_per_state", 1) != 1:
            names.add(f"{name}(tokens_per_state={spec.tokens_per_state})")
    return sorted(names)
