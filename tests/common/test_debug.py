"""Logger set-up: one tree, never the root logger."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from flexkv.common import debug
from flexkv.common.debug import flexkv_logger, parse_log_level
from flexkv.errors import ConfigError


@pytest.fixture
def fresh_parent() -> Iterator[logging.Logger]:
    parent = logging.getLogger("flexkv")
    handlers, level = parent.handlers[:], parent.level
    parent.handlers = []
    parent.setLevel(logging.NOTSET)
    yield parent
    parent.handlers = handlers
    parent.setLevel(level)


def test_every_logger_is_below_flexkv() -> None:
    assert flexkv_logger("flexkv.cache.tier").name == "flexkv.cache.tier"
    assert flexkv_logger("tests").name == "flexkv.tests"
    assert flexkv_logger("flexkv").name == "flexkv"


def test_the_root_logger_is_left_alone(fresh_parent: logging.Logger) -> None:
    root = logging.getLogger()
    before = (root.level, root.handlers[:])
    flexkv_logger("x")
    assert (root.level, root.handlers) == before


def test_the_level_comes_from_the_environment(fresh_parent: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEXKV_LOG_LEVEL", "warning")
    flexkv_logger("x")
    assert fresh_parent.level == logging.WARNING
    assert len(fresh_parent.handlers) == 1


def test_a_level_the_program_has_set_stays(fresh_parent: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEXKV_LOG_LEVEL", "ERROR")
    fresh_parent.setLevel(logging.DEBUG)
    flexkv_logger("x")
    assert fresh_parent.level == logging.DEBUG


def test_an_unknown_level_does_not_break_an_import(
    fresh_parent: logging.Logger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FLEXKV_LOG_LEVEL", "LOUD")
    flexkv_logger("x")
    assert fresh_parent.level == logging.INFO
    assert "LOUD" in caplog.text


def test_records_reach_standard_error_only_while_the_program_has_no_handlers(
    fresh_parent: logging.Logger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = flexkv_logger("x")
    logger.info("seen by the handlers of the program")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    logger.info("tier off reason=%s", "full")
    assert "INFO flexkv.x: tier off reason=full" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["loud", "", None, 10])
def test_an_unknown_level_is_refused_with_the_known_ones(value: object) -> None:
    with pytest.raises(ConfigError, match=r"FLEXKV_LOG_LEVEL is .*INFO"):
        parse_log_level(value)


def test_the_names_of_the_levels_are_those_of_logging() -> None:
    assert all(getattr(logging, name) == level for name, level in debug.LOG_LEVELS.items())
