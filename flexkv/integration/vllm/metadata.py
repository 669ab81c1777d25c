"""StepNotice in the type vLLM carries from the scheduler role to the workers, and how the worker role finds it."""

from __future__ import annotations

from dataclasses import dataclass

from vllm.distributed.kv_transfer import get_kv_transfer_group, has_kv_transfer_group
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata

from flexkv.integration.vllm.scheduler_role import StepNotice

__all__ = ["FlexKVConnectorMetadata", "bound_notice"]


@dataclass(frozen=True)
class FlexKVConnectorMetadata(KVConnectorMetadata):
    """One step's notice. Pickled to every worker."""

    notice: StepNotice


def bound_notice() -> StepNotice | None:
    """Return the notice bound to this worker's connector for the step it runs, if there is one.

    vLLM's own connector class keeps the metadata to itself; so it is asked for it. Among several connectors ours is
    looked up.
    """
    if not has_kv_transfer_group():
        return None
    connector = get_kv_transfer_group()
    if not connector.has_connector_metadata():
        return None
    bound = connector._get_connector_metadata()
    for metadata in getattr(bound, "metadata", None) or (bound,):
        if isinstance(metadata, FlexKVConnectorMetadata):
            return metadata.notice
    return None
