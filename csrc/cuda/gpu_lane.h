// GpuLane: one direction of a GPU agent: its streams, and every mechanism over them.
//
// Thread safety: all members, any thread; copies come one after the other.
#pragma once
#include <array>
#include <chrono>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "cuda/copy_choices.h"
#include "cuda/copy_mechanism.h"
#include "cuda/gpu_shared.h"
#include "cuda/lane_streams.h"
#include "cuda/part_events.h"

namespace flexkv::cuda {

class GpuLane {
 public:
  GpuLane(std::shared_ptr<GpuShared> shared, protocol::Direction direction);  // throws Error
  ~GpuLane();
  GpuLane(const GpuLane&) = delete;
  GpuLane& operator=(const GpuLane&) = delete;

  [[nodiscard]] protocol::Direction direction() const { return direction_; }
  [[nodiscard]] bool takes(MechanismKind kind, const CopyOp& op) const;
  // Copies, and returns once all bytes are there: how long that took, without the wait for a copy before. Throws Error;
  // nothing of the op runs on then. REQUIRES: the mechanism takes it, and the thread has entered.
  std::chrono::nanoseconds copy(MechanismKind kind, const CopyOp& op);
  // The parts one after the other through stages; the op's own part does not count. Tells the sink of each once it is
  // on its way. Returns and throws as `copy`.
  void copy_in_parts(CopyOp op, std::span<const SlotPart> parts, PartSink& sink);

 private:
  struct Mechanisms;

  template <typename Copy>
  void run(CopyMechanism& mechanism, Copy copy);
  [[nodiscard]] PartEvents& events_of(std::size_t part);

  const std::shared_ptr<GpuShared> shared_;
  const protocol::Direction direction_;
  Visit visit_;  // while the members below are made, and given back
  std::unique_ptr<LaneStreams> streams_;
  std::unique_ptr<Mechanisms> mechanisms_;
  std::mutex mutex_;
  // The parts of the last two loads by layers. Nobody waits for older ones: a load runs once the step before its own
  // has been recorded, which the engine does when it has finished with the load of that step.
  std::array<std::vector<std::unique_ptr<PartEvents>>, 2> part_events_;
  std::size_t num_in_parts_ = 0;  // such loads
};

}  // namespace flexkv::cuda
