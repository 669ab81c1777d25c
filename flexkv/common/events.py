"""KV events: what appeared in a tier and what left it, for routers that send a request to where its prefix lies.

Values, in the order things happened. Keys are block keys of shape (n, 16), parents before children in `BlocksStored`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from flexkv.common.hash_utils import Keys
from flexkv.common.storage import DeviceType

__all__ = ["AllCleared", "BlocksRemoved", "BlocksStored", "EventCollector", "KVEvent"]


@dataclass(frozen=True, slots=True, eq=False)
class BlocksStored:
    """Blocks became visible and ready. `parent_key`: the key before the first one, None at the start of a chain.

    `tenant`: its number, also of blocks that a restart found on SSD; 0 for none.
    """

    keys: Keys
    tier: DeviceType
    tokens_per_block: int = 0
    parent_key: bytes | None = None
    namespace: tuple[str, ...] = ()
    group: int = 0
    tenant: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class BlocksRemoved:
    """Blocks left the tier: evicted, dropped or expired."""

    keys: Keys
    tier: DeviceType
    group: int = 0


@dataclass(frozen=True, slots=True)
class AllCleared:
    """The tier was emptied."""

    tier: DeviceType


KVEvent = BlocksStored | BlocksRemoved | AllCleared


class EventCollector(Protocol):
    """Takes events. Called under the task engine's lock: must return at once and must not call back."""

    def publish(self, event: KVEvent) -> None:
        """Take one event."""
