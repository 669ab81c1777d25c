// The bound on every timeout in seconds that comes from outside.
#pragma once
#include <algorithm>
#include <chrono>

namespace flexkv {

inline constexpr double max_timeout_s = 1e6;  // with a clock's reading it fits into 64 bits of nanoseconds

// How long a wait of `timeout_s` waits: not at all when that is negative or not a number, never without end.
[[nodiscard]] constexpr std::chrono::duration<double> bounded_timeout(double timeout_s) {
  return std::chrono::duration<double>(timeout_s > 0 ? std::min(timeout_s, max_timeout_s) : 0.0);  // NaN: 0
}

}  // namespace flexkv
