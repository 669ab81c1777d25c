#include "cuda/gpu_wait.h"

#include <poll.h>

#include <algorithm>
#include <ctime>

#include "cuda/gpu_device.h"

namespace flexkv::cuda {
namespace {

using std::chrono::microseconds;

constexpr std::size_t num_close_looks = 24;
constexpr nanoseconds close_sleep = microseconds(5);
constexpr nanoseconds leisurely_sleep = microseconds(50);
constexpr nanoseconds longest_sleep = microseconds(1000);

void pause(nanoseconds duration) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(duration);
  const timespec time = {static_cast<std::time_t>(seconds.count()), static_cast<long>((duration - seconds).count())};
  (void)::ppoll(nullptr, 0, &time, nullptr);
}

}  // namespace

nanoseconds sleep_after(Looks looks, std::size_t num_looks, nanoseconds waited) {
  if (looks == Looks::close && num_looks <= num_close_looks) return close_sleep;
  return std::clamp(waited / 8, looks == Looks::close ? close_sleep : leisurely_sleep, longest_sleep);
}

bool wait_until(const std::function<bool()>& has_happened, Looks looks, nanoseconds limit) {
  const auto begin = WaitClock::now();
  for (std::size_t num_looks = 1; !has_happened(); ++num_looks) {
    const nanoseconds waited = WaitClock::now() - begin;
    if (waited >= limit) return false;
    pause(std::min(sleep_after(looks, num_looks, waited), limit - waited));
  }
  return true;
}

void StagePace::begin() {
  last_.reset();
  num_between_ = 0;
}

nanoseconds StagePace::first_sleep(WaitClock::time_point now) const {
  if (!last_ || num_between_ == 0) return nanoseconds(0);
  const std::size_t num_known = std::min(num_between_, num_kept);
  const nanoseconds shortest =
      *std::min_element(between_.begin(), between_.begin() + static_cast<std::ptrdiff_t>(num_known));
  return std::clamp<nanoseconds>(shortest * 3 / 4 - (now - *last_), nanoseconds(0), longest_sleep);
}

void StagePace::ended(WaitClock::time_point now) {
  if (last_) between_[num_between_++ % num_kept] = now - *last_;
  last_ = now;
}

void StagePace::wait(const GpuEvent& done, bool is_last) {
  const auto has_happened = [&done] { return done.is_done(); };
  if (is_last) {  // it may be a short one
    done.wait();
  } else if (!has_happened()) {
    const nanoseconds first = first_sleep(WaitClock::now());
    if (first > nanoseconds(0)) pause(first);
    (void)wait_until(has_happened, Looks::leisurely, no_limit);
  }
  ended(WaitClock::now());
}

}  // namespace flexkv::cuda
