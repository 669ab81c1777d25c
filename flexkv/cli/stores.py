"""What lies in SSD directories, as values: a store is one model's sub-directory below one directory.

Everything is read beside whoever serves from it, and is of some instant during the call. Thread safety: pure but for
reading files.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import click
import numpy as np

from flexkv import _core

__all__ = [
    "AGE_BOUNDS",
    "AgeBin",
    "Blocks",
    "Refused",
    "Store",
    "blocks_of",
    "directories_of",
    "is_refusal",
    "named",
    "refused",
    "stores_in",
]

# How long ago blocks were last used: what the bins of a histogram are called, and up to which age they go.
AGE_BOUNDS = (
    ("1 minute", 60),
    ("10 minutes", 600),
    ("1 hour", 3_600),
    ("6 hours", 21_600),
    ("1 day", 86_400),
    ("1 week", 604_800),
    ("30 days", 2_592_000),
)
_CLOCK_TOLERANCE_S = 60.0  # a use that lies farther in the future than this was noted by a clock that was wrong
_MIN_PREFIX = 8
_STATES = {
    _core.SsdHeaderState.OK: "ok",
    _core.SsdHeaderState.EMPTY: "no header",
    _core.SsdHeaderState.FOREIGN: "not ours",
    _core.SsdHeaderState.OTHER_VERSION: "other version",
    _core.SsdHeaderState.DAMAGED: "damaged header",
}


class Refused(click.ClickException):
    """An argument that cannot work: one line on stderr, exit status 2."""

    exit_code = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class AgeBin:
    """Blocks that were last used at most `up_to_s` ago and longer ago than those of the bin before; None: no bound."""

    up_to_s: int | None
    num_blocks: int
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """The blocks of a store, by its records."""

    num_blocks: int
    num_bytes: int
    num_expired: int  # of `num_blocks`: their time is over, a start leaves them out unless others need them
    num_from_the_future: int  # of `num_blocks`: in no age bin
    ages: tuple[AgeBin, ...]
    damaged_records: tuple[int, ...]  # their slots
    num_records_of_before: int  # of before the store was last emptied


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """One model's sub-directory below one directory. All numbers are 0 unless `state` is 'ok'."""

    root: str
    fingerprint: str
    path: str
    state: str  # 'ok', 'no header', 'not ours', 'other version' or 'damaged header'
    is_busy: bool
    model: str
    num_slots: int
    slot_bytes: int
    tokens_per_block: int
    footprint_bytes: int  # of its files: what counts against the capacity
    used_at_s: int  # when it was last opened or closed for serving, since 1970

    @property
    def is_ok(self) -> bool:
        """Whether its blocks can be looked at."""
        return self.state == "ok"

    @property
    def is_ours(self) -> bool:
        """Whether it may be removed."""
        return self.state != "not ours"


def refused(error: OSError, path: str) -> Refused:
    """Return the one line that says what could not be read, and why."""
    return Refused(f"{path}: {os.strerror(error.errno)}" if error.errno else f"{path}: {error}")


def directories_of(arguments: Iterable[str]) -> list[str]:
    """Return the directories that are named, each once; several may stand in one argument with ';' between them.

    Raises:
        Refused: a name is empty, or what it names is no directory that can be read.
    """
    names = [name.strip() for argument in arguments for name in argument.split(";")]
    if "" in names:
        raise Refused("DIR is an empty name; name the directories of FLEXKV_SSD_CACHE_DIR")
    directories = list(dict.fromkeys(names))
    for name in directories:
        _check_directory(name)
    return directories


def _check_directory(name: str) -> None:
    try:
        name.encode("utf-8")
        with os.scandir(name):
            pass
    except OSError as error:
        raise refused(error, name) from error
    except UnicodeEncodeError as error:
        raise Refused(f"{name!r}: the name is not UTF-8") from error


def stores_in(root: str) -> list[Store]:
    """Return what lies below the directory.

    Raises:
        Refused: it cannot be read.
    """
    try:
        listings = _core.list_ssd_directories(root)
    except OSError as error:
        raise refused(error, root) from error
    return [
        Store(
            root=root,
            fingerprint=listing.fingerprint,
            path=listing.path,
            state=_STATES[listing.state],
            is_busy=listing.is_busy,
            model=listing.model,
            num_slots=listing.num_slots,
            slot_bytes=listing.slot_bytes,
            tokens_per_block=listing.tokens_per_block,
            footprint_bytes=listing.footprint_bytes,
            used_at_s=listing.used_at_s,
        )
        for listing in listings
    ]


def named(stores: Sequence[Store], fingerprint: str) -> list[Store]:
    """Return the stores of the fingerprint, which may be cut short; one model has a store in each directory.

    Raises:
        Refused: there is none, or those that begin so are of several models.
    """
    found = [store for store in stores if store.fingerprint == fingerprint]
    if not found and len(fingerprint) >= _MIN_PREFIX:
        found = [store for store in stores if store.fingerprint.startswith(fingerprint)]
    if not found:
        raise Refused(f"--store is {fingerprint!r}; there is none of that fingerprint, see `flexkv cache inspect`")
    if len({store.fingerprint for store in found}) > 1:
        raise Refused(f"--store is {fingerprint!r}; several begin so, give more digits")
    return found


def is_refusal(error: OSError) -> bool:
    """Whether the error is about what this user may do, and says nothing of the store."""
    return error.errno in (errno.EACCES, errno.EPERM, errno.ELOOP, errno.EMFILE, errno.ENFILE)


def blocks_of(reader: _core.SsdReader, slot_bytes: int, now_s: float | None = None) -> Blocks:
    """Read the records of a store.

    Raises:
        OSError: they cannot be read.
    """
    _, used_at_us, expiry_s, _, damaged, num_of_before = reader.read_records()
    now_s = time.time() if now_s is None else now_s
    age_s = now_s - used_at_us / 1e6
    is_past = age_s >= -_CLOCK_TOLERANCE_S
    bin_of = np.searchsorted(np.array([bound_s for _, bound_s in AGE_BOUNDS]), age_s[is_past])
    counts = np.bincount(bin_of, minlength=len(AGE_BOUNDS) + 1).tolist()
    bounds = [*(bound_s for _, bound_s in AGE_BOUNDS), None]
    return Blocks(
        num_blocks=len(used_at_us),
        num_bytes=len(used_at_us) * slot_bytes,
        num_expired=int((expiry_s <= now_s).sum()),
        num_from_the_future=int((~is_past).sum()),
        ages=tuple(
            AgeBin(up_to_s=bound, num_blocks=count, num_bytes=count * slot_bytes)
            for bound, count in zip(bounds, counts, strict=True)
        ),
        damaged_records=tuple(damaged.tolist()),
        num_records_of_before=num_of_before,
    )
