"""The whole cache, driven by a recording: one scheduler role, its manager, and the ranks with their memory.

with Live(load("uni-async"), Geometry(order="BLHNC")) as live:
    live.run()
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import pytest

from flexkv import CacheConfig, KVManager, ModelConfig
from flexkv.integration.vllm.layer_loads import LayerLoads
from flexkv.integration.vllm.scheduler_connector import FlexKVSchedulerConnector
from flexkv.integration.vllm.worker_connector import FlexKVWorkerConnector
from flexkv.server.client import KVTPClient
from flexkv.storage.storage_engine import StorageEngine
from tests.replay.loop import Loop
from tests.replay.memory import Geometry, Memory, contents
from tests.replay.rank import CudaRank, Rank
from tests.replay.recording import Recording
from tests.replay.request import Request
from tests.replay.scheduler import Plan, Scheduler
from tests.rig import eventually

READY_TIMEOUT_S = 60.0
SLEEP_CYCLES = 4_000_000
"""About 2 ms of a GPU: longer than a store needs to be planned and launched, and to run."""


class _Blocks:
    """vLLM's KVCacheBlocks, as far as they are read."""

    def __init__(self, table: list[int]) -> None:
        self._table = table

    def get_block_ids(self) -> tuple[list[int]]:
        return (list(self._table),)


class LiveConnector:
    """tests.replay.scheduler.Connector over the scheduler role. Counts what it answers."""

    def __init__(self, role: FlexKVSchedulerConnector) -> None:
        self.role = role
        self.on_drop: Callable[[], None] = lambda: None
        self.before_build: Callable[[], None] = lambda: None
        self.num_loads = self.num_held = self.num_by_layers = 0

    def new(self, request: Request) -> None:
        """Our connector does nothing then."""

    def ask(self, request: Request, num_computed_tokens: int) -> tuple[int | None, bool]:
        return self.role.get_num_new_matched_tokens(request, num_computed_tokens)

    def alloc(self, request: Request, num_external_tokens: int) -> None:
        self.num_loads += num_external_tokens > 0
        self.role.update_state_after_alloc(request, _Blocks(request.table), num_external_tokens)

    def build(self, output: Any) -> Any:
        self.before_build()
        notice = self.role.build_connector_meta(output)
        self.num_by_layers += bool(notice.layer_load)
        return notice

    def output(self, output: Any, step: int | None) -> None:
        self.role.update_connector_output(output, step)

    def finish(self, request: Request, blocks: list[int], reason: str) -> bool:
        holds, _ = self.role.request_finished(request)
        self.num_held += holds
        return holds

    def pending(self) -> bool:
        return self.role.has_pending_block_frees()

    def drop(self) -> None:
        """Not told to connectors."""
        self.on_drop()


class Live:
    """Use as a context.

    Args:
        recording: gives the workload, the executor's order, and the number of ranks.
        geometry: of the KV memory; with device "cuda" ranks go to as many GPUs as there are.
        num_host_blocks: room for stored blocks.
        own_thread: whether the scheduler role has its thread for stores, as in vLLM.
        is_late: ranks run each step as late as they may.
        defers_frees: see Scheduler; default: as vLLM 0.32.
        by_layers: whether each load that can goes by layers, also while other requests run. No copy of it begins before
            the first layer waits.
        unfenced: to show that it is found: these wait for no step, "loads", or "loads" and "stores". On a CPU, which
            has no stream that is behind, the ranks run a step only when such transfers have ended. Or "layers", which
            wait for no load: it begins when the device has done the step's work.
    """

    def __init__(
        self,
        recording: Recording,
        geometry: Geometry,
        *,
        num_host_blocks: int = 512,
        own_thread: bool = True,
        is_late: bool = False,
        defers_frees: bool | None = None,
        by_layers: bool = False,
        unfenced: tuple[str, ...] = (),
        sleep_cycles: int = SLEEP_CYCLES,
    ) -> None:
        self.recording = recording
        self._patches = pytest.MonkeyPatch()
        self.pools: list[Any] = []
        self._memories: list[Memory] = []
        self._num_blocks_to_load = 0
        self._launched_after: list[int] = []
        self._watch_host_pool()
        assert geometry.num_layers <= recording.num_layers, "of further layers no calls are recorded"
        num_ranks, size = recording.num_ranks, recording.tokens_per_block
        model = ModelConfig(
            geometry.num_layers,
            geometry.num_heads,
            geometry.channels,
            use_mla=geometry.is_mla,
            dtype={"int8": "int8", "bf16": "bfloat16"}[geometry.dtype],
            tp_size=num_ranks,
        )
        self.manager = KVManager(model, CacheConfig(tokens_per_block=size, num_cpu_blocks=num_host_blocks))
        self.manager.start()
        self.clients = [
            KVTPClient(self.manager.gpu_register_port, rank=rank, num_ranks=num_ranks, tokens_per_block=size)
            for rank in range(num_ranks)
        ]
        self.workers = [FlexKVWorkerConnector(client, recording.num_blocks) for client in self.clients]
        ranks = [
            self._make_rank(rank, recording, geometry.on(_device(geometry, rank)), sleep_cycles)
            for rank in range(num_ranks)
        ]
        assert self.manager.wait_ready(READY_TIMEOUT_S)
        role = FlexKVSchedulerConnector(
            self.manager, tokens_per_block=size, own_thread=own_thread, decode_store_blocks=1, by_layers=by_layers
        )
        self.connector = LiveConnector(role)
        if by_layers:
            self._delay_layers(ranks, are_fenced="layers" not in unfenced)
        defers = recording.asynchronous if defers_frees is None else defers_frees
        self.scheduler = Scheduler(recording, self.connector, defers_frees=defers)
        loop_type = Loop
        if unfenced and unfenced != ("layers",):
            self._remove_fences(unfenced)
            if geometry.device == "cpu":
                loop_type = _lingering(self, self.settle if "stores" in unfenced else self._settle_loads)
        self.loop = loop_type(recording, self.scheduler, ranks, is_late=is_late)

    def run(self) -> None:
        """Run the workload. Raises WrongBytesError where a step reads what the model did not write."""
        self.loop.run()
        assert not self.scheduler.has_requests
        assert len(self.connector.role._requests) == 0
        self.settle()
        self.manager.check_invariants()

    def settle(self, until_step: int | None = None) -> None:
        """Wait until no transfer runs; with `until_step` but those that wait for a later step."""

        def have_ended() -> bool:
            self.connector.role._stores.collect()
            waits = [until_step is not None and after_step > until_step for after_step in self._launched_after]
            return self.manager.num_running <= sum(waits)

        assert eventually(have_ended)

    def zero_host_blocks(self) -> None:
        """Overwrite every host slot: what is loaded from now on is wrong."""
        for pool in self.pools:
            for shard in range(pool.num_shards):
                for slot in range(pool.num_slots):
                    pool.view(shard, slot)[:] = 0

    def _make_rank(self, rank: int, recording: Recording, geometry: Geometry, sleep_cycles: int) -> Rank:
        heads = geometry.heads_of(rank, recording.num_ranks)
        memory = Memory(geometry, recording.num_blocks, recording.tokens_per_block, len(heads))
        self._memories.append(memory)
        self.workers[rank].register_to_server(memory.registered)
        requests = [
            Request(number, record, recording.tokens_per_block) for number, record in enumerate(recording.requests)
        ]
        prompts = [request.every_token for request in requests]
        first_rows = [sum(len(prompt) for prompt in prompts[:number]) for number in range(len(prompts))]
        arguments = (self.workers[rank], memory, contents(prompts, geometry, heads), first_rows)
        if geometry.device == "cpu":
            return Rank(*arguments, recording.tokens_per_block)
        return CudaRank(*arguments, recording.tokens_per_block, sleep_cycles=sleep_cycles)

    def _delay_layers(self, ranks: list[Rank], *, are_fenced: bool) -> None:
        loads = self.connector.role._layer_loads
        self._patches.setattr(LayerLoads, "_is_alive", lambda loads, request_id: False)

        def hold() -> None:
            for client in self.clients:
                client.hold(bool(loads.untold_block_ids))

        self.connector.before_build = hold
        for rank, client, worker in zip(ranks, self.clients, self.workers, strict=True):
            _let_go_late(rank, client, worker, are_fenced=are_fenced)

    def _remove_fences(self, unfenced: tuple[str, ...]) -> None:
        real = self.manager.launch

        def launch(task_ids: Any, *, block_ids: Any, **options: Any) -> Any:
            kind = "stores" if options.get("as_batch") else "loads"
            if kind == "loads":
                self._num_blocks_to_load += sum(len(ids) for ids in block_ids)
            self._launched_after += [options["after_step"]] * (1 if kind == "stores" else len(task_ids))
            if kind in unfenced:
                options["after_step"] = 0
            return real(task_ids, block_ids=block_ids, **options)

        self._patches.setattr(self.manager, "launch", launch)

    def _settle_loads(self) -> None:
        """Wait until all loads that were launched have ended."""
        wanted = [self._num_blocks_to_load * memory.block_bytes for memory in self._memories]

        def have_ended() -> bool:
            reports = [client.stats() for client in self.clients]
            return [report and report.bytes_loaded for report in reports] == wanted

        assert eventually(have_ended)

    def _watch_host_pool(self) -> None:
        real = StorageEngine.allocate_host_pool

        def allocate(storage: Any, *args: Any, **options: Any) -> Any:
            self.pools.append(real(storage, *args, **options))
            return self.pools[-1]

        self._patches.setattr(StorageEngine, "allocate_host_pool", allocate)

    def __enter__(self) -> Live:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.shutdown()
        self.connector.role.shutdown()
        self.pools.clear()
        self._patches.undo()


def _device(geometry: Geometry, rank: int) -> str:
    if geometry.device == "cpu":
        return "cpu"
    import torch

    return f"cuda:{rank % torch.cuda.device_count()}"


def _let_go_late(rank: Rank, client: KVTPClient, worker: FlexKVWorkerConnector, *, are_fenced: bool) -> None:
    """Let a held load begin with the first layer that waits; if they do not, when the step's work is done."""
    real_wait, real_record = worker.wait_for_layer, worker.record_step

    def wait_for_layer(layer_name: str) -> None:
        if are_fenced:
            client.hold(False)
            real_wait(layer_name)

    def record_step() -> None:
        if worker.computes_on_load:
            rank.settle()
            client.hold(False)
        real_record()

    worker.wait_for_layer = wait_for_layer  # type: ignore[method-assign]
    worker.record_step = record_step  # type: ignore[method-assign]


def _lingering(live: Live, settle: Callable[[], None]) -> type[Loop]:
    """Return a loop that waits for transfers: for all it can before it plans a step, by `settle` before it runs it."""

    class Lingering(Loop):
        def _plan_next(self, depth: int) -> bool:
            live.settle(until_step=self.num_steps - len(self._in_flight))
            return super()._plan_next(depth)

        def _run_ranks(self, newest: Plan) -> None:
            settle()
            super()._run_ranks(newest)

    return Lingering
