"""Reading an engine's KV tensors into a layout: the integrations' face of `flexkv.common.kv_tensors`.

The reading itself is below, where KVTPClient needs it too: imports go down only.
"""

from __future__ import annotations

from flexkv.common.device_layout import DeviceLayoutSpec, planes_from_tensor
from flexkv.common.kv_tensors import layout_from_kv_caches

__all__ = ["DeviceLayoutSpec", "layout_from_kv_caches", "planes_from_tensor"]
