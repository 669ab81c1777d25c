// DeviceLayout: where one block of a rank's KV cache lies in device memory, whatever the engine's tensor layout.
//
// A block is the concatenation of its planes' chunks, in plane order; that order is the slot's byte order (D2):
//   plane p, block b:  address = planes[p].base + b * planes[p].block_stride_bytes,  planes[p].chunk_bytes long
// A K/V tensor of layer l contributes one plane per contiguous piece of a block (one for [B,2,...] per layer, two for
// [2,B,...], one per head for a head-outermost layout). Adjacent planes (same stride, touching chunks) should be
// merged. The registration (flexkv/common/device_layout.py) builds planes from tensors; nothing here knows of tensors.
#pragma once
#include <cstdint>
#include <vector>

namespace flexkv {

struct Plane {
  std::uint64_t base = 0;                // address of block 0's chunk
  std::uint64_t block_stride_bytes = 0;  // >= chunk_bytes
  std::uint64_t chunk_bytes = 0;
};

struct DeviceLayout {
  std::uint64_t num_blocks = 0;
  std::vector<Plane> planes;

  [[nodiscard]] std::uint64_t slot_bytes() const;
  // Throws std::invalid_argument when empty, a chunk is 0 or longer than its stride (with num_blocks > 1), or an
  // address wraps.
  void validate() const;
};

}  // namespace flexkv
