// LayerGate: how far loads by layers have come, between the agent's thread that copies and the engine's thread that
// computes the layers. A load is named by its ticket.
//
//   expected (the worker, at the beginning of the step)
//   waiting -> running -> done | failed ;  waiting -> failed: cancelled, refused, lost, or not there at the deadline
//   finished (the worker, at the end of the step): forgotten, and an op that comes later is refused
//
// What is expected is kept until it is finished, however many others come; so only so many can be expected at a time.
// Of loads that nobody expects only the newest are kept: expected later, a forgotten one fails, and its op is refused.
// Either side may come first. Whatever happens to the op, whoever waits is let go: a load that has not begun at its
// deadline fails, and is refused from then on; one that runs is waited for, since its copies may still write, and when
// it does not end either, the wait throws.
// Thread safety: all members, any thread.
#pragma once
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "transfer/block_copier.h"

namespace flexkv {

class LayerGate {
 public:
  static constexpr std::size_t max_loads = 16;  // expected at a time, and as many that nobody expects

  // ---- of the engine's thread

  // The step that runs now computes on what this load brings. Throws std::invalid_argument unless tickets grow, or when
  // max_loads are expected and not finished.
  void expect(std::uint64_t ticket, double timeout_s);
  // Until bytes [0, end_bytes) are there or on their way: the mark after which they are there; none when the load
  // failed. Throws std::invalid_argument when the ticket is not expected, std::runtime_error when the load does not
  // end.
  [[nodiscard]] std::optional<CopyMark> wait_part(std::uint64_t ticket, std::uint64_t end_bytes);
  // Until the load has ended: whether all of it is there. Those that are expected beside it stay. Throws as
  // `wait_part`.
  [[nodiscard]] bool finish(std::uint64_t ticket);

  // ---- of the agent's threads

  [[nodiscard]] bool begin(std::uint64_t ticket);  // false: nobody waits for it any more, it must not run
  void advance(std::uint64_t ticket, std::uint64_t end_bytes, CopyMark mark);
  void end(std::uint64_t ticket, bool is_done);
  void lose(std::uint64_t ticket);  // it will not come, unless it has
  // Loads come while there is a connection to the engine; once it is lost, what has not begun never comes.
  void set_connected(bool is_connected);

 private:
  using Clock = std::chrono::steady_clock;
  enum class State : std::uint8_t { waiting, running, done, failed };
  struct Load {
    State state = State::waiting;
    std::optional<Clock::time_point> deadline;  // once expected
    Clock::duration timeout{};
    std::vector<std::pair<std::uint64_t, CopyMark>> parts;  // by end, ascending
  };

  [[nodiscard]] bool is_over(std::uint64_t ticket) const {
    return ticket <= last_forgotten_ && !loads_.contains(ticket);
  }
  [[nodiscard]] std::size_t num_expected() const;
  [[nodiscard]] Load& expected(std::uint64_t ticket);
  [[nodiscard]] Load& known(std::uint64_t ticket);
  void forget_unexpected(std::size_t num_left, std::uint64_t last_ticket);
  void wait_for_change(std::unique_lock<std::mutex>& lock, std::uint64_t ticket);

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  std::map<std::uint64_t, Load> loads_;
  std::uint64_t last_forgotten_ = 0;  // of those up to it only the known ones are not over
  std::uint64_t last_expected_ = 0;
  bool is_connected_ = false;
};

}  // namespace flexkv
