#include "cuda/staged_copies.h"

#include <algorithm>
#include <array>

#include "cuda/host_runs.h"

namespace flexkv::cuda {
namespace {

constexpr std::size_t max_blocks_at_once = 960;  // as many as a launch's arguments have room for
constexpr unsigned threads_per_group = 1024;
constexpr unsigned warps_per_group = threads_per_group / 32;
constexpr unsigned most_groups = 32;
constexpr std::uint64_t part_alignment = 512;

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

bool is_whole(const CopyOp& op) { return op.part == op.map.whole(); }

// Whole slots are as far apart in a stage as in the host's memory, so that a run of them is one piece in both.
std::uint64_t pitch_of(const CopyOp& op) {
  if (is_whole(op)) return op.host.stride_bytes;
  return (op.part.bytes + part_alignment - 1) / part_alignment * part_alignment;
}

}  // namespace

StagedCopies::StagedCopies(GpuShared& shared, const LaneStreams& streams)
    : shared_(shared), device_(shared.device), streams_(streams), side_(streams.is_store() ? 1 : 0) {}

void StagedCopies::copy(const CopyOp& op) {
  if (streams_.is_store()) wait_for_step(op.after_step);  // before it counts as one that shares the stages
  begin();
  issue(op);
  finish();
}

void StagedCopies::begin() {
  shared_.stages.begin(side_);
  pace_.begin();
}

void StagedCopies::issue(const CopyOp& op) {
  wait_for_step(op.after_step);
  const std::uint64_t pitch_bytes = pitch_of(op);
  const std::size_t at_once = std::min(max_blocks_at_once, shared_.stages.stage_bytes() / pitch_bytes);
  for (std::size_t first = 0; first < op.slots.size(); first += at_once) {
    const std::size_t count = std::min(at_once, op.slots.size() - first);
    pass(op, {op.slots.subspan(first, count), op.blocks.subspan(first, count), pitch_bytes}, next_stage());
  }
}

// What touches the engine's blocks waits for its step; what only fills a stage does not. A store waits on the host, and
// holds no stage meanwhile: the step may itself wait for a load, which needs stages.
void StagedCopies::wait_for_step(std::uint64_t step) const {
  if (streams_.is_store()) {
    shared_.steps.wait(step, shared_.start_limit);
  } else {
    for (const auto& stream : streams_.kernels()) shared_.steps.make_wait(*stream, step);
  }
}

void StagedCopies::finish() {
  while (!in_flight_.empty()) finish_oldest();
  shared_.stages.end(side_);
}

GpuStage& StagedCopies::next_stage() {
  while (shared_.stages.holds_too_many(side_)) finish_oldest();
  GpuStage* stage = shared_.stages.take(side_, shared_.start_limit);
  while (stage == nullptr) {
    finish_oldest();
    stage = shared_.stages.take(side_, shared_.start_limit);
  }
  return *stage;
}

void StagedCopies::finish_oldest() {
  GpuStage* const stage = in_flight_.front();
  pace_.wait(stage->done, in_flight_.size() == 1);
  in_flight_.pop_front();
  shared_.stages.give_back(side_, stage);
}

void StagedCopies::pass(const CopyOp& op, const Batch& batch, GpuStage& stage) {
  in_flight_.push_back(&stage);
  const GpuStream& kernels = *streams_.kernels()[num_passed_ % LaneStreams::num_kernel_streams];
  const GpuStream& copies = *streams_.copies()[num_passed_ % LaneStreams::num_copy_streams];
  ++num_passed_;
  if (streams_.is_store()) {
    launch(op, batch, stage, kernels.get());
    stage.filled.record(kernels.get());
    copies.wait_for(stage.filled.get());
    move_runs(op, batch, stage.memory, copies.get());
    stage.done.record(copies.get());
  } else {
    move_runs(op, batch, stage.memory, copies.get());
    stage.filled.record(copies.get());
    kernels.wait_for(stage.filled.get());
    launch(op, batch, stage, kernels.get());
    stage.done.record(kernels.get());
  }
}

void StagedCopies::launch(const CopyOp& op, const Batch& batch, const GpuStage& stage, Stream stream) const {
  StageArgument argument;
  argument.units = op.map.device_table.address() + std::uint64_t{op.part.first_unit} * sizeof(Unit);
  argument.memory = stage.memory - op.part.begin_byte;  // where the slot would begin
  argument.slot_stride = batch.pitch_bytes;
  argument.units_per_block = op.part.num_units;
  argument.num_blocks = static_cast<std::uint32_t>(batch.blocks.size());
  for (std::size_t i = 0; i < batch.blocks.size(); ++i)
    argument.blocks[i] = static_cast<std::uint32_t>(batch.blocks[i]);
  const std::uint64_t num_units = std::uint64_t{argument.units_per_block} * argument.num_blocks;
  const auto groups = static_cast<unsigned>(
      std::clamp<std::uint64_t>((num_units + warps_per_group - 1) / warps_per_group, 1, most_groups));
  void* arguments[] = {&argument};
  Function kernel = device_.kernel(streams_.is_store(), op.map.table.word_bytes);
  device_.check(
      device_.api().cuLaunchKernel(kernel, groups, 1, 1, threads_per_group, 1, 1, 0, stream, arguments, nullptr),
      "cuLaunchKernel");
}

// Adjacent slots go as one copy: of whole slots as one piece, of parts as its rows.
void StagedCopies::move_runs(const CopyOp& op, const Batch& batch, DevicePtr memory, Stream stream) const {
  const std::int64_t per_piece = slots_per_piece(op.host.stride_bytes);
  const std::uint64_t stride = op.host.stride_bytes;
  for (std::size_t i = 0; i < batch.slots.size();) {
    const std::size_t end = end_of_run(batch.slots, i, per_piece);
    std::byte* const host = op.host.base + static_cast<std::uint64_t>(batch.slots[i]) * stride + op.part.begin_byte;
    const DevicePtr staged = memory + i * batch.pitch_bytes;
    if (is_whole(op)) {
      streams_.move(host, staged, (end - i - 1) * stride + op.part.bytes, stream);
    } else {
      streams_.move_rows(host, staged, {op.part.bytes, end - i, stride, batch.pitch_bytes}, stream);
    }
    i = end;
  }
}

void StagedCopies::settle() noexcept {
  for (; !in_flight_.empty(); in_flight_.pop_front()) shared_.stages.give_back(side_, in_flight_.front());
  shared_.stages.end(side_);
}

}  // namespace flexkv::cuda
