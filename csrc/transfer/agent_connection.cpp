#include "transfer/agent_connection.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77  // Linux 6.5
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434  // Linux 5.3
#endif

#include "transfer/os_error.h"

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

Fd open_peer_pidfd(int socket_fd, pid_t pid) {
  int fd = -1;
  socklen_t size = sizeof(fd);
  if (::getsockopt(socket_fd, SOL_SOCKET, SO_PEERPIDFD, &fd, &size) == 0 && fd >= 0) return Fd(fd);
  // An older kernel: the number could have been given to a new process meanwhile; then the old one has closed the
  // socket.
  Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd.valid()) {
    throw_errno(errno, "pidfd_open of process " + std::to_string(pid));
  }
  pollfd entry = {socket_fd, 0, 0};
  if (::poll(&entry, 1, 0) > 0) {
    throw_errno(ESRCH, "process " + std::to_string(pid));
  }
  return pidfd;
}

}  // namespace flexkv
