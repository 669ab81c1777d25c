#include "cuda/gpu_lane.h"

#include <utility>

#include "cuda/engine_copies.h"
#include "cuda/staged_copies.h"
#include "cuda/zero_copies.h"

namespace flexkv::cuda {
namespace {

using Clock = std::chrono::steady_clock;

std::unique_ptr<CopyMechanism> make(MechanismKind kind, GpuShared& shared, const LaneStreams& streams) {
  switch (kind) {
    case MechanismKind::staged:
      return std::make_unique<StagedCopies>(shared, streams);
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
  shared_->device.enter();
  streams_ = std::make_unique<LaneStreams>(shared_->device, direction);
  for (std::size_t i = 0; i < num_mechanisms; ++i) {
    mechanisms_[i] = make(static_cast<MechanismKind>(i), *shared_, *streams_);
  }
}

// Streams and events are to be destroyed by a thread that has entered.
GpuLane::~GpuLane() {
  (void)shared_->device.try_enter();
  for (auto& mechanism : mechanisms_) mechanism.reset();
  streams_.reset();
}

std::chrono::nanoseconds GpuLane::copy(MechanismKind kind, const CopyOp& op) {
  const std::lock_guard lock(mutex_);
  const auto begin = Clock::now();
  CopyMechanism& mechanism = of(kind);
  try {
    mechanism.copy(op);
  } catch (...) {
    streams_->drain();
    mechanism.settle();
    throw;
  }
  return Clock::now() - begin;
}

}  // namespace flexkv::cuda
