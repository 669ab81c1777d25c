"""`vllm serve` over HTTP with several clients: scheduler, workers and API server are processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

import flexkv

pytestmark = pytest.mark.vllm
START_S = 240.0
STOP_S = 30.0
LIFE_S = 900  # it ends then, also when the tests were killed


class Server:
    """One `vllm serve`, in its own process group."""

    def __init__(self, model: Path, log: Path, *options: str) -> None:
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
        home = Path(flexkv.__file__).resolve().parents[1]  # as this process has it: installed, or the working tree
        paths = [str(home), *filter(None, [os.environ.get("PYTHONPATH")])]
        settings = {
            **os.environ,
            "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
            "VLLM_SERVER_DEV_MODE": "1",
            "VLLM_LOGGING_LEVEL": "INFO",
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
            self.close()
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

    def close(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


def ask_at_once(server, prompts, **options):
    """One client per prompt; returns their answers."""
    results: list[tuple[str, int] | None] = [None] * len(prompts)

    def client(index):
        results[index] = server.complete(prompts[index], **options)

    threads = [threading.Thread(target=client, args=(index,)) for index in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert None not in results
    return results


@pytest.fixture(
    scope="module",
    params=[
        pytest.param([], id="one-rank"),
        pytest.param(["--tensor-parallel-size", "2"], id="tensor-parallel"),
    ],
)
def server(request, model, tmp_path_factory):
    started = Server(model("llama"), tmp_path_factory.mktemp("serve") / "log", *request.param)
    yield started
    started.close()


def test_two_clients_get_their_answers_back_from_the_host_tier(server, prompt):
    prompts = [prompt(seed, 300) for seed in (80, 81)]
    cold = ask_at_once(server, prompts)
    assert [count for _, count in cold] == [0, 0]
    server.reset()
    warm = ask_at_once(server, prompts)
    assert [text for text, _ in warm] == [text for text, _ in cold]
    assert [count for _, count in warm] == [288, 288]


def test_a_reset_with_the_external_cache_empties_the_host_tier(server, prompt):
    server.complete(prompt(82, 300))
    server.reset()
    server.reset(host_tier=True)
    assert server.complete(prompt(82, 300))[1] == 0


def test_many_clients_that_share_a_prefix(server, prompt):
    shared = prompt(83, 256)
    prompts = [shared + prompt(seed, 40) for seed in range(830, 838)]
    cold = ask_at_once(server, prompts)
    server.reset()
    warm = ask_at_once(server, prompts)
    assert [text for text, _ in warm] == [text for text, _ in cold]
    assert all(count >= 256 for _, count in warm)


def test_clients_that_do_not_fit_on_the_gpu_together_get_the_answers_they_get_alone(server, prompt):
    """96 blocks for 8 requests of 18 blocks: some wait, some are preempted, all load and store meanwhile."""
    prompts = [prompt(seed, 500) for seed in range(850, 858)]
    alone = [server.complete(text, max_tokens=60)[0] for text in prompts]
    server.reset(host_tier=True)
    assert [text for text, _ in ask_at_once(server, prompts, max_tokens=60)] == alone
    server.reset()
    assert [text for text, _ in ask_at_once(server, prompts, max_tokens=60)] == alone


def test_salts_are_apart_over_http(server, prompt):
    first = server.complete(prompt(84, 300), cache_salt="a")
    server.reset()
    assert server.complete(prompt(84, 300), cache_salt="b")[1] == 0
    server.reset()
    assert server.complete(prompt(84, 300), cache_salt="a") == (first[0], 288)
