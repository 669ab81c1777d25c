#include "transfer/agent_lane.h"

#include <algorithm>
#include <cerrno>
#include <new>
#include <stdexcept>
#include <utility>

namespace flexkv {

using protocol::AckBody;
using protocol::AckStatus;

AgentLane::AgentLane(std::unique_ptr<BlockCopier> copier, const WakeEvent& wake, Clock::duration stuck_after)
    : wake_(wake), copier_(std::move(copier)), stuck_after_(stuck_after) {}

void AgentLane::run() {
  std::unique_lock lock(mutex_);
  while (!closed_) {
    const auto ready = next_ready();
    if (ready == queue_.end()) {
      changed_.wait(lock);
      continue;
    }
    CopyTask task = std::move(*ready);
    queue_.erase(ready);
    running_ = true;
    running_since_ = Clock::now();
    lock.unlock();
    const AckBody result = copy(task);
    task.pool.reset();  // before the result is seen: whoever sees it may drop the pool
    lock.lock();
    running_ = false;
    finish(result);
  }
}

AgentLane::Queue::iterator AgentLane::next_ready() {
  if (held_) return queue_.end();
  return std::ranges::find_if(queue_, [this](const CopyTask& task) { return task.after_step <= step_; });
}

AckBody AgentLane::copy(const CopyTask& task) {
  AckBody result = {task.op_id, 0, 0, AckStatus::done, 0};
  const auto begin = Clock::now();
  try {
    result.bytes = copier_->copy(task.pool->shard(), task.slots, task.blocks, task.after_step);
  } catch (const std::bad_alloc&) {
    result.status = AckStatus::failed;
    result.error = ENOMEM;
  } catch (const std::runtime_error& error) {  // the device failed
    result.status = AckStatus::failed;
    result.error = EIO;
    const std::lock_guard lock(mutex_);
    last_error_ = error.what();
  }
  const auto elapsed = Clock::now() - begin;
  result.duration_ns = static_cast<std::uint64_t>(std::chrono::nanoseconds(elapsed).count());
  return result;
}

// REQUIRES: mutex_ held.
void AgentLane::finish(const AckBody& result) {
  switch (result.status) {
    case AckStatus::done:
      ++stats_.done;
      break;
    case AckStatus::failed:
      ++stats_.failed;
      break;
    case AckStatus::cancelled:
      ++stats_.cancelled;
      break;
  }
  stats_.bytes += result.bytes;
  stats_.copy_ns += result.duration_ns;
  results_.push_back(result);
  wake_.signal();
}

// REQUIRES: mutex_ held.
void AgentLane::finish_cancelled(std::uint64_t op_id) { finish({op_id, 0, 0, AckStatus::cancelled, ECANCELED}); }

void AgentLane::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

void AgentLane::submit(CopyTask task) {
  const std::lock_guard lock(mutex_);
  if (closed_) return finish_cancelled(task.op_id);
  queue_.push_back(std::move(task));
  changed_.notify_all();
}

void AgentLane::cancel(std::uint64_t op_id) {
  const std::lock_guard lock(mutex_);
  const auto queued = std::ranges::find_if(queue_, [op_id](const CopyTask& task) { return task.op_id == op_id; });
  if (queued == queue_.end()) return;
  queue_.erase(queued);
  finish_cancelled(op_id);
}

void AgentLane::cancel_queued() {
  const std::lock_guard lock(mutex_);
  for (const CopyTask& task : queue_) finish_cancelled(task.op_id);
  queue_.clear();
}

void AgentLane::record_step(std::uint64_t step) {
  const std::lock_guard lock(mutex_);
  if (step <= step_) return;
  step_ = step;
  if (!queue_.empty()) changed_.notify_all();
}

void AgentLane::hold(bool held) {
  const std::lock_guard lock(mutex_);
  held_ = held;
  changed_.notify_all();
}

std::vector<AckBody> AgentLane::take_results() {
  const std::lock_guard lock(mutex_);
  return std::exchange(results_, {});
}

bool AgentLane::running() const {
  const std::lock_guard lock(mutex_);
  return running_;
}

bool AgentLane::idle() const {
  const std::lock_guard lock(mutex_);
  return queue_.empty() && !running_;
}

std::string AgentLane::last_error() const {
  const std::lock_guard lock(mutex_);
  return last_error_;
}

LaneStats AgentLane::stats() const {
  const std::lock_guard lock(mutex_);
  LaneStats stats = stats_;
  stats.outstanding = queue_.size() + (running_ ? 1 : 0) + results_.size();
  stats.is_stuck = running_ && Clock::now() - running_since_ >= stuck_after_;
  return stats;
}

}  // namespace flexkv
