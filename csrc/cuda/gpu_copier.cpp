#include "cuda/gpu_copier.h"

#include <utility>

#include "cuda/host_runs.h"
#include "cuda/layer_parts.h"
#include "cuda/staged_copies.h"

namespace flexkv::cuda {
namespace {

// What is measured are ops in which stages have a beginning and an end and hardly a middle: of longer ones nothing
// beats them but the copy engine alone, where blocks are long pieces and the slots not adjacent. And a kernel that
// reads or writes the host's memory takes the multiprocessors from the engine's for as long as it runs: under a product
// of 1.6 ms, which a store of 1 GiB in this way slowed by 178 % (H100), for a few MiB nobody notices.
constexpr std::uint64_t most_bytes_of_measured = std::uint64_t{32} << 20;
constexpr std::uint64_t most_bytes_of_tiny = std::uint64_t{16} << 20;
constexpr std::uint64_t most_bytes_of_zero_copy = std::uint64_t{4} << 20;
constexpr std::uint64_t long_piece_bytes = std::uint64_t{1} << 20;
// Figures tell of ops up to so many times as long as what was measured: of small blocks 64 have few bytes.
constexpr std::uint64_t reach_of_figures = 4;

std::uint64_t bytes_of(const CopyOp& op) { return op.part.bytes * op.slots.size(); }
bool is_longer_than_measured(const CopyOp& op) { return bytes_of(op) > most_bytes_of_measured; }

Beside beside_what(const CopyOp& op) {
  if (bytes_of(op) <= most_bytes_of_tiny) return Beside::work_and_tiny;
  return bytes_of(op) <= most_bytes_of_short_op ? Beside::work_and_short : Beside::work_and_long;
}

bool figures_tell_of(const CopyOp& op, const CopyCell& cell) {
  const std::uint64_t measured = cell.num_measured_blocks(op.map.slot_bytes) * op.map.slot_bytes;
  return is_longer_than_measured(op) ? measured >= CopyCell::least_measured_bytes_for_long
                                     : bytes_of(op) <= reach_of_figures * measured;
}

// Beside an idle engine.
bool is_sound(MechanismKind kind, const CopyOp& op, const CopyCell& cell) {
  if (kind == MechanismKind::zero_copy) return bytes_of(op) <= most_bytes_of_zero_copy;
  const bool is_long_piece = op.map.layout.planes.size() == 1 && op.map.slot_bytes >= long_piece_bytes;
  return !is_longer_than_measured(op) || (is_long_piece && cell.is_scattered);
}

}  // namespace

GpuCopier::GpuCopier(std::shared_ptr<GpuShared> shared, std::shared_ptr<GpuLane> lane,
                     std::shared_ptr<const CopyChoices> choices)
    : shared_(std::move(shared)), lane_(std::move(lane)), choices_(std::move(choices)) {}

// The driver is asked whether the engine is busy only where that makes a difference.
MechanismKind GpuCopier::choose(const CopyOp& op) const {
  const CopyCell cell = cell_of(lane_->direction(), op.slots);
  const MechanismKind usual = choices_->usual();
  MechanismKind kind = choices_->choose(cell, Beside::nothing);
  if (!choices_->is_forced()) {
    MechanismKind beside_work = choices_->choose(cell, beside_what(op));
    if (!figures_tell_of(op, cell)) kind = beside_work = usual;
    if (!is_sound(kind, op, cell)) kind = usual;
    if (kind != beside_work && shared_->steps.is_engine_busy()) kind = waits_for_its_step(op) ? usual : beside_work;
  }
  if (lane_->takes(kind, op)) return kind;
  return lane_->takes(usual, op) ? usual : MechanismKind::staged;
}

// A short load that comes behind what the engine is busy with: stages are filled meanwhile, which the copy engine alone
// would wait for.
bool GpuCopier::waits_for_its_step(const CopyOp& op) const {
  const bool is_load = lane_->direction() == protocol::Direction::load;
  return is_load && !is_longer_than_measured(op) && !shared_->steps.is_done(op.after_step);
}

MechanismKind GpuCopier::mechanism_for(const HostShard& host, std::span<const std::int64_t> slots) const {
  shared_->device.enter();
  return choose({shared_->map, host, slots, {}, shared_->map.whole()});
}

std::uint64_t GpuCopier::copy(const HostShard& host, std::span<const std::int64_t> slots,
                              std::span<const std::int64_t> blocks, std::uint64_t after_step) {
  if (slots.empty()) return 0;
  shared_->device.enter();
  const CopyOp op = {shared_->map, host, slots, blocks, shared_->map.whole(), after_step};
  return run(choose(op), op);
}

std::uint64_t GpuCopier::copy_in_parts(const HostShard& host, std::span<const std::int64_t> slots,
                                       std::span<const std::int64_t> blocks, std::uint64_t after_step, PartSink& sink) {
  if (slots.empty()) return 0;
  shared_->device.enter();
  const RunningOps::One running(shared_->ops);
  lane_->copy_in_parts({shared_->map, host, slots, blocks, shared_->map.whole(), after_step},
                       layer_parts(shared_->map, slots, slots_per_piece(host.stride_bytes)), sink);
  return shared_->map.slot_bytes * slots.size();
}

std::uint64_t GpuCopier::copy_part(const HostShard& host, std::span<const std::int64_t> slots,
                                   std::span<const std::int64_t> blocks, const SlotPart& part,
                                   std::uint64_t after_step) {
  if (slots.empty()) return 0;
  shared_->device.enter();
  return run(MechanismKind::staged, {shared_->map, host, slots, blocks, part, after_step});
}

std::uint64_t GpuCopier::run(MechanismKind kind, const CopyOp& op) {
  const RunningOps::One running(shared_->ops);
  (void)lane_->copy(kind, op);
  return op.part.bytes * op.slots.size();
}

}  // namespace flexkv::cuda
