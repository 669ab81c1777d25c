// ZeroCopies: a kernel moves the chunks between the engine's tensors and the host's memory itself. No stage and no
// second hand-over, so that a few blocks are there sooner; but its threads wait for the link, on the engine's GPU.
#pragma once
#include <memory>
#include <vector>

#include "cuda/copy_mechanism.h"
#include "cuda/gpu_shared.h"
#include "cuda/lane_streams.h"

namespace flexkv::cuda {

class ZeroCopies final : public CopyMechanism {
 public:
  ZeroCopies(const GpuShared& shared, const LaneStreams& streams);  // throws Error

  [[nodiscard]] bool takes(const CopyOp& op) const override;  // when the GPU reaches all of the slots
  void copy(const CopyOp& op) override;

 private:
  const GpuShared& shared_;
  const LaneStreams& streams_;
  const GpuEvent done_;
};

}  // namespace flexkv::cuda
