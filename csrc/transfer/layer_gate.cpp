#include "transfer/layer_gate.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

#include "transfer/timeout.h"

namespace flexkv {

void LayerGate::expect(std::uint64_t ticket, double timeout_s) {
  const std::lock_guard lock(mutex_);
  if (ticket <= last_expected_) {
    throw std::invalid_argument("ticket is " + std::to_string(ticket) + ", after " + std::to_string(last_expected_) +
                                "; tickets of loads by layers grow");
  }
  if (num_expected() >= max_loads) {
    throw std::invalid_argument("ticket is " + std::to_string(ticket) + ", but " + std::to_string(max_loads) +
                                " loads by layers are expected already; finish them first");
  }
  last_expected_ = ticket;
  const bool is_forgotten = is_over(ticket);
  Load& load = known(ticket);
  if (is_forgotten) load.state = State::failed;
  load.timeout = std::chrono::duration_cast<Clock::duration>(bounded_timeout(timeout_s));
  load.deadline = Clock::now() + load.timeout;
  if (!is_connected_ && load.state == State::waiting) load.state = State::failed;
}

std::optional<CopyMark> LayerGate::wait_part(std::uint64_t ticket, std::uint64_t end_bytes) {
  std::unique_lock lock(mutex_);
  while (true) {
    const Load& load = expected(ticket);
    if (load.state == State::failed) return std::nullopt;
    const auto part = std::ranges::find_if(load.parts, [end_bytes](const auto& it) { return it.first >= end_bytes; });
    if (part != load.parts.end()) return part->second;
    if (load.state == State::done) return 0;
    wait_for_change(lock, ticket);
  }
}

bool LayerGate::finish(std::uint64_t ticket) {
  std::unique_lock lock(mutex_);
  while (expected(ticket).state == State::waiting || expected(ticket).state == State::running) {
    wait_for_change(lock, ticket);
  }
  const bool is_done = expected(ticket).state == State::done;
  loads_.erase(ticket);
  last_forgotten_ = std::max(last_forgotten_, ticket);
  forget_unexpected(0, ticket);
  return is_done;
}

bool LayerGate::begin(std::uint64_t ticket) {
  const std::lock_guard lock(mutex_);
  if (is_over(ticket)) return false;
  Load& load = known(ticket);
  if (load.state != State::waiting) return false;
  load.state = State::running;
  return true;
}

void LayerGate::advance(std::uint64_t ticket, std::uint64_t end_bytes, CopyMark mark) {
  const std::lock_guard lock(mutex_);
  if (is_over(ticket)) return;
  known(ticket).parts.emplace_back(end_bytes, mark);
  changed_.notify_all();
}

void LayerGate::end(std::uint64_t ticket, bool is_done) {
  const std::lock_guard lock(mutex_);
  if (is_over(ticket)) return;
  known(ticket).state = is_done ? State::done : State::failed;
  changed_.notify_all();
}

void LayerGate::lose(std::uint64_t ticket) {
  const std::lock_guard lock(mutex_);
  if (is_over(ticket)) return;
  Load& load = known(ticket);
  if (load.state == State::waiting) load.state = State::failed;
  changed_.notify_all();
}

void LayerGate::set_connected(bool is_connected) {
  const std::lock_guard lock(mutex_);
  is_connected_ = is_connected;
  if (is_connected) return;
  for (auto& [ticket, load] : loads_) {
    if (load.state == State::waiting) load.state = State::failed;
  }
  changed_.notify_all();
}

// REQUIRES: mutex_ held, as for all below.
std::size_t LayerGate::num_expected() const {
  return static_cast<std::size_t>(
      std::ranges::count_if(loads_, [](const auto& entry) { return entry.second.deadline.has_value(); }));
}

LayerGate::Load& LayerGate::expected(std::uint64_t ticket) {
  const auto found = loads_.find(ticket);
  if (found == loads_.end() || !found->second.deadline) {
    throw std::invalid_argument("ticket is " + std::to_string(ticket) + ", which is not that of an expected load");
  }
  return found->second;
}

LayerGate::Load& LayerGate::known(std::uint64_t ticket) {
  const auto found = loads_.find(ticket);
  if (found != loads_.end()) return found->second;
  forget_unexpected(max_loads - 1, std::numeric_limits<std::uint64_t>::max());
  return loads_[ticket];
}

// The oldest of those that nobody expects, up to this ticket, until so many are left. Not one that runs: whoever comes
// to expect it must wait until its copies write no more.
void LayerGate::forget_unexpected(std::size_t num_left, std::uint64_t last_ticket) {
  std::size_t num_unexpected = loads_.size() - num_expected();
  auto entry = loads_.begin();
  while (entry != loads_.end() && entry->first <= last_ticket && num_unexpected > num_left) {
    if (entry->second.deadline || entry->second.state == State::running) {
      ++entry;
      continue;
    }
    last_forgotten_ = std::max(last_forgotten_, entry->first);
    entry = loads_.erase(entry);
    --num_unexpected;
  }
}

void LayerGate::wait_for_change(std::unique_lock<std::mutex>& lock, std::uint64_t ticket) {
  const Load& load = expected(ticket);
  const bool is_running = load.state == State::running;
  // What runs has as long again: it may have begun at the very end.
  const Clock::time_point until =
      load.deadline.value_or(Clock::now()) + (is_running ? load.timeout : Clock::duration{});
  if (changed_.wait_until(lock, until) != std::cv_status::timeout) return;
  Load& now = expected(ticket);
  if (now.state == State::waiting) {
    now.state = State::failed;
  } else if (now.state == State::running && is_running) {
    throw std::runtime_error("a load by layers has begun and does not end, ticket " + std::to_string(ticket));
  }
}

}  // namespace flexkv
