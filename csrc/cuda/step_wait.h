// How a mechanism comes behind the engine's step.
#pragma once
#include <cstdint>

#include "cuda/gpu_shared.h"
#include "cuda/lane_streams.h"

namespace flexkv::cuda {

// What touches the engine's blocks, in this stream, comes behind the step. A load waits on the device. A store waits on
// the host, and holds nothing meanwhile that a load needs: the step may itself wait for a load. Throws Error, also when
// a step that a store waits for does not end.
inline void wait_for_step(const GpuShared& shared, const LaneStreams& lane, const GpuStream& touching,
                          std::uint64_t step) {
  if (lane.is_store()) return shared.steps.wait(step, shared.start_limit);
  shared.steps.make_wait(touching, step);
}

}  // namespace flexkv::cuda
