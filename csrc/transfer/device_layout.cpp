#include "transfer/device_layout.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

namespace flexkv {
namespace {

constexpr std::uint64_t max_address = std::numeric_limits<std::uint64_t>::max();

[[noreturn]] void reject(std::size_t plane_idx, const std::string& reason) {
  throw std::invalid_argument("planes[" + std::to_string(plane_idx) + "]: " + reason);
}

void validate_plane(std::size_t plane_idx, const Plane& plane, std::uint64_t num_blocks) {
  if (plane.base == 0) reject(plane_idx, "base address is 0");
  if (plane.chunk_bytes == 0) reject(plane_idx, "chunk_bytes is 0");
  if (num_blocks > 1 && plane.block_stride_bytes < plane.chunk_bytes) {
    reject(plane_idx, "block_stride_bytes " + std::to_string(plane.block_stride_bytes) +
                          " is smaller than chunk_bytes " + std::to_string(plane.chunk_bytes) +
                          ": blocks would overlap");
  }
  std::uint64_t last_block = 0;
  std::uint64_t end = 0;
  const bool wraps = __builtin_mul_overflow(plane.block_stride_bytes, num_blocks - 1, &last_block) ||
                     __builtin_add_overflow(plane.base, last_block, &end) ||
                     __builtin_add_overflow(end, plane.chunk_bytes, &end);
  if (wraps) reject(plane_idx, "the addresses of " + std::to_string(num_blocks) + " blocks wrap around 2^64");
}

}  // namespace

std::uint64_t DeviceLayout::slot_bytes() const {
  std::uint64_t total = 0;
  for (const Plane& plane : planes) total += plane.chunk_bytes;
  return total;
}

void DeviceLayout::validate() const {
  if (num_blocks == 0) throw std::invalid_argument("num_blocks is 0: the layout holds no block");
  if (num_blocks > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    throw std::invalid_argument("num_blocks " + std::to_string(num_blocks) + " does not fit in int64");
  }
  if (planes.empty()) throw std::invalid_argument("planes is empty: the layout holds no bytes");
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < planes.size(); ++i) {
    validate_plane(i, planes[i], num_blocks);
    if (planes[i].chunk_bytes > max_address - total) reject(i, "the bytes of one block wrap around 2^64");
    total += planes[i].chunk_bytes;
  }
  if (!std::ranges::is_sorted(layer_ends) || (!layer_ends.empty() && layer_ends.back() > total)) {
    throw std::invalid_argument("layer_ends must be ascending, and not beyond the " + std::to_string(total) +
                                " bytes of a block");
  }
}

DeviceLayout slice(const DeviceLayout& layout, std::uint64_t begin, std::uint64_t end) {
  DeviceLayout part;
  part.num_blocks = layout.num_blocks;
  std::uint64_t at = 0;  // where the plane's chunk begins in the slot
  for (const Plane& plane : layout.planes) {
    const std::uint64_t from = std::max(begin, at);
    const std::uint64_t to = std::min(end, at + plane.chunk_bytes);
    if (from < to) part.planes.push_back({plane.base + (from - at), plane.block_stride_bytes, to - from});
    at += plane.chunk_bytes;
  }
  return part;
}

std::vector<std::uint64_t> part_ends(const DeviceLayout& layout, std::uint64_t least_bytes) {
  std::vector<std::uint64_t> ends;
  std::uint64_t begin = 0;
  for (const std::uint64_t end : layout.layer_ends) {
    if (end - begin < std::max<std::uint64_t>(1, least_bytes)) continue;
    ends.push_back(end);
    begin = end;
  }
  const std::uint64_t slot_bytes = layout.slot_bytes();
  if (ends.empty() || ends.back() != slot_bytes) ends.push_back(slot_bytes);
  return ends;
}

}  // namespace flexkv
