// CopyTurns: after how many bytes the copies of an op let others in, the inference engine's above all, which waits in
// each of its steps for what it computes on and for what came of it. See csrc/cuda/lane_streams.h.
//
// What a turn costs (H100): 3 us where the next one is in another stream, 20 us and more where the host waits for the
// end. What it is for: beside loads and stores that took no turns a small copy of the engine's waited until the op
// ended, 19 ms for 1 GiB; with turns 0.1 to 1.3 (docs/PERFORMANCE.md). Thread safety: one thread at a time.
#pragma once
#include <cstdint>

#include "cuda/step_events.h"

namespace flexkv::cuda {

// Bytes of a turn: beside the engine's work, and where it has done none of late.
struct TurnBytes {
  std::uint64_t beside_work = 0;
  std::uint64_t alone = 0;
};
inline constexpr TurnBytes turn_bytes = {std::uint64_t{32} << 20, std::uint64_t{96} << 20};

class CopyTurns {
 public:
  CopyTurns(const StepEvents& steps, TurnBytes most) : steps_(steps), most_(most) {}

  void begin() { bytes_ = 0; }  // a turn
  // So many bytes come next, in this turn, however long it is: by them it may have more than it should.
  void add(std::uint64_t bytes) { bytes_ += bytes; }
  // So many bytes come next: whether they begin another turn. Throws Error.
  [[nodiscard]] bool take(std::uint64_t bytes, bool is_beside_work) {
    const bool is_over = bytes_ > 0 && bytes_ + bytes > most(bytes_ + bytes, is_beside_work);
    bytes_ = is_over ? bytes : bytes_ + bytes;
    return is_over;
  }

 private:
  // The driver is asked for the engine's work only where it makes a difference.
  [[nodiscard]] std::uint64_t most(std::uint64_t bytes, bool is_beside_work) const {
    if (is_beside_work || bytes <= most_.beside_work || bytes > most_.alone) return most_.beside_work;
    return steps_.has_worked_lately() ? most_.beside_work : most_.alone;
  }

  const StepEvents& steps_;
  const TurnBytes most_;
  std::uint64_t bytes_ = 0;  // of this turn
};

}  // namespace flexkv::cuda
