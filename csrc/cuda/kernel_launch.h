// KernelLaunch: one launch of the copy kernels (csrc/cuda/gather.cu, slim.cu), whatever they copy to or from.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "cuda/copy_mechanism.h"
#include "cuda/lane_streams.h"

namespace flexkv::cuda {

inline constexpr std::size_t max_ids_in_launch = 960;  // as many as its arguments have room for

struct KernelLaunch {
  DevicePtr memory = 0;  // slot i begins at memory + i * slot_stride
  std::uint64_t slot_stride = 0;
  std::span<const std::int64_t> blocks;
  std::span<const std::int64_t> slots;  // of each block; when empty, the i-th block's is i
  unsigned most_groups = 0;             // of 1024 threads
  unsigned most_slim_groups = 0;  // unless 0: such ones instead, where GPU and layout allow that; without slots only
};

// Gathers the op's part of the blocks into the slots, or scatters it, as the lane's direction is. Throws Error.
// REQUIRES: blocks and slots are at most max_ids_in_launch in all.
void launch_kernel(const LaneStreams& streams, const CopyOp& op, const KernelLaunch& launch, Stream stream);

}  // namespace flexkv::cuda
