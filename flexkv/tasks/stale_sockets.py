"""Removes the sockets of engines that were killed: the kernel closes a dead process's socket, but keeps its name.

Only in a directory of our own, where names start with the number of the process that made them. Thread safety: any
thread, any number of processes.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import time

__all__ = ["MIN_AGE_S", "remove_stale_sockets"]

MIN_AGE_S = 60.0  # an engine of another pid namespace may have bound its name, but not listen yet
_NAME = re.compile(r"(?P<pid>\d+)-\d+\.sock(_gpu_register)?")


def remove_stale_sockets(directory: str) -> None:
    """Unlink the old sockets in `directory` whose process is gone and on which nobody listens. Never raises OSError."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            name = _NAME.fullmatch(entry.name)
            if name is not None and _is_stale(entry, int(name["pid"])):
                with contextlib.suppress(OSError):  # somebody else was faster
                    os.unlink(entry.path)


def _is_stale(entry: os.DirEntry[str], pid: int) -> bool:
    try:
        info = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    ours = stat.S_ISSOCK(info.st_mode) and info.st_uid == os.getuid()
    return ours and time.time() - info.st_mtime > MIN_AGE_S and not _is_alive(pid) and not _has_listener(entry.path)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _has_listener(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:  # a full backlog, a path too long: not known to be gone
            return True
    return True
