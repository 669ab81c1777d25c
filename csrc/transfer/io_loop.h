// IoLoop: the one I/O thread of a TransferEngine. It accepts copy agents, reads their frames, sends them and the
// disk ops, keeps the deadlines and watches their processes. It sleeps in epoll, never on a peer: sockets are
// non-blocking, one read per wake-up and socket, and what a peer does not take stays in the graph table (queued) but
// for `writer_limit_bytes`. Thread safety: `run` by one thread, which owns all members; it shares the EngineState with
// the callers.
#pragma once
#include <cstdint>
#include <exception>
#include <map>
#include <string>

#include "transfer/agent_connection.h"
#include "transfer/engine_state.h"
#include "transfer/socket.h"

namespace flexkv {

class IoLoop {
 public:
  // Throws std::system_error.
  IoLoop(EngineState& state, Fd listener);

  void run();  // until the phase is disconnecting and all peers are gone or its deadline has passed

 private:
  using Id = std::uint64_t;  // of a connection, never used twice; 0 and 1 are the listener and the wake event

  static void remember(const std::exception& caught, std::string& error) noexcept;
  void mark_broken(const std::string& error);
  [[nodiscard]] bool turn();
  [[nodiscard]] bool expire_and_check_exit();
  [[nodiscard]] int publish_and_time_sleep();  // in ms
  void dispatch(std::uint64_t tag, std::uint32_t events);
  void disconnect_all();

  void accept_agents();
  void admit(Fd socket);
  void greet(Fd&& socket, pid_t pid);  // throws std::system_error; the socket is the caller's then
  void refuse(int socket_fd, std::string reason);
  void drop_overdue_greetings();
  void limit_greetings();

  void on_socket(Id id, AgentConnection& connection, std::uint32_t events);
  void read_out(Id id, AgentConnection& connection);
  void on_peer_death(Id id, AgentConnection& connection);
  [[nodiscard]] bool receive(Id id,
                             AgentConnection& connection);  // false: the connection is over, or has nothing to read
  [[nodiscard]] bool handle(Id id, AgentConnection& connection, const Frame& frame);
  [[nodiscard]] bool on_register(Id id, AgentConnection& connection, const Frame& frame);
  [[nodiscard]] bool on_mapped(Id id, AgentConnection& connection, const Frame& frame);
  [[nodiscard]] bool on_ack(Id id, AgentConnection& connection, const Frame& frame);
  void settle_earlier_holder(std::uint32_t rank, pid_t new_pid);

  void pump_all();
  void pump(Id id, AgentConnection& connection);
  [[nodiscard]] bool fill_writer(AgentConnection& connection);  // true: there is more to send than it takes
  void send_op(AgentConnection& connection, const OpGraphTable::Send& send);
  void pump_disk();
  [[nodiscard]] bool send_to_disk();
  void watch_socket(Id id, const AgentConnection& connection, std::uint32_t events);

  void break_off(Id id, AgentConnection& connection, const std::string& what);  // it broke a rule
  void lose(Id id, AgentConnection& connection, bool certain, const std::string& reason);
  void release(Id id, AgentConnection& connection);  // lost -> gone
  void record_error(const std::string& error);
  void add_to_epoll(int fd, std::uint64_t tag);

  EngineState& state_;
  Fd listener_;
  Fd epoll_;
  std::map<Id, AgentConnection> connections_;
  Id next_id_ = 2;
  double accept_again_s_ = 0;  // out of descriptors: the listener is not watched until then; 0: it is
  bool disconnecting_ = false;
};

}  // namespace flexkv
