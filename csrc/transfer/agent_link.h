// AgentLink: the connection of a copy agent to its TransferEngine: finds it, registers, maps the pool, feeds the lanes
// with ops and sends their acknowledgements. All sockets and frames of an agent are here, none of its copies.
//
// Life:  connecting -> registered -> serving -> connecting ...  |  -> refused  |  -> stopped
// After a lost connection the queued ops are dropped and the running ones waited for before it connects again, so an
// engine that sees this process register again knows that no op of before still touches anything.
// Thread safety: `run` by one thread; the others by any.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>

#include "transfer/agent_lane.h"
#include "transfer/copy_agent.h"
#include "transfer/pool_mapping.h"
#include "transfer/socket.h"
#include "transfer/wake_event.h"

namespace flexkv {

class AgentLink {
 public:
  using Clock = std::chrono::steady_clock;

  // All references outlive the link. `wake` is the event that the lanes signal.
  AgentLink(const AgentConfig& config, const DeviceLayout& layout, CopyBackend& backend, AgentLane& loads,
            AgentLane& stores, LayerGate& gate, const WakeEvent& wake);

  void run();  // the I/O thread, until refused or stopped; closes the lanes at its end
  // Cancels the queued ops, waits for the running ones, acknowledges, says BYE. A peer that does not read is left at
  // `deadline`.
  void request_stop(Clock::time_point deadline);

  [[nodiscard]] AgentState state() const;
  [[nodiscard]] bool wait_serving(double timeout_s) const;
  [[nodiscard]] std::string refusal() const;
  [[nodiscard]] std::string last_error() const;
  [[nodiscard]] std::uint64_t connections() const;
  [[nodiscard]] std::uint64_t ops_rejected() const;
  [[nodiscard]] HostProgress host() const;  // of the pool that it has now

 private:
  struct Connection;  // what one connection has beside the socket

  [[nodiscard]] Fd connect();
  void serve(Connection& connection);
  void register_rank(Connection& connection);
  void pump(Connection& connection);
  void send_results(Connection& connection);
  void send_mapped(Connection& connection);
  [[nodiscard]] bool receive(Connection& connection);
  void handle(Connection& connection, Frame& frame);
  void on_pool(Connection& connection, Frame& frame);
  void on_op(Connection& connection, const Frame& frame);
  void refuse_op(Connection& connection, const protocol::OpBody& op, protocol::AckStatus status, int error);
  void abandon(Connection& connection);
  [[nodiscard]] bool stopping() const;
  // Sleeps until the socket or the wake event (true), or the time (false). fd -1: no socket.
  [[nodiscard]] bool sleep_on(int fd, int events, std::optional<Clock::time_point> until);
  void set_state(AgentState state);
  void fail(const std::string& error);

  const AgentConfig& config_;
  const DeviceLayout& layout_;
  CopyBackend& backend_;
  AgentLane& loads_;
  AgentLane& stores_;
  LayerGate& gate_;
  const WakeEvent& wake_;
  std::stop_source stop_;  // behind stop_deadline_
  mutable std::mutex mutex_;
  mutable std::condition_variable state_changed_;
  // Guarded by mutex_:
  AgentState state_ = AgentState::idle;
  std::string refusal_;
  std::string last_error_;
  std::uint64_t connections_ = 0;
  std::uint64_t ops_rejected_ = 0;
  HostProgress host_;  // as the backend says, from any thread
  std::optional<Clock::time_point> stop_deadline_;
};

}  // namespace flexkv
