"""Logger set-up: module loggers under the one logger ``flexkv``; the root logger is never touched.

The level comes from ``FLEXKV_LOG_LEVEL`` (DEBUG, INFO, WARNING, ERROR or CRITICAL; default INFO), unless the program
has set a level on the ``flexkv`` logger before. Records go to the handlers of the program; where it has none they go
to standard error, since an engine such as vLLM configures only its own logger and our lines would vanish. Thread-
safe, like ``logging`` itself.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping

from flexkv.errors import ConfigError

__all__ = ["LOG_LEVELS", "flexkv_logger", "parse_log_level"]

LOG_LEVELS: Mapping[str, int] = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
    "CRITICAL": logging.CRITICAL,
}
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _FallbackHandler(logging.Handler):
    """Writes to the current standard error while the program has no handlers of its own on the root logger."""

    def emit(self, record: logging.LogRecord) -> None:
        if logging.getLogger().handlers or sys.stderr is None:
            return
        try:
            sys.stderr.write(self.format(record) + "\n")
        except (OSError, ValueError):  # standard error is closed: logging must not fail the caller
            self.handleError(record)


def parse_log_level(value: object, key: str = "FLEXKV_LOG_LEVEL") -> str:
    """Return the canonical name of a log level. Raises ConfigError."""
    if isinstance(value, str) and value.strip().upper() in LOG_LEVELS:
        return value.strip().upper()
    raise ConfigError(f"{key} is {value!r}; use one of {', '.join(LOG_LEVELS)}", key=key, value=value)


def _configure(parent: logging.Logger) -> None:
    handler = _FallbackHandler()
    handler.setFormatter(logging.Formatter(_FORMAT))
    parent.addHandler(handler)
    if parent.level != logging.NOTSET:
        return
    level = os.environ.get("FLEXKV_LOG_LEVEL", "INFO")
    try:
        parent.setLevel(parse_log_level(level))
    except ConfigError:  # an import must not fail; FlexKVConfig.from_env refuses the value
        parent.setLevel(logging.INFO)
        parent.warning("log level unknown, using INFO FLEXKV_LOG_LEVEL=%r", level)


def flexkv_logger(name: str) -> logging.Logger:
    """Return the module logger ``name`` (``__name__`` of a module of flexkv, or a plain suffix)."""
    parent = logging.getLogger("flexkv")
    if not any(isinstance(handler, _FallbackHandler) for handler in parent.handlers):
        _configure(parent)
    return logging.getLogger(name if name == "flexkv" or name.startswith("flexkv.") else f"flexkv.{name}")
