"""The errors FlexKV raises. A miss is a value, never an error.

    FlexKVError
    ├── ConfigError        (ValueError)   a setting that cannot work; raised at start, names the key
    ├── CapacityError                     slots or memory that cannot be had
    ├── DeviceError                       a GPU or its driver cannot be used; no setting of ours mends that
    ├── StoreBusyError                    somebody else serves from a directory; it can be tried again
    ├── TransferError                     an op failed
    │   ├── StorageIOError (OSError)      a read or write of a device or file failed
    │   ├── ChecksumError                 bytes came back that are not the ones written
    │   └── TransferTimeout (TimeoutError)  not finished within its bound
    ├── RemoteError                       the remote store failed or lied
    └── ServerError                       the cache server is gone or refuses

Arguments of wrong shape, dtype or range are plain ``ValueError``: nothing was changed when one is raised.

Every error carries what is known as attributes (None when it does not apply), so that a log line or a handler needs no
parsing: ``tier``, ``op_id``, ``graph_id``, ``task_id``, ``rank``, ``path``, ``offset_bytes``, ``errno``, ``key``,
``value``. A message says what was wrong, with the value, and what to do.
"""

from __future__ import annotations

import os

__all__ = [
    "CapacityError",
    "ChecksumError",
    "ConfigError",
    "DeviceError",
    "FlexKVError",
    "RemoteError",
    "ServerError",
    "StorageIOError",
    "StoreBusyError",
    "TransferError",
    "TransferTimeout",
]


class FlexKVError(Exception):
    """Root of the tree; see the module for the attributes."""

    errno: int | None  # a member of OSError in the classes that derive from it

    def __init__(
        self,
        message: str,
        *,
        tier: str | None = None,
        op_id: int | None = None,
        graph_id: int | None = None,
        task_id: int | None = None,
        rank: int | None = None,
        path: str | os.PathLike[str] | None = None,
        offset_bytes: int | None = None,
        errno: int | None = None,
        key: str | None = None,
        value: object = None,
    ) -> None:
        super().__init__(message)
        self.tier = tier
        self.op_id = op_id
        self.graph_id = graph_id
        self.task_id = task_id
        self.rank = rank
        self.path = path
        self.offset_bytes = offset_bytes
        self.errno = errno
        self.key = key
        self.value = value


class ConfigError(FlexKVError, ValueError):
    """A setting cannot work. ``key`` names it, ``value`` is what was given."""


class CapacityError(FlexKVError):
    """Slots or memory that cannot be had."""


class DeviceError(FlexKVError):
    """A device or its driver cannot be used: missing, too old, or failing. ``value`` names the device."""


class StoreBusyError(FlexKVError):
    """Somebody else serves from a directory, or holds all of its capacity."""


class TransferError(FlexKVError):
    """An op or its graph failed."""


class StorageIOError(TransferError, OSError):
    """A read or write failed; ``errno``, ``path`` and ``offset_bytes`` say where."""


class ChecksumError(TransferError):
    """Bytes read back are not the bytes written."""


class TransferTimeout(TransferError, TimeoutError):  # noqa: N818  the name says it
    """An op was not finished within its bound. Its slots may still be in use: quarantine, do not recycle."""


class RemoteError(FlexKVError):
    """The remote store failed."""


class ServerError(FlexKVError):
    """The cache server is gone or refuses."""
