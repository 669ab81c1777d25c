#include "transfer/socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "transfer/os_error.h"

namespace flexkv {

namespace {

constexpr int listen_backlog = 128;
constexpr int lock_retry_ms = 5;
constexpr int max_lock_wait_ms = 2000;
constexpr std::string_view register_suffix = ".sock_gpu_register";  // of every address an engine makes up for itself

bool fill_address(const std::string& path, sockaddr_un& address) {
  address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) return false;
  std::memcpy(address.sun_path, path.data(), path.size());
  return true;
}

Fd new_socket() { return Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)); }

// The directory of the socket, open and locked against another engine that is binding at this moment.
Fd open_directory(const std::string& path) {
  std::filesystem::path directory = std::filesystem::path(path).parent_path();
  if (directory.empty()) directory = ".";
  std::error_code ignored;  // mkdir below names the error
  if (!directory.parent_path().empty()) std::filesystem::create_directories(directory.parent_path(), ignored);
  if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    throw_errno(errno, "cannot create the socket directory " + directory.string());
  }
  Fd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  struct stat info = {};
  if (!fd.valid() || ::fstat(fd.get(), &info) != 0) {
    throw_errno(errno, "cannot open the socket directory " + directory.string());
  }
  const bool foreign = info.st_uid != ::geteuid() && info.st_uid != 0;
  const bool writable_by_others = (info.st_mode & (S_IWGRP | S_IWOTH)) != 0 && (info.st_mode & S_ISVTX) == 0;
  if (foreign || writable_by_others) {
    throw_errno(EPERM, "the socket directory " + directory.string() +
                           " belongs to, or can be written by, other users: use one of mode 0700");
  }
  for (int waited_ms = 0; ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0; waited_ms += lock_retry_ms) {
    if (errno != EWOULDBLOCK || waited_ms >= max_lock_wait_ms) {
      throw_errno(errno, "another engine is starting in the socket directory " + directory.string());
    }
    (void)::poll(nullptr, 0, lock_retry_ms);  // it binds, and is done: that takes no time unless it stands still
  }
  return fd;
}

// A listener's socket can outlive it in a forked child, so that the process that listens is asked for, too.
bool someone_listens(const std::string& path, pid_t& pid) {
  int error = 0;
  const Fd probe = connect_unix(path, error);
  if (!probe.valid()) return error == EAGAIN || error == EACCES || error == EPERM;
  const std::optional<PeerCredentials> peer = peer_credentials(probe.get());
  if (!peer || peer->pid == 0) return true;
  pid = peer->pid;
  return ::kill(pid, 0) == 0 || errno == EPERM;
}

// Engines that were killed leave sockets under names nobody will use again. REQUIRES: the directory is locked, so that
// a socket nobody listens on is not one that is about to be listened on.
void remove_abandoned_sockets(const std::filesystem::path& directory) {
  std::error_code ignored;  // what cannot be looked at, or is gone already, stays for the next engine
  for (std::filesystem::directory_iterator it(directory, ignored), end; it != end; it.increment(ignored)) {
    const std::string path = it->path().string();
    pid_t pid = 0;
    if (path.ends_with(register_suffix) && it->is_socket(ignored) && !someone_listens(path, pid)) {
      (void)::unlink(path.c_str());
    }
  }
}

}  // namespace

Fd& Fd::operator=(Fd&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

void Fd::reset() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

Fd listen_unix(const std::string& path) {
  sockaddr_un address;
  if (!fill_address(path, address)) {
    throw_errno(ENAMETOOLONG,
                "socket path '" + path + "' must have 1 to " + std::to_string(sizeof(address.sun_path) - 1) + " bytes");
  }
  const Fd directory = open_directory(path);
  struct stat info = {};
  if (::lstat(path.c_str(), &info) == 0) {
    if (!S_ISSOCK(info.st_mode)) throw_errno(EEXIST, "'" + path + "' exists and is not a socket");
    pid_t pid = 0;
    if (someone_listens(path, pid)) {
      throw_errno(EADDRINUSE, "process " + std::to_string(pid) + " already listens on '" + path + "'");
    }
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) throw_errno(errno, "cannot replace the stale socket " + path);
  }
  remove_abandoned_sockets(std::filesystem::path(path).parent_path());
  Fd fd = new_socket();
  if (!fd.valid()) throw_errno(errno, "cannot make a socket");
  // On Linux the mode set before bind becomes that of the file: there is no moment at which others could connect.
  if (::fchmod(fd.get(), 0600) != 0 ||
      ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      ::chmod(path.c_str(), 0600) != 0 || ::listen(fd.get(), listen_backlog) != 0) {
    throw_errno(errno, "cannot listen on '" + path + "'");
  }
  return fd;
}

Fd connect_unix(const std::string& path, int& error) {
  error = 0;
  sockaddr_un address;
  if (!fill_address(path, address)) {
    error = ENAMETOOLONG;
    return {};
  }
  Fd fd = new_socket();
  if (!fd.valid() || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    error = errno;
    return {};
  }
  return fd;
}

std::optional<PeerCredentials> peer_credentials(int socket_fd) {
  ucred credentials = {};
  socklen_t size = sizeof(credentials);
  if (::getsockopt(socket_fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return std::nullopt;
  return PeerCredentials{credentials.pid, credentials.uid};
}

}  // namespace flexkv
