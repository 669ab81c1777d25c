"""Eviction policies by name.

The policies are native (csrc/cache/eviction.h): O(1) per victim, links inside the entries.

    lru   the leaf whose last use is longest ago goes first, lower priority before higher; a parent whose last child was
          evicted, and that was not used since, goes next

Only visible, ready, unpinned blocks without children are ever candidates. Pure, any thread.
"""

from __future__ import annotations

from flexkv import _core
from flexkv.errors import ConfigError

__all__ = ["DEFAULT_POLICY", "check_policy", "policy_names"]

DEFAULT_POLICY = "lru"


def policy_names() -> tuple[str, ...]:
    """Return the names of the policies this build has."""
    return tuple(_core.eviction_policy_names())


def check_policy(name: str) -> str:
    """Return `name` when it is a policy. Raises ConfigError naming the known ones."""
    known = policy_names()
    if name not in known:
        raise ConfigError(
            f"eviction_policy is {name!r}; use one of {', '.join(known)}", key="eviction_policy", value=name
        )
    return name
