r"""A block's identity: keys of blocks, the root they chain from, and the model fingerprint. Pure functions, any thread.

Everything here is persistent format: a change of one byte asks for a new `HASH_FORMAT_VERSION`. All integers are
little-endian, ``||`` is concatenation, ``[0:16]`` the first 16 bytes.

Root: binds what all blocks of a model, namespace and group have in common. Every part has a fixed width or a length
in front, so no two different inputs give the same message::

    message =  "flexkv-root\0"            12 bytes
           ||  HASH_FORMAT_VERSION       u32
           ||  tokens_per_block          u32
           ||  group                     u32
           ||  len(fingerprint)          u64   ||  fingerprint
           ||  number of namespace parts u64
           ||  for each part:  length in bytes u64  ||  UTF-8

    root    =  SHA-256(message)[0:16]                   without a key file
    root    =  HMAC-SHA-256(key file, message)[0:16]    with one

Block key from tokens, chained (csrc/cache/hash.h)::

    key[i]  =  SHA-256( tokens of block i, each u32  ||  key[i-1] )[0:16]         key[-1] = root

Block key from an engine's own content hash, which already covers the whole prefix (w = 1..39 bytes)::

    key[i]  =  SHA-256( root || engine_hash[i] )[0:16]

Keys of the two kinds never meet in one engine: a request brings engine hashes or it does not, and an engine does
either. Should they meet, equal keys would need a 16-byte piece of an engine hash to equal the root: as hard as a
collision.

Fingerprint: SHA-256 of the canonical JSON (sorted keys, no spaces, ASCII) of `ModelFingerprint`'s fields.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import stat
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flexkv import _core
from flexkv.errors import ConfigError

__all__ = [
    "HASH_FORMAT_VERSION",
    "KEY_BYTES",
    "Keys",
    "ModelFingerprint",
    "hash_blocks",
    "load_key_file",
    "mix",
    "model_fingerprint",
    "root_key",
    "weights_identity",
]

HASH_FORMAT_VERSION = 1
KEY_BYTES = 16
MIN_SECRET_BYTES = 16
MAX_SECRET_BYTES = 4096
_ROOT_DOMAIN = b"flexkv-root\0"
_U32_LIMIT = 1 << 32

Keys = npt.NDArray[np.uint8]
"""Block keys. Shape: (n, 16)."""


def root_key(
    fingerprint: bytes,
    namespace: Sequence[str] | None,
    group: int,
    tokens_per_block: int,
    secret: bytes | None = None,
) -> bytes:
    """Return the 16-byte root of a chain. ``None`` and ``[]`` are the same namespace; the order of its parts matters.

    Raises:
        ValueError: naming the argument, for a namespace that is not a sequence of strings, or a number out of range.
    """
    for name, value in (("group", group), ("tokens_per_block", tokens_per_block)):
        if not 0 <= value < _U32_LIMIT:
            raise ValueError(f"{name} is {value}; it must be in [0, 2**32)")
    parts = _namespace_bytes(namespace)
    message = bytearray(_ROOT_DOMAIN)
    message += struct.pack("<IIIQ", HASH_FORMAT_VERSION, tokens_per_block, group, len(fingerprint))
    message += fingerprint
    message += struct.pack("<Q", len(parts))
    for part in parts:
        message += struct.pack("<Q", len(part)) + part
    if secret is None:
        return hashlib.sha256(message).digest()[:KEY_BYTES]
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"secret has {len(secret)} bytes; it needs at least {MIN_SECRET_BYTES}")
    return hmac.new(secret, message, hashlib.sha256).digest()[:KEY_BYTES]


def _namespace_bytes(namespace: Sequence[str] | None) -> list[bytes]:
    if namespace is None:
        return []
    if isinstance(namespace, (str, bytes)) or not isinstance(namespace, Sequence):
        raise ValueError(f"namespace is {namespace!r}; it must be a list of strings")
    parts = []
    for index, part in enumerate(namespace):
        if not isinstance(part, str):
            raise ValueError(f"namespace[{index}] is {part!r}; it must be a string")
        try:
            parts.append(part.encode("utf-8"))
        except UnicodeEncodeError as error:
            raise ValueError(f"namespace[{index}] is {part!r}, which has no UTF-8 form: {error.reason}") from error
    return parts


def hash_blocks(tokens: npt.NDArray[np.int64], tokens_per_block: int, parent: bytes) -> Keys:
    """Return the chained keys of the whole blocks of `tokens` (int64, 1-D, contiguous); a partial tail is ignored.

    `parent` is the root, or the key of the block before the first one. Raises ValueError naming the first token out
    of [0, 2**32).
    """
    return _core.hash_token_blocks(tokens, tokens_per_block, parent)


def mix(hashes: Sequence[bytes] | Keys, root: bytes, start: int = 0) -> Keys:
    """Return the keys of an engine's content hashes from block `start` on.

    Raises:
        ValueError: unless all are bytes of one width, 1..39.
    """
    if not isinstance(hashes, (list, tuple, np.ndarray)):  # the native code reads these without a copy
        hashes = list(hashes)
    try:
        return _core.mix_engine_hashes(hashes, root, start)
    except (TypeError, ValueError) as error:
        raise ValueError(f"block_hashes or its root cannot be used: {error}") from error


def mix_one(engine_hash: bytes, root: bytes) -> bytes:
    """Return the key of one content hash of an engine; like `mix`, a tenth of its time. Raises ValueError like it."""
    try:
        return _core.mix_engine_hash(engine_hash, root)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a block hash or its root cannot be used: {error}") from error


def load_key_file(path: str | os.PathLike[str]) -> bytes:
    """Read the secret that keys the hash: a regular file of at least 16 bytes that only its owner can read.

    Raises:
        ConfigError: naming the path and what to do.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            status = os.fstat(file.fileno())
            secret = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        message = f"key_file {name!r} cannot be read: {error.strerror}; give a readable file, or unset it"
        raise ConfigError(message, key="key_file", value=name, path=name, errno=error.errno) from error
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"key_file {name!r} is not a regular file", key="key_file", value=name, path=name)
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = stat.S_IMODE(status.st_mode)
        message = f"key_file {name!r} has mode {mode:04o}, others may use it; run: chmod 600 {name}"
        raise ConfigError(message, key="key_file", value=name, path=name)
    if not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES:
        limits = f"{MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes"
        message = f"key_file {name!r} must hold {limits}; make one with: head -c 32 /dev/urandom"
        raise ConfigError(message, key="key_file", value=name, path=name)
    return secret


_TEXT_FILES = (
    "config.json",
    "params.json",
    "adapter_config.json",
    "hf_quant_config.json",
    "quantize_config.json",
    "quant_config.json",
)
_WEIGHT_SUFFIXES = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf", ".npz", ".msgpack", ".tensors"})
_CODE_SUFFIX = ".py"


def weights_identity(path: str | os.PathLike[str]) -> str:
    """Return a digest (64 hex digits) of the weights at `path`: a model or adapter directory, or one file.

    Covers config bytes, the bytes of safetensors index files, and names, sizes and modification times of weight files
    and model code. Reads no weights: milliseconds. A copy with new times is a new identity: a miss, never wrong
    bytes.

    Raises:
        ConfigError: when the path cannot be read or holds no weights.
    """
    root = Path(path)
    texts: dict[str, str] = {}
    files: dict[str, list[int]] = {}
    try:
        entries = [root] if root.is_file() else sorted(root.iterdir())
        for entry in entries:
            if not entry.is_file():
                continue
            if entry.name in _TEXT_FILES or entry.name.endswith(".index.json"):
                texts[entry.name] = hashlib.sha256(entry.read_bytes()).hexdigest()
            elif entry.suffix in _WEIGHT_SUFFIXES or entry.suffix == _CODE_SUFFIX:
                status = entry.stat()  # follows links: a hub snapshot is a directory of links
                files[entry.name] = [status.st_size, status.st_mtime_ns]
    except OSError as error:
        message = f"weights at {os.fspath(path)!r} cannot be read: {error.strerror}; set FLEXKV_MODEL_TAG to name them"
        raise ConfigError(message, key="model", value=os.fspath(path), path=path, errno=error.errno) from error
    if not any(Path(name).suffix in _WEIGHT_SUFFIXES for name in files):
        message = (
            f"no weights found in {os.fspath(path)!r}; set FLEXKV_MODEL_TAG to a name that changes when the weights do"
        )
        raise ConfigError(message, key="model", value=os.fspath(path), path=path)
    return hashlib.sha256(_canonical_json({"texts": texts, "files": files})).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFingerprint:
    """Everything that decides what the bytes of a block mean, readable. `digest` names it."""

    weights: str
    quantization: str
    overrides: str
    compute_dtype: str
    kv_dtype: str
    kv_scales: str
    layout_tag: str
    tp_size: int
    pp_size: int
    cp_size: int
    shard_id: str
    tokens_per_block: int
    hash_format_version: int = HASH_FORMAT_VERSION

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical JSON of the fields."""
        return hashlib.sha256(_canonical_json(asdict(self))).digest()


def model_fingerprint(
    *,
    weights: str,
    tokens_per_block: int,
    quantization: object = None,
    overrides: Mapping[str, object] | None = None,
    compute_dtype: str = "",
    kv_dtype: str = "",
    kv_scales: object = None,
    layout_tag: str = "",
    tp_size: int = 1,
    pp_size: int = 1,
    cp_size: int = 1,
    shard_id: str = "all",
) -> ModelFingerprint:
    """Build the fingerprint. `weights` is a tag, an identity or a hub revision, its kind in front: ``tag:...``.

    `quantization`, `overrides` (rope and hf) and `kv_scales` are anything JSON can hold; ConfigError names the one
    that is not.
    """
    if not weights:
        raise ConfigError("weights is empty; give a tag, an identity or a revision", key="weights", value=weights)
    return ModelFingerprint(
        weights=weights,
        quantization=_json_text("quantization", quantization),
        overrides=_json_text("overrides", dict(overrides or {})),
        compute_dtype=compute_dtype,
        kv_dtype=kv_dtype,
        kv_scales=_json_text("kv_scales", kv_scales),
        layout_tag=layout_tag,
        tp_size=tp_size,
        pp_size=pp_size,
        cp_size=cp_size,
        shard_id=shard_id,
        tokens_per_block=tokens_per_block,
    )


def _json_text(name: str, value: object) -> str:
    try:
        return _canonical_json(value).decode("ascii")
    except (TypeError, ValueError) as error:
        message = f"{name} is {value!r}, which has no canonical JSON form; set FLEXKV_MODEL_TAG instead"
        raise ConfigError(message, key=name, value=value) from error


def _canonical_json(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")
