// LayoutSample: a few blocks of a layout, laid out as the layout's own are, in little memory: what copies of the
// layout's are measured with. Pure.
//
// A block's chunks stay where they are to each other as long as they lie within one stride of blocks, and strides stay
// what they are. Planes farther apart (other layers, keys and values) stay as far apart where the memory allows that;
// else they are as far apart as it allows, equal distances stay equal, and each is what it was modulo a power of two of
// 512 B to 2 MiB: the pages and channels that a copy meets in turn are hit alike. Where not even a few blocks fit so,
// their chunks lie close together.
#pragma once
#include <cstdint>

#include "transfer/device_layout.h"

namespace flexkv::cuda {

struct LayoutSample {
  DeviceLayout layout;      // addresses count from 0; without ends of layers
  std::uint64_t bytes = 0;  // that it takes, from 0; 0: not even one block fits
};

// At most `most_blocks` of the layout's.
[[nodiscard]] LayoutSample sample_of(const DeviceLayout& layout, std::uint64_t most_bytes, std::uint64_t most_blocks);

// The same layout elsewhere.
[[nodiscard]] DeviceLayout moved_by(DeviceLayout layout, std::uint64_t offset);

}  // namespace flexkv::cuda
