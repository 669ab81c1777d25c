#include "cuda/gpu_copier.h"

#include <algorithm>
#include <array>
#include <utility>

namespace flexkv::cuda {
namespace {

using protocol::Direction;

constexpr std::uint64_t piece_bytes = std::uint64_t{512} << 20;
// Shorter pieces are faster as stages: a copy of 2 MiB after the other comes to 0.95 of long ones.
constexpr std::uint64_t direct_chunk_bytes = std::uint64_t{16} << 20;
constexpr std::size_t max_blocks_at_once = 960;  // as many as a launch's arguments have room for
constexpr unsigned threads_per_group = 1024;
constexpr unsigned warps_per_group = threads_per_group / 32;
constexpr unsigned most_groups = 32;

// The kernels' argument; csrc/cuda/gather.cu has the same.
struct StageArgument {
  DevicePtr units = 0;
  DevicePtr memory = 0;
  std::uint64_t slot_stride = 0;
  std::uint32_t units_per_block = 0;
  std::uint32_t num_blocks = 0;
  std::array<std::uint32_t, max_blocks_at_once> blocks{};
};
static_assert(sizeof(StageArgument) == 3872);

DevicePtr room_for(const GpuDevice& device, std::size_t bytes) {
  DevicePtr address = 0;
  device.check(device.api().cuMemAlloc(&address, bytes), "cuMemAlloc of the layout's table");
  return address;
}

void upload(const GpuDevice& device, const std::vector<Unit>& units, DevicePtr to) {
  const GpuStream stream(device, device.low_priority());
  const std::size_t bytes = units.size() * sizeof(Unit);
  device.check(device.api().cuMemcpyHtoDAsync(to, units.data(), bytes, stream.get()), "cuMemcpyHtoDAsync");
  device.check(device.api().cuStreamSynchronize(stream.get()), "cuStreamSynchronize");
}

// Whether one copy may go on from a slot to another.
bool follows(std::int64_t slot, std::int64_t next, std::int64_t per_piece) {
  return next == slot + 1 && next % per_piece != 0;
}

bool needs_no_kernel(const DeviceLayout& layout) {
  return layout.planes.size() == 1 && layout.planes.front().chunk_bytes >= direct_chunk_bytes;
}

}  // namespace

std::int64_t slots_per_piece(std::uint64_t stride_bytes) {
  return static_cast<std::int64_t>(std::max<std::uint64_t>(1, piece_bytes / stride_bytes));
}

GpuShared::GpuShared(const Api& api, int ordinal, DeviceLayout layout_in, std::uint64_t slot_stride_bytes)
    : device(api, ordinal),
      layout(std::move(layout_in)),
      table(unit_table(layout)),
      is_direct(needs_no_kernel(layout)),
      device_table(device, room_for(device, table.units.size() * sizeof(Unit))),
      steps(device),
      stages(device, slot_stride_bytes) {
  upload(device, table.units, device_table.address());
}

GpuCopier::GpuCopier(std::shared_ptr<GpuShared> shared, Direction direction)
    : shared_(std::move(shared)),
      device_(shared_->device),
      direction_(direction),
      side_(direction == Direction::load ? 0 : 1) {
  device_.enter();
  for (std::size_t i = 0; i < num_kernel_streams; ++i) {
    kernel_streams_.push_back(std::make_unique<GpuStream>(device_, device_.high_priority()));
  }
  for (std::size_t i = 0; i < num_copy_streams; ++i) {
    copy_streams_.push_back(std::make_unique<GpuStream>(device_, device_.high_priority()));
    direct_done_.push_back(std::make_unique<GpuEvent>(device_));
  }
}

GpuCopier::~GpuCopier() { (void)device_.try_enter(); }  // its streams and events are to be destroyed here

std::uint64_t GpuCopier::copy(const HostShard& host, std::span<const std::int64_t> slots,
                              std::span<const std::int64_t> blocks, std::uint64_t after_step) {
  if (slots.empty()) return 0;
  device_.enter();
  try {
    // What touches the engine's blocks waits for its step; what only fills a stage does not.
    const auto& touching = shared_->is_direct ? copy_streams_ : kernel_streams_;
    for (const auto& stream : touching) shared_->steps.make_wait(*stream, after_step);
    if (shared_->is_direct) {
      copy_direct(host, slots, blocks);
    } else {
      copy_staged(host, slots, blocks);
    }
  } catch (...) {
    settle();
    throw;
  }
  return shared_->layout.slot_bytes() * slots.size();
}

void GpuCopier::copy_direct(const HostShard& host, std::span<const std::int64_t> slots,
                            std::span<const std::int64_t> blocks) {
  const Plane& plane = shared_->layout.planes.front();
  const bool touch = plane.chunk_bytes == plane.block_stride_bytes && plane.chunk_bytes == host.stride_bytes;
  const std::int64_t per_piece = slots_per_piece(host.stride_bytes);
  std::size_t num_copies = 0;
  for (std::size_t i = 0; i < slots.size();) {
    std::size_t end = i + 1;
    while (touch && end < slots.size() && blocks[end] == blocks[end - 1] + 1 &&
           follows(slots[end - 1], slots[end], per_piece)) {
      ++end;
    }
    move(host.base + static_cast<std::uint64_t>(slots[i]) * host.stride_bytes,
         plane.base + static_cast<std::uint64_t>(blocks[i]) * plane.block_stride_bytes, (end - i) * plane.chunk_bytes,
         copy_streams_[num_copies++ % num_copy_streams]->get());
    i = end;
  }
  for (std::size_t i = 0; i < num_copy_streams; ++i) direct_done_[i]->record(copy_streams_[i]->get());
  for (const auto& done : direct_done_) done->wait();
}

void GpuCopier::copy_staged(const HostShard& host, std::span<const std::int64_t> slots,
                            std::span<const std::int64_t> blocks) {
  const std::size_t by_bytes = shared_->stages.stage_bytes() / host.stride_bytes;
  const std::size_t at_once = std::min(max_blocks_at_once, by_bytes);
  shared_->stages.begin(side_);
  for (std::size_t begin = 0; begin < slots.size(); begin += at_once) {
    const std::size_t count = std::min(at_once, slots.size() - begin);
    pass(host, {slots.subspan(begin, count), blocks.subspan(begin, count)}, next_stage());
  }
  while (!in_flight_.empty()) finish_oldest();
  shared_->stages.end(side_);
}

GpuStage& GpuCopier::next_stage() {
  while (shared_->stages.holds_too_many(side_)) finish_oldest();
  GpuStage* stage = shared_->stages.take(side_);
  while (stage == nullptr) {
    finish_oldest();
    stage = shared_->stages.take(side_);
  }
  return *stage;
}

void GpuCopier::finish_oldest() {
  GpuStage* const stage = in_flight_.front();
  stage->done.wait();
  in_flight_.pop_front();
  shared_->stages.give_back(side_, stage);
}

void GpuCopier::pass(const HostShard& host, const Batch& batch, GpuStage& stage) {
  in_flight_.push_back(&stage);
  const GpuStream& kernels = *kernel_streams_[num_passed_ % num_kernel_streams];
  const GpuStream& copies = *copy_streams_[num_passed_ % num_copy_streams];
  ++num_passed_;
  if (direction_ == Direction::store) {
    launch(host, batch, stage, kernels.get());
    stage.filled.record(kernels.get());
    copies.wait_for(stage.filled.get());
    move_runs(host, batch, stage.memory, copies.get());
    stage.done.record(copies.get());
  } else {
    move_runs(host, batch, stage.memory, copies.get());
    stage.filled.record(copies.get());
    kernels.wait_for(stage.filled.get());
    launch(host, batch, stage, kernels.get());
    stage.done.record(kernels.get());
  }
}

void GpuCopier::launch(const HostShard& host, const Batch& batch, const GpuStage& stage, Stream stream) const {
  const UnitTable& table = shared_->table;
  StageArgument argument;
  argument.units = shared_->device_table.address();
  argument.memory = stage.memory;
  argument.slot_stride = host.stride_bytes;  // adjacent slots are adjacent in the stage, too
  argument.units_per_block = static_cast<std::uint32_t>(table.units.size());
  argument.num_blocks = static_cast<std::uint32_t>(batch.blocks.size());
  for (std::size_t i = 0; i < batch.blocks.size(); ++i)
    argument.blocks[i] = static_cast<std::uint32_t>(batch.blocks[i]);
  const std::uint64_t num_units = std::uint64_t{argument.units_per_block} * argument.num_blocks;
  const auto groups = static_cast<unsigned>(
      std::clamp<std::uint64_t>((num_units + warps_per_group - 1) / warps_per_group, 1, most_groups));
  void* arguments[] = {&argument};
  Function kernel = device_.kernel(direction_ == Direction::store, table.word_bytes);
  device_.check(
      device_.api().cuLaunchKernel(kernel, groups, 1, 1, threads_per_group, 1, 1, 0, stream, arguments, nullptr),
      "cuLaunchKernel");
}

// Adjacent slots go as one copy.
void GpuCopier::move_runs(const HostShard& host, const Batch& batch, DevicePtr memory, Stream stream) const {
  const std::int64_t per_piece = slots_per_piece(host.stride_bytes);
  for (std::size_t i = 0; i < batch.slots.size();) {
    std::size_t end = i + 1;
    while (end < batch.slots.size() && follows(batch.slots[end - 1], batch.slots[end], per_piece)) ++end;
    const std::uint64_t bytes = (end - i - 1) * host.stride_bytes + shared_->layout.slot_bytes();
    move(host.base + static_cast<std::uint64_t>(batch.slots[i]) * host.stride_bytes, memory + i * host.stride_bytes,
         bytes, stream);
    i = end;
  }
}

void GpuCopier::move(std::byte* host, DevicePtr device, std::uint64_t bytes, Stream stream) const {
  if (direction_ == Direction::store) {
    device_.check(device_.api().cuMemcpyDtoHAsync(host, device, bytes, stream), "cuMemcpyDtoHAsync");
  } else {
    device_.check(device_.api().cuMemcpyHtoDAsync(device, host, bytes, stream), "cuMemcpyHtoDAsync");
  }
}

void GpuCopier::settle() noexcept {
  for (const auto* streams : {&copy_streams_, &kernel_streams_, &copy_streams_, &kernel_streams_}) {
    for (const auto& stream : *streams) (void)device_.api().cuStreamSynchronize(stream->get());
  }
  for (; !in_flight_.empty(); in_flight_.pop_front()) shared_->stages.give_back(side_, in_flight_.front());
  if (!shared_->is_direct) shared_->stages.end(side_);
}

}  // namespace flexkv::cuda
