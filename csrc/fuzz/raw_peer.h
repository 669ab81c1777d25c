// RawPeer: one end of a connection of the agent protocol that says whatever it is told to, and takes what comes back.
// What the other end sends must always be well-formed. Each wait is bounded.
#pragma once
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "tests/check.h"
#include "tests/choices.h"
#include "transfer/protocol.h"
#include "transfer/socket.h"

namespace flexkv {

inline constexpr int patience_ms = 20'000;

inline bool wait_ready(int fd, short events, int timeout_ms) {
  pollfd entry = {fd, events, 0};
  int ready = ::poll(&entry, 1, timeout_ms);
  while (ready < 0 && errno == EINTR) ready = ::poll(&entry, 1, timeout_ms);  // libFuzzer's timer
  return ready == 1;
}

class RawPeer {
 public:
  RawPeer(Fd socket, PeerRole other) : socket_(std::move(socket)), reader_(other) { CHECK(socket_.valid()); }

  // The other end may be gone: then nothing is sent.
  void send(protocol::FrameType type, std::span<const std::byte> head = {}, std::span<const std::byte> tail1 = {},
            std::span<const std::byte> tail2 = {}, int fd = -1) {
    FrameWriter writer;
    writer.push(type, head, tail1, tail2, fd);
    while (writer.flush(socket_.get()) == IoStatus::would_block) CHECK(wait_ready(socket_.get(), POLLOUT, patience_ms));
  }

  // Bytes that are no frame, or a frame of any type but `spared` with a header and a body that need not fit.
  void send_garbage(Choices& choices, protocol::FrameType spared) {
    std::vector<std::uint8_t> bytes(choices.below(48));
    for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(choices.below(256));
    protocol::FrameHeader header = {protocol::magic, protocol::version, static_cast<std::uint16_t>(choices.below(11)),
                                    static_cast<std::uint32_t>(bytes.size())};
    if (header.type == static_cast<std::uint16_t>(spared)) header.type = 0;
    const std::uint64_t wrong = choices.below(8);
    if (wrong == 0) header.magic ^= 1u << choices.below(32);
    if (wrong == 1) header.version = static_cast<std::uint16_t>(choices.below(1u << 16));
    if (wrong == 2) header.length = static_cast<std::uint32_t>(choices.below(std::uint64_t{1} << 32));
    if (wrong > 3) send_bytes(bytes_of(header));
    send_bytes(std::as_bytes(std::span(bytes)));
  }

  // Nothing: none came in time, or the other end has closed (then closed() is true).
  std::optional<Frame> receive(int timeout_ms) {
    Frame frame;
    while (!closed_) {
      if (reader_.next(frame)) return frame;
      CHECK(!reader_.failed());
      if (!wait_ready(socket_.get(), POLLIN, timeout_ms)) return std::nullopt;
      const IoStatus status = reader_.fill(socket_.get());
      CHECK(status != IoStatus::error);
      closed_ = status == IoStatus::closed;
    }
    return std::nullopt;
  }

  [[nodiscard]] bool closed() const { return closed_; }

 private:
  void send_bytes(std::span<const std::byte> bytes) {
    if (!bytes.empty()) (void)::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }

  Fd socket_;
  FrameReader reader_;
  bool closed_ = false;
};

}  // namespace flexkv
