#include "cuda/zero_copies.h"

#include <algorithm>

#include "cuda/kernel_launch.h"
#include "cuda/step_wait.h"

namespace flexkv::cuda {
namespace {

constexpr unsigned most_groups = 16;  // enough for the link at every chunk size; more only disturb the engine
constexpr std::size_t most_blocks_in_launch = max_ids_in_launch / 2;

}  // namespace

ZeroCopies::ZeroCopies(const GpuShared& shared, const LaneStreams& streams)
    : shared_(shared), streams_(streams), done_(shared.device) {}

bool ZeroCopies::takes(const CopyOp& op) const { return shared_.pieces.hold(op.host, op.slots); }

void ZeroCopies::copy(const CopyOp& op) {
  const GpuStream& stream = streams_.own();
  wait_for_step(shared_, streams_, stream, op.after_step);
  const auto memory = static_cast<DevicePtr>(reinterpret_cast<std::uintptr_t>(op.host.base));
  for (std::size_t first = 0; first < op.slots.size(); first += most_blocks_in_launch) {
    const std::size_t count = std::min(most_blocks_in_launch, op.slots.size() - first);
    const auto blocks = op.blocks.subspan(first, count);
    const auto slots = op.slots.subspan(first, count);
    launch_kernel(streams_, op, {memory, op.host.stride_bytes, blocks, slots, most_groups}, stream.get());
  }
  done_.record(stream.get());
  done_.wait();
}

}  // namespace flexkv::cuda
