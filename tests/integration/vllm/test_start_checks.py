"""What is checked at start: vLLM's version and members, and whether its KV cache can be kept."""

from __future__ import annotations

from dataclasses import dataclass, make_dataclass
from types import SimpleNamespace

import pytest

from flexkv.errors import ConfigError
from flexkv.integration.vllm.support import unsupported_groups, unsupported_layers
from flexkv.integration.vllm.version import check_vllm


class Base:
    def get_transfer_results(self): ...
    def get_block_ids_with_load_errors(self): ...
    def get_kv_connector_stats(self): ...
    def handle_preemptions(self): ...


Output = make_dataclass("Output", ["invalid_block_ids", "finished_sending", "finished_recving", "kv_connector_stats"])
Step = make_dataclass(
    "Step", ["preempted_req_ids", "scheduled_new_reqs", "scheduled_cached_reqs", "num_scheduled_tokens"]
)


@pytest.mark.parametrize("version", ["0.32.0", "0.33.1rc1", "1.0.0", "0.32.1+cpu", "0.1.dev12+g123", "dev"])
def test_a_vllm_that_is_new_enough_is_accepted(version):
    check_vllm(version, Base, Output, Step)


@pytest.mark.parametrize("version", ["0.31.2", "0.9.0", "0.20.0+cu130"])
def test_an_older_vllm_is_refused_with_what_to_install(version):
    with pytest.raises(ConfigError, match=r"too old.*vllm>=0\.32") as caught:
        check_vllm(version, Base, Output, Step)
    assert caught.value.value == version


def test_a_vllm_that_lacks_a_member_is_refused_by_name():
    class Older:
        get_transfer_results = get_kv_connector_stats = handle_preemptions = None

    with pytest.raises(ConfigError, match="get_block_ids_with_load_errors"):
        check_vllm("0.33.0", Older, Output, Step)
    with pytest.raises(ConfigError, match=r"Bare\.preempted_req_ids"):
        check_vllm("0.33.0", Base, Output, make_dataclass("Bare", []))


@dataclass
class FullAttentionSpec:
    block_size: int = 16
    non_causal: bool = False
    tokens_per_state: int = 1


class MLAAttentionSpec(FullAttentionSpec): ...


class SlidingWindowSpec(FullAttentionSpec): ...


class MambaSpec(FullAttentionSpec): ...


class UniformTypeKVCacheSpecs(FullAttentionSpec):
    def __init__(self, *specs):
        super().__init__()
        self.kv_cache_specs = {str(index): spec for index, spec in enumerate(specs)}


def config(*specs, hash_block_size=16):
    groups = [SimpleNamespace(kv_cache_spec=spec) for spec in specs]
    return SimpleNamespace(kv_cache_groups=groups, hash_block_size=hash_block_size)


@pytest.mark.parametrize(
    "spec", [FullAttentionSpec(), MLAAttentionSpec(), UniformTypeKVCacheSpecs(FullAttentionSpec())]
)
def test_one_group_of_full_attention_is_supported(spec):
    assert unsupported_groups(config(spec)) is None


@pytest.mark.parametrize(
    ("specs", "reason"),
    [
        ([], "0 KV cache groups"),
        ([FullAttentionSpec(), SlidingWindowSpec()], "2 KV cache groups"),
        ([SlidingWindowSpec()], "SlidingWindowSpec"),
        ([MambaSpec()], "MambaSpec"),
        ([UniformTypeKVCacheSpecs(FullAttentionSpec(), MambaSpec())], "MambaSpec"),
        ([FullAttentionSpec(non_causal=True)], "non_causal"),
        ([FullAttentionSpec(tokens_per_state=4)], "tokens_per_state=4"),
    ],
)
def test_other_caches_are_refused_with_the_reason(specs, reason):
    assert reason in unsupported_groups(config(*specs))


def test_hashes_finer_than_blocks_are_refused():
    assert "hashed by 8" in unsupported_groups(config(FullAttentionSpec(), hash_block_size=8))


def test_layers_are_judged_as_the_hybrid_manager_treats_them():
    full, sliding, mamba = FullAttentionSpec(), SlidingWindowSpec(), MambaSpec()
    assert unsupported_layers([full, full], True) is None
    assert unsupported_layers([full, sliding], True) is None
    assert "SlidingWindowSpec" in unsupported_layers([full, sliding], False)
    assert "SlidingWindowSpec" in unsupported_layers([sliding, sliding], True)
    assert "MambaSpec" in unsupported_layers([full, mamba], True)
