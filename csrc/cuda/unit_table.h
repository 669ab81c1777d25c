// UnitTable: a layout as the kernels read it. A block's chunks are cut into units of at most `max_unit_bytes`, each of
// which one warp, or one slim group, copies; a unit says where its bytes lie in block 0, how far it is to the next
// block, and where they stand in a slot. Pure.
#pragma once
#include <cstdint>
#include <vector>

#include "transfer/device_layout.h"

namespace flexkv::cuda {

inline constexpr std::uint32_t max_unit_bytes = 8192;

struct Unit {
  std::uint64_t base = 0;
  std::uint64_t stride = 0;
  std::uint32_t offset = 0;
  std::uint32_t bytes = 0;
};
static_assert(sizeof(Unit) == 24);

struct UnitTable {
  std::vector<Unit> units;
  std::uint32_t word_bytes = 1;  // of 16, 4 and 1 the largest that all addresses and lengths are multiples of
};

// Throws std::invalid_argument when a slot has 4 GiB or more.
[[nodiscard]] UnitTable unit_table(const DeviceLayout& layout);

}  // namespace flexkv::cuda
