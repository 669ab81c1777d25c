"""BlockEvents: tells a collector what a tier stored and removed (flexkv/common/events.py).

The index forgets a key when its slot goes, so the keys of announced blocks are remembered here by slot, 17 bytes each;
a tier without a collector has no BlockEvents. A block is announced once its bytes are there, and removed at most once.
A doomed block may go long after it became invisible, when its key may be visible again elsewhere: that one is not
announced as removed. Thread safety: none; the owner holds a lock.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flexkv.cache.mempool import Slots
from flexkv.common.events import AllCleared, BlocksRemoved, BlocksStored, EventCollector
from flexkv.common.hash_utils import KEY_BYTES, Keys
from flexkv.common.storage import DeviceType

__all__ = ["BlockEvents"]


class BlockEvents:
    """Publishes the events of one tier.

    Args:
        find: returns the slot of a visible key, or None.
    """

    def __init__(
        self,
        collector: EventCollector,
        tier: DeviceType,
        num_blocks: int,
        tokens_per_block: int,
        find: Callable[[bytes], int | None],
    ) -> None:
        self._collector = collector
        self._tier = tier
        self._tokens_per_block = tokens_per_block
        self._find = find
        self._keys = np.zeros((num_blocks, KEY_BYTES), dtype=np.uint8)
        self._announced = np.zeros(num_blocks, dtype=np.bool_)

    def stored(
        self, keys: Keys, start_block: int, slots: Slots, namespace: tuple[str, ...], group: int, tenant: int
    ) -> None:
        """Announce that keys[start_block:] lie ready in `slots`."""
        new_keys = keys[start_block:]
        self._keys[slots] = new_keys
        self._announced[slots] = True
        event = BlocksStored(
            keys=new_keys,
            tier=self._tier,
            tokens_per_block=self._tokens_per_block,
            parent_key=keys[start_block - 1].tobytes() if start_block else None,
            namespace=namespace,
            group=group,
            tenant=tenant,
        )
        self._collector.publish(event)

    def removed(self, slots: Slots) -> None:
        """Announce the removal of those of `slots` that were announced; their keys are visible nowhere."""
        self._publish_removed(self._take_announced(slots))

    def doomed_gone(self, slots: Slots) -> None:
        """The same for slots of doomed blocks: a key that has become visible again is passed over.

        One look-up per block.
        """
        keys = self._take_announced(slots)
        hidden = [self._find(key.tobytes()) is None for key in keys]
        self._publish_removed(keys[np.array(hidden, dtype=np.bool_)])

    def _take_announced(self, slots: Slots) -> Keys:
        announced = slots[self._announced[slots]]
        self._announced[announced] = False
        return self._keys[announced]

    def _publish_removed(self, keys: Keys) -> None:
        if len(keys):
            self._collector.publish(BlocksRemoved(keys=keys, tier=self._tier))

    def cleared(self) -> None:
        """Announce that the tier was emptied."""
        self._announced[:] = False
        self._collector.publish(AllCleared(tier=self._tier))
