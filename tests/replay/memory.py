"""The KV memory of one rank in one of vLLM's layouts, and what every token of a request has to have in it.

vLLM hands over one view ``[B, H, N, C]`` a layer (blocks, heads, tokens, K and V of a head) of one allocation, whose
physical order is one of ORDERS; MLA has one head of 576. Bytes are arbitrary, so that elements are kept as integers.
On a CPU arrays are numpy's, so that the tests need no torch there.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

ORDERS = ("LBHNC", "LBNHC", "LHBNC", "BLHNC", "BLNHC", "BHLNC")
POISON = 0x5A
MLA_CHANNELS = 576
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # splitmix64


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Of all ranks: each has its part of the heads, or all there is if the heads cannot be shared (MLA)."""

    order: str = "LBNHC"
    dtype: str = "int8"  # or bf16
    device: str = "cpu"  # or cuda
    num_layers: int = 3
    num_heads: int = 4
    channels: int = 32
    is_mla: bool = False

    @classmethod
    def mla(cls, **options: Any) -> Geometry:
        return cls(num_heads=1, channels=MLA_CHANNELS, is_mla=True, **options)

    @property
    def element(self) -> type[np.signedinteger[Any]]:
        return {"int8": np.int8, "bf16": np.int16}[self.dtype]

    def heads_of(self, rank: int, num_ranks: int) -> range:
        """Return the heads that a rank has."""
        if self.is_mla:
            return range(1)
        assert self.num_heads % num_ranks == 0
        share = self.num_heads // num_ranks
        return range(rank * share, (rank + 1) * share)

    def on(self, device: str) -> Geometry:
        return replace(self, device=device)


class Memory:
    """The tensors of a rank. `layers`: integer views [B, H, N, C]; `registered`: the same, as the engine has them."""

    def __init__(self, geometry: Geometry, num_blocks: int, tokens_per_block: int, num_heads: int) -> None:
        sizes = {"L": geometry.num_layers, "B": num_blocks, "H": num_heads, "N": tokens_per_block}
        sizes["C"] = geometry.channels
        shape = [sizes[letter] for letter in geometry.order]
        places = [geometry.order.index(letter) for letter in "LBHNC"]
        self.whole: Any
        if geometry.device == "cpu":
            self.whole = np.empty(shape, geometry.element)
            logical: Any = self.whole.transpose(places)
        else:
            import torch

            self.whole = torch.empty(shape, dtype=getattr(torch, geometry.element.__name__), device=geometry.device)
            logical = self.whole.permute(places)
        self.block_bytes = math.prod(shape) // num_blocks * np.dtype(geometry.element).itemsize
        self.poison()
        self.layers = [logical[layer] for layer in range(geometry.num_layers)]
        self.registered = dict(enumerate_names(self.layers))
        if geometry.device != "cpu" and geometry.dtype == "bf16":
            self.registered = {name: layer.view(torch.bfloat16) for name, layer in self.registered.items()}

    def poison(self) -> None:
        """Overwrite all blocks, behind what the device still does."""
        self.whole[...] = POISON


def enumerate_names(layers: Sequence[Any]) -> list[tuple[str, Any]]:
    """Return the layers with vLLM's names."""
    return [(f"model.layers.{index}.self_attn.attn", layer) for index, layer in enumerate(layers)]


def contents(prompts: Sequence[list[int]], geometry: Geometry, heads: range) -> list[npt.NDArray[Any]]:
    """Return what all tokens of all prompts have, one array [tokens, heads, C] a layer, prompt after prompt.

    A token's elements follow from all tokens up to it, the layer and the head: nothing else may stand there.
    """
    keys = np.concatenate([prefix_keys(prompt) for prompt in prompts])
    num_words, rest = divmod(geometry.channels * np.dtype(geometry.element).itemsize, 8)
    assert rest == 0
    layers = []
    for layer in range(geometry.num_layers):
        salts = np.array([[_salt(layer, head, word) for word in range(num_words)] for head in heads], dtype=np.uint64)
        words = _mixed(keys[:, None, None] ^ salts[None])
        layers.append(words.view(geometry.element).reshape(len(keys), len(heads), geometry.channels))
    return layers


def prefix_keys(tokens: list[int]) -> npt.NDArray[np.uint64]:
    """Return a number for each token that depends on it and on all before it."""
    key, keys = 0x9E3779B97F4A7C15, np.empty(len(tokens), np.uint64)
    for index, token in enumerate(tokens):
        key = ((key ^ token) * 0x100000001B3 + index) & (2**64 - 1)
        keys[index] = key
    return keys


def _salt(*numbers: int) -> int:
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:8], "little")


def _mixed(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
        words = (words ^ (words >> np.uint64(shift))) * np.uint64(multiplier)
    return words ^ (words >> np.uint64(31))
