"""What runs beside the cache in other processes: the clients of GPU ranks."""

from __future__ import annotations

from flexkv.server.client import KVTPClient

__all__ = ["KVTPClient"]
