"""`vllm serve` as a process tree, for tests over HTTP: ask it, find its processes, see what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import flexkv

START_S = 240.0
STOP_S = 30.0
LIFE_S = 900  # it ends then, also when the tests were killed


def all_processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


class Stat(NamedTuple):
    """What proc(5) says of a process; nothing when it has ended."""

    name: str = ""
    parent: int = 0
    session: int = 0


def stat_of(pid: int) -> Stat:
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    except OSError:
        return Stat()
    state, parent, _group, session = rest.split()[:4]
    return Stat() if state in "ZX" else Stat(name, int(parent), int(session))


def name_of(pid: int) -> str:
    """Return a process's title, which vLLM sets."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def children(pid: int) -> list[int]:
    return [child for child in all_processes() if stat_of(child).parent == pid]


def mappings(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return ""


class Server:
    """One `vllm serve`, in its own process group; its sockets are in a directory of its own.

    timeout -> API server -> EngineCore, with FlexKV's scheduler role -> one worker per rank
    """

    def __init__(self, model: Path, log: Path, *options: str, runtime: Path | None = None) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        transfer = {
            "kv_connector": "FlexKVConnector",
            "kv_connector_module_path": "flexkv.integration.vllm.connector",
            "kv_role": "kv_both",
        }
        command = [
            "timeout", "--kill-after=5", str(LIFE_S), sys.executable, "-m", "vllm.entrypoints.cli.main",
            "serve", str(model), "--served-model-name", "tiny",
            "--host", "127.0.0.1", "--port", str(self.port), "--dtype", "float32", "--enforce-eager",
            "--max-model-len", "1024", "--block-size", "32", "--num-gpu-blocks-override", "96",
            "--enable-prompt-tokens-details", "--kv-transfer-config", json.dumps(transfer), *options,
        ]  # fmt: skip
        self.runtime = runtime or Path(tempfile.mkdtemp(prefix="fkv-"))  # short: a socket's path may have 107 bytes
        home = Path(flexkv.__file__).resolve().parents[1]  # as this process has it: installed, or the working tree
        paths = [str(home), *filter(None, [os.environ.get("PYTHONPATH")])]
        settings = {
            **os.environ,
            "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
            "VLLM_SERVER_DEV_MODE": "1",
            "VLLM_LOGGING_LEVEL": "INFO",
            "XDG_RUNTIME_DIR": str(self.runtime),
            "PYTHONPATH": os.pathsep.join(paths),
        }
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, env=settings, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, cwd=log.parent
            )
        try:
            self._await_health()
        except BaseException:
            self.kill()
            raise

    def _await_health(self) -> None:
        deadline_s = time.monotonic() + START_S
        while not self._healthy():
            assert self.process.poll() is None, f"the server ended: {self.log.read_text()[-4000:]}"
            assert time.monotonic() < deadline_s, f"not up after {START_S} s: {self.log.read_text()[-4000:]}"
            time.sleep(0.2)

    def _healthy(self) -> bool:
        try:
            self.post("/health", None, method="GET")
        except OSError:
            return False
        return True

    def post(self, path: str, body: object, method: str = "POST") -> dict[str, object]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            text = response.read()
        return json.loads(text) if text else {}

    def complete(self, prompt: list[int], **options: object) -> tuple[str, int]:
        """Return the answer and how many tokens of the prompt were cached."""
        body = {"model": "tiny", "prompt": prompt, "max_tokens": 12, "temperature": 0, "ignore_eos": True, **options}
        answer = self.post("/v1/completions", body)
        details = answer["usage"].get("prompt_tokens_details") or {}
        return str(answer["choices"][0]["text"]), int(details.get("cached_tokens") or 0)

    def reset(self, *, host_tier: bool = False) -> None:
        """Drop the GPU's prefix cache; it is refused while stores still hold blocks."""
        path = f"/reset_prefix_cache?reset_external={'true' if host_tier else 'false'}"
        deadline_s = time.monotonic() + 20
        while not self.post(path, None)["success"]:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)

    @property
    def api_server(self) -> int:
        (pid,) = children(self.process.pid)
        return pid

    @property
    def engine_core(self) -> int:
        (pid,) = [pid for pid in children(self.api_server) if "EngineCore" in name_of(pid)]
        return pid

    @property
    def workers(self) -> list[int]:
        return [pid for pid in children(self.engine_core) if "Worker" in name_of(pid)]

    def processes(self) -> list[int]:
        """Return what lives of this server, whoever its parent is now."""
        return [pid for pid in all_processes() if stat_of(pid).session == self.process.pid]

    def sockets(self) -> list[str]:
        return sorted(path.name for path in self.runtime.rglob("*") if path.is_socket())

    def mapping_the_pool(self) -> list[int]:
        """Return the processes of this server that map the host pool."""
        return [pid for pid in self.processes() if "memfd:flexkv-host-pool" in mappings(pid)]

    def wait_until_gone(self, pids: Sequence[int] | None = None, timeout_s: float = STOP_S) -> None:
        """Wait until none of these processes lives; default: none of this server."""
        deadline_s = time.monotonic() + timeout_s
        while alive := [pid for pid in self.processes() if pids is None or pid in pids]:
            names = [(pid, name_of(pid)[:40]) for pid in alive]
            assert time.monotonic() < deadline_s, f"after {timeout_s} s {names}: {self.log.read_text()[-4000:]}"
            time.sleep(0.05)

    def close(self) -> None:
        """Stop as a user does, with Ctrl-C; assert that no process is left."""
        try:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGINT)
            self.wait_until_gone()
        finally:
            self.kill()

    def kill(self) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(STOP_S)
        shutil.rmtree(self.runtime, ignore_errors=True)
