"""Every layout of KV tensors: planes hold exactly a block's bytes, and blocks survive a round trip through slots."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexkv import _core
from flexkv.errors import ConfigError
from flexkv.integration.utils import DeviceLayoutSpec, layout_from_kv_caches, planes_from_tensor

Array = npt.NDArray[np.generic]
LOAD, STORE = 0, 1
L, B, H, N, C = 3, 11, 4, 8, 12  # layers, blocks, heads, tokens, K and V of one head
PHYSICAL_ORDERS = ("LBHNC", "LBNHC", "LHBNC", "BLHNC", "BLNHC", "BHLNC")


def random_array(shape: Sequence[int], dtype: str = "float32", seed: int = 0) -> Array:
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.random.default_rng(seed).integers(0, 256, count, dtype=np.uint8).view(dtype).reshape(shape)


def vllm_views(order: str, dtype: str = "float32") -> dict[str, Array]:
    """Layer name -> [B, H, N, C] view of one allocation in a physical order, as vLLM 0.32 hands them over."""
    sizes = {"L": L, "B": B, "H": H, "N": N, "C": C}
    allocation = random_array([sizes[letter] for letter in order], dtype)
    logical = allocation.transpose([order.index(letter) for letter in "LBHNC"])
    return {f"model.layers.{layer}.attn": logical[layer] for layer in range(L)}


@dataclass
class Case:
    """Tensors, which of their dimensions counts blocks, and how many planes a block should be in."""

    caches: dict[str, Array]
    block_dim: int
    num_planes: int


def build(name: str) -> Case:
    if name in PHYSICAL_ORDERS:
        # One run a layer; one a head where blocks lie inside heads; one in all where blocks are outermost.
        planes = {"LBHNC": L, "LBNHC": L, "LHBNC": L * H, "BLHNC": 1, "BLNHC": 1, "BHLNC": 1}[name]
        return Case(vllm_views(name), 0, planes)
    tensors: dict[str, list[Array]] = {
        "2B": [random_array((2, B, N, H, 16), "float16", seed) for seed in range(L)],
        "B2": [random_array((B, 2, N, H, 16), "float16", seed) for seed in range(L)],
        "2B_one_allocation": list(random_array((L, 2, B, N, H, 16), "float16")),
        "B2_one_allocation": list(random_array((L, B, 2, H, N, 16), "float16")),
        "mla": [random_array((B, N, 36), "uint8", seed) for seed in range(L)],
        "mla_4d": [random_array((B, 1, N, 36), "uint8", seed) for seed in range(L)],
        "hnd_view_of_2B": [random_array((2, B, N, H, 16), "float16", s).transpose(0, 1, 3, 2, 4) for s in range(L)],
        "padded": [random_array((B, N, 40), "uint8", seed)[:, :, :33] for seed in range(L)],
        "odd_bytes": [random_array((B, 7, 13), "uint8", seed) for seed in range(L)],
    }
    block_dim = 1 if name.startswith(("2B", "hnd_view_of_2B")) else 0
    planes = {"2B": 2 * L, "2B_one_allocation": 2 * L, "hnd_view_of_2B": 2 * L, "padded": L * N}.get(name, L)
    return Case({f"layer.{i}": tensor for i, tensor in enumerate(tensors[name])}, block_dim, planes)


CASES = (*PHYSICAL_ORDERS, "2B", "B2", "2B_one_allocation", "B2_one_allocation", "mla", "mla_4d", "hnd_view_of_2B",
         "padded", "odd_bytes")  # fmt: skip


def block_of(case: Case, block: int) -> bytes:
    """All bytes of a block in logical order: the reference, by numpy alone."""
    return b"".join(np.take(tensor, block, axis=case.block_dim).tobytes() for tensor in case.caches.values())


def poison(case: Case, seed: int) -> None:
    for tensor in case.caches.values():
        tensor[...] = random_array(tensor.shape, str(tensor.dtype), seed)


def copy(spec: DeviceLayoutSpec, host: npt.NDArray[np.uint8], direction: int, slots: Array, blocks: Array) -> int:
    engine = _core.CopyEngine(2)
    return engine.copy(
        spec.planes,
        spec.num_blocks,
        host.ctypes.data,
        host.strides[0],
        host.shape[0],
        direction,
        np.ascontiguousarray(slots, dtype=np.int64),
        np.ascontiguousarray(blocks, dtype=np.int64),
    )


@pytest.mark.parametrize("name", CASES)
def test_blocks_come_back_byte_identical_and_no_other_byte_changes(name: str) -> None:
    case = build(name)
    spec = layout_from_kv_caches(case.caches)
    assert spec.num_blocks == B
    assert spec.slot_bytes == len(block_of(case, 0))
    rng = np.random.default_rng(5)
    num_slots = 17
    stride = (spec.slot_bytes + 4095) // 4096 * 4096
    host = random_array((num_slots, stride), "uint8", 99).astype(np.uint8)
    host_before = host.copy()
    slots, blocks = rng.permutation(num_slots)[:6], rng.permutation(B)[:6]
    stored = [block_of(case, block) for block in blocks]
    assert copy(spec, host, STORE, slots, blocks) == 6 * spec.slot_bytes
    for slot, content in zip(slots, stored, strict=True):
        assert sorted(host[slot, : spec.slot_bytes].tobytes()) == sorted(content)  # the bytes, in the device's order
        assert np.array_equal(host[slot, spec.slot_bytes :], host_before[slot, spec.slot_bytes :])
    untouched = [slot for slot in range(num_slots) if slot not in slots]
    assert np.array_equal(host[untouched], host_before[untouched])

    poison(case, 1234)
    others = {block: block_of(case, block) for block in range(B)}
    targets = rng.permutation(B)[:6]  # into other blocks than they came from
    assert copy(spec, host, LOAD, slots, targets) == 6 * spec.slot_bytes
    others.update(zip(targets.tolist(), stored, strict=True))
    assert {block: block_of(case, block) for block in range(B)} == others


@pytest.mark.parametrize("name", CASES)
def test_a_block_is_described_by_its_longest_runs(name: str) -> None:
    case = build(name)
    assert len(layout_from_kv_caches(case.caches).planes) == case.num_planes


def test_block_outermost_memory_is_one_extent_a_block() -> None:
    spec = layout_from_kv_caches(vllm_views("BLNHC"))
    block_bytes = L * H * N * C * 4
    assert spec.planes.tolist() == [[spec.planes[0, 0], block_bytes, block_bytes]]


def test_layers_keep_their_order_wherever_they_lie() -> None:
    first, second = random_array((B, N, 36), "uint8", 1), random_array((B, N, 36), "uint8", 2)
    for layers in ((first, second), (second, first)):
        spec = layout_from_kv_caches(list(layers))
        assert spec.planes[:, 0].tolist() == [layer.ctypes.data for layer in layers]


def test_a_tensor_under_two_names_counts_once() -> None:
    shared = random_array((B, N, 36))
    other = random_array((B, N, 36), seed=1)
    spec = layout_from_kv_caches({"a": shared, "b": other, "shares a": shared})
    assert spec.slot_bytes == 2 * N * 36 * 4
    assert spec.tag == layout_from_kv_caches({"a": shared, "b": other}).tag


def test_the_tag_tells_byte_orders_apart_and_nothing_else() -> None:
    tags = {order: layout_from_kv_caches(vllm_views(order)).tag for order in PHYSICAL_ORDERS}
    # LHBNC has the byte order of LBHNC: the same runs, in more pieces on the device. The tag is strict, not clever.
    assert len(set(tags.values())) == len(PHYSICAL_ORDERS)
    again = layout_from_kv_caches({f"other.name.{i}": t for i, t in enumerate(vllm_views("LBHNC").values())})
    assert again.tag == tags["LBHNC"]
    assert layout_from_kv_caches(vllm_views("LBHNC", "int32")).tag != tags["LBHNC"]
    fewer_blocks = {name: tensor[:5] for name, tensor in vllm_views("LBHNC").items()}
    assert layout_from_kv_caches(fewer_blocks).tag == tags["LBHNC"]
    assert all(len(tag.encode()) < 1024 for tag in tags.values())


@pytest.mark.parametrize(
    ("shape", "num_blocks", "block_dim"),
    [
        ((2, 11, 8, 4, 16), None, 1),
        ((11, 2, 8, 4, 16), None, 0),
        ((2, 11, 64), 11, 1),
        ((11, 2, 64), 11, 0),
        ((2, 8, 36), 2, 0),
        ((2, 4, 8, 12), None, 0),
        ((11, 11, 8, 12), 11, 0),
        ((11, 4096), None, 0),
    ],
)
def test_the_block_dimension_is_found(shape: tuple[int, ...], num_blocks: int | None, block_dim: int) -> None:
    spec = layout_from_kv_caches([np.zeros(shape, np.uint8)], num_blocks=num_blocks)
    assert spec.num_blocks == shape[block_dim]


@pytest.mark.parametrize("shape", [(2, 2, 8, 4, 16), (3, 5, 8, 4, 16), (2, 7, 64)])
def test_shapes_that_do_not_tell_need_a_word(shape: tuple[int, ...]) -> None:
    tensor = np.zeros(shape, np.uint8)
    with pytest.raises(ValueError, match=r"'layer 0' has shape .* num_blocks or block_dim"):
        layout_from_kv_caches([tensor])
    assert layout_from_kv_caches([tensor], block_dim=1).num_blocks == shape[1]


def overlapping() -> dict[str, Array]:
    memory = random_array((B, 64), "uint8")
    return {"whole": memory, "half": memory[:, 16:48]}


@pytest.mark.parametrize(
    ("kv_caches", "message"),
    [
        ({}, "kv_caches is empty"),
        (42, "kv_caches is a int"),
        ({"a": "text"}, r"'a' is a str; it must be a torch tensor"),
        ({"a": [np.zeros((3, 4))]}, r"'a' is a list"),
        ({"a": np.zeros(5)}, r"'a' has shape \(5,\)"),
        ({"a": np.zeros((0, 4, 4))}, r"'a' has no memory"),
        ({"a": np.zeros((3, 4)), "b": np.zeros((4, 4))}, r"'b' has 4 blocks and 'a' has 3"),
        ({"a": np.broadcast_to(np.zeros((1, 4)), (3, 4))}, r"'a' is read-only"),
        ({"a": np.zeros((3, 4))[::-1]}, "'a': strides: .* overlap"),
        ({"a": np.lib.stride_tricks.as_strided(np.zeros(20), (5, 4), (16, 8))}, "'a': strides: .* overlap"),
        (overlapping(), "'whole' and 'half' overlap"),
    ],
)
def test_wrong_inputs_name_the_layer(kv_caches: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layout_from_kv_caches(kv_caches)  # type: ignore[arg-type]


def test_bad_hints_are_refused() -> None:
    tensor = np.zeros((3, 4, 8), np.uint8)
    with pytest.raises(ValueError, match="neither of its first two dimensions is 7 blocks"):
        layout_from_kv_caches([tensor], num_blocks=7)
    with pytest.raises(ValueError, match="block_dim is 3"):
        layout_from_kv_caches([tensor], block_dim=3)
    with pytest.raises(ValueError, match="has 4 blocks in dimension 1; num_blocks is 3"):
        layout_from_kv_caches([tensor], num_blocks=3, block_dim=1)
    with pytest.raises(ValueError, match="in pieces of 1 bytes"):
        layout_from_kv_caches([np.zeros((1 << 17, 4), np.uint8).T], block_dim=0)


class FakeTorchTensor:
    """What is read of a torch tensor; element strides, a dtype that prints as torch's does."""

    def __init__(self, array: Array, device: str) -> None:
        self._array = array
        self.shape = array.shape
        self.dtype = "torch.bfloat16"
        self.device = device

    def data_ptr(self) -> int:
        return self._array.ctypes.data

    def stride(self) -> tuple[int, ...]:
        return tuple(stride // self._array.itemsize for stride in self._array.strides)

    def element_size(self) -> int:
        return self._array.itemsize


def test_torch_tensors_are_read_without_torch() -> None:
    arrays = build("2B").caches
    spec = layout_from_kv_caches({name: FakeTorchTensor(array, "cpu") for name, array in arrays.items()})
    assert np.array_equal(spec.planes, layout_from_kv_caches(arrays).planes)
    assert "bfloat16" in spec.tag


def test_a_device_without_backend_is_named() -> None:
    tensor = FakeTorchTensor(np.zeros((3, 4), np.uint16), "xpu:1")
    with pytest.raises(ConfigError, match=r"'layer.0' is on device 'xpu:1'"):
        layout_from_kv_caches({"layer.0": tensor})


@given(data=st.data())
def test_planes_hold_each_byte_of_each_block_once(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=5))
    order = data.draw(st.permutations(range(len(sizes))))
    padding = data.draw(st.lists(st.integers(0, 2), min_size=len(sizes), max_size=len(sizes)))
    block_dim = data.draw(st.integers(0, len(sizes) - 1))
    memory = np.arange(np.prod([s + p for s, p in zip(sizes, padding, strict=True)]), dtype=np.int32)
    padded = memory.reshape([sizes[dim] + padding[dim] for dim in order])
    tensor = padded[tuple(slice(sizes[dim]) for dim in order)].transpose(np.argsort(order))
    strides = [stride // 4 for stride in tensor.strides]
    planes = planes_from_tensor(tensor.shape, strides, 4, tensor.ctypes.data, block_dim)
    for block in range(sizes[block_dim]):
        expected = np.take(tensor, block, axis=block_dim).ravel()
        found = itertools.chain.from_iterable(
            range(begin, begin + plane.chunk, 4)
            for plane in planes
            for begin in [plane.base + block * plane.block_stride - memory.ctypes.data]
        )
        assert sorted(offset // 4 for offset in found) == sorted(expected.tolist())
