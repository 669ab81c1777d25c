"""FlexKV keeps the KV cache of LLM requests after the GPU has dropped it, and brings it back.

Names are loaded when they are first used, so that `import flexkv` is cheap and works where the native core is missing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flexkv.common.config import CacheConfig, ModelConfig
    from flexkv.common.request import KVResponse, KVResponseStatus
    from flexkv.kvmanager import KVManager

__all__ = ["CacheConfig", "KVManager", "KVResponse", "KVResponseStatus", "ModelConfig"]

_HOMES = {
    "CacheConfig": "flexkv.common.config",
    "KVManager": "flexkv.kvmanager",
    "KVResponse": "flexkv.common.request",
    "KVResponseStatus": "flexkv.common.request",
    "ModelConfig": "flexkv.common.config",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
