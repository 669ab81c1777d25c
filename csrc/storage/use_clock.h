// UseClock: when blocks were used. Times are microseconds since 1970, each later than all given before, whatever the
// system's clock does: so they are an order of use, and ages as far as that clock is right. Thread safety: all members,
// any thread.
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "storage/ssd_format.h"

namespace flexkv {

// The time of a use after that of `last_us`: now, or just after the last where the clock says less.
[[nodiscard]] constexpr std::uint64_t use_after(std::uint64_t last_us, std::int64_t now_us) {
  const std::uint64_t now = now_us < 0 ? 0 : static_cast<std::uint64_t>(now_us);
  return std::min(std::max(last_us + 1, now), ssd_max_used_at_us);
}

class UseClock {
 public:
  // The first of `count` times; the others follow it one by one. REQUIRES: count > 0.
  [[nodiscard]] std::uint64_t take(std::uint64_t count) {
    using std::chrono::microseconds;
    const auto now = std::chrono::duration_cast<microseconds>(std::chrono::system_clock::now().time_since_epoch());
    std::uint64_t last = last_us_;
    std::uint64_t first = 0;
    do {
      first = use_after(last, now.count());
    } while (!last_us_.compare_exchange_weak(last, nth(first, count - 1)));
    return first;
  }
  // The n-th of those that `take` gave, from 0: at the end of all times they are the same.
  [[nodiscard]] static constexpr std::uint64_t nth(std::uint64_t first, std::uint64_t n) {
    return std::min(first + n, ssd_max_used_at_us);
  }
  // Times to come are later than this one, too.
  void pass(std::uint64_t used_at_us) {
    std::uint64_t last = last_us_;
    while (last < used_at_us && !last_us_.compare_exchange_weak(last, used_at_us)) {
    }
  }

 private:
  std::atomic<std::uint64_t> last_us_ = 0;
};

}  // namespace flexkv
