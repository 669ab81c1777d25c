"""SsdTier: brings the SSD tier up once the host tier serves, and says whether it does (D12).

    OFF (not configured)
    WAITING --host tier serves--> OPENING --> SERVING <--> RESETTING      its use may end in READ_ONLY, BROKEN
                                       |----> BUSY: somebody else serves from the directory, or it cannot be had now;
                                       |            tried again, each time after twice as long -> SERVING
                                       '----> BROKEN: it cannot work as configured (`failure`), or has failed too often
    CLOSED: from every state, at shutdown

Opening preallocates, reads all records and builds the index: it happens on a thread of its own, and the engine serves
meanwhile. Thread safety: none, the KVTaskEngine's mutex guards it; `renew` and `close` wait, and are called without it.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from flexkv.cache.cache_engine import GlobalCacheEngine
from flexkv.cache.radixtree import NEVER_S, EntryMeta
from flexkv.cache.restored import RestoredBlocks
from flexkv.cache.tier import CacheEngine
from flexkv.common.config import CacheConfig
from flexkv.common.debug import flexkv_logger
from flexkv.common.events import EventCollector, KVEvent
from flexkv.common.hash_utils import Keys
from flexkv.common.storage import DeviceType
from flexkv.errors import ConfigError, FlexKVError, StoreBusyError
from flexkv.tasks.seams import DiskStore, Rank, ScanColumns, Storage, Transfer

__all__ = ["SsdState", "SsdTier"]

_logger = flexkv_logger(__name__)
FIRST_RETRY_S = 5.0
MAX_RETRY_S = 60.0
CLOSE_TIMEOUT_S = 5.0
EVENTS_AT_ONCE = 256
"""KV events of what a restart found that one verb publishes."""
MAX_READ_FAILURES = 16
"""Reads that failed one after the other, each in another op, before the tier is given up."""


class SsdState(Enum):
    """See the drawing in the module."""

    OFF = "off"
    WAITING = "waiting"
    OPENING = "opening"
    SERVING = "serving"
    READ_ONLY = "read_only"
    RESETTING = "resetting"
    BUSY = "busy"
    BROKEN = "broken"
    CLOSED = "closed"


class _Collector:
    """Holds events back until the tier is taken over, and then lets go of a few at a time, in order.

    There is one for each leaf of what a restart found. Thread safety: none; the thread that opens hands it over.
    """

    def __init__(self, collector: EventCollector) -> None:
        self._collector = collector
        self._held: deque[KVEvent] = deque()
        self._is_open = False

    def publish(self, event: KVEvent) -> None:
        """Take one event."""
        if self._is_open and not self._held:
            self._collector.publish(event)
        else:
            self._held.append(event)

    def let_go(self, num_events: int) -> bool:
        """Pass on the oldest ones held, at most so many, and those to come behind them; whether none is held now."""
        self._is_open = True
        for _ in range(min(num_events, len(self._held))):
            self._collector.publish(self._held.popleft())
        return not self._held


@dataclass(frozen=True, slots=True)
class _Opened:
    num_resets: int  # that were known when it was opened
    store: DiskStore
    tier: CacheEngine
    events: _Collector | None
    num_restored: int
    seconds: float


def _found(scan: ScanColumns, to_own_clock: int) -> RestoredBlocks:
    """Return what a store holds, with its expiries on the task engine's clock."""
    slots, keys, parents, expiry_s, tenants, groups, priorities = scan
    own_s = np.clip(expiry_s.astype(np.int64) + to_own_clock, 0, NEVER_S - 1).astype(np.uint32)
    own_s[expiry_s == NEVER_S] = NEVER_S
    return RestoredBlocks(
        slots=slots,
        keys=keys,
        parents=parents,
        expiry_s=own_s,
        tenants=tenants,
        groups=groups,
        priorities=priorities,
    )


def _may_pass(error: Exception) -> bool:
    """Return whether trying again makes sense after this."""
    passing = (FlexKVError, OSError, RuntimeError, ValueError, MemoryError)
    return isinstance(error, passing) and not isinstance(error, ConfigError)


class SsdTier:
    """The SSD tier of one task engine.

    Attributes:
        state: see the drawing.
        failure: why it can never work, for who starts the engine; None when that is known only after it was busy.
        store: the bytes, from when it serves until it is closed.
    """

    def __init__(
        self,
        cache_config: CacheConfig,
        transfer: Transfer,
        storage: Storage,
        collector: EventCollector | None,
        clock_s: Callable[[], float],
    ) -> None:
        self.state = SsdState.WAITING if cache_config.enable_ssd else SsdState.OFF
        self.failure: ConfigError | None = None
        self.store: DiskStore | None = None
        self._cache_config = cache_config
        self._transfer = transfer
        self._storage = storage
        self._collector = collector
        self._clock_s = clock_s
        self._block_bytes = 0
        self._warned_of_busy = False
        self._num_read_failures = 0
        self._thread: threading.Thread | None = None
        self._num_resets = 0  # while there was no store: what is opened then must be emptied first
        self._num_resets_done = 0
        self._must_renew = False
        self._renewing = threading.Lock()  # one at a time; held while the disk works
        self._handover = threading.Lock()  # guards the two below
        self._opened: _Opened | Exception | None = None
        self._nobody_waits = False
        self._closing = threading.Event()
        self._events: _Collector | None = None  # while some are held back

    @property
    def may_read(self) -> bool:
        """Whether blocks may be read from it."""
        return self.state in (SsdState.SERVING, SsdState.READ_ONLY)

    @property
    def may_write(self) -> bool:
        """Whether blocks may be written to it."""
        return self.state is SsdState.SERVING

    @property
    def is_opening(self) -> bool:
        """True while its first state is not known yet."""
        return self.state in (SsdState.WAITING, SsdState.OPENING) and not self._warned_of_busy

    @property
    def owes_reset(self) -> bool:
        """Whether it is being opened, and emptied for a reset."""
        return self.state is SsdState.OPENING and self._num_resets > self._num_resets_done

    @property
    def block_bytes(self) -> int:
        """Bytes of one block, over all ranks; 0 until it serves. They stay when it is closed beside a verb."""
        return self._block_bytes

    def refresh(self, cache: GlobalCacheEngine | None, ranks: Callable[[], Sequence[Rank]]) -> None:
        """Open it when the host tier is there, take it over once it is open. Cheap, never waits."""
        if self._events is not None and self._events.let_go(EVENTS_AT_ONCE):
            self._events = None
        if cache is None:
            return
        if self.state is SsdState.WAITING:
            self._open_in_background(ranks(), None)
        elif self._opened is not None:
            with self._handover:
                opened, self._opened = self._opened, None
            if isinstance(opened, _Opened):
                self._take_over(opened, cache, ranks)
            else:
                assert opened is not None
                self._opening_failed(opened)

    def _open_in_background(self, ranks: Sequence[Rank], store: DiskStore | None) -> None:
        """Open a store, or go on with one that must be emptied before it may serve."""
        self.state = SsdState.OPENING
        ordered = sorted(ranks, key=lambda rank: rank.rank)
        self._thread = threading.Thread(target=self._open, args=(ordered, store), name="fkv-ssd-open", daemon=True)
        self._thread.start()

    def _open(self, ranks: Sequence[Rank], store: DiskStore | None) -> None:
        """Try until it is open, cannot work, or nobody waits for it any more."""
        retry_s = FIRST_RETRY_S
        while True:
            opened: _Opened | Exception
            num_resets = self._num_resets  # if one comes meanwhile, who takes it over sees that
            try:
                opened = self._opened_store(ranks, store, num_resets)
            except Exception as error:  # noqa: BLE001  whatever it is: who waits for the tier must hear of it
                opened = error
            with self._handover:
                nobody_waits = self._nobody_waits
                if not nobody_waits:
                    self._opened = opened
            if isinstance(opened, _Opened):
                if nobody_waits:
                    self._give_up(opened)
                return
            if nobody_waits or not _may_pass(opened) or self._pause(retry_s):
                return
            store, retry_s = None, min(2 * retry_s, MAX_RETRY_S)

    def _pause(self, seconds: float) -> bool:
        """Wait between two attempts; whether the tier was closed meanwhile."""
        return self._closing.wait(seconds)

    def _opened_store(self, ranks: Sequence[Rank], store: DiskStore | None, num_resets: int) -> _Opened:
        start_s = time.monotonic()
        store = store or self._storage.open_ssd_store(ranks)
        is_whole = False
        try:
            config = self._cache_config
            collector = None if self._collector is None else _Collector(self._collector)
            tier = CacheEngine(
                DeviceType.SSD,
                store.num_slots,
                config.tokens_per_block,
                config.evict_ratio,
                config.eviction_policy,
                collector=collector,
            )
            if num_resets > self._num_resets_done:
                store.renew()
                num_restored = 0
            else:
                found = _found(store.scan(), self._to_own_clock())
                num_restored = tier.restore(found, int(self._clock_s()))
            is_whole = True
        finally:
            if not is_whole:
                store.stop(CLOSE_TIMEOUT_S)
        return _Opened(num_resets, store, tier, collector, num_restored, time.monotonic() - start_s)

    def _give_up(self, opened: _Opened) -> None:
        """Nobody takes it over any more. Waits for the disk."""
        if opened.num_resets != self._num_resets:
            try:
                opened.store.renew()
            except OSError as error:
                self._warn_of_what_stays(error)
        opened.store.stop(CLOSE_TIMEOUT_S)

    def _to_own_clock(self) -> int:
        """Return what turns seconds since 1970 into seconds on the task engine's clock."""
        return int(self._clock_s()) - int(time.time())

    def touch(self, slot: int, key: Keys, meta: EntryMeta | None) -> None:
        """Have a block's record say that it is used now, and that it lives and is kept at least as `meta` says.

        Shape of `key`: (16,).
        """
        store = self.store  # it may be closed meanwhile
        if store is None or not self.may_write:
            return
        if meta is None:
            store.touch(slot, key)
        else:
            store.touch(slot, key, self.unix_expiry_s(meta.expiry_s), meta.priority)

    def unix_expiry_s(self, expiry_s: int) -> int:
        """Return an expiry on the task engine's clock in seconds since 1970; never stays never.

        What lies beyond the year 2106, where these seconds end, is brought forward to it.
        """
        if expiry_s == NEVER_S:
            return NEVER_S
        return min(max(1, expiry_s - self._to_own_clock()), NEVER_S - 1)

    def _take_over(self, opened: _Opened, cache: GlobalCacheEngine, ranks: Callable[[], Sequence[Rank]]) -> None:
        if opened.num_resets != self._num_resets:  # the tiers were emptied meanwhile
            self._open_in_background(ranks(), opened.store)
            return
        self._num_resets_done = self._num_resets
        try:
            self._transfer.set_disk(opened.store)
        except (RuntimeError, ValueError, OSError) as error:
            self._break(f"the transfer engine does not take it: {error}")
            self._thread = threading.Thread(target=self._give_up, args=(opened,), name="fkv-ssd-close", daemon=True)
            self._thread.start()
            return
        cache.attach_ssd(opened.tier)
        self._events = opened.events
        if self._events is not None and self._events.let_go(EVENTS_AT_ONCE):
            self._events = None
        self.store = opened.store
        self._block_bytes = opened.store.slot_bytes
        self.state = SsdState.SERVING
        _logger.info(
            "ssd tier open directories=%s slots=%d block_bytes=%d restored=%d opened_s=%.2f io=%s",
            ";".join(self._cache_config.ssd_cache_dir),
            opened.store.num_slots,
            opened.store.slot_bytes,
            opened.num_restored,
            opened.seconds,
            ",".join(sorted({str(device.io_engine) for device in opened.store.devices()})),
        )

    def _opening_failed(self, error: Exception) -> None:
        if isinstance(error, ConfigError):
            if not self._warned_of_busy:  # else the engine serves without it already
                self.failure = error
            self._break(str(error))
            return
        if not _may_pass(error):
            _logger.error("ssd tier cannot be opened for a fault of its own", exc_info=error)
            self._break(repr(error))
            return
        if not self._warned_of_busy:
            self._warned_of_busy = True
            kind = "is in use" if isinstance(error, StoreBusyError) else "cannot be opened"
            _logger.warning(
                "ssd tier off, its directory %s; it is tried again from time to time directories=%s reason=%s",
                kind,
                ";".join(self._cache_config.ssd_cache_dir),
                str(error) or repr(error),
            )
        self.state = SsdState.BUSY

    def write_failed(self, error: int, what: str) -> None:
        """A write failed with an errno: read only from now on; but not for want of memory, which comes back."""
        if self.state is SsdState.SERVING and error != errno.ENOMEM:
            self.state = SsdState.READ_ONLY
            _logger.warning(
                "ssd tier read-only, a write failed errno=%s (%s) what=%s",
                errno.errorcode.get(error, error),
                os.strerror(error),
                what,
            )

    def read_ended(self, error: int, what: str) -> None:
        """A read ended, with an errno or 0: too many failures in a row end the tier."""
        self._num_read_failures = self._num_read_failures + 1 if error else 0
        if self._num_read_failures >= MAX_READ_FAILURES and self.may_read:
            self._break(f"{self._num_read_failures} reads failed one after the other, the last: {what}")

    def _break(self, reason: str) -> None:
        self.state = SsdState.BROKEN
        _logger.warning(
            "ssd tier off for good, the cpu tier serves on directories=%s reason=%s",
            ";".join(self._cache_config.ssd_cache_dir),
            reason,
        )

    def begin_reset(self) -> None:
        """Neither read nor write until `renew`; what is not open yet is emptied when it is."""
        if self.store is None:
            self._num_resets += 1
            return
        self._must_renew = True
        if self.may_read:
            self.state = SsdState.RESETTING

    def renew(self) -> None:
        """Forget all blocks on disk, durably. Waits for the disk. REQUIRES: `begin_reset`, the mutex is not held.

        Also of a tier that has failed: its blocks must not be found after a restart.
        """
        with self._renewing:
            self._renew_if_due()

    def _renew_if_due(self) -> None:
        """REQUIRES: `_renewing` is held."""
        store = self.store
        if store is None or not self._must_renew:
            return
        self._must_renew = False
        try:
            store.renew()
        except OSError as error:
            self._warn_of_what_stays(error)
            if self.state is SsdState.RESETTING:
                self._break("its blocks cannot be forgotten")
            return
        if self.state is SsdState.RESETTING and not self._must_renew:
            self.state = SsdState.SERVING

    def _warn_of_what_stays(self, error: OSError) -> None:
        _logger.warning(
            "ssd blocks cannot be forgotten, remove the directories before the next start directories=%s reason=%s",
            ";".join(self._cache_config.ssd_cache_dir),
            error,
        )

    def close(self, timeout_s: float) -> bool:
        """Write what is due, and let the directories go. Waits; False when a read or write may still be running.

        A reset that is still owed is made up for: nothing of before it may be found after a restart.
        """
        deadline_s = time.monotonic() + timeout_s
        if self._renewing.acquire(timeout=timeout_s / 2):  # a renewal that goes on would fail on a store that stops
            try:
                self._renew_if_due()
            finally:
                self._renewing.release()
        self._closing.set()
        with self._handover:
            self._nobody_waits = True
            opened, self._opened = self._opened, None
        if isinstance(opened, _Opened):
            self._give_up(opened)
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        if self.state is not SsdState.OFF:
            self.state = SsdState.CLOSED
        has_ended = self.store is None or self.store.stop(max(0.0, deadline_s - time.monotonic()))
        if has_ended:  # else the next call asks again
            self.store = None
        return has_ended
