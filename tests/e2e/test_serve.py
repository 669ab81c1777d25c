"""`vllm serve` over HTTP with several clients: scheduler, workers and API server are processes of their own."""

from __future__ import annotations

import threading

import pytest

from tests.vllm_server import Server

pytestmark = pytest.mark.vllm


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
