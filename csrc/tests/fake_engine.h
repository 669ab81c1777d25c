// FakeEngine: the engine's end of the protocol for tests of the copy agent, one frame at a time. It waits for the agent
// in poll, at most 20 s, and has a small pool in a sealed memfd.
#pragma once
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tests/check.h"
#include "transfer/protocol.h"
#include "transfer/socket.h"

namespace flexkv {

class FakePool {
 public:
  FakePool(std::int64_t num_slots, std::uint64_t stride, bool sealed = true)
      : num_slots_(num_slots),
        stride_(stride),
        bytes_(static_cast<std::size_t>(num_slots) * stride),
        fd_(::memfd_create("flexkv-test", MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
    CHECK(fd_.valid() && ::ftruncate(fd_.get(), static_cast<off_t>(bytes_)) == 0);
    if (sealed) CHECK(::fcntl(fd_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
    base_ = static_cast<std::byte*>(::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0));
    CHECK(base_ != MAP_FAILED);
  }
  ~FakePool() { ::munmap(base_, bytes_); }
  FakePool(const FakePool&) = delete;
  FakePool& operator=(const FakePool&) = delete;

  [[nodiscard]] std::span<std::byte> bytes() const { return {base_, bytes_}; }
  [[nodiscard]] std::byte* slot(std::int64_t slot) const { return base_ + static_cast<std::uint64_t>(slot) * stride_; }
  [[nodiscard]] int fd() const { return fd_.get(); }
  // share: announce our mapping, as an engine does; else the agent maps the file by itself.
  [[nodiscard]] protocol::PoolBody body(bool share) const {
    return {1, static_cast<std::uint64_t>(num_slots_), stride_, share ? reinterpret_cast<std::uint64_t>(base_) : 0};
  }

 private:
  std::int64_t num_slots_;
  std::uint64_t stride_;
  std::size_t bytes_;
  Fd fd_;
  std::byte* base_ = nullptr;
};

class FakeEngine {
 public:
  explicit FakeEngine(const std::string& path) : listener_(listen_unix(path)) {}

  // Takes the next connection and returns its REGISTER body; the tag goes to `tag`.
  protocol::RegisterBody accept_agent(std::string* tag = nullptr);

  void send_pool(const FakePool& pool, bool share = false) { send_pool(pool.body(share), pool.fd()); }
  void send_pool(const protocol::PoolBody& body, int fd) {
    send(protocol::FrameType::pool, bytes_of(body), {}, {}, fd);
  }

  // The usual beginning: accept, POOL, MAPPED.
  void serve(const FakePool& pool, bool share = false);

  void send_op(std::uint64_t op_id, protocol::Direction direction, const std::vector<std::int64_t>& slots,
               const std::vector<std::int64_t>& blocks, std::uint64_t after_step = 0);

  void send_cancel(std::uint64_t op_id) { send(protocol::FrameType::cancel, bytes_of(protocol::CancelBody{op_id})); }

  void send(protocol::FrameType type, std::span<const std::byte> head = {}, std::span<const std::byte> tail1 = {},
            std::span<const std::byte> tail2 = {}, int fd = -1);

  void send_raw(std::span<const std::byte> bytes) {
    CHECK(::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size()));
  }

  // The next frame, or nothing when the agent has closed.
  std::optional<Frame> receive();
  Frame expect(protocol::FrameType type);

  protocol::AckBody expect_ack() { return read_body<protocol::AckBody>(expect(protocol::FrameType::ack).body); }

  protocol::AckBody expect_ack(std::uint64_t op_id, protocol::AckStatus status);

  void expect_closed() { CHECK(!receive().has_value()); }
  void close_connection() { socket_.reset(); }

 private:
  static void wait_for(int fd, short events);

  Fd listener_;
  Fd socket_;
  FrameReader reader_{PeerRole::agent};
  FrameWriter writer_;
};

}  // namespace flexkv
