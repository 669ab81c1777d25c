#include "cuda/gpu_lane.h"

#include <utility>

#include "cuda/engine_copies.h"
#include "cuda/staged_copies.h"
#include "cuda/zero_copies.h"

namespace flexkv::cuda {
namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

struct GpuLane::Mechanisms {
  Mechanisms(GpuShared& shared, LaneStreams& streams)
      : staged(shared, streams),
        direct(shared, streams),
        strided(shared, streams),
        batched(shared, streams),
        zero_copy(shared, streams),
        mixed(staged) {}

  [[nodiscard]] CopyMechanism& of(MechanismKind kind) {
    switch (kind) {
      case MechanismKind::staged:
        return staged;
      case MechanismKind::direct:
        return direct;
      case MechanismKind::strided:
        return strided;
      case MechanismKind::batched:
        return batched;
      case MechanismKind::zero_copy:
        return zero_copy;
      case MechanismKind::mixed:
        break;
    }
    return mixed;
  }

  StagedCopies staged;
  DirectCopies direct;
  StridedCopies strided;
  BatchedCopies batched;
  ZeroCopies zero_copy;
  MixedCopies mixed;
};

GpuLane::GpuLane(std::shared_ptr<GpuShared> shared, protocol::Direction direction)
    : shared_(std::move(shared)), direction_(direction), visit_(shared_->device) {
  visit_.begin();
  streams_ = std::make_unique<LaneStreams>(shared_->device, direction);
  mechanisms_ = std::make_unique<Mechanisms>(*shared_, *streams_);
  visit_.end();
}

GpuLane::~GpuLane() {
  (void)visit_.try_begin();
  mechanisms_.reset();
  for (auto& events : part_events_) events.clear();
  streams_.reset();
}

bool GpuLane::takes(MechanismKind kind, const CopyOp& op) const { return mechanisms_->of(kind).takes(op); }

std::chrono::nanoseconds GpuLane::copy(MechanismKind kind, const CopyOp& op) {
  const std::lock_guard lock(mutex_);
  const auto begin = Clock::now();
  CopyMechanism& mechanism = mechanisms_->of(kind);
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
  StagedCopies& staged = mechanisms_->staged;
  run(staged, [&] {
    staged.begin(op.after_step);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      op.part = parts[i];
      staged.issue(op, true);  // such a load is for a step that comes next
      const PartEvents& there = events_of(i);
      staged.record(there);
      sink.part_issued(parts[i].begin_byte + parts[i].bytes, there.mark());
    }
    staged.finish();
  });
}

}  // namespace flexkv::cuda
