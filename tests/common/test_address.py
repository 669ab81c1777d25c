"""Addresses of sockets: where an engine's lies, what is no address, and how long a path may be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexkv.common.address import default_socket, own_socket, register_address, socket_path_of
from flexkv.errors import ConfigError


@pytest.mark.parametrize("address", ["ipc:///run/x", "/run/x"])
def test_an_address_names_a_path(address: str) -> None:
    assert socket_path_of(address, "port") == "/run/x"
    assert socket_path_of(register_address(address), "port") == "/run/x_gpu_register"


@pytest.mark.parametrize("address", ["", "run/x", "ipc://run/x", "tcp://0.0.0.0:5555", None, 5555, b"/run/x"])
def test_what_is_no_address_is_refused_by_name(address: object) -> None:
    with pytest.raises(ConfigError, match=r"port is .*absolute path") as refused:
        socket_path_of(address, "port")
    assert (refused.value.key, refused.value.value) == ("port", address)


def test_a_path_is_as_long_as_the_kernel_takes_it() -> None:
    longest = "/" + "\u00e9" * 53  # two bytes each
    assert socket_path_of(longest, "port") == longest
    with pytest.raises(ConfigError, match="107 bytes"):
        socket_path_of(longest + "x", "port")


def test_every_engine_of_a_process_has_a_socket_of_its_own() -> None:
    assert len({own_socket() for _ in range(3)}) == 3


def test_a_socket_lies_in_a_directory_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert default_socket("e") == f"ipc://{tmp_path}/flexkv/e.sock"
    for unusable in ("", "relative", str(tmp_path / "missing")):
        monkeypatch.setenv("XDG_RUNTIME_DIR", unusable)
        assert f"/flexkv-{os.getuid()}/e.sock" in default_socket("e")


@given(st.text(max_size=300))
def test_any_engine_id_gives_a_path_that_a_socket_can_have(engine_id: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", "")
        path = default_socket(engine_id).removeprefix("ipc://")
    assert len(os.fsencode(path)) + len("_gpu_register") <= 107
    assert "\0" not in path
    assert os.path.basename(path) not in ("..", ".")


def test_a_path_too_long_for_a_socket_is_refused_with_the_variable_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with pytest.raises(ConfigError, match="FLEXKV_SERVER_RECV_PORT"):
        default_socket("e")
