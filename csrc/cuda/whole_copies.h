// Copies of whole slots by the copy engine alone, with one call of the driver for each block, or for adjacent ones.
#pragma once
#include <cstddef>

#include "cuda/copy_mechanism.h"
#include "cuda/lane_streams.h"

namespace flexkv::cuda {

// Whether blocks are one piece each; or chunks at a regular stride, which go as the rows of one copy.
[[nodiscard]] inline bool are_pieces(const CopyOp& op) {
  return op.is_whole() && op.map.layout.planes.size() == 1 && op.map.chunks_are_within_allocations;
}
[[nodiscard]] inline bool are_rows(const CopyOp& op) { return op.is_whole() && op.map.plane_pitch_bytes != 0; }
[[nodiscard]] inline bool can_go_straight(const CopyOp& op) { return are_pieces(op) || are_rows(op); }

// Puts the copies into the lane's stream of copies. Throws Error. REQUIRES: can_go_straight.
void move_whole(const LaneStreams& streams, const CopyOp& op);

[[nodiscard]] inline std::byte* slot_of(const CopyOp& op, std::size_t i) {
  return op.host.base + static_cast<std::uint64_t>(op.slots[i]) * op.host.stride_bytes;
}
[[nodiscard]] inline DevicePtr chunk_of(const CopyOp& op, const Plane& plane, std::size_t i) {
  return plane.base + static_cast<std::uint64_t>(op.blocks[i]) * plane.block_stride_bytes;
}
// Whether the copy of a block of one piece may go on with the next one, at index i > 0.
[[nodiscard]] bool goes_on(const CopyOp& op, std::size_t i);

}  // namespace flexkv::cuda
