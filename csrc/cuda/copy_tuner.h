// CopyTuner: measures how long each mechanism takes for each kind of op (a cell), over memory of its own: a few blocks,
// laid out as the engine's are (layout_sample.h), and as many slots, registered with the driver. The engine's blocks
// and slots are neither written nor read.
//
// The mechanisms are those of the lanes, with their streams and stages: an op of the engine's waits for at most one
// copy of a measurement. A copy beside which the engine worked, or an op ran, does not count. It ends when its time is
// over: cells that were not reached have no figures. The time is that of the call, with the wait for the device.
//
// When memory is given back, GPU's or registered, the driver waits for all that the GPU has to do, and whoever else
// calls the driver meanwhile, to launch a kernel, say, waits with it (H100, driver 580: for 300 ms behind a kernel of
// 300 ms, where registering 64 MiB holds others up for 2 ms, and allocating them pinned for 24 to 39). Hence
// `await_quiet`. Thread safety: one thread at a time, which has entered.
#pragma once
#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <vector>

#include "cuda/copy_choices.h"
#include "cuda/gpu_lane.h"
#include "cuda/gpu_shared.h"
#include "transfer/host_pool.h"

namespace flexkv::cuda {

using GpuLanes = std::array<std::shared_ptr<GpuLane>, 2>;  // to the GPU, back

struct TunerLimits {
  std::chrono::milliseconds time{2000};  // a still host needs 50 to 150, the most turns four times as much
  std::uint64_t memory_bytes = std::uint64_t{32} << 20;    // of the GPU, and as much of the host
  std::uint64_t op_bytes = CopyCell::most_measured_bytes;  // no op has more, unless one block has
};

class CopyTuner {
 public:
  CopyTuner(GpuShared& shared, const GpuLanes& lanes, const TunerLimits& limits);
  ~CopyTuner();
  CopyTuner(const CopyTuner&) = delete;
  CopyTuner& operator=(const CopyTuner&) = delete;

  // Until all is measured, the time is over, or `ends`. Throws Error, also when memory cannot be had or a block is too
  // large for it. Once.
  [[nodiscard]] CopyFigures measure(MechanismKind usual, const std::stop_token& ends);
  // Until neither the engine nor an op has kept the GPU busy for a while: then nobody waits while the memory is given
  // back. Or `ends`; and for a minute at most: an engine that never rests waits once.
  void await_quiet(const std::stop_token& ends) const noexcept;

 private:
  struct Op {
    std::vector<std::int64_t> slots;
    std::vector<std::int64_t> blocks;
  };

  void take_memory();
  [[nodiscard]] Op op_of(const CopyCell& cell) const;
  [[nodiscard]] std::size_t num_blocks_of(const CopyCell& cell) const {
    return cell.num_measured_blocks(map_->slot_bytes, limits_.op_bytes);
  }
  void measure_cell(const CopyCell& cell, MechanismKind usual, CellFigures& figures);
  // Microseconds; none when something ran beside it.
  [[nodiscard]] std::optional<double> sample(GpuLane& lane, MechanismKind kind, const CopyOp& op) const;
  [[nodiscard]] bool is_quiet(std::uint64_t begun) const;
  [[nodiscard]] bool is_over() const;

  GpuShared& shared_;
  const GpuLanes& lanes_;
  const TunerLimits limits_;
  std::chrono::steady_clock::time_point deadline_{};
  std::stop_token ends_;
  std::int64_t num_blocks_ = 0;
  std::unique_ptr<HostPool> slots_;
  HostShard host_;
  std::unique_ptr<GpuMemory> memory_;
  std::unique_ptr<BlockMap> map_;
  std::array<std::array<bool, num_mechanisms>, 2> is_hopeless_{};  // by direction: far slower already with a few blocks
};

// Measures once, where that has not been done, and has the choices follow. Says in them why not, when it cannot.
void tune(GpuShared& shared, const GpuLanes& lanes, CopyChoices& choices, const std::stop_token& ends,
          const TunerLimits& limits = {});

}  // namespace flexkv::cuda
