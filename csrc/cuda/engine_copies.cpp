#include "cuda/engine_copies.h"

#include <algorithm>

#include "cuda/host_runs.h"
#include "cuda/step_wait.h"

namespace flexkv::cuda {
namespace {

constexpr std::uint64_t bytes_of_segment = std::uint64_t{32} << 20;

std::byte* slot_of(const CopyOp& op, std::size_t i) {
  return op.host.base + static_cast<std::uint64_t>(op.slots[i]) * op.host.stride_bytes;
}

DevicePtr chunk_of(const CopyOp& op, const Plane& plane, std::size_t i) {
  return plane.base + static_cast<std::uint64_t>(op.blocks[i]) * plane.block_stride_bytes;
}

// Whether the copy of the block before may go on with this one. REQUIRES: i > 0.
bool goes_on(const CopyOp& op, std::size_t i) {
  if (op.map.layout.planes.size() > 1) return false;
  const Plane& plane = op.map.layout.planes.front();
  return plane.chunk_bytes == plane.block_stride_bytes && plane.chunk_bytes == op.host.stride_bytes &&
         op.blocks[i] == op.blocks[i - 1] + 1 &&
         follows(op.slots[i - 1], op.slots[i], slots_per_piece(op.host.stride_bytes));
}

}  // namespace

EngineCopies::EngineCopies(const GpuShared& shared, const LaneStreams& streams) : shared_(shared), streams_(streams) {
  for (std::size_t i = 0; i < most_in_flight; ++i) ends_.push_back(std::make_unique<GpuEvent>(shared_.device));
}

void EngineCopies::copy(const CopyOp& op) {
  wait_for_step(shared_, streams_, streams_.copies(), op.after_step);
  step_ = op.after_step;
  pace_.begin();
  const std::size_t most = std::max<std::size_t>(1, bytes_of_segment / op.map.slot_bytes);
  std::size_t number = 0;
  for (std::size_t first = 0; first < op.slots.size(); first += most, ++number) {
    if (in_flight_.is_full()) finish_oldest();
    const std::size_t count = std::min(most, op.slots.size() - first);
    issue({op.map, op.host, op.slots.subspan(first, count), op.blocks.subspan(first, count), op.part, op.after_step});
    const GpuEvent& end = *ends_[number % most_in_flight];
    end.record(stream());
    in_flight_.push_back({&end, (first + count) * op.map.slot_bytes});
  }
  while (!in_flight_.empty()) finish_oldest();
}

void EngineCopies::finish_oldest() {
  if (step_ != 0) {  // a wait for it tells nothing of how fast bytes pass
    shared_.steps.wait(step_, no_limit);
    pace_.begin();
    step_ = 0;
  }
  const Segment oldest = in_flight_.front();
  (void)pace_.wait(*oldest.end, oldest.passed_bytes, in_flight_.size() == 1 ? Looks::close : Looks::leisurely);
  in_flight_.pop_front();
}

bool DirectCopies::takes(const CopyOp& op) const {
  return op.map.layout.planes.size() == 1 && op.map.chunks_are_within_allocations && op.is_whole();
}

void DirectCopies::issue(const CopyOp& op) {
  const Plane& plane = op.map.layout.planes.front();
  for (std::size_t i = 0; i < op.slots.size();) {
    std::size_t end = i + 1;
    while (end < op.slots.size() && goes_on(op, end)) ++end;
    streams().move(slot_of(op, i), chunk_of(op, plane, i), (end - i) * plane.chunk_bytes, stream());
    i = end;
  }
}

bool StridedCopies::takes(const CopyOp& op) const { return op.map.plane_pitch_bytes != 0 && op.is_whole(); }

void StridedCopies::issue(const CopyOp& op) {
  const auto& planes = op.map.layout.planes;
  const std::uint64_t chunk_bytes = planes.front().chunk_bytes;
  for (std::size_t i = 0; i < op.slots.size(); ++i) {
    streams().move_rows(slot_of(op, i), chunk_of(op, planes.front(), i),
                        {chunk_bytes, planes.size(), chunk_bytes, op.map.plane_pitch_bytes}, stream());
  }
}

BatchedCopies::BatchedCopies(const GpuShared& shared, const LaneStreams& streams)
    : EngineCopies(shared, streams), shared_(shared), batch_(streams) {}

bool BatchedCopies::takes(const CopyOp& op) const {
  return batch_.is_there() && op.map.chunks_are_within_allocations && op.is_whole() &&
         shared_.pieces.hold(op.host, op.slots);
}

void BatchedCopies::issue(const CopyOp& op) {
  for (std::size_t i = 0; i < op.slots.size(); ++i) {
    if (!batch_.empty() && goes_on(op, i)) {
      batch_.extend(op.map.slot_bytes);
      continue;
    }
    std::byte* host = slot_of(op, i);
    for (const Plane& plane : op.map.layout.planes) {
      batch_.add(host, chunk_of(op, plane, i), plane.chunk_bytes);
      host += plane.chunk_bytes;
    }
  }
  batch_.flush();
}

}  // namespace flexkv::cuda
