"""Where KV bytes live and how a block lies there: device types, layouts, handles. Nothing is allocated here.

    LAYERWISE  [layer, kv, block, token, head, dim]   as GPUs hold it
    BLOCKWISE  [block, layer, kv, token, head, dim]   host, SSD, remote: one block is one contiguous extent

`kv` is 2 (K, then V), or 1 for MLA, where one latent vector serves both. Strides are in elements.
Immutable values, safe to share between threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from flexkv.common.checks import as_config_int
from flexkv.errors import ConfigError

__all__ = ["DeviceType", "KVCacheLayout", "KVCacheLayoutType", "StorageHandle"]


class DeviceType(Enum):
    """A tier, named by what holds its bytes."""

    CPU = "cpu"
    GPU = "gpu"
    SSD = "ssd"
    REMOTE = "remote"


class KVCacheLayoutType(Enum):
    """Order of the outer dimensions; LAYERFIRST and BLOCKFIRST are synonyms."""

    LAYERWISE = "layerwise"
    BLOCKWISE = "blockwise"
    LAYERFIRST = "layerwise"  # noqa: PIE796  a synonym
    BLOCKFIRST = "blockwise"  # noqa: PIE796

    @classmethod
    def parse(cls, value: object, key: str = "layout type") -> KVCacheLayoutType:
        """Return the member for a member or a name of one, in any case. Raises ConfigError."""
        if isinstance(value, cls):
            return value
        if isinstance(value, str) and value.strip().upper() in cls.__members__:
            return cls.__members__[value.strip().upper()]
        raise ConfigError(f"{key} is {value!r}; use one of {', '.join(cls.__members__)}", key=key, value=value)


@dataclass(frozen=True, slots=True, init=False)
class KVCacheLayout:
    """The shape of a KV cache: what one block is, and how far it is to the next.

    Raises ConfigError naming the argument when a size is not a positive integer.
    """

    type: KVCacheLayoutType
    num_layer: int
    num_block: int
    tokens_per_block: int
    num_head: int
    head_size: int
    is_mla: bool

    def __init__(
        self,
        type: KVCacheLayoutType | str,  # noqa: A002  the name engines pass
        num_layer: int,
        num_block: int,
        tokens_per_block: int,
        num_head: int,
        head_size: int,
        is_mla: bool = False,
        *,
        use_mla: bool | None = None,
    ) -> None:
        set_field = object.__setattr__  # the only way into a frozen instance; `use_mla` is a synonym, not a field
        set_field(self, "type", KVCacheLayoutType.parse(type, "type"))
        sizes: dict[str, object] = {
            "num_layer": num_layer,
            "num_block": num_block,
            "tokens_per_block": tokens_per_block,
            "num_head": num_head,
            "head_size": head_size,
        }
        for name, value in sizes.items():
            set_field(self, name, as_config_int(name, value))
        set_field(self, "is_mla", bool(is_mla if use_mla is None else use_mla))

    @property
    def use_mla(self) -> bool:
        """Synonym of `is_mla`."""
        return self.is_mla

    @property
    def kv_dim(self) -> int:
        """Vectors per token, layer and head: 2 (K and V), or 1 for MLA."""
        return 1 if self.is_mla else 2

    @property
    def kv_shape(self) -> tuple[int, int, int, int, int, int]:
        """Shape of the whole cache, outermost dimension first."""
        tail = (self.tokens_per_block, self.num_head, self.head_size)
        if self.type is KVCacheLayoutType.LAYERWISE:
            return (self.num_layer, self.kv_dim, self.num_block, *tail)
        return (self.num_block, self.num_layer, self.kv_dim, *tail)

    def get_chunk_size(self) -> int:
        """Elements of one block in one layer, K or V: always contiguous."""
        return self.tokens_per_block * self.num_head * self.head_size

    def get_elements_per_block(self) -> int:
        """Elements of one block over all layers, K and V."""
        return self.num_layer * self.kv_dim * self.get_chunk_size()

    def get_total_elements(self) -> int:
        """Elements of the whole cache."""
        return self.num_block * self.get_elements_per_block()

    def get_block_stride(self) -> int:
        """Elements from a block to the next one, in the same layer and K or V."""
        if self.type is KVCacheLayoutType.LAYERWISE:
            return self.get_chunk_size()
        return self.get_elements_per_block()

    def get_kv_stride(self) -> int:
        """Elements from K to V of the same block and layer."""
        if self.type is KVCacheLayoutType.LAYERWISE:
            return self.num_block * self.get_chunk_size()
        return self.get_chunk_size()

    def get_layer_stride(self) -> int:
        """Elements from a layer to the next one, in the same block and K or V."""
        return self.kv_dim * self.get_kv_stride()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StorageHandle:
    """Says what was allocated and where. `data` owns the bytes (a HostPool for CPU); the handle keeps it alive."""

    device_type: DeviceType
    device_id: int = 0
    layout: KVCacheLayout | None = None
    dtype: str = "uint8"
    data: object = None
