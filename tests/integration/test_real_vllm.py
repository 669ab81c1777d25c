"""FlexKVConfig and the stats against the installed vLLM: what is read is there, and our counters reach its log."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flexkv.common.metrics import Counters
from flexkv.common.transfer import TransferType
from flexkv.integration.config import FlexKVConfig
from flexkv.integration.model_identity import engine_hash_objection

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]
pytest.importorskip("vllm")

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 512,
    "dtype": "float32",
}
DEEPSEEK = {
    **LLAMA,
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "num_key_value_heads": 4,
    "kv_lora_rank": 32,
    "q_lora_rank": None,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "first_k_dense_replace": 3,
}


def make_vllm_config(directory: Path, content: dict[str, object], **arguments: Any) -> Any:
    from vllm.config import KVTransferConfig
    from vllm.engine.arg_utils import EngineArgs

    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(content))
    (directory / "model.safetensors").write_bytes(b"weights")
    os.utime(directory / "model.safetensors", ns=(10**18, 10**18))
    transfer = KVTransferConfig(
        kv_connector="FlexKVConnectorV1",
        kv_role="kv_both",
        kv_connector_extra_config=arguments.pop("options", {}),
    )
    defaults = {"dtype": "float32", "block_size": 32, "skip_tokenizer_init": True, "kv_transfer_config": transfer}
    return EngineArgs(model=str(directory), **{**defaults, **arguments}).create_engine_config()


def test_a_real_llama_config_is_read(tmp_path: Path) -> None:
    vllm_config = make_vllm_config(tmp_path / "llama", LLAMA, options={"cpu_cache_gb": "1GiB", "evict_ratio": 0.2})
    config = FlexKVConfig.from_env({}).post_init_from_vllm_config(vllm_config)
    model, cache = config.model_config, config.cache_config
    assert (model.num_layers, model.num_kv_heads, model.head_size, model.dtype) == (3, 2, 16, "float32")
    assert (model.use_mla, model.num_ranks) == (False, 1)
    assert (cache.tokens_per_block, cache.cpu_cache_bytes, cache.evict_ratio) == (32, 1 << 30, 0.2)
    assert config.engine_hashes_usable
    assert config.fingerprint is not None
    assert config.fingerprint.weights.startswith("files:")
    assert vllm_config.kv_transfer_config.engine_id in config.gpu_register_port


def test_a_real_mla_config_is_read(tmp_path: Path) -> None:
    vllm_config = make_vllm_config(tmp_path / "deepseek", DEEPSEEK, trust_remote_code=False)
    model = FlexKVConfig.from_env({}).post_init_from_vllm_config(vllm_config).model_config
    assert (model.use_mla, model.num_kv_heads, model.head_size) == (True, 1, 40)


def test_two_starts_of_one_model_have_one_fingerprint_and_two_models_have_two(tmp_path: Path) -> None:
    digests = [
        FlexKVConfig.from_env({})
        .post_init_from_vllm_config(make_vllm_config(tmp_path / name, content))
        .cache_config.fingerprint
        for name, content in (("a", LLAMA), ("a", LLAMA), ("b", {**LLAMA, "rope_theta": 5e5}))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_the_hash_algorithms_vllm_offers_are_judged_as_vllm_seeds_them() -> None:
    from typing import get_args

    from vllm.config.cache import PrefixCachingHashAlgo

    usable = {name for name in get_args(PrefixCachingHashAlgo) if not engine_hash_objection(name, 16, None)}
    code = (
        "import vllm.v1.core.kv_cache_utils as u, vllm.utils.hashing as h\n"
        "for name in ('sha256', 'sha256_cbor'):\n"
        "    hash_fn = h.get_hash_fn_by_name(name)\n"
        "    u.init_none_hash(hash_fn)\n"
        "    extra = (('lora', 'a', 'b'), ('cache_salt', 's'))\n"
        "    print('hash', u.hash_block_tokens(hash_fn, None, list(range(16)), extra).hex())\n"
    )
    assert usable == {"sha256", "sha256_cbor"}
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONHASHSEED"}
    command = [sys.executable, "-c", code]
    starts = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [start.communicate(timeout=100)[0] for start in starts]
    hashes = [[line for line in text.splitlines() if line.startswith("hash ")] for text in printed]
    assert [start.returncode for start in starts] == [0, 0]
    assert hashes[0] == hashes[1]
    assert len(set(hashes[0])) == len(usable)


def test_stats_of_an_interval_are_differences_and_levels() -> None:
    from flexkv.integration.stats import StatsInterval

    counters, interval = Counters(), StatsInterval()
    assert interval.take(counters.snapshot()) is None
    counters.queried_blocks, counters.hit_blocks, counters.slots_used = 10, 4, 6
    counters.routes[TransferType.H2D].add(4, 4_000_000, 0.002)
    first = interval.take(counters.snapshot())
    assert first is not None
    assert (first.data["hit_blocks"], first.data["h2d_bytes"], first.data["slots_used"]) == (4, 4_000_000, 6)
    counters.hit_blocks += 1
    counters.slots_used = 5
    second = interval.take(counters.snapshot())
    assert second is not None
    assert (second.data["hit_blocks"], second.data["slots_used"], "h2d_bytes" in second.data) == (1, 5, False)
    assert interval.take(counters.snapshot()) is None
    total = pickle.loads(pickle.dumps(first)).aggregate(second)
    assert (total.data["hit_blocks"], total.data["slots_used"]) == (5, 5)
    summary = total.reduce()
    assert (summary["hit_rate"], summary["h2d_mb"], summary["h2d_gb_per_s"]) == (0.5, 4.0, 2.0)


def test_counters_are_logged_once_an_interval_and_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    from flexkv.integration.stats import LOG_INTERVAL_S, StatsLog

    now_s, counters = [0.0], Counters()
    log = StatsLog(lambda: now_s[0])
    counters.hit_blocks = counters.queried_blocks = 4
    with caplog.at_level("INFO", logger="flexkv"):
        log.tick(counters.snapshot)
        assert not caplog.messages, "no line is due"
        now_s[0] = LOG_INTERVAL_S
        log.tick(counters.snapshot)
        log.tick(counters.snapshot)
        assert len(caplog.messages) == 1
        assert "hit_blocks=4" in caplog.messages[0]
        now_s[0] = 3 * LOG_INTERVAL_S
        log.tick(counters.snapshot)
        assert len(caplog.messages) == 1, "nothing was counted since"
        counters.hit_blocks += 1
        log.tick(counters.snapshot, is_last=True)
    assert "hit_blocks=1" in caplog.messages[-1]


def test_empty_stats_pass_through_vllm_in_silence() -> None:
    from flexkv.integration.stats import FlexKVConnectorStats

    empty = FlexKVConnectorStats()
    assert empty.is_empty()
    assert empty.to_dict() == {}
    busy = FlexKVConnectorStats(data={"hit_blocks": 1, "queried_blocks": 1})
    assert not busy.is_empty()
    assert empty.aggregate(busy).data == busy.data
    busy.reset()
    assert busy.is_empty()


def test_a_workers_stats_name_their_step_through_vllms_merge_of_all_ranks_and_pass_in_silence() -> None:
    from vllm.distributed.kv_transfer.kv_connector.utils import KVOutputAggregator
    from vllm.v1.outputs import KVConnectorOutput, ModelRunnerOutput

    from flexkv.integration.stats import FlexKVConnectorStats, named_step

    def merged(*steps: int | None) -> Any:
        stats = [None if step is None else FlexKVConnectorStats.naming(step) for step in steps]
        outputs = [KVConnectorOutput(kv_connector_stats=of_rank) for of_rank in pickle.loads(pickle.dumps(stats))]
        ranks = [ModelRunnerOutput([], {}, kv_connector_output=output) for output in outputs]
        return KVOutputAggregator(len(steps)).aggregate(ranks).kv_connector_output

    named = merged(None, 7, 7)
    assert named_step(named.kv_connector_stats) == 7
    assert not named.is_empty(), "the output of a step without tokens reaches the scheduler too"
    assert named.kv_connector_stats.to_dict() == {}
    assert merged(None, None) is not None, "a step has an output though no rank reports anything"
    assert named_step(merged(None, None).kv_connector_stats) is None
    assert named_step(FlexKVConnectorStats(data={"hit_blocks": 1})) is None


def test_our_step_is_found_among_the_stats_of_several_connectors() -> None:
    from vllm.distributed.kv_transfer.kv_connector.v1.multi_connector import MultiKVConnectorStats

    from flexkv.integration.stats import FlexKVConnectorStats, named_step

    several = MultiKVConnectorStats(data={"Other": MultiKVConnectorStats()})
    assert named_step(several) is None
    several.aggregate(MultiKVConnectorStats(data={"FlexKVConnector": FlexKVConnectorStats.naming(3)}))
    assert named_step(several) == 3
    assert several.to_dict() == {"FlexKVConnector": {}, "Other": {}}


def test_vllm_logs_our_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorLogging

    from flexkv.integration.stats import FlexKVConnectorStats

    class Connector:
        """What vLLM asks of a connector class here."""

        @classmethod
        def build_kv_connector_stats(cls, data: dict[str, Any] | None = None) -> FlexKVConnectorStats:
            return FlexKVConnectorStats(data=data or {})

    log = KVConnectorLogging(None)
    monkeypatch.setattr(log, "connector_cls", Connector, raising=False)
    lines: list[str] = []
    for _ in range(2):
        log.observe({"queried_blocks": 2, "hit_blocks": 1, "stored_blocks": 3})
    log.log(lambda text, values: lines.append(text % values))
    assert lines == ["KV Transfer metrics: hit_blocks=2, queried_blocks=4, hit_rate=0.5, stored_blocks=6"]
