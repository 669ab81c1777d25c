"""Settings as users write them: the one parser for configuration files, the environment and an engine's options.

A key has one name everywhere: ``cpu_cache_gb`` in a file or in an engine's options, ``FLEXKV_CPU_CACHE_GB`` in the
environment. Sizes are numbers or strings such as ``16GiB``, ``512 MiB``, ``2e9``. Keys that are not known are refused,
with the nearest known one. Whether values make sense is checked where they are used (flexkv/common/config.py).
Pure but for reading the file; thread-safe.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from flexkv.common.address import socket_path_of
from flexkv.common.checks import is_int
from flexkv.common.debug import parse_log_level
from flexkv.errors import ConfigError

__all__ = ["CONFIG_KEYS", "ENV_PREFIX", "load_config_file", "parse_config", "parse_size"]

ENV_PREFIX = "FLEXKV_"
_GIB = 1 << 30


def _bad(key: str, value: object, fix: str) -> ConfigError:
    return ConfigError(f"{key} is {value!r}; {fix}", key=key, value=value)


_SIZE = re.compile(r"\s*(?P<number>\d+(?:\.\d*)?(?:[eE]\+?\d+)?)\s*(?P<unit>[A-Za-z]*)\s*")
_UNITS: Mapping[str, int] = MappingProxyType(
    {"b": 1}
    | {f"{letter}ib": 1 << 10 * power for power, letter in enumerate("kmgt", 1)}
    | {f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)}
)


def parse_size(key: str, value: object, unit_bytes: int = 1) -> int:
    """Return bytes. A plain number counts units of `unit_bytes`; a string may carry a unit (KiB, MB, GiB, ...)."""
    fix = "use a number that is not negative, or a size such as '16GiB'"
    text = str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    match = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise _bad(key, value, fix)
    unit = match["unit"].lower()
    if unit and unit not in _UNITS:
        raise _bad(key, value, f"its unit is unknown; {fix}")
    size = float(match["number"]) * (_UNITS[unit] if unit else unit_bytes)
    if not size < 1 << 60:
        raise _bad(key, value, fix)
    return round(size)


def _parse_bool(key: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off", ""):
        return False
    raise _bad(key, value, "use 1 or 0")


def _parse_int(key: str, value: object) -> int:
    if is_int(value):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+\s*", value):
        return int(value)
    raise _bad(key, value, "use an integer")


def _parse_float(key: str, value: object) -> float:
    try:
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            return float(value)
    except ValueError:
        pass  # reported below, like any other value
    raise _bad(key, value, "use a number")


def _parse_text(key: str, value: object) -> str:
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise _bad(key, value, "use a string that is not empty, or leave it out")


def _parse_address(key: str, value: object) -> str:
    text = _parse_text(key, value)
    socket_path_of(text, key)
    return text


def _parse_unavailable(key: str, value: object) -> None:
    if value is None or value is False or str(value).strip().lower() in ("", "0", "0.0", "false", "no", "off"):
        return
    raise _bad(key, value, "this version has the CPU and SSD tiers; unset it")


def _parse_gib(key: str, value: object) -> int:
    return parse_size(key, value, _GIB)


CONFIG_KEYS: Mapping[str, Callable[[str, object], object]] = MappingProxyType(
    {
        "config_path": _parse_text,
        "cpu_cache_gb": _parse_gib,
        "cpu_cache_bytes": parse_size,
        "num_cpu_blocks": _parse_int,
        "evict_ratio": _parse_float,
        "eviction_policy": _parse_text,
        "transfer_timeout_s": _parse_float,
        "max_quarantined_fraction": _parse_float,
        "max_finished_tasks": _parse_int,
        "copy_threads": _parse_int,
        "prefault_threads": _parse_int,
        "gpu_tuning_cache": _parse_text,
        "server_recv_port": _parse_address,
        "gpu_register_port": _parse_address,
        "enable_metrics": _parse_bool,
        "log_level": lambda key, value: parse_log_level(value, key),
        "model_tag": _parse_text,
        "key_file": _parse_text,
        "trace_path": _parse_text,
        "enable_layerwise_transfer": _parse_bool,
        "enable_ssd": _parse_bool,
        "ssd_cache_gb": _parse_gib,
        "ssd_cache_bytes": parse_size,
        "ssd_cache_dir": _parse_text,
        "num_ssd_blocks": _parse_int,
        "ssd_io_engine": _parse_text,
        "ssd_write_queue_s": _parse_float,
        "ssd_stage_timeout_s": _parse_float,
        "ssd_pipelined_loads": _parse_bool,
        "enable_remote": _parse_unavailable,
        "remote_cache_gb": _parse_unavailable,
        "remote_cache_dir": _parse_unavailable,
        "num_remote_blocks": _parse_unavailable,
    }
)


def parse_config(mapping: Mapping[str, object], source: str) -> dict[str, object]:
    """Return the parsed values by key; sizes in bytes. `source` says in messages where the mapping is from.

    Keys may carry the prefix of the environment. Keys that are set to "off" for what this version lacks are left out.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a value that cannot be read, or a key given twice.
    """
    values: dict[str, object] = {}
    for written, value in mapping.items():
        key = written[len(ENV_PREFIX) :].lower() if written.upper().startswith(ENV_PREFIX) else written
        parse = CONFIG_KEYS.get(key)
        if parse is None:
            usable = [name for name, parser in CONFIG_KEYS.items() if parser is not _parse_unavailable]
            near = difflib.get_close_matches(key.lower(), usable, n=1, cutoff=0.0)[0]
            prefix = written[: len(written) - len(key)]
            near = f"{prefix}{near.upper()}" if prefix else near
            raise ConfigError(
                f"{source}: key {written!r} is not known; did you mean {near!r}?", key=written, value=value
            )
        if key in values:
            raise ConfigError(f"{source}: key {key!r} is given twice", key=written, value=value)
        try:
            parsed = parse(written, value)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}", key=written, value=value) from error
        if parsed is not None:
            values[key] = parsed
    return values


def load_config_file(path: str | os.PathLike[str]) -> dict[str, object]:
    """Read and parse a configuration file: TOML when its name ends in .toml (Python 3.11 and newer), else JSON.

    Raises:
        ConfigError: the file cannot be read, is malformed, or `parse_config` refuses it.
    """
    name = os.fspath(path)
    try:
        text = Path(name).read_text(encoding="utf-8")
        content = _load_toml(text) if name.endswith(".toml") else json.loads(text)
    except OSError as error:
        message = f"config file {name!r} cannot be read: {error.strerror}; correct FLEXKV_CONFIG_PATH or unset it"
        raise ConfigError(message, key="config_path", value=name, path=name, errno=error.errno) from error
    except ValueError as error:  # of either parser, and of the decoder
        message = f"config file {name!r} is malformed: {error}; it must be JSON, or TOML with a name that ends in .toml"
        raise ConfigError(message, key="config_path", value=name, path=name) from error
    if not isinstance(content, dict):
        raise ConfigError(f"config file {name!r} must hold one object", key="config_path", value=name, path=name)
    if "config_path" in content:
        raise ConfigError(
            f"config file {name!r} names a config_path; take it out", key="config_path", value=name, path=name
        )
    return parse_config(content, f"config file {name}")


def _load_toml(text: str) -> object:
    try:
        import tomllib
    except ModuleNotFoundError as error:  # Python 3.10
        raise ValueError("this Python reads no TOML; write JSON") from error
    return tomllib.loads(text)
