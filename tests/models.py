"""Tiny random models with a tokenizer, for tests on a real vLLM: made locally, no hub.

    python tests/models.py OUT [llama] [mla] [sliding]

Weights are float32 and large enough that greedy answers depend on every block of the prompt. A model that is there is
kept. Needs torch and transformers.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>")
VOCAB_SIZE = 512
_COMMON = {
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 4096,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}


def llama_config() -> object:
    """Four layers of grouped-query attention: 8 heads on 4 KV heads."""
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        **_COMMON,
    )


def mla_config() -> object:
    """DeepSeek V2 with its own latent geometry (512 + 64), few and small experts."""
    from transformers import DeepseekV2Config

    return DeepseekV2Config(
        hidden_size=256,
        intermediate_size=512,
        moe_intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=8,
        kv_lora_rank=512,
        q_lora_rank=None,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
        n_routed_experts=4,
        n_shared_experts=1,
        num_experts_per_tok=2,
        first_k_dense_replace=1,
        n_group=1,
        topk_group=1,
        topk_method="greedy",
        **_COMMON,
    )


def sliding_config() -> object:
    """Two layers, each with a sliding window."""
    from transformers import MistralConfig

    return MistralConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        sliding_window=128,
        **_COMMON,
    )


CONFIGS = {"llama": llama_config, "mla": mla_config, "sliding": sliding_config}


def make_model(name: str, out: Path, *, scale: float = 0.06) -> Path:
    """Make the model unless it is there; returns its folder. Several processes may do so at once."""
    folder = out / name
    if (folder / "config.json").exists():
        return folder
    import torch
    from transformers import AutoModelForCausalLM

    out.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=out, prefix=f".{name}-"))
    torch.manual_seed(20)
    model = AutoModelForCausalLM.from_config(CONFIGS[name](), dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() >= 2:
                weight.normal_(0, scale)
    model.save_pretrained(scratch)
    _make_tokenizer().save_pretrained(scratch)
    try:
        scratch.rename(folder)
    except OSError:  # another process was faster
        shutil.rmtree(scratch)
    return folder


def _make_tokenizer() -> object:
    """One token per byte, and the special ones: nothing to train."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def main() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    out = Path(sys.argv[1])
    for name in sys.argv[2:] or CONFIGS:
        print(make_model(name, out))


if __name__ == "__main__":
    main()
