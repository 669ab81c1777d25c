"""A transformers Llama whose KV cache is paged as engines page it: one tensor a layer, blocks of a sequence anywhere.

K and V of new tokens are written into the pages, and those of all tokens are gathered from them for attention: an
engine's kernels read the pages themselves, this costs one more pass over the memory. One sequence at a time. Prompts
are computed in chunks; no mask is made on a GPU, where attention aligns causality with the last token by itself.

Needs torch and transformers. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.attention.bias import causal_lower_right
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import Cache

from benchmarks.block_table import BlockTable, K, V

ATTENTION = "flexkv_paged"
POISON_WORD = -1
"""Of 16 bits; read as floating point it is no number, and neither is what was computed from it."""

Tokens = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a model of random weights looks like."""

    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    hidden_size: int
    ffn_size: int
    vocab_size: int
    rope_theta: float = 500000.0


SHAPES = {
    "llama-3-8b": Shape(
        num_layers=32, num_heads=32, num_kv_heads=8, head_size=128, hidden_size=4096, ffn_size=14336, vocab_size=128256
    ),
    "tiny": Shape(
        num_layers=3, num_heads=4, num_kv_heads=2, head_size=64, hidden_size=256, ffn_size=512, vocab_size=1024
    ),
}


def attend(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: object, **settings: Any
) -> tuple[torch.Tensor, None]:
    """Let the queries, which are of the last tokens, attend to all keys up to their own.

    Shape: query [1, num_heads, num_queries, head_size], key and value [1, num_kv_heads, num_keys, head_size]; the
    result is [1, num_queries, num_heads, head_size].
    """
    if mask is not None:
        raise ValueError("a mask was made; this attention is causal without one")
    num_queries, num_keys = query.shape[2], key.shape[2]
    causal: Any = None
    if num_queries > 1 and query.is_cuda:
        causal = causal_lower_right(num_queries, num_keys)
    elif num_queries > 1:
        causal = torch.ones(num_queries, num_keys, dtype=torch.bool).tril(num_keys - num_queries)
    attended = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=causal, scale=settings.get("scaling"), enable_gqa=True
    )
    return attended.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, attend)


class PagedCache(Cache):
    """What one forward pass over tokens `start` to `end` of a sequence reads and writes in the pages.

    Args:
        pages: one tensor a layer, [num_blocks, 2, block_size, num_kv_heads, head_size].
        before_layer: is called with the layer's number before its pages are touched.
    """

    def __init__(
        self,
        pages: list[torch.Tensor],
        table: BlockTable,
        start: int,
        end: int,
        before_layer: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(layers=[])
        self._pages, self._start, self._end, self._before_layer = pages, start, end, before_layer
        device = pages[0].device
        self._rows = [torch.from_numpy(table.rows(start, end, part)).to(device) for part in (K, V)]
        self._halves = [torch.from_numpy(table.halves(end, part)).to(device) for part in (K, V)]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write K and V of the new tokens, and return those of all. Shape: [1, num_kv_heads, num_tokens, head_size]."""
        if self._before_layer is not None:
            self._before_layer(layer_idx)
        pages = self._pages[layer_idx]
        num_heads, head_size = pages.shape[-2:]
        rows, halves = pages.view(-1, num_heads, head_size), pages.view(-1, *pages.shape[2:])
        found = []
        for part, states in ((K, key_states), (V, value_states)):
            rows.index_copy_(0, self._rows[part], states[0].transpose(0, 1))
            gathered = halves.index_select(0, self._halves[part]).view(-1, num_heads, head_size)
            found.append(gathered[: self._end].transpose(0, 1)[None])
        return found[0], found[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the tokens before this pass."""
        return self._start

    def get_mask_sizes(self, query_length: Any, layer_idx: int = 0) -> tuple[int, int]:
        """Return how many keys there are, and where they start."""
        return self._end, 0


def make_model(
    shape: Shape | None, device: str, dtype: torch.dtype, seed: int, weights: Path | None = None
) -> LlamaForCausalLM:
    """Return a model of random weights, or of the weights in a folder of transformers' format."""
    if weights is not None or shape is None:
        model = LlamaForCausalLM.from_pretrained(weights, attn_implementation=ATTENTION, local_files_only=True)
        return model.to(device=device, dtype=dtype).eval()
    config = LlamaConfig(
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.ffn_size,
        vocab_size=shape.vocab_size,
        rope_theta=shape.rope_theta,
        max_position_embeddings=1 << 18,
        attn_implementation=ATTENTION,
    )
    before = torch.get_default_dtype()
    torch.manual_seed(seed)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


class PagedModel:
    """A model, and pages for its KV cache.

    Args:
        after_step: is called with the number of each pass once it is on its way to the device.
    """

    def __init__(
        self, model: LlamaForCausalLM, num_blocks: int, block_size: int, after_step: Callable[[int], None]
    ) -> None:
        config = model.config
        self.model, self.num_blocks, self.block_size, self._after_step = model, num_blocks, block_size, after_step
        self.device, self.dtype = next(model.parameters()).device, next(model.parameters()).dtype
        self.num_layers, self.num_kv_heads = config.num_hidden_layers, config.num_key_value_heads
        self.head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.vocab_size = config.vocab_size
        self.step = 0
        page = (num_blocks, 2, block_size, self.num_kv_heads, self.head_size)
        self.pages = {
            f"model.layers.{layer}.self_attn.attn": torch.zeros(page, dtype=self.dtype, device=self.device)
            for layer in range(self.num_layers)
        }
        self.layer_names = list(self.pages)
        self._layers = list(self.pages.values())

    @property
    def block_bytes(self) -> int:
        """Bytes of a block, all layers."""
        return sum(pages[0].nbytes for pages in self._layers)

    def note_step(self) -> int:
        """Number what has been submitted so far as a step, and tell of it."""
        self.step += 1
        self._after_step(self.step)
        return self.step

    @torch.inference_mode()
    def forward(
        self, tokens: Tokens, start: int, table: BlockTable, before_layer: Callable[[int], None] | None = None
    ) -> torch.Tensor:
        """Compute the tokens, which stand at `start` and after, in one pass. Returns the last one's logits [vocab]."""
        end = start + len(tokens)
        cache = PagedCache(self._layers, table, start, end, before_layer)
        logits = self.model(
            input_ids=torch.from_numpy(tokens)[None].to(self.device),
            position_ids=torch.arange(start, end, device=self.device)[None],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[0, -1]
        self.note_step()
        return logits

    def prefill(
        self,
        tokens: Tokens,
        start: int,
        table: BlockTable,
        chunk: int,
        before_layer: Callable[[int], None] | None = None,
    ) -> torch.Tensor:
        """Compute tokens[start:] in parts of about `chunk`, none much smaller. Returns the last one's logits."""
        num_parts = max(1, round((len(tokens) - start) / chunk))
        edges = np.linspace(start, len(tokens), num_parts + 1).astype(np.int64).tolist()
        logits = torch.empty(0)
        for begin, end in pairwise(edges):
            logits = self.forward(tokens[begin:end], begin, table, before_layer)
            before_layer = None
        return logits

    def decode(
        self, prompt: Tokens, logits: torch.Tensor, table: BlockTable, num_tokens: int, window: int
    ) -> tuple[list[int], torch.Tensor]:
        """Go on greedily from the logits behind the prompt; returns the tokens, and the logits they were taken from.

        Each step computes the last `window` tokens anew: of one token alone libraries add up in an order of the moment,
        of several they do not. What these tokens have in the pages is written again.
        """
        tokens, steps = prompt.tolist(), [logits.cpu()]
        while True:
            tokens.append(int(steps[-1].argmax()))
            if len(steps) == num_tokens:
                return tokens[len(prompt) :], torch.stack(steps)
            last = np.array(tokens[-window:], dtype=np.int64)
            steps.append(self.forward(last, len(tokens) - len(last), table).cpu())

    def poison(self, block_ids: Tokens) -> None:
        """Overwrite blocks, in the order of the stream."""
        ids = torch.from_numpy(block_ids).to(self.device)
        for pages in self._layers:
            pages.view(torch.int16).index_fill_(0, ids, POISON_WORD)
        self.note_step()

    def same(self, one: Tokens, other: Tokens) -> bool:
        """Return whether blocks hold the same bytes as as many others, in all layers. None may hold poison only."""
        first, second = (torch.from_numpy(ids).to(self.device) for ids in (one, other))
        for pages in self._layers:
            words = pages.view(torch.int16)
            found = words.index_select(0, first)
            if not torch.equal(found, words.index_select(0, second)):
                return False
            if bool((found.flatten(1) == POISON_WORD).all(1).any()):
                return False
        return True
