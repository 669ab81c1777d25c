#include "cuda/staged_copies.h"

#include <algorithm>
#include <cmath>

#include "cuda/host_runs.h"
#include "cuda/kernel_launch.h"
#include "cuda/whole_copies.h"

namespace flexkv::cuda {
namespace {

constexpr unsigned most_groups_alone = 128;       // more are no sooner done
constexpr unsigned most_groups_beside_work = 32;  // each takes a multiprocessor from the engine
// Slim ones take none; but beside a large product only three for each multiprocessor start. Of short ops half as many
// are launched at once, and where both directions copy.
constexpr unsigned most_slim_groups = 128;
constexpr std::uint64_t part_alignment = 512;
constexpr std::uint64_t least_bytes_of_batch = std::uint64_t{4} << 20;
constexpr std::size_t growth_of_stores = 3;  // beside the engine's work
constexpr std::size_t growth_of_loads = 2;   // one kernel behind the other
// The copy engine needs so long for a row, and for a block, beyond their bytes; and the kernel at the edge so long to
// be launched and done (H100, beside work H200; on a slower link an edge takes longer than it must, and as long as its
// bytes take anyway).
constexpr double link_ns_per_byte = 0.018;
constexpr double row_ns = 45;
constexpr double block_ns = 2'000;
constexpr std::chrono::microseconds edge_alone{16};
constexpr std::chrono::microseconds edge_beside_work{60};
constexpr std::chrono::microseconds edge_of_both_beside_work{250};
constexpr std::size_t most_blocks_at_edge = 32;  // one call of the driver each
constexpr std::size_t blocks_in_slice = 4;

// Whole slots are as far apart in a stage as in the host's memory, so that a run of them is one piece in both; unless
// a stage does not hold one with all that is behind it.
std::uint64_t pitch_of(const CopyOp& op, const StagePool& stages) {
  if (op.is_whole() && op.host.stride_bytes <= stages.stage_bytes()) return op.host.stride_bytes;
  return (op.part.bytes + part_alignment - 1) / part_alignment * part_alignment;
}

std::size_t blocks_in_stage(const StagePool& stages, std::uint64_t pitch_bytes) {
  return std::min<std::size_t>(max_ids_in_launch, stages.stage_bytes() / pitch_bytes);
}

}  // namespace

std::size_t length_of_batch(bool is_store, std::size_t before, std::size_t left, const BatchLengths& lengths) {
  const auto [least, most, growth] = lengths;
  if (left <= 2 * least) return std::min(left, most);
  if (is_store) return before == 0 ? least : std::min({left, most, before * growth});
  return std::min({most, left - least, left * growth / (growth + 1)});
}

Cut next_cut(bool is_store, std::size_t before, std::size_t left, const BatchLengths& lengths, Straight straight) {
  const std::size_t whole = length_of_batch(is_store, before, left, lengths);
  const std::size_t beside = straight == Straight::third ? std::min(whole / 2, left - 1) : 0;
  return {beside, length_of_batch(is_store, before, left - beside, lengths)};
}

std::size_t length_of_edge(const CopyOp& op, std::chrono::nanoseconds duration) {
  if (!can_go_straight(op)) return 0;
  const auto num_rows = static_cast<double>(op.map.layout.planes.size());
  const double taken_ns = static_cast<double>(op.map.slot_bytes) * link_ns_per_byte + num_rows * row_ns + block_ns;
  const auto length = [taken_ns](std::chrono::nanoseconds of) {
    const auto enough = static_cast<std::size_t>(std::ceil(static_cast<double>(of.count()) / taken_ns));
    return std::min(enough, most_blocks_at_edge);
  };
  const std::size_t half = op.slots.size() / 2;
  return half < length(edge_alone) ? 0 : std::min(half, length(duration));
}

bool MixedCopies::takes(const CopyOp& op) const { return can_go_straight(op) && staged_.fits_a_stage(op); }

// A store's edge comes first: bytes move while the host launches the first stage's kernel. Of an edge of several blocks
// one does, and the others behind the kernel, which need not wait until they are issued.
void StagedCopies::copy(const CopyOp& op, Straight straight) {
  const bool is_store = streams_.is_store();
  if (is_store) shared_.steps.wait(op.after_step, shared_.start_limit);  // before it counts as one that shares stages
  begin(op.after_step);
  if (!fits_a_stage(op)) {
    issue(op, shared_.steps.is_engine_busy());
    finish();
    return;
  }
  const bool is_busy = shared_.steps.is_engine_busy();
  const bool is_prompt = is_store || may_go_straight(op);  // else stages are filled while it waits
  is_short_beside_work_ = is_busy && is_prompt && op.part.bytes * op.slots.size() <= most_bytes_of_short_op;
  const std::size_t num_at_edge = is_prompt ? length_of_edge(op, duration_of_edge()) : 0;
  has_edge_ = num_at_edge > 0;
  const std::size_t num_others = op.slots.size() - num_at_edge;
  const CopyOp edge = op.blocks_at(is_store ? 0 : num_others, num_at_edge);
  const CopyOp others = op.blocks_at(is_store ? num_at_edge : 0, num_others);  // is used until `finish` returns
  if (is_store && num_at_edge > 0) {
    go_straight(edge.blocks_at(0, 1));
    edge_left_.emplace(edge.blocks_at(1, num_at_edge - 1));
  }
  pass_stages(others, straight, is_busy);
  if (!is_store && num_at_edge > 0) {
    go_straight_in_slices(edge);
    edge_.record(streams_.copies().get());
    awaits_edge_ = true;
  }
  finish();
}

void StagedCopies::pass_stages(const CopyOp& op, Straight straight, bool is_busy) {
  const std::uint64_t pitch_bytes = pitch_of(op, shared_.stages);
  std::size_t before = 0;
  for (std::size_t first = 0; first < op.slots.size();) {
    const bool has_third = straight == Straight::third && may_go_straight(op);
    const Cut cut = next_cut(streams_.is_store(), before, op.slots.size() - first, lengths_of(pitch_bytes),
                             has_third ? Straight::third : Straight::edge);
    go_straight(op.blocks_at(first, cut.straight));
    first += cut.straight;
    before = cut.staged;
    if (first > 0) is_busy = shared_.steps.is_engine_busy();
    const bool is_host_to_launch = is_busy && !streams_.is_store() && first + cut.staged < op.slots.size();
    pass(op, batch_of(op, first, cut.staged, pitch_bytes),
         {.is_beside_work = is_busy, .is_host_to_launch = is_host_to_launch});
    first += cut.staged;
  }
}

std::chrono::nanoseconds StagedCopies::duration_of_edge() const {
  if (!is_short_beside_work_) return edge_alone;
  return shared_.stages.are_shared() ? edge_of_both_beside_work : edge_beside_work;
}

BatchLengths StagedCopies::lengths_of(std::uint64_t pitch_bytes) const {
  const std::size_t most = blocks_in_stage(shared_.stages, pitch_bytes);
  const std::size_t least = std::clamp<std::size_t>(least_bytes_of_batch / pitch_bytes, 1, most);
  if (!is_short_beside_work_) return {least, most};
  if (shared_.stages.are_shared()) return {has_edge_ ? most : least, most};
  return {least, most, streams_.is_store() ? growth_of_stores : growth_of_loads};
}

// A store has waited for the step. A load is not to: stages are filled meanwhile, and those behind would wait, too.
bool StagedCopies::may_go_straight(const CopyOp& op) const { return shared_.steps.is_done(op.after_step); }

// They have moved when the stage behind them has: its copies come behind them in the stream.
void StagedCopies::go_straight(const CopyOp& op) {
  if (op.slots.empty()) return;
  const std::uint64_t bytes = op.slots.size() * pitch_of(op, shared_.stages);
  turns_.add(bytes);
  move_whole(streams_, op);
  issued_bytes_ += bytes;
}

// Kernels that the host is to launch do not wait until all of it is issued.
void StagedCopies::go_straight_in_slices(const CopyOp& op) {
  for (std::size_t first = 0; first < op.slots.size(); first += blocks_in_slice) {
    scatter_what_is_filled();
    go_straight(op.blocks_at(first, std::min(blocks_in_slice, op.slots.size() - first)));
  }
}

void StagedCopies::begin(std::uint64_t after_step) {
  shared_.stages.begin(streams_.side(), StageUse::all);
  streams_.begin_op();
  turns_.begin();
  fills_.begin();
  ends_.begin();
  issued_bytes_ = 0;
  awaits_edge_ = false;
  is_short_beside_work_ = false;
  has_edge_ = false;
  step_ = after_step;
}

bool StagedCopies::fits_a_stage(const CopyOp& op) const { return op.part.bytes <= shared_.stages.stage_bytes(); }

void StagedCopies::issue(const CopyOp& op, bool is_beside_work) {
  if (fits_a_stage(op)) return issue_piece(op, is_beside_work);
  CopyOp piece = op;
  for (const SlotPart& part : op.map.pieces(op.part, shared_.stages.stage_bytes())) {
    piece.part = part;
    issue_piece(piece, is_beside_work);
  }
}

void StagedCopies::issue_piece(const CopyOp& op, bool is_beside_work) {
  const std::uint64_t pitch_bytes = pitch_of(op, shared_.stages);
  const std::size_t most = blocks_in_stage(shared_.stages, pitch_bytes);
  for (std::size_t first = 0; first < op.slots.size(); first += most) {
    const std::size_t count = std::min(most, op.slots.size() - first);
    pass(op, batch_of(op, first, count, pitch_bytes), {.is_beside_work = is_beside_work, .is_host_to_launch = false});
  }
}

void StagedCopies::record(const PartEvents& events) const {
  for (std::size_t i = 0; i < in_flight_.size(); ++i) {
    const GpuStage& stage = *in_flight_[i].stage;
    events.events[stage.index]->record(stage.kernels.get());
  }
}

void StagedCopies::finish() {
  while (!in_flight_.empty()) finish_oldest();
  if (awaits_edge_) (void)fills_.wait(edge_, issued_bytes_, Looks::early);  // no kernel comes behind it
  shared_.stages.end(streams_.side());
}

StagedCopies::Batch StagedCopies::batch_of(const CopyOp& op, std::size_t first, std::size_t count,
                                           std::uint64_t pitch_bytes) {
  return {op.slots.subspan(first, count), op.blocks.subspan(first, count), pitch_bytes};
}

GpuStage& StagedCopies::next_stage() {
  while (shared_.stages.holds_too_many(streams_.side())) finish_oldest();
  GpuStage* stage = shared_.stages.take(streams_.side(), shared_.start_limit);
  while (stage == nullptr) {
    finish_oldest();
    stage = shared_.stages.take(streams_.side(), shared_.start_limit);
  }
  return *stage;
}

// The pace of a load is that of long stages, and of each the time its kernel takes is a part. Its last stage is short,
// and an edge has no kernel: they end earlier than their bytes say.
void StagedCopies::finish_oldest() {
  scatter_until_the_oldest_ends();
  if (step_ != 0) {  // a wait for it tells nothing of how fast bytes pass
    shared_.steps.wait(step_, no_limit);
    ends_.begin();
    step_ = 0;
  }
  const InFlight oldest = in_flight_.front();
  const Looks if_last = streams_.is_store() && !is_short_beside_work_ ? Looks::close : Looks::early;
  (void)ends_.wait(oldest.stage->done, oldest.passed_bytes, in_flight_.size() == 1 ? if_last : looks_meanwhile());
  in_flight_.pop_front();
  shared_.stages.give_back(streams_.side(), oldest.stage);
}

// What the host is to launch of it: until the oldest stage is done, or none fills any more.
void StagedCopies::scatter_until_the_oldest_ends() {
  const InFlight& oldest = in_flight_.front();
  const auto is_oldest_done = [&oldest] { return oldest.to_scatter == nullptr && oldest.stage->done.is_done(); };
  for (std::size_t i = 0; i < in_flight_.size(); ++i) {
    InFlight& next = in_flight_[i];
    if (next.to_scatter == nullptr) continue;
    if (!fills_.wait(next.stage->filled, next.passed_bytes, looks_meanwhile(), is_oldest_done)) return;
    scatter(next);
  }
}

void StagedCopies::scatter_what_is_filled() {
  for (std::size_t i = 0; i < in_flight_.size(); ++i) {
    InFlight& next = in_flight_[i];
    if (next.to_scatter == nullptr) continue;
    if (!next.stage->filled.is_done()) return;
    scatter(next);
  }
}

void StagedCopies::scatter(InFlight& filled) const {
  scatter(*filled.to_scatter, filled.batch, *filled.stage, true);
  filled.to_scatter = nullptr;
}

void StagedCopies::pass(const CopyOp& op, const Batch& batch, Way way) {
  scatter_what_is_filled();
  GpuStage& stage = next_stage();
  in_flight_.push_back({&stage, 0, way.is_host_to_launch ? &op : nullptr, batch});
  if (streams_.is_store()) {
    launch(op, batch, stage, way.is_beside_work);
    stage.filled.record(stage.kernels.get());
    if (edge_left_) go_straight(*edge_left_);
    edge_left_.reset();
    begin_piece(batch, stage, way);  // only now: a kernel does not wait for a turn
    streams_.copies().wait_for(stage.filled.get());
    move_runs(op, batch, stage.memory);
    stage.done.record(streams_.copies().get());
    end_piece();
    return;
  }
  begin_piece(batch, stage, way);
  move_runs(op, batch, stage.memory);
  stage.filled.record(streams_.copies().get());
  end_piece();  // already: what comes next does not wait for the kernel
  if (way.is_host_to_launch) return;
  stage.kernels.wait_for(stage.filled.get());
  scatter(op, batch, stage, way.is_beside_work);
}

// The copies of the stage that was taken last. When a turn is over they are the next one, in the stage's own stream.
void StagedCopies::begin_piece(const Batch& batch, const GpuStage& stage, Way way) {
  issued_bytes_ += batch.bytes();
  in_flight_.back().passed_bytes = issued_bytes_;
  if (turns_.take(batch.bytes(), way.is_beside_work)) streams_.go_on_in(stage.kernels);
}

void StagedCopies::end_piece() {
  if (&streams_.copies() == &streams_.own()) return;
  streams_.go_on_in(streams_.own());
  turns_.begin();
}

// What only fills a stage does not wait for the step, and a store has waited for it.
void StagedCopies::scatter(const CopyOp& op, const Batch& batch, const GpuStage& stage, bool is_beside_work) const {
  shared_.steps.make_wait(stage.kernels, op.after_step);
  launch(op, batch, stage, is_beside_work);
  stage.done.record(stage.kernels.get());
}

void StagedCopies::launch(const CopyOp& op, const Batch& batch, const GpuStage& stage, bool is_beside_work) const {
  const DevicePtr where_slots_would_begin = stage.memory - op.part.begin_byte;
  KernelLaunch what = {where_slots_would_begin, batch.pitch_bytes, batch.blocks, {}, most_groups_alone};
  if (is_beside_work) {
    what.most_groups = most_groups_beside_work;
    what.most_slim_groups = std::min(most_slim_groups, shared_.device.num_multiprocessors()) /
                            (is_short_beside_work_ || shared_.stages.are_shared() ? 2 : 1);
  }
  launch_kernel(streams_, op, what, stage.kernels.get());
}

// Adjacent slots go as one copy: of whole slots as one piece, of parts as its rows. Several pieces go as one batch.
void StagedCopies::move_runs(const CopyOp& op, const Batch& batch, DevicePtr memory) {
  const std::uint64_t stride = op.host.stride_bytes;
  const std::int64_t per_piece = slots_per_piece(stride);
  const bool has_several = end_of_run(batch.slots, 0, per_piece) < batch.slots.size();
  const bool is_batch = has_several && batch_.is_there() && shared_.pieces.hold(op.host, batch.slots);
  for (std::size_t i = 0; i < batch.slots.size();) {
    const std::size_t end = end_of_run(batch.slots, i, per_piece);
    std::byte* const host = op.host.base + static_cast<std::uint64_t>(batch.slots[i]) * stride + op.part.begin_byte;
    const DevicePtr staged = memory + i * batch.pitch_bytes;
    const std::size_t length = end - i;
    const std::uint64_t bytes = (length - 1) * stride + op.part.bytes;
    if (length > 1 && (!op.is_whole() || batch.pitch_bytes != stride)) {
      streams_.move_rows(host, staged, {op.part.bytes, length, stride, batch.pitch_bytes}, streams_.copies().get());
    } else if (is_batch) {
      batch_.add(host, staged, bytes);
    } else {
      streams_.move(host, staged, bytes, streams_.copies().get());
    }
    i = end;
  }
  batch_.flush();
}

void StagedCopies::settle() noexcept {
  batch_.clear();
  edge_left_.reset();
  for (; !in_flight_.empty(); in_flight_.pop_front()) {
    in_flight_.front().stage->kernels.drain();
    shared_.stages.give_back(streams_.side(), in_flight_.front().stage);
  }
  shared_.stages.end(streams_.side());
}

}  // namespace flexkv::cuda
