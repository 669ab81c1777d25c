#include "transfer/agent_lane.h"

#include <algorithm>
#include <cerrno>
#include <new>
#include <stdexcept>
#include <utility>

namespace flexkv {

using protocol::AckBody;
using protocol::AckStatus;

namespace {

class TicketSink final : public PartSink {
 public:
  TicketSink(LayerGate& gate, std::uint64_t ticket) : gate_(gate), ticket_(ticket) {}
  void part_issued(std::uint64_t end_bytes, CopyMark mark) override { gate_.advance(ticket_, end_bytes, mark); }

 private:
  LayerGate& gate_;
  const std::uint64_t ticket_;
};

}  // namespace

AgentLane::AgentLane(std::unique_ptr<BlockCopier> copier, const WakeEvent& wake, LayerGate& gate,
                     Clock::duration stuck_after)
    : wake_(wake), gate_(gate), copier_(std::move(copier)), stuck_after_(stuck_after) {}

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
  const auto is_ready = [this](const CopyTask& task) { return task.after_step <= step_; };
  const auto urgent = std::ranges::find_if(
      queue_, [&is_ready](const CopyTask& task) { return task.layer_ticket != 0 && is_ready(task); });
  return urgent != queue_.end() ? urgent : std::ranges::find_if(queue_, is_ready);
}

std::uint64_t AgentLane::move(const CopyTask& task) {
  const HostShard& host = task.pool->shard();
  if (task.layer_ticket == 0) return copier_->copy(host, task.slots, task.blocks, task.after_step);
  if (!gate_.begin(task.layer_ticket)) throw std::runtime_error("the step that waited for this load has gone on");
  TicketSink sink(gate_, task.layer_ticket);
  return copier_->copy_in_parts(host, task.slots, task.blocks, task.after_step, sink);
}

AckBody AgentLane::copy(const CopyTask& task) {
  AckBody result = {task.op_id, 0, 0, AckStatus::done, 0};
  const auto begin = Clock::now();
  try {
    result.bytes = move(task);
  } catch (const std::bad_alloc&) {
    result.status = AckStatus::failed;
    result.error = ENOMEM;
  } catch (const std::runtime_error& error) {  // the device failed
    result.status = AckStatus::failed;
    result.error = EIO;
    const std::lock_guard lock(mutex_);
    last_error_ = error.what();
  }
  if (task.layer_ticket != 0) gate_.end(task.layer_ticket, result.status == AckStatus::done);
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
void AgentLane::finish_cancelled(const CopyTask& task) {
  if (task.layer_ticket != 0) gate_.end(task.layer_ticket, false);
  finish({task.op_id, 0, 0, AckStatus::cancelled, ECANCELED});
}

void AgentLane::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

void AgentLane::submit(CopyTask task) {
  const std::lock_guard lock(mutex_);
  if (closed_) return finish_cancelled(task);
  queue_.push_back(std::move(task));
  changed_.notify_all();
}

void AgentLane::cancel(std::uint64_t op_id) {
  const std::lock_guard lock(mutex_);
  const auto queued = std::ranges::find_if(queue_, [op_id](const CopyTask& task) { return task.op_id == op_id; });
  if (queued == queue_.end()) return;
  const CopyTask task = std::move(*queued);
  queue_.erase(queued);
  finish_cancelled(task);
}

void AgentLane::cancel_queued() {
  const std::lock_guard lock(mutex_);
  for (const CopyTask& task : queue_) finish_cancelled(task);
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
