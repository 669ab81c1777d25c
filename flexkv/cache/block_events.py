"""BlockEvents: tells a collector what a tier stored and removed (flexkv/common/events.py).

The index forgets a key when its slot goes, so the keys of announced blocks are remembered here by slot, 17 bytes each;
a tier without a collector has no BlockEvents. A block is announced once its bytes are there, if it still is visible,
and only what was announced is removed. A doomed block may go long after it became invisible, when its key may be
visible again in another slot: then its removal is announced with that slot's. Thread safety: none; the owner locks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

import numpy as np

from flexkv.cache.mempool import Slots
from flexkv.cache.restored import RestoredBlocks
from flexkv.common.events import AllCleared, BlocksRemoved, BlocksStored, EventCollector
from flexkv.common.hash_utils import KEY_BYTES, Keys
from flexkv.common.storage import DeviceType

__all__ = ["BlockEvents"]

_ROOT = bytes(KEY_BYTES)  # in place of a parent's key: there is none


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
        """Announce that keys[start_block:] lie ready in `slots`, but for those that were dropped meanwhile.

        What is left are leading blocks, since a block goes with all behind it. O(log n) look-ups.
        """
        end = bisect_left(
            range(len(slots)), True, key=lambda block: self._find(keys[start_block + block].tobytes()) != slots[block]
        )
        if end == 0:
            return
        new_keys, slots = keys[start_block : start_block + end], slots[:end]
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

    def restored(self, blocks: RestoredBlocks) -> None:
        """Announce blocks that a restart found, in the order RadixTree.restore returns them.

        One event for each stretch of a chain, of which there is one for each leaf. Namespaces are not known any more.
        """
        if len(blocks) == 0:
            return
        self._keys[blocks.slots] = blocks.keys
        self._announced[blocks.slots] = True
        goes_on = np.all(blocks.parents[1:] == blocks.keys[:-1], axis=1)
        goes_on &= (blocks.tenants[1:] == blocks.tenants[:-1]) & (blocks.groups[1:] == blocks.groups[:-1])
        starts = [0, *(np.flatnonzero(~goes_on) + 1).tolist()]
        for start, end in zip(starts, [*starts[1:], len(blocks)], strict=True):
            parent = blocks.parents[start].tobytes()
            event = BlocksStored(
                keys=blocks.keys[start:end],
                tier=self._tier,
                tokens_per_block=self._tokens_per_block,
                parent_key=None if parent == _ROOT else parent,
                group=int(blocks.groups[start]),
                tenant=int(blocks.tenants[start]),
            )
            self._collector.publish(event)

    def removed(self, slots: Slots) -> None:
        """Announce the removal of those of `slots` that were announced; their keys are visible nowhere."""
        self._publish_removed(self._take_announced(slots))

    def doomed_gone(self, slots: Slots) -> None:
        """The same for slots of doomed blocks: a key that is visible again is announced when it goes from there.

        One look-up per block.
        """
        keys = self._take_announced(slots)
        is_hidden = np.ones(len(keys), dtype=np.bool_)
        for index, key in enumerate(keys):
            slot = self._find(key.tobytes())
            if slot is not None:
                is_hidden[index] = False
                self._keys[slot] = key
                self._announced[slot] = True
        self._publish_removed(keys[is_hidden])

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
