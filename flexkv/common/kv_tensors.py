"""Reading an engine's KV tensors into a DeviceLayoutSpec, without importing torch.

Which dimension counts the blocks:
    [B, N, C] and [B, H, N, C]   MLA; vLLM's 4-D views in any physical order: the first
    [2, B, ...], [B, 2, ...]     five dimensions, K and V apart: the one beside the 2
`num_blocks` decides where the shape alone does not, `block_dim` always.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flexkv.common.device_layout import DeviceLayoutSpec, layout_from_handles
from flexkv.common.memory_handle import KVTensorHandle
from flexkv.errors import ConfigError

__all__ = ["find_block_dim", "layout_from_kv_caches", "tensor_handles"]

MIN_DIMS = 2
MAX_DIMS = 6
KV_SIZE = 2  # K and V
DEVICE_KINDS = ("cpu", "cuda")


def layout_from_kv_caches(
    kv_caches: Mapping[str, object] | Sequence[object],
    *,
    num_blocks: int | None = None,
    block_dim: int | None = None,
) -> DeviceLayoutSpec:
    """Return the layout of the blocks in `kv_caches` (layer name -> tensor, or tensors in order of layers).

    The order of the layers is the order in a slot. The caller keeps the tensors alive and in their place.

    Raises:
        ConfigError: a tensor is on a device that has no backend in this version.
        ValueError: naming the layer: not a tensor, a shape whose blocks cannot be told, tensors that disagree.
    """
    handles = tensor_handles(kv_caches)
    _check_devices(handles)
    if block_dim is None:
        dims = {name: find_block_dim(name, handle.shape, num_blocks) for name, handle in handles.items()}
    else:
        dims = {name: _checked_dim(name, handle.shape, num_blocks, block_dim) for name, handle in handles.items()}
    return layout_from_handles(handles, dims)


def _check_devices(handles: Mapping[str, KVTensorHandle]) -> None:
    """Raise unless all are on one device that has a backend."""
    devices = {handle.device: name for name, handle in handles.items()}
    for device, name in devices.items():
        if device.partition(":")[0] not in DEVICE_KINDS:
            raise ConfigError(
                f"{name!r} is on device {device!r}; KV tensors are copied on {' and '.join(DEVICE_KINDS)}",
                key="kv_caches",
                value=device,
            )
    if len(devices) > 1:
        raise ValueError(f"kv_caches are on several devices: {', '.join(sorted(devices))}; a rank has one")


def tensor_handles(kv_caches: object) -> dict[str, KVTensorHandle]:
    """Return the handles of an engine's tensors by layer name; layers without names are numbered."""
    if isinstance(kv_caches, Mapping):
        named = {str(name): tensor for name, tensor in kv_caches.items()}
    elif isinstance(kv_caches, (list, tuple)):
        named = {f"layer {index}": tensor for index, tensor in enumerate(kv_caches)}
    else:
        raise ValueError(f"kv_caches is a {type(kv_caches).__name__}; it must map layer names to tensors")
    return {name: KVTensorHandle.of(tensor, repr(name)) for name, tensor in named.items()}


def find_block_dim(name: str, shape: Sequence[int], num_blocks: int | None = None) -> int:
    """Return the dimension that counts the blocks. Raises ValueError when the shape does not tell."""
    if not MIN_DIMS <= len(shape) <= MAX_DIMS:
        raise ValueError(f"{name!r} has shape {tuple(shape)}; KV tensors have {MIN_DIMS} to {MAX_DIMS} dimensions")
    candidates = [dim for dim in (0, 1) if num_blocks is None or shape[dim] == num_blocks]
    if not candidates:
        raise ValueError(
            f"{name!r} has shape {tuple(shape)}; neither of its first two dimensions is {num_blocks} blocks"
        )
    if len(candidates) == 1:
        return candidates[0]
    if len(shape) in (2, 4) or (len(shape) == 3 and (num_blocks is not None or shape[0] != KV_SIZE)):
        return 0
    beside_kv = [1 - dim for dim in (0, 1) if shape[dim] == KV_SIZE]
    if len(shape) == 3 or len(beside_kv) != 1:
        raise ValueError(
            f"{name!r} has shape {tuple(shape)}: which dimension counts blocks? Give num_blocks or block_dim"
        )
    return beside_kv[0]


def _checked_dim(name: str, shape: Sequence[int], num_blocks: int | None, block_dim: int) -> int:
    if not 0 <= block_dim < len(shape):
        raise ValueError(f"block_dim is {block_dim}; {name!r} has shape {tuple(shape)}")
    if num_blocks is not None and shape[block_dim] != num_blocks:
        raise ValueError(f"{name!r} has {shape[block_dim]} blocks in dimension {block_dim}; num_blocks is {num_blocks}")
    return block_dim
