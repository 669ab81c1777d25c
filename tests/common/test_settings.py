"""The one parser for files, the environment and engine options."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexkv.common.settings import CONFIG_KEYS, load_config_file, parse_config, parse_size
from flexkv.errors import ConfigError


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (16, 16 << 30),
        (0.5, 1 << 29),
        ("16", 16 << 30),
        ("1.5", 3 << 29),
        ("16GiB", 16 << 30),
        ("16 gib", 16 << 30),
        ("2GB", 2 * 10**9),
        ("512 MiB", 512 << 20),
        ("1e3 B", 1000),
        ("1TiB", 1 << 40),
        (0, 0),
    ],
)
def test_a_size_is_a_number_of_its_unit_or_carries_one(value: object, size: int) -> None:
    assert parse_size("cpu_cache_gb", value, 1 << 30) == size


@pytest.mark.parametrize(
    "value", ["", "much", "-1", "16 parsecs", "1..5", True, None, -1, float("nan"), float("inf"), "1e300", [1]]
)
def test_what_is_no_size_is_refused_by_name(value: object) -> None:
    with pytest.raises(ConfigError, match="cpu_cache_gb is"):
        parse_size("cpu_cache_gb", value)


@given(st.text(max_size=12))
def test_no_text_makes_the_size_parser_fail_in_another_way(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert parse_size("k", text) >= 0


def test_keys_have_one_name_in_files_and_in_the_environment() -> None:
    expected = {"cpu_cache_gb": 2 << 30, "evict_ratio": 0.1, "enable_metrics": True, "log_level": "DEBUG"}
    assert (
        parse_config({"cpu_cache_gb": 2, "evict_ratio": 0.1, "enable_metrics": True, "log_level": "debug"}, "file")
        == expected
    )
    environment: dict[str, object] = {
        "FLEXKV_CPU_CACHE_GB": "2",
        "FLEXKV_EVICT_RATIO": "0.1",
        "FLEXKV_ENABLE_METRICS": "1",
        "FLEXKV_LOG_LEVEL": "DEBUG",
    }
    assert parse_config(environment, "environment") == expected


def test_the_ssd_tier_is_set_by_these_keys() -> None:
    environment: dict[str, object] = {
        "FLEXKV_ENABLE_SSD": "1",
        "FLEXKV_SSD_CACHE_DIR": "/mnt/nvme0;/mnt/nvme1",
        "FLEXKV_SSD_CACHE_GB": "1.5",
        "FLEXKV_SSD_CACHE_BYTES": "2GiB",
        "FLEXKV_NUM_SSD_BLOCKS": "7",
        "FLEXKV_SSD_IO_ENGINE": "threads",
        "FLEXKV_SSD_WRITE_QUEUE_S": "0.5",
        "FLEXKV_SSD_STAGE_TIMEOUT_S": "3",
        "FLEXKV_SSD_PIPELINED_LOADS": "yes",
    }
    assert parse_config(environment, "environment") == {
        "enable_ssd": True,
        "ssd_cache_dir": "/mnt/nvme0;/mnt/nvme1",
        "ssd_cache_gb": 3 << 29,
        "ssd_cache_bytes": 2 << 30,
        "num_ssd_blocks": 7,
        "ssd_io_engine": "threads",
        "ssd_write_queue_s": 0.5,
        "ssd_stage_timeout_s": 3.0,
        "ssd_pipelined_loads": True,
    }


@pytest.mark.parametrize(
    ("written", "near"),
    [
        ("cpu_cache_size_gb", "cpu_cache_gb"),
        ("FLEXKV_CPU_CACH_GB", "FLEXKV_CPU_CACHE_GB"),
        ("evictionpolicy", "eviction_policy"),
        ("FLEXKV_EVICT_POLICY", "FLEXKV_EVICTION_POLICY"),
        ("CPU_CACHE_GIB", "cpu_cache_gb"),
        ("enable_ss", "enable_ssd"),
        ("FLEXKV_SSD_CACHE_SIZE_GB", "FLEXKV_SSD_CACHE_GB"),
        ("enable_remot", "enable_metrics"),
        ("", "'"),
        ("zzzz", "'"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(written: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"not known; did you mean.*{near}") as caught:
        parse_config({written: 1}, "somewhere")
    assert str(caught.value).startswith("somewhere: ")
    assert caught.value.key == written


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cpu_cache_gb", "lots"),
        ("num_cpu_blocks", "1.5"),
        ("num_cpu_blocks", True),
        ("evict_ratio", "half"),
        ("evict_ratio", None),
        ("enable_metrics", "maybe"),
        ("log_level", "LOUD"),
        ("log_level", 3),
        ("eviction_policy", ""),
        ("model_tag", "  "),
        ("server_recv_port", "tcp://0.0.0.0:5555"),
        ("gpu_register_port", "relative/path"),
        ("key_file", 7),
        ("ssd_cache_gb", "a lot"),
        ("ssd_cache_dir", ""),
        ("num_ssd_blocks", 2.5),
        ("ssd_write_queue_s", "soon"),
        ("ssd_pipelined_loads", "perhaps"),
    ],
)
def test_an_unreadable_value_is_refused_with_source_key_and_value(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match="environment: FLEXKV_") as caught:
        parse_config({f"FLEXKV_{key.upper()}": value}, "environment")
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    "key",
    ["remote_cache_gb", "num_remote_blocks", "enable_remote", "remote_cache_dir"],
)
def test_what_this_version_lacks_may_be_set_to_off_only(key: str) -> None:
    for off in ("0", 0, False, "", "false", None):
        assert parse_config({key: off}, "file") == {}
    with pytest.raises(ConfigError, match=f"{key} is .*the CPU and SSD tiers"):
        parse_config({key: "/mnt/nvme0;/mnt/nvme1"}, "file")


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="twice"):
        parse_config({"log_level": "INFO", "FLEXKV_LOG_LEVEL": "INFO"}, "file")


@given(
    st.dictionaries(
        st.sampled_from(sorted(CONFIG_KEYS)),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    )
)
def test_every_value_is_parsed_or_refused_with_a_config_error(mapping: dict[str, object]) -> None:
    with contextlib.suppress(ConfigError):
        assert parse_config(mapping, "file").keys() <= mapping.keys()


def test_a_json_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "flexkv.json"
    path.write_text(json.dumps({"cpu_cache_gb": "1GiB", "num_remote_blocks": 0}))
    assert load_config_file(path) == {"cpu_cache_gb": 1 << 30}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="no tomllib")
def test_a_toml_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "flexkv.toml"
    path.write_text('cpu_cache_gb = "1GiB"\nenable_metrics = true\n')
    assert load_config_file(path) == {"cpu_cache_gb": 1 << 30, "enable_metrics": True}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "malformed"),
        (b"\xff\xfe", "malformed"),
        (b"cpu_cache_gb: 4", "malformed"),
        (b"[1]", "one object"),
        (b'{"config_path": "x"}', "take it out"),
        (b'{"cpu_cache": 1}', "did you mean"),
    ],
)
def test_a_bad_file_is_refused_with_its_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "flexkv.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"flexkv.json.*{message}"):
        load_config_file(path)


def test_a_missing_file_is_refused_with_the_variable_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="FLEXKV_CONFIG_PATH"):
        load_config_file(tmp_path / "missing.json")
