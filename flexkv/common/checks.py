"""Integers and directories from outside, checked in one way: the message names what is wrong.

A bool is no integer, numpy's integers are.

`as_int` is for arguments of calls, the others are for settings: a ConfigError is a ValueError that carries its key.
Pure; thread-safe.
"""

from __future__ import annotations

import os
from typing import TypeGuard

import numpy as np

from flexkv.errors import ConfigError

__all__ = ["as_block_size", "as_config_int", "as_int", "as_tuning_cache", "is_int"]


def is_int(value: object) -> TypeGuard[int | np.integer]:
    """Return whether it is an integer of Python's or numpy's; a bool is none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def as_int(name: str, value: object, minimum: int = 0, maximum: int | None = None) -> int:
    """Return an int. Raises ValueError naming `name` unless it is an integer in [minimum, maximum]."""
    if not is_int(value) or value < minimum or (maximum is not None and value > maximum):
        limits = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        raise ValueError(f"{name} is {value!r}; it must be an integer {limits}")
    return int(value)


def as_config_int(key: str, value: object, minimum: int = 1, maximum: int | None = None) -> int:
    """Return an int. Raises ConfigError naming `key` unless it is an integer in [minimum, maximum]."""
    try:
        return as_int(key, value, minimum, maximum)
    except ValueError as error:
        raise ConfigError(str(error), key=key, value=value) from error


def as_block_size(key: str, value: object, maximum: int | None = None) -> int:
    """Return a number of tokens per block. Raises ConfigError naming `key` unless it is a power of two."""
    size = as_config_int(key, value, maximum=maximum)
    if size & (size - 1):
        raise ConfigError(f"{key} is {size}; use a power of two", key=key, value=value)
    return size


def as_tuning_cache(key: str, value: object) -> str:
    """Return "", "off" or a directory. Raises ConfigError naming `key` for anything else."""
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or (text not in ("", "off") and not os.path.isabs(text)):
        message = f"{key} is {value!r}; use an absolute path, 'off', or '' for the user's cache directory"
        raise ConfigError(message, key=key, value=value)
    return text
