"""FlexKVConfig: settings from file, environment and engine; a VllmConfig read by attribute; addresses; defaults."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from flexkv import _core
from flexkv.common.address import default_socket
from flexkv.common.hash_utils import weights_identity
from flexkv.errors import ConfigError
from flexkv.integration.config import FlexKVConfig, default_cpu_cache_bytes
from flexkv.integration.model_identity import engine_hash_objection

GIB = 1 << 30


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    return model


def make_vllm_config(model: object, **changes: object) -> SimpleNamespace:
    """A VllmConfig as far as it is read; `changes` are ``section__name=value``."""
    config = SimpleNamespace(
        model_config=SimpleNamespace(
            model=str(model),
            dtype="torch.float16",
            quantization=None,
            revision=None,
            hf_overrides={},
            use_mla=False,
            get_total_num_hidden_layers=lambda: 4,
            get_total_num_kv_heads=lambda: 2,
            get_head_size=lambda: 64,
        ),
        cache_config=SimpleNamespace(
            block_size=16,
            cache_dtype="auto",
            prefix_caching_hash_algo="sha256",
            prefix_match_unit=None,
            kv_cache_layout=None,
        ),
        parallel_config=SimpleNamespace(
            tensor_parallel_size=1,
            pipeline_parallel_size=1,
            data_parallel_size=1,
            decode_context_parallel_size=1,
            prefill_context_parallel_size=1,
        ),
        kv_transfer_config=SimpleNamespace(engine_id="engine-1", kv_connector_extra_config={}),
        load_config=SimpleNamespace(load_format="auto"),
        speculative_config=None,
    )
    for path, value in changes.items():
        section, _, name = path.partition("__")
        setattr(getattr(config, section), name, value)
    return config


def read(vllm_config: object, **environ: str) -> FlexKVConfig:
    return FlexKVConfig.from_env(environ).post_init_from_vllm_config(vllm_config)


def digest(vllm_config: object, **environ: str) -> str:
    return read(vllm_config, **environ).cache_config.fingerprint


def test_a_vllm_config_becomes_model_and_cache_config(model_dir: Path) -> None:
    config = read(make_vllm_config(model_dir, parallel_config__tensor_parallel_size=2), FLEXKV_CPU_CACHE_GB="2")
    model, cache = config.model_config, config.cache_config
    assert (model.num_layers, model.num_kv_heads, model.head_size, model.use_mla) == (4, 2, 64, False)
    assert (model.dtype, model.tp_size, config.num_ranks) == ("float16", 2, 2)
    assert (cache.tokens_per_block, cache.cpu_cache_bytes, cache.num_cpu_blocks) == (16, 2 * GIB, None)
    assert config.engine_hashes_usable


def test_the_config_is_filled_in_place_as_older_callers_expect(model_dir: Path) -> None:
    config = FlexKVConfig.from_env({})
    with pytest.raises(ConfigError, match="post_init_from"):
        _ = config.cache_config
    with pytest.raises(ConfigError, match="post_init_from"):
        _ = config.model_config
    assert config.post_init_from_vllm_config(make_vllm_config(model_dir)) is config
    assert config.cache_config.tokens_per_block == 16


def test_an_mla_model_has_one_latent_head(model_dir: Path) -> None:
    config = read(make_vllm_config(model_dir, model_config__use_mla=True, model_config__get_head_size=lambda: 576))
    assert (config.model_config.num_kv_heads, config.model_config.use_mla) == (1, True)
    assert config.model_config.token_size_in_bytes == 4 * 576 * 2


@pytest.mark.parametrize(("draft", "replicas"), [(None, 2), (True, 2), (False, 1)])
def test_ranks_are_replicas_unless_a_draft_model_has_heads(model_dir: Path, draft: bool | None, replicas: int) -> None:
    config = make_vllm_config(
        model_dir, model_config__use_mla=True, parallel_config__tensor_parallel_size=2, load_config__load_format="dummy"
    )
    if draft is not None:
        described = SimpleNamespace(use_mla=draft, model=str(model_dir))
        config.speculative_config = SimpleNamespace(draft_model_config=described)
    assert read(config).model_config.replicas == replicas


@pytest.mark.parametrize(
    ("cache_dtype", "dtype"), [("auto", "float16"), ("bfloat16", "bfloat16"), ("fp8", "uint8"), ("nvfp4", "uint8")]
)
def test_the_dtype_is_that_of_the_cache(model_dir: Path, cache_dtype: str, dtype: str) -> None:
    assert read(make_vllm_config(model_dir, cache_config__cache_dtype=cache_dtype)).model_config.dtype == dtype


def test_later_sources_win(model_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "flexkv.json"
    path.write_text(json.dumps({"cpu_cache_gb": 1, "evict_ratio": 0.1, "copy_threads": 3}))
    options = {"num_cpu_blocks": 77}
    config = read(
        make_vllm_config(model_dir, kv_transfer_config__kv_connector_extra_config=options),
        FLEXKV_CONFIG_PATH=str(path),
        FLEXKV_EVICT_RATIO="0.2",
        FLEXKV_CPU_CACHE_GB="2",
    )
    cache = config.cache_config
    assert (cache.evict_ratio, cache.copy_threads, cache.num_cpu_blocks, cache.cpu_cache_bytes) == (0.2, 3, 77, None)


def test_other_variables_of_the_environment_are_not_ours(model_dir: Path) -> None:
    assert read(make_vllm_config(model_dir), PATH="/bin", MY_FLEXKV_X="1").cache_config.tokens_per_block == 16


def test_the_ssd_tier_is_on_when_a_directory_and_a_size_are_set(model_dir: Path) -> None:
    off = read(make_vllm_config(model_dir))
    assert (off.cache_config.enable_ssd, off.ssd_pipelined_loads) == (False, False)
    environ = {
        "FLEXKV_SSD_CACHE_DIR": "/a; /b",
        "FLEXKV_SSD_CACHE_GB": "1.5",
        "FLEXKV_SSD_IO_ENGINE": "threads",
        "FLEXKV_SSD_WRITE_QUEUE_S": "0.5",
        "FLEXKV_SSD_STAGE_TIMEOUT_S": "3",
        "FLEXKV_SSD_PIPELINED_LOADS": "1",
    }
    config = read(make_vllm_config(model_dir), **environ)
    cache = config.cache_config
    assert (cache.enable_ssd, cache.ssd_cache_dir) == (True, ("/a", "/b"))
    assert (cache.ssd_cache_bytes, cache.num_ssd_blocks) == (3 << 29, None)
    assert (cache.ssd_io_engine, cache.ssd_write_queue_s, cache.ssd_stage_timeout_s) == ("threads", 0.5, 3.0)
    assert config.ssd_pipelined_loads
    assert config.fingerprint is not None
    assert cache.model_name == config.fingerprint.weights


def test_an_ssd_tier_may_be_sized_in_blocks_and_another_size_replaces_it(model_dir: Path) -> None:
    environ = {"FLEXKV_SSD_CACHE_DIR": "/a", "FLEXKV_NUM_SSD_BLOCKS": "7"}
    cache = read(make_vllm_config(model_dir), **environ).cache_config
    assert (cache.num_ssd_blocks, cache.ssd_cache_bytes) == (7, None)
    options = {"ssd_cache_bytes": "1MiB"}
    vllm_config = make_vllm_config(model_dir, kv_transfer_config__kv_connector_extra_config=options)
    cache = read(vllm_config, **environ).cache_config
    assert (cache.num_ssd_blocks, cache.ssd_cache_bytes) == (None, 1 << 20)


@pytest.mark.parametrize(
    "environ",
    [
        {"FLEXKV_SSD_CACHE_DIR": "/a", "FLEXKV_SSD_CACHE_GB": "1", "FLEXKV_ENABLE_SSD": "0"},
        {"FLEXKV_SSD_CACHE_GB": "0"},
        {"FLEXKV_ENABLE_SSD": "0"},
    ],
)
def test_the_ssd_tier_may_be_switched_off(model_dir: Path, environ: dict[str, str]) -> None:
    assert not read(make_vllm_config(model_dir), **environ).cache_config.enable_ssd


BAD_SETTINGS: list[tuple[dict[str, str], dict[str, object], str]] = [
    ({"FLEXKV_CPU_CACHE": "1"}, {}, "environment: .*FLEXKV_CPU_CACHE_"),
    ({"FLEXKV_SSD_CACHE_GB": "100"}, {}, "ssd_cache_gb is set and ssd_cache_dir is not; name a directory"),
    ({"FLEXKV_ENABLE_SSD": "1"}, {}, "enable_ssd is set and ssd_cache_dir is not"),
    ({"FLEXKV_SSD_CACHE_DIR": "/a;/b"}, {}, "ssd_cache_dir is '/a;/b' and no size is set; .*ssd_cache_gb=100"),
    ({"FLEXKV_SSD_CACHE_DIR": "/a", "FLEXKV_SSD_CACHE_GB": "0"}, {}, "no size is set"),
    ({"FLEXKV_SSD_CACHE_DIR": "/a", "FLEXKV_SSD_CACHE_GB": "1", "FLEXKV_NUM_SSD_BLOCKS": "5"}, {}, "give one size"),
    ({"FLEXKV_SSD_CACHE_DIR": "/a;/a", "FLEXKV_SSD_CACHE_GB": "1"}, {}, "a directory is named twice"),
    ({"FLEXKV_SSD_IO_ENGINE": "magic"}, {}, "ssd_io_engine is 'magic'"),
    ({"FLEXKV_REMOTE_CACHE_DIR": "/a"}, {}, "FLEXKV_REMOTE_CACHE_DIR is '/a'; this version has the CPU and SSD"),
    ({"FLEXKV_ENABLE_LAYERWISE_TRANSFER": "perhaps"}, {}, "use 1 or 0"),
    ({"FLEXKV_CPU_CACHE_GB": "0"}, {}, "cpu_cache_gb is 0"),
    ({"FLEXKV_CPU_CACHE_GB": "1", "FLEXKV_NUM_CPU_BLOCKS": "5"}, {}, "give one of them"),
    ({"FLEXKV_EVICTION_POLICY": "magic"}, {}, "eviction_policy is 'magic'"),
    ({"FLEXKV_KEY_FILE": "/nowhere/key"}, {}, "key_file '/nowhere/key' cannot be read"),
    ({"FLEXKV_CONFIG_PATH": "/nowhere/flexkv.json"}, {}, "FLEXKV_CONFIG_PATH"),
    ({"FLEXKV_GPU_REGISTER_PORT": "tcp://127.0.0.1:1"}, {}, "Unix socket"),
    ({}, {"cpu_cache": 1}, "kv_connector_extra_config: .*did you mean"),
    ({}, {"config_path": "/a.json"}, "FLEXKV_CONFIG_PATH in the environment"),
]


@pytest.mark.parametrize(("environ", "options", "message"), BAD_SETTINGS)
def test_a_bad_setting_is_one_config_error(
    model_dir: Path, environ: dict[str, str], options: dict[str, object], message: str
) -> None:
    vllm_config = make_vllm_config(model_dir, kv_transfer_config__kv_connector_extra_config=options)
    with pytest.raises(ConfigError, match=message):
        read(vllm_config, **environ)


@pytest.mark.parametrize(
    ("change", "value", "message"),
    [
        ("parallel_config__data_parallel_size", 2, "data_parallel_size is 2"),
        ("parallel_config__decode_context_parallel_size", 2, "decode_context_parallel_size is 2"),
        ("parallel_config__prefill_context_parallel_size", 2, "prefill_context_parallel_size is 2"),
        ("cache_config__block_size", 48, "tokens_per_block is 48; use a power of two"),
        ("cache_config__block_size", None, "block_size is None"),
        ("model_config__dtype", "complex128", "dtype is 'complex128'"),
    ],
)
def test_an_engine_this_version_cannot_serve_is_refused_by_name(
    model_dir: Path, change: str, value: object, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read(make_vllm_config(model_dir, **{change: value}))


def test_an_engine_without_an_attribute_is_not_supported(model_dir: Path) -> None:
    vllm_config = make_vllm_config(model_dir)
    del vllm_config.model_config.use_mla
    with pytest.raises(ConfigError, match="has no use_mla; this version of the engine is not supported"):
        read(vllm_config)


def test_the_weights_are_named_by_tag_files_or_hub_commit(model_dir: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    hub = make_vllm_config("org/model", model_config__hf_config=SimpleNamespace(_commit_hash=commit))
    pinned = make_vllm_config("org/model", model_config__revision=commit)
    cases: list[tuple[object, dict[str, str], str]] = [
        (make_vllm_config(model_dir), {}, f"files:{weights_identity(model_dir)}"),
        (make_vllm_config(model_dir), {"FLEXKV_MODEL_TAG": "mine"}, "tag:mine"),
        (hub, {}, f"hub:org/model@{commit}"),
        (pinned, {}, f"hub:org/model@{commit}"),
    ]
    for vllm_config, environ, name in cases:
        fingerprint = read(vllm_config, **environ).fingerprint
        assert fingerprint is not None
        assert fingerprint.weights == name


UNKNOWN_WEIGHTS: dict[str, Callable[[Path], SimpleNamespace]] = {
    "random weights": lambda path: make_vllm_config(path, load_config__load_format="dummy"),
    "a function as override": lambda path: make_vllm_config(path, model_config__hf_overrides=lambda config: config),
    "a hub model without commit": lambda _: make_vllm_config("org/model", model_config__revision="main"),
    "a directory without weights": lambda path: make_vllm_config(path.parent),
}


@pytest.mark.parametrize("what", UNKNOWN_WEIGHTS)
def test_weights_that_cannot_be_identified_are_private_to_the_process(
    model_dir: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    vllm_config = UNKNOWN_WEIGHTS[what](model_dir)
    assert digest(vllm_config) != digest(vllm_config)
    assert "FLEXKV_MODEL_TAG" in caplog.text
    assert digest(vllm_config, FLEXKV_MODEL_TAG="a") == digest(vllm_config, FLEXKV_MODEL_TAG="a")


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("model_config__dtype", "torch.bfloat16"),
        ("model_config__quantization", "awq"),
        ("model_config__quantization_config", {"bits": 4}),
        ("model_config__hf_overrides", {"rope_theta": 1e6}),
        ("model_config__hf_config_path", "/other"),
        ("cache_config__cache_dtype", "fp8"),
        ("cache_config__block_size", 32),
        ("cache_config__kv_cache_layout", "LBHNC"),
        ("cache_config__kv_cache_dtype_skip_layers", ["0"]),
        ("parallel_config__tensor_parallel_size", 2),
        ("parallel_config__pipeline_parallel_size", 2),
    ],
)
def test_what_changes_the_bytes_of_a_block_changes_the_fingerprint(model_dir: Path, change: str, value: object) -> None:
    assert digest(make_vllm_config(model_dir)) == digest(make_vllm_config(model_dir))
    assert digest(make_vllm_config(model_dir)) != digest(make_vllm_config(model_dir, **{change: value}))


def test_a_draft_model_is_part_of_the_fingerprint(model_dir: Path) -> None:
    draft = SimpleNamespace(draft_model_config=SimpleNamespace(model=str(model_dir)))
    with_draft = make_vllm_config(model_dir)
    with_draft.speculative_config = draft
    assert digest(with_draft) != digest(make_vllm_config(model_dir))
    assert digest(with_draft) == digest(with_draft)


def test_both_roles_derive_the_same_addresses_from_the_engine_id(model_dir: Path) -> None:
    one, other = read(make_vllm_config(model_dir)), read(make_vllm_config(model_dir))
    assert one.server_recv_port == other.server_recv_port == default_socket("engine-1")
    assert one.gpu_register_port == f"{one.server_recv_port}_gpu_register"
    stranger = read(make_vllm_config(model_dir, kv_transfer_config__engine_id="engine-2"))
    assert stranger.gpu_register_port != one.gpu_register_port


def test_addresses_can_be_given(model_dir: Path) -> None:
    config = read(make_vllm_config(model_dir), FLEXKV_SERVER_RECV_PORT="ipc:///run/x")
    assert (config.server_recv_port, config.gpu_register_port) == ("ipc:///run/x", "ipc:///run/x_gpu_register")
    config = read(
        make_vllm_config(model_dir), FLEXKV_SERVER_RECV_PORT="ipc:///run/x", FLEXKV_GPU_REGISTER_PORT="/run/y"
    )
    assert config.gpu_register_port == "/run/y"


@pytest.mark.parametrize(
    ("headroom_bytes", "expected"),
    [(4 * GIB, GIB), (1 << 40, 16 * GIB), (1000, 64 << 20), (4 * GIB + 5, GIB), ((1 << 64) - 1, 16 * GIB)],
)
def test_the_default_size_is_a_quarter_of_the_headroom_within_bounds(
    monkeypatch: pytest.MonkeyPatch, headroom_bytes: int, expected: int
) -> None:
    monkeypatch.setattr(_core, "memory_headroom", lambda: headroom_bytes)
    assert default_cpu_cache_bytes() == expected


def test_the_chosen_size_is_stated_in_the_log(model_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "flexkv"):
        config = read(make_vllm_config(model_dir))
    assert f"cpu_cache_bytes={config.cache_config.cpu_cache_bytes}" in caplog.text
    assert "FLEXKV_CPU_CACHE_GB" in caplog.text


@pytest.mark.parametrize("algorithm", ["sha256", "sha256_cbor"])
def test_cryptographic_hashes_with_a_fixed_seed_are_used(algorithm: str) -> None:
    assert engine_hash_objection(algorithm, 16, None) == ""
    assert engine_hash_objection(algorithm, 16, 16) == ""


@pytest.mark.parametrize("algorithm", ["xxhash", "xxhash_cbor", "builtin", ""])
def test_other_hashes_are_refused_with_what_to_use(model_dir: Path, algorithm: str) -> None:
    assert "use sha256 or sha256_cbor" in engine_hash_objection(algorithm, 16, None)
    config = read(make_vllm_config(model_dir, cache_config__prefix_caching_hash_algo=algorithm))
    assert not config.engine_hashes_usable
    assert algorithm in config.engine_hash_objection


def test_hashes_that_are_not_one_per_block_are_refused(model_dir: Path) -> None:
    config = read(make_vllm_config(model_dir, cache_config__prefix_match_unit=8))
    assert not config.engine_hashes_usable
    assert "prefix_match_unit" in config.engine_hash_objection


def test_an_sglang_config_becomes_model_and_cache_config(model_dir: Path) -> None:
    sglang_config = SimpleNamespace(
        model_path=str(model_dir),
        num_hidden_layers=3,
        head_dim=32,
        dtype="torch.bfloat16",
        get_total_num_kv_heads=lambda: 8,
    )
    config = FlexKVConfig.from_env({}).post_init_from_sglang_config(sglang_config, 2, 64)
    assert (config.model_config.num_layers, config.model_config.num_kv_heads, config.model_config.tp_size) == (3, 8, 2)
    assert config.cache_config.tokens_per_block == 64
    assert not config.engine_hashes_usable


def test_the_log_level_of_a_file_is_set(tmp_path: Path, model_dir: Path) -> None:
    logger = logging.getLogger("flexkv")
    before = logger.level
    path = tmp_path / "flexkv.json"
    path.write_text('{"log_level": "error"}')
    try:
        read(make_vllm_config(model_dir), FLEXKV_CONFIG_PATH=str(path))
        assert logger.level == logging.ERROR
    finally:
        logger.setLevel(before)
