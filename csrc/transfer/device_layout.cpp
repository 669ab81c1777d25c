#include "transfer/device_layout.h"

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
}

}  // namespace flexkv
