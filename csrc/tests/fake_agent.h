// FakeAgent: the agent's end of the protocol for tests of the TransferEngine, one frame at a time; it copies nothing.
// It waits for the engine in poll, at most 20 s.
#pragma once
#include <poll.h>
#include <sys/socket.h>

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

struct FakeRank {
  std::uint32_t rank = 0;
  std::uint32_t num_ranks = 1;
  std::uint64_t num_blocks = 100;
  std::uint64_t slot_bytes = 4096;
  std::uint32_t tokens_per_block = 16;
  std::string tag = "tag";
};

class FakeAgent {
 public:
  // Waits while the engine's backlog is full, which connect_unix does not.
  explicit FakeAgent(const std::string& path);
  FakeAgent(const std::string& path, const FakeRank& rank) : FakeAgent(path) { register_rank(rank); }

  void register_rank(const FakeRank& rank);

  // POOL is answered with MAPPED of all its slots.
  protocol::PoolBody serve_pool();

  struct Op {
    protocol::OpBody body;
    std::vector<std::int64_t> slots;
    std::vector<std::int64_t> blocks;
  };
  Op expect_op();
  std::uint64_t expect_op_id() { return expect_op().body.op_id; }
  std::uint64_t expect_cancel() {
    return read_body<protocol::CancelBody>(expect(protocol::FrameType::cancel).body).op_id;
  }

  void send_mapped(std::uint64_t num_slots) {
    send(protocol::FrameType::mapped, bytes_of(protocol::MappedBody{num_slots}));
  }
  void ack(std::uint64_t op_id, protocol::AckStatus status = protocol::AckStatus::done, std::uint32_t error = 0) {
    send(protocol::FrameType::ack, bytes_of(protocol::AckBody{op_id, 4096, 1000, status, error}));
  }
  void bye() { send(protocol::FrameType::bye); }

  void send(protocol::FrameType type, std::span<const std::byte> head = {}, std::span<const std::byte> tail = {});
  // False when the engine has closed.
  bool send_raw(std::span<const std::byte> bytes) {
    return ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
  }

  std::optional<Frame> receive();
  Frame expect(protocol::FrameType type);
  void expect_closed() { CHECK(!receive().has_value()); }
  void expect_refused(const std::string& part);
  bool has_input() {  // right now, without waiting
    pollfd entry = {socket_.get(), POLLIN, 0};
    return ::poll(&entry, 1, 0) == 1;
  }
  void close() { socket_.reset(); }
  [[nodiscard]] int socket_fd() const { return socket_.get(); }

 private:
  bool ready(short events);

  Fd socket_;
  FrameReader reader_{PeerRole::engine};
  FrameWriter writer_;
};

}  // namespace flexkv
