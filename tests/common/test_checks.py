"""Integers from outside: what is one, in which limits, and how it is named when it is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

from flexkv.common.checks import as_block_size, as_config_int, as_int
from flexkv.common.config import CacheConfig
from flexkv.errors import ConfigError

NO_INTEGERS = [True, np.True_, 1.0, np.float64(1), "1", None, [1]]


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_an_integer_of_numpy_becomes_one_of_python(value: object) -> None:
    for checked in (as_int("n", value), as_config_int("n", value)):
        assert (checked, type(checked)) == (3, int)
    assert type(CacheConfig(num_cpu_blocks=np.int64(3)).num_cpu_blocks) is int  # type: ignore[arg-type]


@pytest.mark.parametrize("value", NO_INTEGERS)
def test_what_is_no_integer_is_refused_by_name(value: object) -> None:
    message = re.escape(f"n is {value!r}; it must be an integer of at least 0")
    with pytest.raises(ValueError, match=message) as refused:
        as_int("n", value)
    assert not isinstance(refused.value, ConfigError)
    with pytest.raises(ConfigError, match=message) as config_refused:
        as_config_int("n", value, 0)
    assert config_refused.value.key == "n"
    assert config_refused.value.value is value


@pytest.mark.parametrize(("value", "is_within"), [(1, False), (2, True), (4, True), (5, False), (1 << 70, False)])
def test_limits_belong_to_what_is_allowed(value: int, is_within: bool) -> None:
    if is_within:
        assert as_int("n", value, 2, 4) == value
    else:
        with pytest.raises(ValueError, match=f"n is {value}; it must be an integer from 2 to 4"):
            as_int("n", value, 2, 4)


def test_a_block_size_is_a_power_of_two() -> None:
    assert [as_block_size("n", 1 << power) for power in range(5)] == [1, 2, 4, 8, 16]
    for value in (0, -2, 3, 12, 32):
        with pytest.raises(ConfigError, match=f"n is {value}; "):
            as_block_size("n", value, 16)
