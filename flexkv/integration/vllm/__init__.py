"""FlexKV inside vLLM.

    scheduler process                                   worker process, one per rank
    vllm_v1_adapter.FlexKVConnectorV1Impl(SCHEDULER)    vllm_v1_adapter.FlexKVConnectorV1Impl(WORKER)
      scheduler_connector.FlexKVSchedulerConnector        worker_connector.FlexKVWorkerConnector
        request_state    what is known of one request       KVTPClient: the copy agent
        KVManager
           -- metadata.FlexKVConnectorMetadata, one per step -->

vLLM reaches the adapter through its own class ``FlexKVConnectorV1``, or through
`flexkv.integration.vllm.connector.FlexKVConnector`. Nothing is imported here: modules that need vLLM import it
themselves.
"""

from __future__ import annotations

__all__: list[str] = []
