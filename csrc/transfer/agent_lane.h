// AgentLane: one direction of a copy agent, its queue and its thread.
//
// An op is  queued -> running -> finished  or  queued -> cancelled ;  either end leaves one acknowledgement to take.
// The thread runs the oldest op whose step ticket is satisfied, so an op that waits for a later step holds up no other;
// a load by layers goes first: the engine's step waits for it.
// An op that has run for longer than `stuck_after` shows: what it writes to cannot be let go before it ends (D16).
// Invariant: num_outstanding == queued + running + results not yet taken.
// Thread safety: all members, any thread; `run` by one thread.
#pragma once
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "transfer/block_copier.h"
#include "transfer/layer_gate.h"
#include "transfer/pool_mapping.h"
#include "transfer/protocol.h"
#include "transfer/wake_event.h"

namespace flexkv {

struct CopyTask {
  std::uint64_t op_id = 0;
  std::uint64_t after_step = 0;
  std::vector<std::int64_t> slots;   // in range
  std::vector<std::int64_t> blocks;  // in range, as many
  std::shared_ptr<const PoolMapping> pool;
  std::uint64_t layer_ticket = 0;  // of a load by layers
};

struct LaneStats {
  std::uint64_t done = 0, failed = 0, cancelled = 0, bytes = 0, copy_ns = 0, outstanding = 0;
  bool is_stuck = false;  // an op runs for longer than any should
};

class AgentLane {
 public:
  using Clock = std::chrono::steady_clock;

  // `wake` and `gate` outlive the lane. `wake` is signalled whenever there is a result to take; `gate` is told of loads
  // by layers.
  AgentLane(std::unique_ptr<BlockCopier> copier, const WakeEvent& wake, LayerGate& gate, Clock::duration stuck_after);

  void run();    // the lane's thread, until close
  void close();  // after it nothing starts; a running op runs on, then `run` returns

  void submit(CopyTask task);
  void cancel(std::uint64_t op_id);  // when still queued
  void cancel_queued();
  void record_step(std::uint64_t step);
  void hold(bool held);

  [[nodiscard]] std::vector<protocol::AckBody> take_results();
  [[nodiscard]] bool running() const;
  [[nodiscard]] bool idle() const;  // nothing queued, nothing running
  [[nodiscard]] LaneStats stats() const;
  [[nodiscard]] std::string last_error()
      const;  // what the device said of the last copy that failed; empty when none has

 private:
  using Queue = std::deque<CopyTask>;
  [[nodiscard]] Queue::iterator next_ready();
  [[nodiscard]] protocol::AckBody copy(const CopyTask& task);
  [[nodiscard]] std::uint64_t move(const CopyTask& task);
  void finish(const protocol::AckBody& result);
  void finish_cancelled(const CopyTask& task);

  const WakeEvent& wake_;
  LayerGate& gate_;
  const std::unique_ptr<BlockCopier> copier_;  // used by `run` only
  const Clock::duration stuck_after_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  Queue queue_;
  std::vector<protocol::AckBody> results_;
  LaneStats stats_;  // all but outstanding and is_stuck
  std::string last_error_;
  std::uint64_t step_ = 0;
  bool running_ = false;
  Clock::time_point running_since_;  // while it is running
  bool held_ = false;
  bool closed_ = false;
};

}  // namespace flexkv
