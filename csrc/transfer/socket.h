// Unix stream sockets and the framed protocol on them, for both ends: the TransferEngine and the copy agents.
//
// Nothing here blocks: sockets are non-blocking, `fill` and `flush` do one pass each and the caller sleeps in epoll.
// Reading is `fill` (one recvmsg) then `next` until it gives no more frames, so a level-triggered epoll loses nothing
// and a peer that floods gets one bounded read per wake-up. A frame that `next` yields has the right magic, version,
// type for its sender, exact body length for its type, and exactly the descriptors its type carries (POOL: one memfd;
// else none). Thread safety: none; one thread per object.
#pragma once
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "transfer/protocol.h"

struct msghdr;  // of <sys/socket.h>

namespace flexkv {

// Owns a file descriptor; -1: none.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() { reset(); }
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept;
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;

  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool valid() const { return fd_ >= 0; }
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }
  void reset();

 private:
  int fd_ = -1;
};

struct PeerCredentials {
  pid_t pid = 0;  // 0: not visible from this pid namespace
  uid_t uid = 0;
};

// Binds and listens, non-blocking and CLOEXEC; socket mode 0600. A missing directory is created 0700; an existing one
// must belong to this user or root and not be writable by others (a sticky one may be). A stale socket is replaced, a
// live one is EADDRINUSE. Other engines' sockets there that nobody listens on are removed. Throws std::system_error.
[[nodiscard]] Fd listen_unix(const std::string& path);

// Connects without waiting. Returns no descriptor and sets `error` (errno) when it cannot: ENOENT and ECONNREFUSED mean
// that nobody listens yet, EAGAIN that the backlog is full, EACCES that the listener is another user's.
[[nodiscard]] Fd connect_unix(const std::string& path, int& error);

// Who connected (engine's side) or who listens (agent's side). Nothing when the kernel cannot say.
[[nodiscard]] std::optional<PeerCredentials> peer_credentials(int socket_fd);

enum class PeerRole : std::uint8_t { agent, engine };

struct Frame {
  protocol::FrameType type = protocol::FrameType::bye;
  std::vector<std::byte> body;
  Fd fd;  // POOL only
};

enum class IoStatus : std::uint8_t { ok, would_block, closed, error };

class FrameReader {
 public:
  explicit FrameReader(PeerRole sender) : sender_(sender) {}

  // One recvmsg. ok: bytes arrived, call `next`. error: the socket failed or the peer broke a rule, see error().
  [[nodiscard]] IoStatus fill(int socket_fd);
  // True: `frame` holds the next complete frame. False: none is complete, or the peer broke a rule (failed()).
  [[nodiscard]] bool next(Frame& frame);
  [[nodiscard]] bool failed() const { return !error_.empty(); }
  [[nodiscard]] const std::string& error() const { return error_; }

 private:
  [[nodiscard]] bool reject(std::string reason);  // always false
  [[nodiscard]] bool take_descriptors(msghdr& message);
  [[nodiscard]] bool check_header(const protocol::FrameHeader& header);
  [[nodiscard]] bool check_body(const Frame& frame);

  PeerRole sender_;
  std::vector<std::byte> buffer_;  // bytes [begin_, end_) are received and not yet consumed
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::deque<Fd> fds_;  // received, their POOL frame not yet consumed
  std::string error_;
};

class FrameWriter {
 public:
  // Queues a frame whose body is head followed by tails. The descriptor is duplicated, -1: none.
  // Throws std::system_error when it cannot be duplicated. The caller bounds pending_bytes().
  void push(protocol::FrameType type, std::span<const std::byte> head = {}, std::span<const std::byte> tail1 = {},
            std::span<const std::byte> tail2 = {}, int fd = -1);
  // Sends until all is sent (ok) or the socket is full (would_block). closed, error: the connection is lost.
  [[nodiscard]] IoStatus flush(int socket_fd);
  [[nodiscard]] std::size_t pending_bytes() const { return pending_bytes_; }
  [[nodiscard]] bool pending() const { return pending_bytes_ != 0; }

 private:
  struct Segment {
    std::vector<std::byte> bytes;
    Fd fd;  // travels with the segment's first byte
  };
  std::deque<Segment> segments_;
  std::size_t sent_bytes_ = 0;  // of the front segment
  std::size_t pending_bytes_ = 0;
};

template <typename T>
[[nodiscard]] std::span<const std::byte> bytes_of(const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  return std::as_bytes(std::span<const T, 1>(&value, 1));
}

// REQUIRES: body.size() >= sizeof(T).
template <typename T>
[[nodiscard]] T read_body(std::span<const std::byte> body) {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, body.data(), sizeof(T));
  return value;
}

}  // namespace flexkv
