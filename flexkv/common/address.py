"""Addresses of sockets: `ipc:///path` or a plain path names a Unix socket.

The socket on which GPU ranks register lies beside the one of the service, under its name and a suffix. Whoever makes,
reads or derives an address does it here. Thread-safe.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import tempfile

from flexkv.errors import ConfigError

__all__ = ["default_socket", "own_socket", "register_address", "socket_path_of"]

_IPC_PREFIX = "ipc://"
_REGISTER_SUFFIX = "_gpu_register"
_MAX_PATH_BYTES = 107  # sun_path less its end; unix(7)
_numbers = itertools.count()


def socket_path_of(address: object, key: str) -> str:
    """Return the path that `address` names.

    Raises:
        ConfigError: naming `key`: not such an address, not absolute, or longer than the kernel takes.
    """
    path = address.removeprefix(_IPC_PREFIX) if isinstance(address, str) else ""
    if not path.startswith("/"):
        message = f"{key} is {address!r}; use the address of a Unix socket, ipc:///path or an absolute path"
        raise ConfigError(message, key=key, value=address)
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        message = f"{key} is {address!r}, longer than the {_MAX_PATH_BYTES} bytes that a Unix socket's path may have"
        raise ConfigError(message, key=key, value=address)
    return path


def register_address(server_recv_port: str) -> str:
    """Return the address on which GPU ranks of this service register."""
    return server_recv_port + _REGISTER_SUFFIX


def own_socket() -> str:
    """Return an address that no other engine has: this process's own, in a directory of this user."""
    return f"{_IPC_PREFIX}{_user_directory()}/{os.getpid()}-{next(_numbers)}.sock"


def default_socket(engine_id: str) -> str:
    """Return the address both roles of an engine derive from its id: a socket in a directory of this user.

    Raises:
        ConfigError: the path would be longer than a Unix socket's can be.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    is_usable = runtime.startswith("/") and os.access(runtime, os.W_OK | os.X_OK)
    directory = os.path.join(runtime, "flexkv") if is_usable else _user_directory()
    name = engine_id
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,48}", engine_id):
        name = hashlib.sha256(engine_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    path = os.path.join(directory, f"{name}.sock")
    if len(os.fsencode(register_address(path))) > _MAX_PATH_BYTES:
        message = f"socket path {path!r} is too long; set FLEXKV_SERVER_RECV_PORT to a shorter one (ipc:///...)"
        raise ConfigError(message, key="server_recv_port", value=path)
    return _IPC_PREFIX + path


def _user_directory() -> str:
    return os.path.join(tempfile.gettempdir(), f"flexkv-{os.getuid()}")
