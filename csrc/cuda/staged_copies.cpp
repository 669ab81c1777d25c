#include "cuda/staged_copies.h"

#include <algorithm>

#include "cuda/host_runs.h"
#include "cuda/kernel_launch.h"
#include "cuda/step_wait.h"

namespace flexkv::cuda {
namespace {

constexpr unsigned most_groups = 32;
constexpr std::uint64_t part_alignment = 512;

bool is_whole(const CopyOp& op) { return op.part == op.map.whole(); }

// Whole slots are as far apart in a stage as in the host's memory, so that a run of them is one piece in both.
std::uint64_t pitch_of(const CopyOp& op) {
  if (is_whole(op)) return op.host.stride_bytes;
  return (op.part.bytes + part_alignment - 1) / part_alignment * part_alignment;
}

}  // namespace

StagedCopies::StagedCopies(GpuShared& shared, const LaneStreams& streams)
    : shared_(shared), streams_(streams), side_(streams.is_store() ? 1 : 0) {}

void StagedCopies::copy(const CopyOp& op) {
  if (streams_.is_store()) wait_for_step(op.after_step);  // before it counts as one that shares the stages
  begin();
  issue(op);
  finish();
}

void StagedCopies::begin() {
  shared_.stages.begin(side_);
  pace_.begin();
  issued_bytes_ = 0;
}

void StagedCopies::issue(const CopyOp& op) {
  wait_for_step(op.after_step);
  const std::uint64_t pitch_bytes = pitch_of(op);
  const std::size_t at_once = std::min<std::size_t>(max_ids_in_launch, shared_.stages.stage_bytes() / pitch_bytes);
  for (std::size_t first = 0; first < op.slots.size(); first += at_once) {
    const std::size_t count = std::min(at_once, op.slots.size() - first);
    pass(op, {op.slots.subspan(first, count), op.blocks.subspan(first, count), pitch_bytes});
  }
}

// What only fills a stage does not wait.
void StagedCopies::wait_for_step(std::uint64_t step) const {
  cuda::wait_for_step(shared_, streams_, streams_.kernels(), step);
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
  const InFlight oldest = in_flight_.front();
  pace_.wait(oldest.stage->done, oldest.passed_bytes, in_flight_.size() == 1 ? Looks::close : Looks::leisurely);
  in_flight_.pop_front();
  shared_.stages.give_back(side_, oldest.stage);
}

void StagedCopies::pass(const CopyOp& op, const Batch& batch) {
  GpuStage& stage = next_stage();
  issued_bytes_ += batch.bytes();
  in_flight_.push_back({&stage, issued_bytes_});
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
  const DevicePtr where_slots_would_begin = stage.memory - op.part.begin_byte;
  launch_kernel(streams_, op, {where_slots_would_begin, batch.pitch_bytes, batch.blocks, {}, most_groups}, stream);
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
  for (; !in_flight_.empty(); in_flight_.pop_front()) shared_.stages.give_back(side_, in_flight_.front().stage);
  shared_.stages.end(side_);
}

}  // namespace flexkv::cuda
