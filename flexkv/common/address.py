"""Addresses of sockets: `ipc:///path` or a plain path names a Unix socket."""

from __future__ import annotations

import os

from flexkv.errors import ConfigError

__all__ = ["IPC_PREFIX", "MAX_PATH_BYTES", "socket_path_of"]

IPC_PREFIX = "ipc://"
MAX_PATH_BYTES = 107  # sun_path less its end; unix(7)


def socket_path_of(address: object, key: str) -> str:
    """Return the path that `address` names.

    Raises:
        ConfigError: naming `key`: not such an address, not absolute, or longer than the kernel takes.
    """
    path = address.removeprefix(IPC_PREFIX) if isinstance(address, str) else ""
    if not path.startswith("/"):
        message = f"{key} is {address!r}; use the address of a Unix socket, ipc:///path or an absolute path"
        raise ConfigError(message, key=key, value=address)
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        message = f"{key} is {address!r}, longer than the {MAX_PATH_BYTES} bytes that a Unix socket's path may have"
        raise ConfigError(message, key=key, value=address)
    return path
