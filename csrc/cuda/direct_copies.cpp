#include "cuda/direct_copies.h"

#include "cuda/host_runs.h"

namespace flexkv::cuda {

DirectCopies::DirectCopies(const GpuShared& shared, const LaneStreams& streams) : shared_(shared), streams_(streams) {
  for (std::size_t i = 0; i < LaneStreams::num_copy_streams; ++i) {
    done_.push_back(std::make_unique<GpuEvent>(shared_.device));
  }
}

void DirectCopies::copy(const CopyOp& op) {
  for (const auto& stream : streams_.copies()) shared_.steps.make_wait(*stream, op.after_step);
  const Plane& plane = op.map.layout.planes.front();
  const bool touch = plane.chunk_bytes == plane.block_stride_bytes && plane.chunk_bytes == op.host.stride_bytes;
  const std::int64_t per_piece = slots_per_piece(op.host.stride_bytes);
  std::size_t num_copies = 0;
  for (std::size_t i = 0; i < op.slots.size();) {
    std::size_t end = i + 1;
    while (touch && end < op.slots.size() && op.blocks[end] == op.blocks[end - 1] + 1 &&
           follows(op.slots[end - 1], op.slots[end], per_piece)) {
      ++end;
    }
    streams_.move(op.host.base + static_cast<std::uint64_t>(op.slots[i]) * op.host.stride_bytes,
                  plane.base + static_cast<std::uint64_t>(op.blocks[i]) * plane.block_stride_bytes,
                  (end - i) * plane.chunk_bytes,
                  streams_.copies()[num_copies++ % LaneStreams::num_copy_streams]->get());
    i = end;
  }
  for (std::size_t i = 0; i < done_.size(); ++i) done_[i]->record(streams_.copies()[i]->get());
  for (const auto& done : done_) done->wait();
}

}  // namespace flexkv::cuda
