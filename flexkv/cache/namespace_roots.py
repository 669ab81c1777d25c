"""NamespaceRoots: the root of every namespace under one configuration, where a chain of block keys starts.

One for all who hash prompts, so that their keys agree. Reads the key file when it is made. Thread-safe.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from flexkv.common.config import CacheConfig
from flexkv.common.hash_utils import load_key_file, root_key

__all__ = ["NamespaceRoots"]

_MAX_ROOTS = 4096


class NamespaceRoots:
    """Roots by namespace; those used last are remembered.

    Raises:
        ConfigError: the key file of the configuration cannot be used.
    """

    def __init__(self, cache_config: CacheConfig) -> None:
        self._tokens_per_block = cache_config.tokens_per_block
        self._fingerprint = bytes.fromhex(cache_config.fingerprint)
        self._secret = None if cache_config.key_file is None else load_key_file(cache_config.key_file)
        self._roots: OrderedDict[tuple[str, ...], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def root_of(self, namespace: object) -> bytes:
        """Return the 16-byte root; None is the empty namespace. Raises ValueError unless it is a list of strings."""
        given = () if namespace is None else namespace
        if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
            raise ValueError(f"namespace is {namespace!r}; it must be a list of strings")
        parts = tuple(given)
        try:
            with self._lock:
                root = self._roots.get(parts)
                if root is not None:
                    self._roots.move_to_end(parts)
                    return root
        except TypeError as error:  # a part that cannot be hashed is no string
            raise ValueError(f"namespace is {namespace!r}; it must be a list of strings") from error
        root = root_key(self._fingerprint, parts, 0, self._tokens_per_block, self._secret)
        with self._lock:
            self._roots[parts] = root
            if len(self._roots) > _MAX_ROOTS:
                self._roots.popitem(last=False)
        return root
