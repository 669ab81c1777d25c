#include "transfer/layer_gate.h"

#include <algorithm>
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
  last_expected_ = ticket;
  Load& load = known(ticket);
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
  last_finished_ = std::max(last_finished_, ticket);
  loads_.erase(loads_.begin(), loads_.upper_bound(ticket));
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

// REQUIRES: mutex_ held, as for the two below.
LayerGate::Load& LayerGate::expected(std::uint64_t ticket) {
  const auto found = loads_.find(ticket);
  if (found == loads_.end() || !found->second.deadline) {
    throw std::invalid_argument("ticket is " + std::to_string(ticket) + ", which is not that of an expected load");
  }
  return found->second;
}

LayerGate::Load& LayerGate::known(std::uint64_t ticket) {
  Load& load = loads_[ticket];
  while (loads_.size() > max_loads && loads_.begin()->first != ticket) {
    last_finished_ = std::max(last_finished_, loads_.begin()->first);
    loads_.erase(loads_.begin());
  }
  return load;
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
