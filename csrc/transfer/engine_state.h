// EngineState: what the callers of a TransferEngine, its I/O thread and the disk share, under one mutex. No I/O happens
// under it.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>

#include "transfer/disk_executor.h"
#include "transfer/host_pool.h"
#include "transfer/op_graph.h"
#include "transfer/rank_table.h"
#include "transfer/wake_event.h"

namespace flexkv {

[[nodiscard]] inline double monotonic_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// idle -> serving -> draining -> disconnecting -> stopped ;  serving -> broken -> draining ;  idle -> stopped
// broken: the I/O thread met an error it cannot serve on with (out of memory); all graphs are cancelled, no new one is
// taken, and what agents hold is still released when they acknowledge it or die.
enum class EnginePhase : std::uint8_t { idle, serving, draining, disconnecting, broken, stopped };

struct EngineState {
  EngineState(std::uint32_t num_ranks, std::uint32_t replicas)
      : graphs(num_ranks, replicas), ranks(num_ranks, replicas) {}

  WakeEvent io_event;          // wakes the I/O thread
  WakeEvent completion_event;  // readable while completions wait
  mutable std::mutex mutex;
  mutable std::condition_variable changed;  // completions, ranks or phase

  std::atomic<std::uint64_t> num_device_blocks = 0;  // ranks.least_num_blocks(), to be read without the mutex

  // Guarded by mutex:
  EnginePhase phase = EnginePhase::idle;
  OpGraphTable graphs;
  RankTable ranks;
  std::shared_ptr<HostPool> pool;
  std::shared_ptr<DiskExecutor> disk;
  std::int64_t slots_available = 0;
  std::deque<Completion> completions;
  std::uint64_t protocol_errors = 0;
  std::string last_protocol_error;
  bool io_ended = false;         // the I/O thread has left its loop
  double exit_deadline_s = 0;    // disconnecting: agents of this process have until then to close
  bool all_disconnected = true;  // stopped: no agent of this process was left with the pool in use

  // Hands what the graphs completed to poll and wait. REQUIRES: mutex held.
  void publish() {
    std::deque<Completion> fresh = graphs.take_completions();
    if (fresh.empty()) return;
    if (completions.empty()) completion_event.signal();
    for (Completion& completion : fresh) completions.push_back(std::move(completion));
    changed.notify_all();
  }
};

// How the disk reaches the state: as long as there is one. Hung I/O may end after the engine has.
class DiskDoor {
 public:
  explicit DiskDoor(EngineState& state) : state_(&state) {}

  void acknowledge(DiskAck ack) {
    const std::lock_guard door(mutex_);
    if (state_ == nullptr) return;
    const std::lock_guard lock(state_->mutex);
    (void)state_->graphs.acknowledge(std::move(ack));
    state_->publish();
    state_->changed.notify_all();
    state_->io_event.signal();  // what waited for the op may go to ranks
  }
  // REQUIRES: the caller does not hold the state's mutex.
  void shut() {
    const std::lock_guard door(mutex_);
    state_ = nullptr;
  }

 private:
  std::mutex mutex_;  // taken before the state's
  EngineState* state_;
};

}  // namespace flexkv
