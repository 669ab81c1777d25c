"""A connector class for a real vLLM that writes down every call of substance, and what ours answered.

    CONNECTOR_RECORDING=DIR, --kv-transfer-config '{"kv_connector": "RecordingConnector",
                                                    "kv_connector_module_path": "tests.replay.recorder", ...}'

Each role writes lines of JSON ``[time_ns, name, ...]`` to a file of its own in DIR, in the order of its calls; times
are of one clock for all processes of a machine. `tests.replay.recording` says what the fields are. Questions about
counters and events are left out: they carry nothing and answer nothing that a scheduler acts on.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole

from flexkv.integration.stats import FlexKVConnectorStats, named_step
from flexkv.integration.vllm.connector import FlexKVConnector

DIRECTORY = "CONNECTOR_RECORDING"


class RecordingConnector(FlexKVConnector):
    """FlexKVConnector, written down."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        path = Path(os.environ[DIRECTORY]) / f"{role.name.lower()}-{os.getpid()}-{id(self)}.jsonl"
        self._file = path.open("w", buffering=1)  # an engine in a process of its own may be killed at its end

    def _write(self, name: str, *fields: Any) -> None:
        self._file.write(json.dumps([time.monotonic_ns(), name, *fields], separators=(",", ":")) + "\n")

    def shutdown(self) -> None:
        super().shutdown()
        if not self._file.closed:
            self._file.close()

    # ---- scheduler role

    def bind_kv_cache_manager(self, kv_cache_manager: Any) -> None:
        super().bind_kv_cache_manager(kv_cache_manager)
        real = kv_cache_manager.reset_prefix_cache

        def reset_prefix_cache() -> bool:
            answer = real()
            self._write("drop", answer)
            return answer

        kv_cache_manager.reset_prefix_cache = reset_prefix_cache

    def on_new_request(self, request: Any) -> None:
        self._write("new", request.request_id, list(request.all_token_ids), request.max_tokens)
        super().on_new_request(request)

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int | None, bool]:
        answer = super().get_num_new_matched_tokens(request, num_computed_tokens)
        self._write("ask", request.request_id, num_computed_tokens, request.num_tokens, *answer)
        return answer

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        self._write("alloc", request.request_id, list(blocks.get_block_ids()[0]), num_external_tokens)
        super().update_state_after_alloc(request, blocks, num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> Any:
        metadata = super().build_connector_meta(scheduler_output)
        cached = scheduler_output.scheduled_cached_reqs
        self._write(
            "build",
            metadata.notice.step,
            [
                [new.req_id, list(new.block_ids[0]), new.num_computed_tokens]
                for new in scheduler_output.scheduled_new_reqs
            ],
            [
                [request_id, None if ids is None else list(ids[0]), computed, int(request_id in cached.resumed_req_ids)]
                for request_id, ids, computed in zip(
                    cached.req_ids, cached.new_block_ids, cached.num_computed_tokens, strict=True
                )
            ],
            list(scheduler_output.num_scheduled_tokens.items()),
            sorted(scheduler_output.preempted_req_ids or ()),
            sorted(scheduler_output.finished_req_ids),
            int(scheduler_output.has_sync_kv_loads),
        )
        return metadata

    def update_connector_output(self, connector_output: Any) -> None:
        before = [_listed(connector_output.finished_sending), _listed(connector_output.finished_recving)]
        step = named_step(connector_output.kv_connector_stats)
        super().update_connector_output(connector_output)
        after = [_listed(connector_output.finished_sending), _listed(connector_output.finished_recving)]
        self._write("output", *before, sorted(connector_output.invalid_block_ids), step, *after)

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        answer = super().request_finished(request, block_ids)
        self._write(
            "finish",
            request.request_id,
            list(block_ids),
            request.num_computed_tokens,
            list(request.output_token_ids),
            request.status.name.removeprefix("FINISHED_"),
            answer[0],
        )
        return answer

    def has_pending_block_frees(self) -> bool:
        answer = super().has_pending_block_frees()
        self._write("pending", answer)
        return answer

    def reset_cache(self) -> bool:
        self._write("reset")
        return super().reset_cache()

    # ---- worker role: the letters of Recording.worker_orders

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        described = [[name, list(t.shape), list(t.stride()), str(t.dtype)] for name, t in kv_caches.items()]
        self._layers = {name: index for index, name in enumerate(kv_caches)}
        self._write("register", described)
        super().register_kv_caches(kv_caches)

    def handle_preemptions(self, kv_connector_metadata: Any) -> None:
        self._write("P", kv_connector_metadata.notice.step)
        super().handle_preemptions(kv_connector_metadata)

    def bind_connector_metadata(self, connector_metadata: Any) -> None:
        self._write("B", connector_metadata.notice.step)
        super().bind_connector_metadata(connector_metadata)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        self._write("S")
        super().start_load_kv(forward_context, **kwargs)

    def wait_for_layer_load(self, layer_name: str) -> None:
        self._write(f"w{self._layers[layer_name]}")
        super().wait_for_layer_load(layer_name)

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:
        self._write(f"s{self._layers[layer_name]}")
        super().save_kv_layer(layer_name, kv_layer, attn_metadata, **kwargs)

    def wait_for_save(self) -> None:
        self._write("R")
        super().wait_for_save()

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        self._write("F", sorted(finished_req_ids))
        return super().get_finished(finished_req_ids)

    def get_block_ids_with_load_errors(self) -> set[int]:
        answer = super().get_block_ids_with_load_errors()
        self._write("E", sorted(answer))
        return answer

    def get_kv_connector_stats(self) -> FlexKVConnectorStats | None:
        answer = super().get_kv_connector_stats()
        if self.role is KVConnectorRole.WORKER:
            self._write("T", int(answer is not None))
        return answer

    def clear_connector_metadata(self) -> None:
        self._write("C")
        super().clear_connector_metadata()


def _listed(ids: set[str] | None) -> list[str] | None:
    """In the order in which vLLM frees their blocks."""
    return None if ids is None else list(ids)
