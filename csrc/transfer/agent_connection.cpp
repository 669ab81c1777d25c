#include "transfer/agent_connection.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77  // Linux 6.5
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434  // Linux 5.3
#endif

namespace flexkv {

bool AgentConnection::peer_dead() const {
  if (!pidfd_.valid()) return false;
  pollfd entry = {pidfd_.get(), POLLIN, 0};
  return ::poll(&entry, 1, 0) == 1 && (entry.revents & POLLIN) != 0;
}

bool AgentConnection::peer_closed() const {
  pollfd entry = {socket_.get(), 0, 0};
  return ::poll(&entry, 1, 0) == 1 && (entry.revents & POLLHUP) != 0;
}

std::optional<Fd> open_peer_pidfd(int socket_fd, pid_t pid, std::string& error) {
  int fd = -1;
  socklen_t size = sizeof(fd);
  if (::getsockopt(socket_fd, SOL_SOCKET, SO_PEERPIDFD, &fd, &size) == 0 && fd >= 0) return Fd(fd);
  // An older kernel: the number could have been given to a new process already; then the socket has been closed by the
  // old one.
  Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd.valid()) {
    error = "pidfd_open of process " + std::to_string(pid) + ": " + std::generic_category().message(errno);
    return std::nullopt;
  }
  pollfd entry = {socket_fd, POLLIN, 0};
  if (::poll(&entry, 1, 0) > 0 && (entry.revents & (POLLHUP | POLLERR)) != 0) {
    error = "process " + std::to_string(pid) + " has gone";
    return std::nullopt;
  }
  return pidfd;
}

}  // namespace flexkv
