// Waiting for the GPU without keeping a core busy. The device has no descriptor that could be waited for: it is looked
// at, with sleeps between that grow.
//
// What the device may still write cannot be let go at a bound (D16): a wait for a copy ends with the copy, and the lane
// that waits shows as stuck meanwhile (csrc/transfer/agent_lane.h). Where nothing is on its way, waits end at a bound.
#pragma once
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace flexkv::cuda {

using WaitClock = std::chrono::steady_clock;
using std::chrono::nanoseconds;

class GpuEvent;

inline constexpr nanoseconds no_limit = nanoseconds::max();

// close: what is waited for is next, and whoever waits has nothing else. early: the same, and it may come sooner than
// the pace says. leisurely: a little later does no harm.
enum class Looks : std::uint8_t { close, early, leisurely };

// How long to sleep after so many looks, and so long a wait. For the time of a short copy close looks follow each
// other at once; then a wait is too long by an eighth at most, and by 1 ms.
[[nodiscard]] nanoseconds sleep_after(Looks looks, std::size_t num_looks, nanoseconds waited);

// Looks until `has_happened` says yes: true. False once `limit` has passed. Throws what `has_happened` does.
[[nodiscard]] bool wait_until(const std::function<bool()>& has_happened, Looks looks, nanoseconds limit);

// When something ended that was there at the first look after such a sleep. Pure.
[[nodiscard]] WaitClock::time_point end_during_sleep(WaitClock::time_point look, nanoseconds slept);

// Waits for the stages of ops, or any other parts of them that end one after the other: from how fast bytes passed of
// late it knows when a stage ends, and sleeps for most of that. A stage is named by the op's bytes that have passed
// with its end. Thread safety: one thread at a time.
class StagePace {
 public:
  void begin() { begin(WaitClock::now()); }  // an op
  // Waits for the end of a stage: true; or until `is_enough`: false. Throws Error when the device has failed.
  bool wait(
      const GpuEvent& end, std::uint64_t passed_bytes, Looks looks,
      const std::function<bool()>& is_enough = [] { return false; });

  // The parts of these, for tests: what to sleep before the second look, and an end that was waited for.
  void begin(WaitClock::time_point now) { last_ = now, last_bytes_ = 0; }
  [[nodiscard]] nanoseconds first_sleep(WaitClock::time_point now, std::uint64_t passed_bytes, Looks looks) const;
  void ended(WaitClock::time_point at, std::uint64_t passed_bytes);

 private:
  static constexpr std::size_t num_kept = 4;
  struct Sample {
    double ns = 0;
    double bytes = 0;
  };
  // When the last end that was waited for came, or the op began, and what had passed then.
  WaitClock::time_point last_{};
  std::uint64_t last_bytes_ = 0;
  std::array<Sample, num_kept> samples_{};
  std::size_t next_ = 0;
};

}  // namespace flexkv::cuda
