"""`vllm serve` that ends, or is ended, under traffic that loads and stores: soon, and nothing of FlexKV is left.

FlexKV lives in EngineCore and the workers. Without --shutdown-timeout vLLM kills these outright, so that a socket may
stay until the next engine starts; its API server then waits for clients, and an EngineCore whose API server was killed
lives on: both the same without FlexKV.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from http.client import HTTPException

import pytest

from tests.vllm_server import STOP_S, Server

pytestmark = pytest.mark.vllm
WARM_UP_S = 60.0


class Traffic:
    """Clients that ask for the same prompts over and over; what goes wrong once the server ends is no matter."""

    def __init__(self, server, prompts):
        self._answers = []
        self._server = server
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(text,)) for text in prompts]
        for thread in self._threads:
            thread.start()

    def _ask(self, text):
        while not self._ended.is_set():
            with suppress(OSError, KeyError, ValueError, HTTPException):
                self._answers.append(self._server.complete(text, max_tokens=24))

    def wait_for_loads(self):
        """Prompts come back from the host tier: together they are more than the GPU's cache holds."""
        deadline_s = time.monotonic() + WARM_UP_S
        while len(self._answers) < 2 * len(self._threads) or not any(cached for _, cached in self._answers):
            assert time.monotonic() < deadline_s
            self._ended.wait(0.02)

    def end(self):
        self._ended.set()
        for thread in self._threads:
            thread.join(STOP_S)
            assert not thread.is_alive(), "a client was left without an answer or an error"


@pytest.fixture
def busy(request, model, prompt, tmp_path):
    """A server, its traffic, and the processes FlexKV is in. `request.param`: the server's options."""
    server = Server(model("llama"), tmp_path / "log", *getattr(request, "param", ()))
    traffic = Traffic(server, [prompt(seed, 500) for seed in range(900, 906)])
    try:
        traffic.wait_for_loads()
        ours = [server.engine_core, *server.workers]
        assert sorted(server.mapping_the_pool()) == sorted(ours)
        assert len(server.sockets()) == 1
        yield server, traffic, ours
    finally:
        server.kill()
        traffic.end()


@pytest.mark.parametrize("busy", [["--shutdown-timeout", "20"]], ids=["drains"], indirect=True)
def test_a_server_that_may_drain_leaves_nothing(busy):
    server, _, ours = busy
    os.kill(server.api_server, signal.SIGTERM)
    server.wait_until_gone(ours)
    assert server.sockets() == []


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_server_that_is_told_to_end_at_once_leaves_no_process(busy, number):
    server, _, ours = busy
    os.kill(server.api_server, number)
    server.wait_until_gone(ours)
    assert server.mapping_the_pool() == []


@pytest.mark.long
@pytest.mark.parametrize("victim", ["worker", "engine_core"])
def test_when_one_process_is_killed_all_end(busy, victim):
    server, traffic, ours = busy
    os.kill(server.workers[0] if victim == "worker" else server.engine_core, signal.SIGKILL)
    server.wait_until_gone(ours)
    server.wait_until_gone()
    traffic.end()


@pytest.mark.long
def test_a_server_killed_outright_leaves_a_socket_that_the_next_one_removes(busy, model, tmp_path):
    server, traffic, _ = busy
    for pid in server.processes():
        os.kill(pid, signal.SIGKILL)
    server.wait_until_gone()
    traffic.end()
    (abandoned,) = server.sockets()
    successor = Server(model("llama"), tmp_path / "log2", runtime=server.runtime)
    try:
        assert len(successor.sockets()) == 1
        assert abandoned not in successor.sockets()
    finally:
        successor.close()
