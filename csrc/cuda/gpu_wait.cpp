#include "cuda/gpu_wait.h"

#include <poll.h>

#include <algorithm>
#include <ctime>

#include "cuda/gpu_device.h"

namespace flexkv::cuda {
namespace {

using std::chrono::microseconds;

constexpr std::size_t num_close_looks = 40;
constexpr nanoseconds longest_sleep = microseconds(1000);
struct Habit {
  double share;       // of the time that is expected, before the first look
  nanoseconds sleep;  // between the first looks; 1 us takes about four
};
constexpr Habit habit_of(Looks looks) {
  switch (looks) {
    case Looks::close:
      return {0.93, microseconds(1)};
    case Looks::early:
      return {0.75, microseconds(5)};
    case Looks::leisurely:
      break;
  }
  return {0.9, microseconds(50)};
}

void pause(nanoseconds duration) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(duration);
  const timespec time = {static_cast<std::time_t>(seconds.count()), static_cast<long>((duration - seconds).count())};
  (void)::ppoll(nullptr, 0, &time, nullptr);
}

}  // namespace

nanoseconds sleep_after(Looks looks, std::size_t num_looks, nanoseconds waited) {
  const nanoseconds least = habit_of(looks).sleep;
  if (looks != Looks::leisurely && num_looks <= num_close_looks) return least;
  return std::clamp(waited / 8, least, longest_sleep);
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

// In the last part of it, as a rule: whoever took it for much sooner would look for the next one long before that is
// due.
WaitClock::time_point end_during_sleep(WaitClock::time_point look, nanoseconds slept) { return look - slept / 4; }

nanoseconds StagePace::first_sleep(WaitClock::time_point now, std::uint64_t passed_bytes, Looks looks) const {
  Sample sum;
  for (const Sample& sample : samples_) sum = {sum.ns + sample.ns, sum.bytes + sample.bytes};
  if (sum.bytes == 0 || passed_bytes <= last_bytes_) return nanoseconds(0);
  const double expected_ns = sum.ns / sum.bytes * static_cast<double>(passed_bytes - last_bytes_);
  const nanoseconds most_of_it(static_cast<std::int64_t>(std::min(expected_ns * habit_of(looks).share, 1e9)));
  return std::clamp<nanoseconds>(most_of_it - (now - last_), nanoseconds(0), longest_sleep);
}

void StagePace::ended(WaitClock::time_point at, std::uint64_t passed_bytes) {
  if (passed_bytes <= last_bytes_) return;  // it ended later than one that was issued behind it
  samples_[next_++ % num_kept] = {static_cast<double>(nanoseconds(at - last_).count()),
                                  static_cast<double>(passed_bytes - last_bytes_)};
  last_ = at;
  last_bytes_ = passed_bytes;
}

// An end that was there already tells nothing: nobody knows since when.
bool StagePace::wait(const GpuEvent& end, std::uint64_t passed_bytes, Looks looks,
                     const std::function<bool()>& is_enough) {
  if (end.is_done()) return true;
  if (is_enough()) return false;
  const nanoseconds first = first_sleep(WaitClock::now(), passed_bytes, looks);
  if (first > nanoseconds(0)) pause(first);
  // Of an end that a look finds it is taken that it came just behind the look before: whoever took it for later would
  // come late to the next one, too.
  bool has_ended = false;
  WaitClock::time_point look = end_during_sleep(WaitClock::now(), first);
  WaitClock::time_point look_before;
  const auto is_over = [&] {
    look_before = look;
    look = WaitClock::now();
    has_ended = end.is_done();
    return has_ended || is_enough();
  };
  (void)wait_until(is_over, looks, no_limit);
  if (has_ended) ended(look_before, passed_bytes);
  return has_ended;
}

}  // namespace flexkv::cuda
