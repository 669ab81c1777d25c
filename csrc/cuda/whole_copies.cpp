#include "cuda/whole_copies.h"

#include "cuda/host_runs.h"

namespace flexkv::cuda {
namespace {

void move_pieces(const LaneStreams& streams, const CopyOp& op) {
  const Plane& plane = op.map.layout.planes.front();
  for (std::size_t i = 0; i < op.slots.size();) {
    std::size_t end = i + 1;
    while (end < op.slots.size() && goes_on(op, end)) ++end;
    streams.move(slot_of(op, i), chunk_of(op, plane, i), (end - i) * plane.chunk_bytes, streams.copies().get());
    i = end;
  }
}

void move_rows(const LaneStreams& streams, const CopyOp& op) {
  const auto& planes = op.map.layout.planes;
  const std::uint64_t chunk_bytes = planes.front().chunk_bytes;
  for (std::size_t i = 0; i < op.slots.size(); ++i) {
    streams.move_rows(slot_of(op, i), chunk_of(op, planes.front(), i),
                      {chunk_bytes, planes.size(), chunk_bytes, op.map.plane_pitch_bytes}, streams.copies().get());
  }
}

}  // namespace

bool goes_on(const CopyOp& op, std::size_t i) {
  if (op.map.layout.planes.size() > 1) return false;
  const Plane& plane = op.map.layout.planes.front();
  return plane.chunk_bytes == plane.block_stride_bytes && plane.chunk_bytes == op.host.stride_bytes &&
         op.blocks[i] == op.blocks[i - 1] + 1 &&
         follows(op.slots[i - 1], op.slots[i], slots_per_piece(op.host.stride_bytes));
}

void move_whole(const LaneStreams& streams, const CopyOp& op) {
  if (are_pieces(op)) return move_pieces(streams, op);
  move_rows(streams, op);
}

}  // namespace flexkv::cuda
