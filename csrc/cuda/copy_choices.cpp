#include "cuda/copy_choices.h"

#include <algorithm>
#include <limits>

#include "cuda/host_runs.h"
#include "transfer/timeout.h"

namespace flexkv::cuda {
namespace {

constexpr double clear_gain = 0.05;
constexpr double most_for_no_kernels = 1.05;  // times as long on an idle GPU; and for fewer of them
constexpr double most_for_no_kernels_if_tiny = 1.5;
constexpr std::size_t run_length_of_adjacent = 4;
constexpr std::int64_t of_any_piece = std::numeric_limits<std::int64_t>::max();
constexpr std::size_t num_sizes = CopyCell::blocks_of_size.size();

std::size_t index_of(MechanismKind kind) { return static_cast<std::size_t>(kind); }

bool has_kernels(MechanismKind kind) {
  return kind == MechanismKind::staged || kind == MechanismKind::zero_copy || kind == MechanismKind::mixed;
}

}  // namespace

std::size_t CopyCell::index() const {
  const std::size_t way = direction == protocol::Direction::store ? 1 : 0;
  return (way * num_sizes + size) * 2 + (is_scattered ? 1 : 0);
}

CopyCell CopyCell::at(std::size_t index) {
  const bool is_store = index / 2 / num_sizes == 1;
  return {is_store ? protocol::Direction::store : protocol::Direction::load, index / 2 % num_sizes, index % 2 == 1};
}

std::size_t CopyCell::num_measured_blocks(std::uint64_t block_bytes, std::uint64_t most_bytes) const {
  return std::min<std::size_t>(blocks_of_size[size], std::max<std::uint64_t>(1, most_bytes / block_bytes));
}

CopyCell cell_of(protocol::Direction direction, std::span<const std::int64_t> slots) {
  CopyCell cell = {direction, 0, false};
  while (cell.size + 1 < num_sizes && slots.size() >= CopyCell::blocks_of_size[cell.size + 1]) ++cell.size;
  std::size_t num_runs = 0;
  for (std::size_t i = 0; i < slots.size(); i = end_of_run(slots, i, of_any_piece)) ++num_runs;
  cell.is_scattered = slots.size() > 1 && num_runs > 1 && slots.size() < num_runs * run_length_of_adjacent;
  return cell;
}

MechanismKind best_of(const CellFigures& figures, MechanismKind usual, Beside beside) {
  const double usual_us = figures[index_of(usual)];
  if (usual_us <= 0) return usual;
  const auto fastest = [&figures](MechanismKind otherwise, double limit_us, auto is_in) {
    MechanismKind found = otherwise;
    for (std::size_t i = 0; i < num_mechanisms; ++i) {
      const auto kind = static_cast<MechanismKind>(i);
      if (kind == otherwise || !is_in(kind) || figures[i] <= 0 || figures[i] > limit_us) continue;
      limit_us = figures[i];
      found = kind;
    }
    return found;
  };
  const double clear_us = usual_us * (1 - clear_gain);
  if (beside == Beside::nothing) return fastest(usual, clear_us, [](MechanismKind /*kind*/) { return true; });
  const MechanismKind best =
      fastest(usual, clear_us, [](MechanismKind kind) { return kind != MechanismKind::zero_copy; });
  if (!has_kernels(best)) return best;
  const double most = beside == Beside::work_and_tiny ? most_for_no_kernels_if_tiny : most_for_no_kernels;
  const double limit_us = figures[index_of(best)] * most;
  const MechanismKind without = fastest(best, limit_us, [](MechanismKind kind) { return !has_kernels(kind); });
  if (without != best || beside != Beside::work_and_long) return without;
  return fastest(best, limit_us, [](MechanismKind kind) { return kind == MechanismKind::mixed; });
}

CopyChoices::CopyChoices(MechanismKind usual) : usual_(usual) {
  for (auto& cell : chosen_) {
    for (auto& kind : cell) kind = usual_;
  }
}

void CopyChoices::use(const CopyFigures& figures) {
  report_.figures = figures;
  for (std::size_t i = 0; i < CopyCell::count; ++i) {
    for (std::size_t beside = 0; beside < num_besides; ++beside) {
      chosen_[i][beside] = best_of(figures[i], usual_, static_cast<Beside>(beside));
    }
  }
}

void CopyChoices::become(TuningState state) {
  report_.state = state;
  changed_.notify_all();
}

bool CopyChoices::give(const CopyFigures& figures) {
  const std::lock_guard lock(mutex_);
  if (report_.state != TuningState::untuned) return false;
  use(figures);
  become(TuningState::given);
  return true;
}

void CopyChoices::force(MechanismKind kind) {
  const std::lock_guard lock(mutex_);
  for (auto& cell : chosen_) {
    for (auto& chosen : cell) chosen = kind;
  }
  is_forced_ = true;
  report_.why_not = "one mechanism was asked for";
  become(TuningState::failed);
}

bool CopyChoices::begin_measuring() {
  const std::lock_guard lock(mutex_);
  if (report_.state != TuningState::untuned) return false;
  become(TuningState::measuring);
  return true;
}

void CopyChoices::end_measuring(const CopyFigures& figures) {
  const std::lock_guard lock(mutex_);
  if (report_.state != TuningState::measuring) return;
  use(figures);
  become(TuningState::measured);
}

void CopyChoices::postpone() {
  const std::lock_guard lock(mutex_);
  if (report_.state == TuningState::measuring) become(TuningState::untuned);
}

void CopyChoices::give_up(const std::string& why) {
  const std::lock_guard lock(mutex_);
  if (report_.state != TuningState::measuring) return;
  report_.why_not = why;
  become(TuningState::failed);
}

bool CopyChoices::wait_settled(double timeout_s) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, bounded_timeout(timeout_s), [this] {
    return report_.state != TuningState::untuned && report_.state != TuningState::measuring;
  });
}

CopyChoices::Report CopyChoices::report() const {
  const std::lock_guard lock(mutex_);
  return report_;
}

}  // namespace flexkv::cuda
