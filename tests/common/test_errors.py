"""The error tree: standard bases, attributes, messages."""

from __future__ import annotations

import pickle

import pytest

from flexkv import errors
from flexkv.errors import ConfigError, FlexKVError, StorageIOError, TransferTimeout


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("ConfigError", ValueError),
        ("StorageIOError", OSError),
        ("TransferTimeout", TimeoutError),
        ("StorageIOError", errors.TransferError),
        ("ChecksumError", errors.TransferError),
        ("TransferTimeout", errors.TransferError),
        *((name, FlexKVError) for name in errors.__all__),
    ],
)
def test_each_error_derives_from_its_place_in_the_tree(name: str, base: type[Exception]) -> None:
    assert issubclass(getattr(errors, name), base)


@pytest.mark.parametrize("name", errors.__all__)
def test_the_text_is_the_message_and_context_is_in_attributes(name: str) -> None:
    error = getattr(errors, name)("it broke", tier="cpu", op_id=3, path="/x", offset_bytes=8, errno=5, key="k", value=7)
    assert str(error) == "it broke"
    assert (error.tier, error.op_id, error.path, error.offset_bytes) == ("cpu", 3, "/x", 8)
    assert (error.errno, error.key, error.value) == (5, "k", 7)


def test_context_that_does_not_apply_is_none() -> None:
    error = TransferTimeout("late")
    assert (error.errno, error.graph_id, error.rank, error.task_id) == (None, None, None, None)


def test_a_storage_error_is_caught_as_os_error_with_its_errno() -> None:
    with pytest.raises(OSError, match="bad sector") as caught:
        raise StorageIOError("bad sector", errno=5)
    assert caught.value.errno == 5


def test_an_error_survives_pickling_with_its_context() -> None:
    error = pickle.loads(pickle.dumps(ConfigError("no", key="dtype", value="x")))
    assert (str(error), error.key, error.value) == ("no", "dtype", "x")
