"""Deciding: what each tier holds, what to load, what to store, what to evict.

Pure: no I/O, no threads, no clock of its own.
"""

from __future__ import annotations

from flexkv.cache.cache_engine import CacheEngine, GlobalCacheEngine
from flexkv.cache.mempool import Mempool
from flexkv.cache.radixtree import RadixTree

__all__ = ["CacheEngine", "GlobalCacheEngine", "Mempool", "RadixTree"]
