#include "cuda/engine_copies.h"

#include <algorithm>
#include <utility>

#include "cuda/step_wait.h"
#include "cuda/whole_copies.h"

namespace flexkv::cuda {

EngineCopies::EngineCopies(GpuShared& shared, LaneStreams& streams)
    : shared_(shared), streams_(streams), turns_(shared.steps, turn_bytes) {
  for (std::size_t i = 0; i < most_in_flight; ++i) ends_.push_back(std::make_unique<GpuEvent>(shared_.device));
}

void EngineCopies::copy(const CopyOp& op) {
  streams_.begin_op();
  turns_.begin();
  wait_for_step(shared_, streams_, streams_.copies(), op.after_step);
  step_ = op.after_step;
  pace_.begin();
  const std::size_t most = std::max<std::size_t>(1, bytes_of_segment / op.map.slot_bytes);
  std::size_t number = 0;
  for (std::size_t first = 0; first < op.slots.size(); first += most, ++number) {
    if (in_flight_.is_full()) finish_oldest();
    const std::size_t count = std::min(most, op.slots.size() - first);
    if (turns_.take(count * op.map.slot_bytes, false)) begin_turn();
    issue(op.blocks_at(first, count));
    const GpuEvent& end = *ends_[number % most_in_flight];
    end.record(stream());
    in_flight_.push_back({&end, (first + count) * op.map.slot_bytes});
  }
  finish_all();
  end();
}

// In another stream, behind what was issued: the one before runs empty without the host, who may be late.
void EngineCopies::begin_turn() {
  if (has_place_elsewhere()) {
    const bool is_there = &streams_.copies() == &elsewhere_->kernels;
    return streams_.go_on_in(is_there ? streams_.own() : elsewhere_->kernels);
  }
  if (is_second_) finish_all();
  is_second_ = !is_second_;
}

// Of two stages the other direction needs both.
bool EngineCopies::has_place_elsewhere() {
  if (elsewhere_ != nullptr) return true;
  if (shared_.stages.num_stages() <= 2) return false;
  shared_.stages.begin(streams_.side(), StageUse::one_stream);
  elsewhere_ = shared_.stages.try_take(streams_.side());
  return elsewhere_ != nullptr;
}

void EngineCopies::end() {
  if (elsewhere_ != nullptr) shared_.stages.give_back(streams_.side(), std::exchange(elsewhere_, nullptr));
  shared_.stages.end(streams_.side());
  is_second_ = false;
}

void EngineCopies::settle() noexcept {
  in_flight_.clear();
  if (elsewhere_ != nullptr) elsewhere_->kernels.drain();
  end();
}

void EngineCopies::finish_all() {
  while (!in_flight_.empty()) finish_oldest();
}

void EngineCopies::finish_oldest() {
  if (step_ != 0) {  // a wait for it tells nothing of how fast bytes pass
    shared_.steps.wait(step_, no_limit);
    pace_.begin();
    step_ = 0;
  }
  const Segment oldest = in_flight_.front();
  (void)pace_.wait(*oldest.end, oldest.passed_bytes, in_flight_.size() == 1 ? Looks::close : Looks::leisurely);
  in_flight_.pop_front();
}

bool DirectCopies::takes(const CopyOp& op) const { return are_pieces(op); }

void DirectCopies::issue(const CopyOp& op) { move_whole(streams(), op); }

bool StridedCopies::takes(const CopyOp& op) const { return are_rows(op); }

void StridedCopies::issue(const CopyOp& op) { move_whole(streams(), op); }

BatchedCopies::BatchedCopies(GpuShared& shared, LaneStreams& streams)
    : EngineCopies(shared, streams), shared_(shared), batch_(streams) {}

bool BatchedCopies::takes(const CopyOp& op) const {
  return batch_.is_there() && op.map.chunks_are_within_allocations && op.is_whole() &&
         shared_.pieces.hold(op.host, op.slots);
}

void BatchedCopies::issue(const CopyOp& op) {
  for (std::size_t i = 0; i < op.slots.size(); ++i) {
    if (!batch_.empty() && goes_on(op, i)) {
      batch_.extend(op.map.slot_bytes);
      continue;
    }
    std::byte* host = slot_of(op, i);
    for (const Plane& plane : op.map.layout.planes) {
      batch_.add(host, chunk_of(op, plane, i), plane.chunk_bytes);
      host += plane.chunk_bytes;
    }
  }
  batch_.flush();
}

}  // namespace flexkv::cuda
