"""Owns bytes: the memory behind each tier."""

from flexkv.storage.allocator import CPUAllocator, SSDAllocator
from flexkv.storage.storage_engine import StorageEngine

__all__ = ["CPUAllocator", "SSDAllocator", "StorageEngine"]
