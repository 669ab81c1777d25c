#include "cuda/kernel_launch.h"

#include <algorithm>
#include <array>

namespace flexkv::cuda {
namespace {

constexpr unsigned threads_per_group = 1024;
constexpr unsigned warps_per_group = threads_per_group / 32;
constexpr unsigned slim_word_bytes = 16;

// The kernels' argument; csrc/cuda/gather.cu has the same.
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
  const std::uint64_t num_units = std::uint64_t{argument.units_per_block} * argument.num_blocks;
  void* arguments[] = {&argument};
  const GpuDevice& device = streams.device();
  Function kernel = device.slim_kernel(streams.is_store());
  const bool is_slim = launch.most_slim_groups > 0 && kernel != nullptr && op.map.word_bytes == slim_word_bytes;
  if (!is_slim) kernel = device.kernel(streams.is_store(), op.map.word_bytes);
  const std::uint64_t groups =
      is_slim ? std::min<std::uint64_t>(num_units, launch.most_slim_groups)
              : std::clamp<std::uint64_t>((num_units + warps_per_group - 1) / warps_per_group, 1, launch.most_groups);
  device.check(device.api().cuLaunchKernel(kernel, static_cast<unsigned>(groups), 1, 1, is_slim ? 1 : threads_per_group,
                                           1, 1, 0, stream, arguments, nullptr),
               "cuLaunchKernel");
}

}  // namespace flexkv::cuda
