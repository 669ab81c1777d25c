#include "cuda/copy_tuner.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <numeric>
#include <string>
#include <system_error>
#include <utility>

#include "cuda/copy_times.h"
#include "cuda/layout_sample.h"

namespace flexkv::cuda {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t most_blocks = CopyCell::blocks_of_size.back();
constexpr double prefault_limit_s = 2.0;
constexpr std::chrono::milliseconds look_for_quiet{20};
constexpr std::chrono::seconds quiet_limit{60};

// Slots that are there, not pinned yet.
std::unique_ptr<HostPool> slots_for(std::uint64_t slot_bytes, std::int64_t count) {
  auto pool = std::make_unique<HostPool>(HostPoolConfig{count, {slot_bytes}, 1, false});
  if (pool->wait_prefaulted(count, prefault_limit_s)) return pool;
  const int error = pool->prefault_error();
  throw Error(error_out_of_memory,
              "no host memory of " + std::to_string(static_cast<std::uint64_t>(count) * slot_bytes) +
                  " bytes for measuring: " +
                  (error != 0 ? std::generic_category().message(error) : std::string("not there in time")));
}

// 0 .. count-1, over and over, with few neighbours.
std::vector<std::int64_t> mixed(std::size_t length, std::int64_t count) {
  std::int64_t step = std::max<std::int64_t>(1, count * 3 / 8);
  while (std::gcd(step, count) != 1) ++step;
  std::vector<std::int64_t> ids(length);
  for (std::size_t i = 0; i < length; ++i) ids[i] = static_cast<std::int64_t>(i) * step % count;
  return ids;
}

}  // namespace

CopyTuner::CopyTuner(GpuShared& shared, const GpuLanes& lanes, const TunerLimits& limits)
    : shared_(shared), lanes_(lanes), limits_(limits) {}

void CopyTuner::take_memory() {
  const std::uint64_t stride = slot_stride_bytes(shared_.map.slot_bytes);
  if (stride > limits_.memory_bytes) {
    throw Error(error_out_of_memory, "a block has more than the " + std::to_string(limits_.memory_bytes >> 20) +
                                         " MiB that a measurement may take");
  }
  const std::uint64_t most = std::min<std::uint64_t>(most_blocks, limits_.memory_bytes / stride);
  LayoutSample sample = sample_of(shared_.map.layout, limits_.memory_bytes, most);
  num_blocks_ = static_cast<std::int64_t>(sample.layout.num_blocks);
  slots_ = slots_for(shared_.map.slot_bytes, num_blocks_);
  const GpuDevice& device = shared_.device;
  memory_ = std::make_unique<GpuMemory>(device, sample.bytes, "measuring");
  map_ = std::make_unique<BlockMap>(device, moved_by(std::move(sample.layout), memory_->address()), &shared_.map);
  const std::uint64_t bytes = static_cast<std::uint64_t>(num_blocks_) * stride;
  device.check(device.api().cuMemHostRegister(slots_->base(0), bytes, host_portable_and_mapped),
               "cuMemHostRegister for measuring");
  host_ = {slots_->base(0), stride, num_blocks_};
  shared_.pieces.add(device, host_.base, bytes);
}

CopyTuner::~CopyTuner() {
  if (host_.base == nullptr) return;
  shared_.pieces.remove(host_.base);
  (void)shared_.device.api().cuMemHostUnregister(host_.base);
}

// A device that has failed has nothing to do any more.
void CopyTuner::await_quiet(const std::stop_token& ends) const noexcept {
  const auto limit = Clock::now() + quiet_limit;
  std::mutex mutex;
  std::unique_lock lock(mutex);
  std::condition_variable_any never;
  try {
    while (shared_.steps.has_worked_lately() || !shared_.ops.is_quiet_since(shared_.ops.num_begun())) {
      if (ends.stop_requested() || Clock::now() >= limit) return;
      never.wait_for(lock, ends, look_for_quiet, [] { return false; });
    }
  } catch (const Error&) {
    return;
  }
}

bool CopyTuner::is_over() const { return ends_.stop_requested() || Clock::now() >= deadline_; }

// Ids repeat where there are fewer blocks than the op has: what is copied does not matter.
CopyTuner::Op CopyTuner::op_of(const CopyCell& cell) const {
  const std::size_t count = num_blocks_of(cell);
  Op op = {{}, mixed(count, num_blocks_)};
  if (cell.is_scattered) {
    op.slots = mixed(count, num_blocks_);
  } else {
    for (std::size_t i = 0; i < count; ++i) op.slots.push_back(static_cast<std::int64_t>(i) % num_blocks_);
  }
  return op;
}

CopyFigures CopyTuner::measure(MechanismKind usual, const std::stop_token& ends) {
  ends_ = ends;
  take_memory();
  deadline_ = Clock::now() + limits_.time;
  CopyFigures figures{};
  CellFigures first_use{};
  for (const auto& lane : lanes_) measure_cell({lane->direction(), 0, false}, usual, first_use);
  for (std::size_t size = 0; size < CopyCell::blocks_of_size.size(); ++size) {
    for (const auto& lane : lanes_) {
      for (const bool is_scattered : {false, true}) {
        const CopyCell cell = {lane->direction(), size, is_scattered};
        const CopyCell smaller = {lane->direction(), size == 0 ? 0 : size - 1, is_scattered};
        if (is_scattered && (size == 0 || num_blocks_ < 4)) continue;
        if (size > 0 && num_blocks_of(cell) == num_blocks_of(smaller)) {
          figures[cell.index()] = figures[smaller.index()];
        } else {
          measure_cell(cell, usual, figures[cell.index()]);
        }
      }
    }
  }
  return figures;
}

void CopyTuner::measure_cell(const CopyCell& cell, MechanismKind usual, CellFigures& figures) {
  const std::size_t way = cell.direction == protocol::Direction::load ? 0 : 1;
  GpuLane& lane = *lanes_[way];
  const Op ids = op_of(cell);
  const std::uint64_t bytes = ids.slots.size() * map_->slot_bytes;
  const CopyOp op = {*map_, host_, ids.slots, ids.blocks, map_->whole()};
  const CopyOp engines = {shared_.map, host_, ids.slots, ids.blocks, shared_.map.whole()};  // is only asked about
  AreIn are_in{};
  for (std::size_t i = 0; i < num_mechanisms; ++i) {
    const auto kind = static_cast<MechanismKind>(i);
    are_in[i] = !is_hopeless_[way][i] && lane.takes(kind, op) && lane.takes(kind, engines);
    if (kind == MechanismKind::mixed) are_in[i] = are_in[i] && bytes >= CopyCell::least_measured_bytes_for_long;
  }
  const AreIn were_in = are_in;
  const auto found = times_in_turns(
      are_in, usual, [&](MechanismKind kind) { return sample(lane, kind, op); }, [this] { return is_over(); });
  if (!found) return;
  figures = *found;
  for (std::size_t i = 0; i < num_mechanisms; ++i) {
    if (cell.size > 0 && were_in[i] && !are_in[i]) is_hopeless_[way][i] = true;
  }
}

bool CopyTuner::is_quiet(std::uint64_t begun) const {
  return shared_.ops.is_quiet_since(begun) && !shared_.steps.is_engine_busy();
}

std::optional<double> CopyTuner::sample(GpuLane& lane, MechanismKind kind, const CopyOp& op) const {
  const std::uint64_t begun = shared_.ops.num_begun();
  if (!is_quiet(begun)) return std::nullopt;
  const auto taken = lane.copy(kind, op);
  if (!is_quiet(begun)) return std::nullopt;
  return std::chrono::duration<double, std::micro>(taken).count();
}

void tune(GpuShared& shared, const GpuLanes& lanes, CopyChoices& choices, const std::stop_token& ends,
          const TunerLimits& limits) {
  if (!choices.begin_measuring()) return;
  CopyTuner tuner(shared, lanes, limits);
  try {
    const CopyFigures figures = tuner.measure(choices.usual(), ends);
    if (ends.stop_requested()) {
      choices.postpone();
    } else if (figures == CopyFigures{}) {
      choices.give_up("nothing could be measured: the engine worked beside every copy, or the time was over");
    } else {
      choices.end_measuring(figures);
    }
  } catch (const std::exception& error) {
    choices.give_up(error.what());
  }
  tuner.await_quiet(ends);
}

}  // namespace flexkv::cuda
