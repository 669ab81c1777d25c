#include "cuda/unit_table.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

namespace flexkv::cuda {

UnitTable unit_table(const DeviceLayout& layout) {
  if (layout.slot_bytes() > std::numeric_limits<std::uint32_t>::max()) {
    throw std::invalid_argument("a block of " + std::to_string(layout.slot_bytes()) +
                                " bytes is too long for a GPU; at most 4 GiB are possible");
  }
  UnitTable table;
  std::uint64_t slot_offset = 0;
  std::uint64_t all_bits = 0;
  for (const Plane& plane : layout.planes) {
    const std::uint64_t stride = layout.num_blocks > 1 ? plane.block_stride_bytes : 0;
    all_bits |= plane.base | stride | plane.chunk_bytes | slot_offset;
    for (std::uint64_t at = 0; at < plane.chunk_bytes; at += max_unit_bytes) {
      const std::uint64_t bytes = std::min<std::uint64_t>(max_unit_bytes, plane.chunk_bytes - at);
      table.units.push_back(
          {plane.base + at, stride, static_cast<std::uint32_t>(slot_offset + at), static_cast<std::uint32_t>(bytes)});
    }
    slot_offset += plane.chunk_bytes;
  }
  for (const std::uint32_t word : {16u, 4u}) {
    if (table.word_bytes == 1 && all_bits % word == 0) table.word_bytes = word;
  }
  return table;
}

}  // namespace flexkv::cuda
