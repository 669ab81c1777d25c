"""A block's identity, against hashlib: keys byte by byte, roots that never meet, fingerprints, key files."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexkv.common import hash_utils
from flexkv.common.hash_utils import (
    hash_blocks,
    load_key_file,
    mix,
    mix_one,
    model_fingerprint,
    root_key,
    weights_identity,
)
from flexkv.errors import ConfigError

TOKENS = st.lists(st.integers(0, (1 << 32) - 1), max_size=70)
NAMESPACES = st.none() | st.lists(st.text(max_size=4), max_size=4)
SECRET = bytes(range(32))


def chained_oracle(tokens: list[int], tokens_per_block: int, parent: bytes) -> list[bytes]:
    keys = []
    for start in range(0, len(tokens) - tokens_per_block + 1, tokens_per_block):
        block = tokens[start : start + tokens_per_block]
        parent = hashlib.sha256(struct.pack(f"<{tokens_per_block}I", *block) + parent).digest()[:16]
        keys.append(parent)
    return keys


def root_oracle(fingerprint: bytes, namespace: list[str] | None, group: int, tokens_per_block: int) -> bytes:
    parts = [part.encode() for part in namespace or []]
    message = b"flexkv-root\0" + struct.pack("<III", 1, tokens_per_block, group)
    message += struct.pack("<Q", len(fingerprint)) + fingerprint + struct.pack("<Q", len(parts))
    return message + b"".join(struct.pack("<Q", len(part)) + part for part in parts)


@given(TOKENS, st.sampled_from([1, 2, 4, 8, 16, 32, 64]), st.binary(min_size=16, max_size=16))
def test_token_keys_are_the_chained_truncated_hash_of_each_whole_block(
    tokens: list[int], tokens_per_block: int, parent: bytes
) -> None:
    keys = hash_blocks(np.array(tokens, dtype=np.int64), tokens_per_block, parent)
    expected = chained_oracle(tokens, tokens_per_block, parent)
    assert keys.dtype == np.uint8
    assert keys.shape == (len(expected), 16)
    assert [key.tobytes() for key in keys] == expected


@given(st.integers(1, 39).flatmap(lambda w: st.lists(st.binary(min_size=w, max_size=w), max_size=9)), st.data())
def test_mixed_keys_are_the_hash_of_root_and_engine_hash(hashes: list[bytes], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(hashes)))
    root = data.draw(st.binary(min_size=16, max_size=16))
    expected = [hashlib.sha256(root + value).digest()[:16] for value in hashes[start:]]
    for given_hashes in (hashes, tuple(hashes)):
        assert [key.tobytes() for key in mix(given_hashes, root, start)] == expected
        assert [mix_one(bytes(one), root) for one in given_hashes[start:]] == expected


def test_keys_of_format_version_1_never_change() -> None:
    root = root_key(b"fingerprint", ["tenant", "salt"], 0, 4)
    assert root.hex() == "baae3e2fe326b5adebcebaa244f8e53a"
    keys = hash_blocks(np.arange(8, dtype=np.int64), 4, root)
    assert keys[1].tobytes().hex() == "cdb769a8e359e826e7a606ace9ecdc97"
    assert mix_one(bytes(32), root).hex() == "d2e80e5ab048b95d653aaa0fb4a5946b"
    assert mix([bytes(32)], root)[0].tobytes().hex() == "d2e80e5ab048b95d653aaa0fb4a5946b"


@pytest.mark.parametrize(
    ("engine_hash", "root"), [(b"", bytes(16)), (bytes(40), bytes(16)), (bytes(8), b""), ("x", bytes(16))]
)
def test_one_hash_that_cannot_be_mixed_is_refused(engine_hash: bytes, root: bytes) -> None:
    with pytest.raises(ValueError, match="block hash or its root"):
        mix_one(engine_hash, root)


@given(st.binary(max_size=40), NAMESPACES, st.integers(0, 255), st.sampled_from([1, 16, 128]))
def test_the_root_is_the_documented_message_hashed(
    fingerprint: bytes, namespace: list[str] | None, group: int, tokens_per_block: int
) -> None:
    message = root_oracle(fingerprint, namespace, group, tokens_per_block)
    assert root_key(fingerprint, namespace, group, tokens_per_block) == hashlib.sha256(message).digest()[:16]
    keyed = hmac.new(SECRET, message, hashlib.sha256).digest()[:16]
    assert root_key(fingerprint, namespace, group, tokens_per_block, SECRET) == keyed


@given(*[st.tuples(st.binary(max_size=3), NAMESPACES, st.integers(0, 1), st.sampled_from([1, 2]))] * 2)
def test_different_inputs_never_share_a_root(
    one: tuple[bytes, list[str] | None, int, int], other: tuple[bytes, list[str] | None, int, int]
) -> None:
    same = (one[0], one[1] or [], *one[2:]) == (other[0], other[1] or [], *other[2:])
    assert (root_key(*one) == root_key(*other)) == same


@pytest.mark.parametrize(
    ("one", "other"),
    [(["a", "b"], ["b", "a"]), (["ab"], ["a", "b"]), ([""], []), (["a", ""], ["a"]), (["a\0b"], ["a", "b"])],
)
def test_order_and_boundaries_of_a_namespace_matter(one: list[str], other: list[str]) -> None:
    assert root_key(b"", one, 0, 16) != root_key(b"", other, 0, 16)


def test_no_namespace_and_an_empty_one_are_the_same() -> None:
    assert root_key(b"f", None, 0, 16) == root_key(b"f", [], 0, 16) == root_key(b"f", (), 0, 16)


@pytest.mark.parametrize("namespace", ["tenant", b"tenant", [1], ["a", None], {"a": 1}, 7, ["\ud800"]])
def test_a_namespace_that_is_no_list_of_strings_is_refused_by_name(namespace: object) -> None:
    with pytest.raises(ValueError, match="namespace"):
        root_key(b"", namespace, 0, 16)  # type: ignore[arg-type]


@pytest.mark.parametrize(("group", "tokens_per_block"), [(-1, 16), (1 << 32, 16), (0, -1), (0, 1 << 32)])
def test_a_number_out_of_range_is_refused_by_name(group: int, tokens_per_block: int) -> None:
    with pytest.raises(ValueError, match=r"group|tokens_per_block"):
        root_key(b"", None, group, tokens_per_block)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="secret has 3 bytes"):
        root_key(b"", None, 0, 16, b"abc")


def make_key_file(path: Path, content: bytes = SECRET, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_key_file_that_only_its_owner_reads_is_the_secret(tmp_path: Path) -> None:
    assert load_key_file(make_key_file(tmp_path / "key")) == SECRET


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_file_that_others_may_use_is_refused_with_the_command_that_helps(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match="chmod 600"):
        load_key_file(make_key_file(tmp_path / "key", mode=mode))


@pytest.mark.parametrize("size", [0, 15, 4097])
def test_a_key_file_of_impossible_size_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(ConfigError, match="16 to 4096 bytes"):
        load_key_file(make_key_file(tmp_path / "key", bytes(size)))


def test_a_key_file_that_is_missing_or_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(ConfigError, match="key_file") as caught:
            load_key_file(path)
        assert caught.value.path == str(path)


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"layers": 2}')
    (model / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    (model / "model-00001.safetensors").write_bytes(b"weights")
    (model / "README.md").write_text("about")
    os.utime(model / "model-00001.safetensors", ns=(10**18, 10**18))
    return model


def change_config(model: Path) -> None:
    (model / "config.json").write_text('{"layers": 3}')


def change_index(model: Path) -> None:
    (model / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b"}}')


def change_weights_time(model: Path) -> None:
    os.utime(model / "model-00001.safetensors", ns=(10**18, 10**18 + 1))


def change_weights_size(model: Path) -> None:
    (model / "model-00001.safetensors").write_bytes(b"weights!")
    os.utime(model / "model-00001.safetensors", ns=(10**18, 10**18))


def rename_weights(model: Path) -> None:
    (model / "model-00001.safetensors").rename(model / "model-00002.safetensors")


def add_model_code(model: Path) -> None:
    (model / "modeling.py").write_text("")


@pytest.mark.parametrize(
    "change",
    [change_config, change_index, change_weights_time, change_weights_size, rename_weights, add_model_code],
)
def test_any_change_of_the_weights_changes_their_identity(model_dir: Path, change: object) -> None:
    before = weights_identity(model_dir)
    assert callable(change)
    change(model_dir)
    assert weights_identity(model_dir) != before


def test_what_is_no_weight_does_not_change_the_identity(model_dir: Path) -> None:
    before = weights_identity(model_dir)
    (model_dir / "README.md").write_text("more")
    (model_dir / "subdirectory").mkdir()
    assert weights_identity(model_dir) == before


def test_an_identity_does_not_depend_on_where_the_directory_is(model_dir: Path, tmp_path: Path) -> None:
    before = weights_identity(model_dir)
    moved = model_dir.rename(tmp_path / "moved")
    assert weights_identity(moved) == before


def test_links_as_in_a_hub_snapshot_are_followed(model_dir: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in model_dir.iterdir():
        (snapshot / file.name).symlink_to(file)
    assert weights_identity(snapshot) == weights_identity(model_dir)


def test_one_file_has_an_identity_of_its_own(model_dir: Path) -> None:
    file = model_dir / "model-00001.safetensors"
    before = weights_identity(file)
    change_weights_time(model_dir)
    assert weights_identity(file) != before


def test_a_path_without_weights_is_refused_and_the_tag_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigError, match="FLEXKV_MODEL_TAG"):
            weights_identity(path)


FIELDS: dict[str, object] = {
    "weights": "tag:other",
    "tokens_per_block": 32,
    "quantization": {"method": "fp8"},
    "overrides": {"rope_theta": 1e6},
    "compute_dtype": "float32",
    "kv_dtype": "fp8",
    "kv_scales": [1.0, 2.0],
    "layout_tag": "LBHNC",
    "tp_size": 2,
    "pp_size": 2,
    "cp_size": 2,
    "shard_id": "0",
}


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_of_the_fingerprint_changes_its_digest(name: str) -> None:
    base: dict[str, object] = {"weights": "tag:a", "tokens_per_block": 16}
    one = model_fingerprint(**base)  # type: ignore[arg-type]
    other = model_fingerprint(**{**base, name: FIELDS[name]})  # type: ignore[arg-type]
    assert one.digest != other.digest
    assert len(one.digest) == 32


def test_the_digest_is_the_hash_of_canonical_json_of_the_fields() -> None:
    fingerprint = model_fingerprint(weights="tag:ä", tokens_per_block=16, overrides={"b": 1, "a": 2})
    assert fingerprint.overrides == '{"a":2,"b":1}'
    fields = {name: getattr(fingerprint, name) for name in fingerprint.__slots__}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    assert fingerprint.digest == hashlib.sha256(text.encode()).digest()
    assert fingerprint.hash_format_version == hash_utils.HASH_FORMAT_VERSION


@pytest.mark.parametrize("value", [object(), float("nan"), b"bytes"])
def test_what_json_cannot_hold_is_refused_by_name(value: object) -> None:
    with pytest.raises(ConfigError, match="quantization"):
        model_fingerprint(weights="tag:a", tokens_per_block=16, quantization=value)


def test_weights_without_a_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="weights is empty"):
        model_fingerprint(weights="", tokens_per_block=16)
