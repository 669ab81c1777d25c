// DirectCopies: blocks of one piece go between GPU and host memory as they are, without a kernel or a stage; adjacent
// ones as one copy.
#pragma once
#include <memory>
#include <vector>

#include "cuda/copy_mechanism.h"
#include "cuda/gpu_shared.h"
#include "cuda/lane_streams.h"

namespace flexkv::cuda {

class DirectCopies final : public CopyMechanism {
 public:
  DirectCopies(const GpuShared& shared, const LaneStreams& streams);  // throws Error

  // REQUIRES: the map has one plane, and the part is the whole slot.
  void copy(const CopyOp& op) override;

 private:
  const GpuShared& shared_;
  const LaneStreams& streams_;
  std::vector<std::unique_ptr<GpuEvent>> done_;  // one for each of the copy streams
};

}  // namespace flexkv::cuda
