#include "cuda/gpu_lane.h"

#include <utility>

#include "cuda/engine_copies.h"
#include "cuda/staged_copies.h"
#include "cuda/zero_copies.h"

namespace flexkv::cuda {
namespace {

using Clock = std::chrono::steady_clock;

// Of any kind but `staged`.
std::unique_ptr<CopyMechanism> make(MechanismKind kind, GpuShared& shared, const LaneStreams& streams) {
  switch (kind) {
    case MechanismKind::staged:
    case MechanismKind::direct:
      return std::make_unique<DirectCopies>(shared, streams);
    case MechanismKind::strided:
      return std::make_unique<StridedCopies>(shared, streams);
    case MechanismKind::batched:
      return std::make_unique<BatchedCopies>(shared, streams);
    case MechanismKind::zero_copy:
      break;
  }
  return std::make_unique<ZeroCopies>(shared, streams);
}

}  // namespace

GpuLane::GpuLane(std::shared_ptr<GpuShared> shared, protocol::Direction direction)
    : shared_(std::move(shared)), direction_(direction) {
  shared_->device.enter_as_guest();
  streams_ = std::make_unique<LaneStreams>(shared_->device, direction);
  auto staged = std::make_unique<StagedCopies>(*shared_, *streams_);
  staged_ = staged.get();
  for (std::size_t i = 0; i < num_mechanisms; ++i) {
    const auto kind = static_cast<MechanismKind>(i);
    mechanisms_[i] = kind == MechanismKind::staged ? std::move(staged) : make(kind, *shared_, *streams_);
  }
}

// Streams and events are to be destroyed by a thread that has entered.
GpuLane::~GpuLane() {
  (void)shared_->device.try_enter_as_guest();
  for (auto& mechanism : mechanisms_) mechanism.reset();
  for (auto& events : part_events_) events.clear();
  streams_.reset();
}

std::chrono::nanoseconds GpuLane::copy(MechanismKind kind, const CopyOp& op) {
  const std::lock_guard lock(mutex_);
  const auto begin = Clock::now();
  CopyMechanism& mechanism = of(kind);
  run(mechanism, [&mechanism, &op] { mechanism.copy(op); });
  return Clock::now() - begin;
}

// REQUIRES: mutex_ held, as for the next one.
template <typename Copy>
void GpuLane::run(CopyMechanism& mechanism, Copy copy) {
  try {
    copy();
  } catch (...) {
    streams_->drain();
    mechanism.settle();
    throw;
  }
}

PartEvents& GpuLane::events_of(std::size_t part) {
  auto& events = part_events_[num_in_parts_ % part_events_.size()];
  while (events.size() <= part) {
    events.push_back(std::make_unique<PartEvents>(shared_->device, shared_->stages.num_stages()));
  }
  return *events[part];
}

void GpuLane::copy_in_parts(CopyOp op, std::span<const SlotPart> parts, PartSink& sink) {
  const std::lock_guard lock(mutex_);
  ++num_in_parts_;
  StagedCopies& staged = *staged_;
  run(staged, [&] {
    staged.begin();
    for (std::size_t i = 0; i < parts.size(); ++i) {
      op.part = parts[i];
      staged.issue(op);
      const PartEvents& there = events_of(i);
      staged.record(there);
      sink.part_issued(parts[i].begin_byte + parts[i].bytes, there.mark());
    }
    staged.finish();
  });
}

}  // namespace flexkv::cuda
