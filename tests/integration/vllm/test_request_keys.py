from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from flexkv.common import hash_utils
from flexkv.errors import ConfigError
from flexkv.integration.vllm.request_keys import Adapters, RequestKeys, request_namespace

ROOT = bytes(range(16))


@pytest.fixture
def counted(monkeypatch):
    """Count the blocks that are hashed."""
    counts = []
    real_mix, real_hash = hash_utils.mix, hash_utils.hash_blocks

    def mix(hashes, root, start=0):
        counts.append(len(hashes) - start)
        return real_mix(hashes, root, start)

    def hash_blocks(tokens, tokens_per_block, parent):
        counts.append(len(tokens) // tokens_per_block)
        return real_hash(tokens, tokens_per_block, parent)

    def mix_one(engine_hash, root):
        counts.append(1)
        return real_mix([engine_hash], root).tobytes()

    monkeypatch.setattr(hash_utils, "mix", mix)
    monkeypatch.setattr(hash_utils, "mix_one", mix_one)
    monkeypatch.setattr(hash_utils, "hash_blocks", hash_blocks)
    return counts


@pytest.mark.parametrize("use_engine_hashes", [True, False])
def test_each_block_is_hashed_once(make_request, counted, use_engine_hashes):
    request = make_request("a", 17)
    keys = RequestKeys(ROOT, 4, use_engine_hashes)
    assert keys.count(request) == keys.count(request) == 4
    first = keys.contents(request, 4)
    held = keys.sequence(first).block_hashes
    request.append(*range(9))
    assert keys.count(request) == 6
    found = keys.sequence(keys.contents(request, 6)).block_hashes
    assert counted == [4, 2]
    if use_engine_hashes:
        expected = hash_utils.mix(request.block_hashes, ROOT)
    else:
        expected = hash_utils.hash_blocks(np.array(request.all_token_ids, dtype=np.int64), 4, ROOT)
    assert np.array_equal(found, expected)
    assert np.array_equal(held, expected[:4])
    assert np.array_equal(keys.sequence(first).block_hashes, expected[:4])
    assert keys.sequence(keys.contents(request, 2)).num_tokens == 8
    assert [keys.key(request, block) for block in (0, 5)] == [expected[0].tobytes(), expected[5].tobytes()]


@pytest.mark.parametrize("use_engine_hashes", [True, False])
def test_tokens_taken_back_and_replaced_give_new_keys(make_request, use_engine_hashes):
    request = make_request("a", 20)
    keys = RequestKeys(ROOT, 4, use_engine_hashes)
    old = keys.sequence(keys.contents(request, keys.count(request))).block_hashes.copy()
    del request.all_token_ids[18:]
    del request.block_hashes[4:]
    request.append(901, 902, 903, 904)
    assert keys.count(request) == 5
    new = keys.sequence(keys.contents(request, 5)).block_hashes
    assert np.array_equal(new[:4], old[:4])
    assert not np.array_equal(new[4], old[4])


def test_with_engine_hashes_the_namespace_holds_no_salt_since_the_hashes_do(make_request):
    assert request_namespace(make_request("a", 8, salt="x"), True, Adapters()) == []


def test_without_engine_hashes_salt_isolates_and_what_tokens_do_not_cover_is_not_cached(make_request):
    assert request_namespace(make_request("a", 8), False, Adapters()) == []
    assert request_namespace(make_request("a", 8, salt="x"), False, Adapters()) == ["salt", "x"]
    image = make_request("a", 8)
    image.mm_features = [object()]
    assert request_namespace(image, False, Adapters()) is None
    assert request_namespace(image, True, Adapters()) == []
    embedded = make_request("a", 8)
    embedded.prompt_embeds = object()
    assert request_namespace(embedded, False, Adapters()) is None


@pytest.mark.parametrize("use_engine_hashes", [True, False])
def test_an_adapter_is_known_by_its_files_not_by_its_name(make_request, tmp_path, use_engine_hashes):
    (tmp_path / "adapter_config.json").write_text("{}")
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(b"one")
    request = make_request("a", 8)
    request.lora_request = SimpleNamespace(lora_name="same", lora_int_id=1, lora_path=str(tmp_path))
    before = request_namespace(request, use_engine_hashes, Adapters())
    weights.write_bytes(b"other weights")
    after = request_namespace(request, use_engine_hashes, Adapters())
    assert before != after
    assert before[0] == after[0] == "lora"


def test_an_adapter_that_cannot_be_read_is_not_cached(make_request, connector, scheduler, tmp_path, caplog):
    request = make_request("a", 18)
    request.lora_request = SimpleNamespace(lora_name="gone", lora_int_id=1, lora_path=str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match="gone"):
        request_namespace(request, True, Adapters())
    with caplog.at_level("WARNING", logger="flexkv"):
        assert scheduler.admit(request) == 0
        scheduler.step()
    assert "not cached" in caplog.text
    assert not scheduler.finish(request)


def test_an_adapter_keeps_its_identity_until_it_is_loaded_again(make_request, tmp_path):
    weights = tmp_path / "adapter_model.safetensors"
    (tmp_path / "adapter_config.json").write_text("{}")
    weights.write_bytes(b"old")
    adapters, request = Adapters(), make_request("a", 8)
    lora = {"lora_name": "same", "lora_path": str(tmp_path)}
    request.lora_request = SimpleNamespace(lora_int_id=1, **lora)
    before = request_namespace(request, True, adapters)
    weights.write_bytes(b"newer")
    assert request_namespace(request, True, adapters) == before, "the engine still serves the weights it has read"
    request.lora_request = SimpleNamespace(lora_int_id=1, load_inplace=True, **lora)
    assert request_namespace(request, True, adapters) != before
    request.lora_request = SimpleNamespace(lora_int_id=2, **lora)
    assert request_namespace(request, True, adapters) != before


def test_images_added_to_a_session_end_what_its_tokens_can_name(make_request):
    request = make_request("a", 8)
    by_tokens, by_hashes = RequestKeys(ROOT, 4, False), RequestKeys(ROOT, 4, True)
    assert by_tokens.count(request) == by_hashes.count(request) == 2
    request.mm_features = [object()]
    request.append(*range(8))
    assert by_tokens.count(request) == 2
    assert by_hashes.count(request) == 4


def test_a_sequence_knows_its_namespace(make_request):
    request = make_request("a", 8)
    keys = RequestKeys(ROOT, 4, True, ["lora", "weights"])
    assert tuple(keys.sequence(keys.contents(request, 2)).namespace) == ("lora", "weights")
