"""Which vLLM this adapter works with: the lowest version, and the members it needs. Checked once at start."""

from __future__ import annotations

import re

from flexkv.errors import ConfigError

__all__ = ["MIN_VLLM_VERSION", "check_vllm"]

MIN_VLLM_VERSION = (0, 32)
"""Tested with 0.32.0. Older versions report preempted requests and transfer results in other ways."""

# What the adapter reads or is called through, beside what every version has.
_CONNECTOR_MEMBERS = (
    "get_transfer_results",
    "get_block_ids_with_load_errors",
    "get_kv_connector_stats",
    "handle_preemptions",
)
_OUTPUT_MEMBERS = ("invalid_block_ids", "finished_sending", "finished_recving", "kv_connector_stats")
_STEP_MEMBERS = ("preempted_req_ids", "scheduled_new_reqs", "scheduled_cached_reqs", "num_scheduled_tokens")


def check_vllm(version: str, connector_base: type, connector_output: type, scheduler_output: type) -> None:
    """Refuse a vLLM that is too old or lacks what the adapter needs.

    A version that does not start with numbers, or a build without tag (``0.1.dev...``), is judged by its members alone.

    Raises:
        ConfigError: naming the version and what to install.
    """
    wanted = ".".join(str(part) for part in MIN_VLLM_VERSION)
    match = re.match(r"(\d+)\.(\d+)", version)
    untagged = match is None or version.startswith("0.1.dev")
    if match is not None and not untagged and (int(match[1]), int(match[2])) < MIN_VLLM_VERSION:
        message = f"vLLM {version} is too old for FlexKV; install vllm>={wanted}"
        raise ConfigError(message, key="vllm", value=version)
    missing = [name for name in _CONNECTOR_MEMBERS if not hasattr(connector_base, name)]
    for owner, names in ((connector_output, _OUTPUT_MEMBERS), (scheduler_output, _STEP_MEMBERS)):
        known = getattr(owner, "__dataclass_fields__", {})
        missing += [f"{owner.__name__}.{name}" for name in names if name not in known]
    if missing:
        message = f"vLLM {version} lacks {', '.join(missing)}, which FlexKV needs; install vllm>={wanted}"
        raise ConfigError(message, key="vllm", value=version)
