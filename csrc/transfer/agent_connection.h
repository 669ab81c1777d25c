// AgentConnection: one accepted socket of a copy agent, with what the engine's I/O thread knows of its peer.
//
// greeting   -> registered | gone       no REGISTER yet, until a deadline
// registered -> lost | gone             a rank; ops go to it
// lost       -> gone                    the connection is over, but ops of its rank may still be in the peer's hands:
//                                       a peer in another process is watched by pidfd; one in this process by its
//                                       socket, which it closes only after its copies have ended
// Thread safety: none; the I/O thread.
#pragma once
#include <cstdint>

#include "transfer/socket.h"

namespace flexkv {

class AgentConnection {
 public:
  enum class State : std::uint8_t { greeting, registered, lost };

  AgentConnection(Fd socket, Fd pidfd, pid_t pid, double greeting_deadline_s)
      : socket_(std::move(socket)),
        pidfd_(std::move(pidfd)),
        pid_(pid),
        greeting_deadline_s_(greeting_deadline_s),
        reader_(PeerRole::agent) {}

  State state = State::greeting;
  std::uint32_t rank = 0;  // registered, lost
  bool pool_sent = false;
  std::int64_t slots_mapped = 0;
  bool blocked = false;      // the socket took no more; until EPOLLOUT says that it does
  bool write_armed = false;  // EPOLLOUT is asked for

  [[nodiscard]] int socket_fd() const { return socket_.get(); }
  [[nodiscard]] int pidfd() const { return pidfd_.get(); }
  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] double greeting_deadline_s() const { return greeting_deadline_s_; }
  [[nodiscard]] bool in_this_process() const { return !pidfd_.valid(); }
  [[nodiscard]] FrameReader& reader() { return reader_; }
  [[nodiscard]] FrameWriter& writer() { return writer_; }

  // True when the peer's process is known to have ended. Never for this process.
  [[nodiscard]] bool peer_dead() const;
  // True when the peer has closed its end; what it sent before may still be unread.
  [[nodiscard]] bool peer_closed() const;
  void close_socket() { socket_.reset(); }

 private:
  Fd socket_;
  Fd pidfd_;  // none: the peer is this process
  pid_t pid_;
  double greeting_deadline_s_;
  FrameReader reader_;
  FrameWriter writer_;
};

// A descriptor that becomes readable when the peer's process has ended. Throws std::system_error: ESRCH when it has
// ended already, ENOSYS or EPERM where there are none (a kernel before 5.3, a sandbox).
[[nodiscard]] Fd open_peer_pidfd(int socket_fd, pid_t pid);

}  // namespace flexkv
