"""Who a model is, read from an engine's configuration: its fingerprint, and whether the engine's hashes can be used.

Engines are read by attribute: neither torch nor an engine is imported here. Pure but for looking at the weight files.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from flexkv.common.debug import flexkv_logger
from flexkv.common.hash_utils import ModelFingerprint, model_fingerprint, weights_identity
from flexkv.errors import ConfigError

__all__ = ["engine_hash_objection", "fingerprint_of_vllm", "require", "weights_name"]

_CRYPTOGRAPHIC_HASHES = ("sha256", "sha256_cbor")
_logger = flexkv_logger(__name__)


def require(owner: Any, name: str) -> Any:
    """Return an attribute of an engine's configuration. Raises ConfigError when it is missing or None."""
    try:
        value = getattr(owner, name)
    except AttributeError as error:
        message = f"{type(owner).__name__} has no {name}; this version of the engine is not supported"
        raise ConfigError(message, key=name) from error
    if value is None:
        raise ConfigError(f"{type(owner).__name__}.{name} is None; the engine has not resolved it yet", key=name)
    return value


def fingerprint_of_vllm(vllm_config: Any, tag: str | None) -> ModelFingerprint:
    """Return the fingerprint of a VllmConfig's model; `tag` stands for the weights when it is given."""
    model, cache, parallel = vllm_config.model_config, vllm_config.cache_config, vllm_config.parallel_config
    path = str(getattr(model, "model_weights", "") or require(model, "model"))
    overrides = getattr(model, "hf_overrides", None) or {}
    if tag is None and getattr(getattr(vllm_config, "load_config", None), "load_format", "auto") == "dummy":
        weights = _private_identity("load_format is dummy: they are random")
    elif tag is None and callable(overrides):
        weights = _private_identity("hf_overrides is a function: what it does has no name")
    else:
        weights = weights_name(model, path, tag)
    described: dict[str, object] = {"hf": _plain(overrides), "config": getattr(model, "hf_config_path", None)}
    draft = getattr(getattr(vllm_config, "speculative_config", None), "draft_model_config", None)
    if draft is not None:  # a draft model's layers may lie in the same blocks
        described["draft"] = weights_name(draft, str(require(draft, "model")), tag)
    return model_fingerprint(
        weights=weights,
        tokens_per_block=require(cache, "block_size"),
        quantization={
            "method": getattr(model, "quantization", None),
            "config": _plain(getattr(model, "quantization_config", None)),
        },
        overrides=described,
        compute_dtype=str(require(model, "dtype")).removeprefix("torch."),
        kv_dtype=str(require(cache, "cache_dtype")),
        kv_scales={
            "calculated": bool(getattr(cache, "calculate_kv_scales", False)),
            "skipped_layers": list(getattr(cache, "kv_cache_dtype_skip_layers", None) or []),
        },
        layout_tag=str(getattr(cache, "kv_cache_layout", None) or ""),
        tp_size=require(parallel, "tensor_parallel_size"),
        pp_size=require(parallel, "pipeline_parallel_size"),
    )


def weights_name(model: Any, path: str, tag: str | None) -> str:
    """Name the weights: the tag, files on disk, a hub commit, else something that no other process has.

    `model` is an engine's model config; `hf_config._commit_hash` and `revision` of it are looked at.
    """
    if tag is not None:
        return f"tag:{tag}"
    if os.path.exists(path):
        try:
            return f"files:{weights_identity(path)}"
        except ConfigError as error:
            return _private_identity(str(error))
    commits = (getattr(getattr(model, "hf_config", None), "_commit_hash", None), getattr(model, "revision", None))
    for commit in commits:
        if isinstance(commit, str) and re.fullmatch(r"[0-9a-f]{40}", commit):
            return f"hub:{path}@{commit}"
    return _private_identity(f"model {path!r} is neither a path nor a hub model with a known commit")


def _private_identity(reason: str) -> str:
    """Name weights that cannot be identified so that no other process shares their blocks."""
    _logger.warning("weights unknown, blocks are private to this process; set FLEXKV_MODEL_TAG reason=%s", reason)
    return f"process:{secrets.token_hex(16)}"


def _plain(value: Any) -> Any:
    """Return what JSON can hold of a value; the rest is named by its type and text."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_plain(item) for item in value]
    if callable(value):
        return f"{type(value).__qualname__}:{getattr(value, '__qualname__', '')}"
    return f"{type(value).__qualname__}:{value}"


def engine_hash_objection(algorithm: str, block_size: int, hash_block_size: int | None) -> str:
    """Say why vLLM's block hashes must not name blocks, or "" when they can.

    sha256 and sha256_cbor chain from a seed that is fixed (vLLM 0.32 and newer) or the text of PYTHONHASHSEED: the same
    content has the same hash in every process with the same setting, and other seeds give misses, never wrong bytes.
    xxhash and xxhash_cbor take a random seed in each process, and with PYTHONHASHSEED they are stable but not collision
    resistant. Hashes finer than a block (prefix_match_unit) are not one per block.
    """
    if algorithm not in _CRYPTOGRAPHIC_HASHES:
        use = " or ".join(_CRYPTOGRAPHIC_HASHES)
        return f"prefix_caching_hash_algo is {algorithm!r}, not stable or not collision resistant; use {use}"
    if hash_block_size is not None and hash_block_size != block_size:
        return f"hashes are per {hash_block_size} tokens and blocks have {block_size}; leave prefix_match_unit unset"
    return ""
