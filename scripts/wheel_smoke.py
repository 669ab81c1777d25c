"""Tries an installed flexkv: its files, its native core, and a round trip of random KV blocks, compared byte by byte.

    python -I wheel_smoke.py VENV     VENV: the environment that flexkv must come from

Run by scripts/wheel_smoke.sh in an environment that has the wheel and what it depends on, and nothing else.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import files, version
from pathlib import Path

import numpy as np

import flexkv
from flexkv import CacheConfig, KVManager, KVResponseStatus, ModelConfig, _core
from flexkv.server.client import KVTPClient

NUM_LAYERS, NUM_BLOCKS, TOKENS_PER_BLOCK, NUM_HEADS, HEAD_SIZE = 3, 64, 16, 2, 32
STORED_BLOCKS = 24  # of the prompt: blocks 0..23 before, 40..63 after
LOADED_AT = 40
POISON = 0xA5
TIMEOUT_S = 30.0

EXPECTED = (
    "__init__.py",
    "py.typed",
    "_core.pyi",
    "kvmanager.py",
    "cli/main.py",
    "integration/vllm/vllm_v1_adapter.py",
)
EXPECTED_LICENCES = {"LICENSE", "nanobind.txt", "robin-map.txt"}


def require(holds: bool, what: str) -> None:
    """End the program with `what` unless it holds; an assert would go with -O."""
    if not holds:
        sys.exit(f"wheel-smoke: {what}")


def check_files(venv: Path) -> int:
    """Check what was installed; return the number of files."""
    home = Path(flexkv.__file__).resolve()
    require(home.is_relative_to(venv.resolve()), f"flexkv comes from {home}, not from {venv}")
    core = Path(_core.__file__).resolve()
    require(core.parent == home.parent, f"flexkv._core comes from {core}")
    installed = [path.as_posix() for path in files("flexkv") or []]
    package = {name.removeprefix("flexkv/") for name in installed if name.startswith("flexkv/")}
    missing = [name for name in EXPECTED if name not in package]
    require(not missing, f"not installed: {missing}")
    strangers = [name for name in installed if not name.startswith(("flexkv/", "flexkv-"))]
    strangers = [name for name in strangers if not name.endswith("/bin/flexkv")]  # the command
    require(not strangers, f"installed outside the package: {strangers}")
    wrong = [name for name in package if not name.endswith((".py", ".pyi", ".so", ".pyc", "py.typed"))]
    require(not wrong, f"files that a wheel should not have: {wrong}")
    licences = {Path(name).name for name in installed if "/licenses/" in name}
    require(licences == EXPECTED_LICENCES, f"licences are {sorted(licences)}, not {sorted(EXPECTED_LICENCES)}")
    return len(installed)


def check_command(venv: Path) -> None:
    """Run the `flexkv` command as a user does."""
    ran = subprocess.run([venv / "bin" / "flexkv", "--version"], capture_output=True, text=True, check=False)
    require(ran.stdout.strip() == f"flexkv {version('flexkv')}", f"flexkv --version says {ran.stdout + ran.stderr!r}")


def round_trip() -> int:
    """Store random blocks, poison the device, load them elsewhere, compare; return the bytes compared."""
    rng = np.random.default_rng()
    model = ModelConfig(num_layers=NUM_LAYERS, num_kv_heads=NUM_HEADS, head_size=HEAD_SIZE, dtype="float32")
    shape = (2, NUM_BLOCKS, TOKENS_PER_BLOCK, NUM_HEADS, HEAD_SIZE)
    kv = {f"layer.{i}": np.zeros(shape, dtype=np.float32) for i in range(NUM_LAYERS)}
    for layer in kv.values():
        layer.view(np.uint8)[:] = rng.integers(0, 256, layer.view(np.uint8).shape, dtype=np.uint8)
    wanted = {name: layer[:, :STORED_BLOCKS].tobytes() for name, layer in kv.items()}
    manager = KVManager(model, CacheConfig(tokens_per_block=TOKENS_PER_BLOCK, num_cpu_blocks=128))
    manager.start()
    worker = KVTPClient(manager.gpu_register_port, tokens_per_block=TOKENS_PER_BLOCK)
    try:
        worker.register_to_server(kv)
        require(manager.wait_ready(TIMEOUT_S), "the cache did not get ready")
        num_tokens = STORED_BLOCKS * TOKENS_PER_BLOCK
        tokens = rng.integers(0, 150_000, num_tokens)
        stored = manager.put_async(tokens, slot_mapping=np.arange(num_tokens))
        status = manager.wait(stored, timeout=TIMEOUT_S)[stored].status
        require(status is KVResponseStatus.SUCCESS, f"the store ended as {status}")
        for layer in kv.values():  # the engine drops its blocks
            layer.view(np.uint8)[:] = POISON
        task, mask = manager.get_match(tokens)
        require(bool(mask.all()), f"{int(mask.sum())} of {num_tokens} tokens are held")
        manager.launch(task, [np.arange(num_tokens) + LOADED_AT * TOKENS_PER_BLOCK])
        status = manager.wait(task, timeout=TIMEOUT_S)[task].status
        require(status is KVResponseStatus.SUCCESS, f"the load ended as {status}")
        for name, layer in kv.items():
            require(layer[:, LOADED_AT:].tobytes() == wanted[name], f"{name} came back different")
            rest = layer[:, :LOADED_AT].view(np.uint8)
            require(bool((rest == POISON).all()), f"{name}: the load wrote outside its blocks")
        other = manager.get_match(rng.integers(0, 150_000, num_tokens))[1]
        require(not other.any(), "a prompt never stored is held")
    finally:
        worker.shutdown()
        manager.shutdown()
    return sum(len(data) for data in wanted.values())


def main() -> None:
    """Check everything and print one line."""
    num_files = check_files(Path(sys.argv[1]))
    check_command(Path(sys.argv[1]))
    num_bytes = round_trip()
    print(f"wheel-smoke: flexkv {version('flexkv')}: {num_files} files, {num_bytes} bytes came back as they were")


if __name__ == "__main__":
    main()
