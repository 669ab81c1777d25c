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
  // Where in a slot the bytes of the model's layers end, ascending; a layer is there once all bytes before its end are.
  // NOLINTNEXTLINE(readability-redundant-member-init): else each layout would have to name it
  std::vector<std::uint64_t> layer_ends{};

  [[nodiscard]] std::uint64_t slot_bytes() const;
  // Throws std::invalid_argument when empty, a chunk is 0 or longer than its stride (with num_blocks > 1), an address
  // wraps, or a layer ends beyond the slot or before the one before it.
  void validate() const;
};

// The layout of bytes [begin, end) of every slot. REQUIRES: begin < end <= slot_bytes().
[[nodiscard]] DeviceLayout slice(const DeviceLayout& layout, std::uint64_t begin, std::uint64_t end);

// Where the parts end in which a load by layers copies its slots: with a layer each, the last one with the slot. None
// but the last is shorter than `least_bytes`.
[[nodiscard]] std::vector<std::uint64_t> part_ends(const DeviceLayout& layout, std::uint64_t least_bytes);

}  // namespace flexkv
