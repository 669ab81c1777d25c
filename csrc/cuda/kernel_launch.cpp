#include "cuda/kernel_launch.h"

#include <algorithm>
#include <array>

namespace flexkv::cuda {
namespace {

constexpr unsigned threads_per_group = 1024;
constexpr unsigned warps_per_group = threads_per_group / 32;
constexpr unsigned slim_word_bytes = 16;
constexpr std::uint64_t least_bytes_of_slim_unit = 1024;  // a group takes about as long for a shorter one
// Few groups for few bytes: beside a product only so many start, however short they are.
constexpr std::uint64_t bytes_of_slim_group = std::uint64_t{128} << 10;
constexpr std::uint64_t least_slim_groups = 16;

// The kernels' argument; csrc/cuda/stage_argument.cuh has the same.
struct StageArgument {
  DevicePtr units = 0;
  DevicePtr memory = 0;
  std::uint64_t slot_stride = 0;
  std::uint32_t units_per_block = 0;
  std::uint32_t num_blocks = 0;
  std::uint32_t has_slots = 0;
  std::array<std::uint32_t, max_ids_in_launch> ids{};
};
static_assert(sizeof(StageArgument) == 3880);

void put_ids(std::span<const std::int64_t> from, std::uint32_t* to) {
  std::ranges::transform(from, to, [](std::int64_t id) { return static_cast<std::uint32_t>(id); });
}

struct Shape {
  Function kernel = nullptr;
  std::uint64_t groups = 0;
  unsigned threads = 0;
};

std::uint64_t num_units(const CopyOp& op, const KernelLaunch& launch) {
  return std::uint64_t{op.part.num_units} * launch.blocks.size();
}

bool goes_slim(const LaneStreams& streams, const CopyOp& op, const KernelLaunch& launch) {
  return launch.most_slim_groups > 0 && launch.slots.empty() && op.map.word_bytes == slim_word_bytes &&
         op.part.bytes >= least_bytes_of_slim_unit * op.part.num_units &&
         streams.device().slim_kernel(streams.is_store()) != nullptr;
}

Shape slim_shape(const LaneStreams& streams, const CopyOp& op, const KernelLaunch& launch) {
  const std::uint64_t by_bytes =
      std::max(op.part.bytes * launch.blocks.size() / bytes_of_slim_group, least_slim_groups);
  const std::uint64_t groups = std::min({num_units(op, launch), by_bytes, std::uint64_t{launch.most_slim_groups}});
  return {streams.device().slim_kernel(streams.is_store()), groups, 1};
}

Shape usual_shape(const LaneStreams& streams, const CopyOp& op, const KernelLaunch& launch) {
  const std::uint64_t enough = (num_units(op, launch) + warps_per_group - 1) / warps_per_group;
  return {streams.device().kernel(streams.is_store(), op.map.word_bytes),
          std::min(enough, std::uint64_t{launch.most_groups}), threads_per_group};
}

}  // namespace

void launch_kernel(const LaneStreams& streams, const CopyOp& op, const KernelLaunch& launch, Stream stream) {
  StageArgument argument;
  argument.units = op.map.device_table.address() + std::uint64_t{op.part.first_unit} * sizeof(Unit);
  argument.memory = launch.memory;
  argument.slot_stride = launch.slot_stride;
  argument.units_per_block = op.part.num_units;
  argument.num_blocks = static_cast<std::uint32_t>(launch.blocks.size());
  argument.has_slots = launch.slots.empty() ? 0 : 1;
  put_ids(launch.blocks, argument.ids.data());
  put_ids(launch.slots, argument.ids.data() + max_ids_in_launch / 2);
  const bool is_slim = goes_slim(streams, op, launch);
  const Shape shape = is_slim ? slim_shape(streams, op, launch) : usual_shape(streams, op, launch);
  void* arguments[] = {&argument};
  const GpuDevice& device = streams.device();
  device.check(device.api().cuLaunchKernel(shape.kernel, static_cast<unsigned>(shape.groups), 1, 1, shape.threads, 1, 1,
                                           0, stream, arguments, nullptr),
               "cuLaunchKernel");
}

}  // namespace flexkv::cuda
