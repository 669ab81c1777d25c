"""DeviceLayoutSpec: where one block of a rank's KV cache lies in device memory, whatever the engine's tensor layout.

A block is the concatenation of its planes' chunks, in plane order; that order is the byte order of a slot (D2).
    plane p, block b:   address = base + b * block_stride,  chunk bytes long

    [B, 2, N, H, D] per layer           one plane a layer
    [2, B, N, H, D] per layer           two: K, V
    heads outside the blocks [H, B, ..] one a head
    blocks outside all layers           one in all: its planes touch and become one

Planes of one block that touch are merged, so that a rank copies long runs. The `tag` names the byte order: two
registrations with the same tag can read each other's slots. Pure arithmetic; no tensor is touched.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flexkv.common.memory_handle import KVTensorHandle

__all__ = ["DeviceLayoutSpec", "Plane", "layout_from_handles", "merge_planes", "planes_from_tensor"]

MAX_PLANES = 1 << 16
LAYOUT_VERSION = 1


class Plane(NamedTuple):
    """Chunks of equal length at a regular stride, one a block. In bytes."""

    base: int
    block_stride: int
    chunk: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeviceLayoutSpec:
    """What a copy agent is told of its device memory.

    Attributes:
        planes: base, block stride and chunk length. Shape: uint64 (p, 3).
        slot_bytes: bytes of one block.
        tag: names the byte order of a slot.
        device: where all of it lies, as torch writes it.
        layer_ends: for each tensor's name, where in a slot the last of its bytes ends.
    """

    num_blocks: int
    planes: npt.NDArray[np.uint64]
    slot_bytes: int
    tag: str
    device: str = "cpu"
    layer_ends: Mapping[str, int] = field(default_factory=dict)


def planes_from_tensor(
    shape: Sequence[int],
    strides: Sequence[int],
    itemsize: int,
    data_ptr: int,
    block_dim: int,
) -> list[Plane]:
    """Return one plane for each contiguous piece of a block, in order of address. Strides are in elements.

    Raises:
        ValueError: naming the argument: a block dimension that is not there, elements that overlap (broadcast,
            negative strides), or more than 65536 pieces a block.
    """
    if not 0 <= block_dim < len(shape):
        raise ValueError(f"block_dim is {block_dim}; the tensor has shape {tuple(shape)}")
    strides_bytes = [stride * itemsize for stride in strides]
    _check_no_overlap(shape, strides_bytes, itemsize)
    inner = [(strides_bytes[dim], size) for dim, size in enumerate(shape) if dim != block_dim and size > 1]
    inner.sort()
    chunk = itemsize
    while inner and inner[0][0] == chunk:
        chunk *= inner.pop(0)[1]
    if math.prod(size for _, size in inner) > MAX_PLANES:
        raise ValueError(f"shape {tuple(shape)}, strides {tuple(strides)}: a block is in pieces of {chunk} bytes")
    block_stride = strides_bytes[block_dim] if shape[block_dim] > 1 else max(strides_bytes[block_dim], chunk)
    offsets = itertools.product(*([stride * i for i in range(size)] for stride, size in reversed(inner)))
    return [Plane(data_ptr + sum(offset), block_stride, chunk) for offset in offsets]


def _check_no_overlap(shape: Sequence[int], strides_bytes: Sequence[int], itemsize: int) -> None:
    span = itemsize
    for stride, size in sorted((stride, size) for stride, size in zip(strides_bytes, shape, strict=True) if size > 1):
        if stride < span:
            raise ValueError(
                f"strides: shape {tuple(shape)} with strides of {tuple(strides_bytes)} bytes has elements that overlap"
            )
        span += stride * (size - 1)


def merge_planes(planes: Sequence[Plane]) -> list[list[int]]:
    """Return the indices of `planes` in groups whose chunks touch in every block, each in order of address.

    The groups are in order of their first-named plane, so that the order depends on the tensors' order and relative
    places and not on where an allocator put them.
    """
    at_base = {(plane.block_stride, plane.base): index for index, plane in enumerate(planes)}
    successor = [at_base.get((plane.block_stride, plane.base + plane.chunk)) for plane in planes]
    headed = set(range(len(planes))) - {index for index in successor if index is not None}
    groups: list[list[int]] = []
    for head in sorted(headed):
        group = [head]
        length = planes[head].chunk
        following = successor[head]
        while following is not None:
            if length + planes[following].chunk > planes[head].block_stride:
                groups.append(group)  # it touches the next block, not the next piece of this one
                group, length = [], 0
            group.append(following)
            length += planes[following].chunk
            following = successor[following]
        groups.append(group)
    return sorted(groups, key=min)


def layout_from_handles(tensors: Mapping[str, KVTensorHandle], block_dims: Mapping[str, int]) -> DeviceLayoutSpec:
    """Return the layout of blocks that lie in all `tensors`. A tensor named twice counts once.

    Raises:
        ValueError: naming the tensor: numbers of blocks that differ, tensors that overlap; see `planes_from_tensor`.
    """
    if not tensors:
        raise ValueError("kv_caches is empty; register at least one layer")
    pieces: list[Plane] = []
    names: list[str] = []
    described: list[str] = []
    num_blocks = 0
    first_name = next(iter(tensors))
    for name, tensor in _unique(tensors).items():
        block_dim = block_dims[name]
        if tensor.shape[block_dim] != (num_blocks or tensor.shape[block_dim]):
            raise ValueError(
                f"{name!r} has {tensor.shape[block_dim]} blocks and {first_name!r} has {num_blocks}; "
                "all layers of one group must have as many"
            )
        num_blocks = tensor.shape[block_dim]
        planes = _planes_of(name, tensor, block_dim)
        pieces += planes
        names += [name] * len(planes)
        described.append(_describe(tensor, block_dim, len(planes)))
    if len(pieces) > MAX_PLANES:
        raise ValueError(f"kv_caches: a block is in {len(pieces)} pieces; at most {MAX_PLANES} are possible")
    groups = merge_planes(pieces)
    merged = [
        Plane(pieces[group[0]].base, pieces[group[0]].block_stride, sum(pieces[index].chunk for index in group))
        for group in groups
    ]
    _check_disjoint(merged, [names[group[0]] for group in groups], num_blocks)
    return DeviceLayoutSpec(
        num_blocks=num_blocks,
        planes=np.array(merged, dtype=np.uint64).reshape(-1, 3),
        slot_bytes=sum(plane.chunk for plane in merged),
        tag=_tag(described, groups),
        device=next(iter(tensors.values())).device,
        layer_ends=_layer_ends(tensors, names, [piece.chunk for piece in pieces], groups),
    )


def _layer_ends(
    tensors: Mapping[str, KVTensorHandle], names: Sequence[str], chunks: Sequence[int], groups: Sequence[Sequence[int]]
) -> dict[str, int]:
    """Return where in a slot each tensor's bytes end. `names`, `chunks`: of each piece; `groups`: the slot's order."""
    ends: dict[str, int] = {}
    end = 0
    for index in itertools.chain.from_iterable(groups):
        end += chunks[index]
        ends[names[index]] = end
    first_of = {tensor: name for name, tensor in _unique(tensors).items()}
    return {name: ends[first_of[tensor]] for name, tensor in tensors.items()}


def _unique(tensors: Mapping[str, KVTensorHandle]) -> dict[str, KVTensorHandle]:
    first_name_of: dict[KVTensorHandle, str] = {}
    for name, tensor in tensors.items():
        first_name_of.setdefault(tensor, name)
    return {name: tensor for tensor, name in first_name_of.items()}


def _planes_of(name: str, tensor: KVTensorHandle, block_dim: int) -> list[Plane]:
    try:
        return planes_from_tensor(tensor.shape, tensor.strides, tensor.itemsize, tensor.address, block_dim)
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from error


def _describe(tensor: KVTensorHandle, block_dim: int, num_planes: int) -> str:
    """Return what fixes the byte order of this tensor's part of a block: its dimensions, outermost in memory first."""
    dims = [dim for dim in range(len(tensor.shape)) if dim != block_dim]
    dims.sort(key=lambda dim: (tensor.shape[dim] > 1, -tensor.strides[dim], dim))
    sizes = "x".join(f"{dim}:{tensor.shape[dim]}" for dim in dims)
    return f"{tensor.dtype}[{sizes}]/{num_planes}"


def _tag(described: Sequence[str], groups: Sequence[Sequence[int]]) -> str:
    """Return the tag: readable runs of equal layers, then a digest that covers the order of all pieces."""
    runs = [(text, len(list(run))) for text, run in itertools.groupby(described)]
    readable = ",".join(f"{count}*{text}" for text, count in runs[:4]) + (",..." if len(runs) > 4 else "")
    whole = repr((LAYOUT_VERSION, list(described), [list(group) for group in groups]))
    return f"v{LAYOUT_VERSION};{readable};{hashlib.sha256(whole.encode()).hexdigest()[:32]}"


def _check_disjoint(planes: Sequence[Plane], names: Sequence[str], num_blocks: int) -> None:
    """Raise ValueError when a byte belongs to two planes: a load would write it twice, with two contents.

    Planes whose extents meet must have one stride; then it is enough to compare their places within a stride.
    """
    order = sorted(range(len(planes)), key=lambda index: planes[index].base)
    cluster: list[int] = []
    cluster_end = 0
    for index in order:
        plane = planes[index]
        if plane.base >= cluster_end:
            _check_cluster([planes[i] for i in cluster], [names[i] for i in cluster])
            cluster = []
        cluster.append(index)
        cluster_end = max(cluster_end, plane.base + plane.block_stride * (num_blocks - 1) + plane.chunk)
    _check_cluster([planes[i] for i in cluster], [names[i] for i in cluster])


def _check_cluster(planes: Sequence[Plane], names: Sequence[str]) -> None:
    if len(planes) < 2:
        return
    stride = planes[0].block_stride
    places = sorted(((plane.base - planes[0].base) % stride, index) for index, plane in enumerate(planes))
    places.append((places[0][0] + stride, places[0][1]))  # round the end of the stride
    for (place, index), (next_place, next_index) in itertools.pairwise(places):
        if planes[index].block_stride != stride or place + planes[index].chunk > next_place:
            raise ValueError(f"{names[index]!r} and {names[next_index]!r} overlap in memory; register each byte once")
