#include "tests/fake_engine.h"

#include <poll.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/check.h"
#include "transfer/protocol.h"
#include "transfer/socket.h"

namespace flexkv {

protocol::RegisterBody FakeEngine::accept_agent(std::string* tag) {
  wait_for(listener_.get(), POLLIN);
  socket_ = Fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  CHECK(socket_.valid());
  reader_ = FrameReader(PeerRole::agent);
  writer_ = FrameWriter();
  const Frame frame = expect(protocol::FrameType::register_rank);
  const auto body = read_body<protocol::RegisterBody>(frame.body);
  if (tag != nullptr) {
    const auto* text = reinterpret_cast<const char*>(frame.body.data() + sizeof(body));
    tag->assign(text, frame.body.size() - sizeof(body));
  }
  return body;
}

void FakeEngine::serve(const FakePool& pool, bool share) {
  (void)accept_agent();
  send_pool(pool, share);
  CHECK(read_body<protocol::MappedBody>(expect(protocol::FrameType::mapped).body).num_slots ==
        pool.body(share).num_slots);
}

void FakeEngine::send_op(std::uint64_t op_id, protocol::Direction direction, const std::vector<std::int64_t>& slots,
                         const std::vector<std::int64_t>& blocks, std::uint64_t after_step) {
  CHECK(slots.size() == blocks.size());
  const protocol::OpBody op = {op_id, after_step, 0, direction, static_cast<std::uint32_t>(slots.size())};
  send(protocol::FrameType::op, bytes_of(op), std::as_bytes(std::span(slots)), std::as_bytes(std::span(blocks)));
}

void FakeEngine::send(protocol::FrameType type, std::span<const std::byte> head, std::span<const std::byte> tail1,
                      std::span<const std::byte> tail2, int fd) {
  writer_.push(type, head, tail1, tail2, fd);
  while (writer_.flush(socket_.get()) == IoStatus::would_block) wait_for(socket_.get(), POLLOUT);
  CHECK(!writer_.pending());
}

std::optional<Frame> FakeEngine::receive() {
  Frame frame;
  while (!reader_.next(frame)) {
    CHECK(!reader_.failed());
    wait_for(socket_.get(), POLLIN);
    const IoStatus status = reader_.fill(socket_.get());
    CHECK(status != IoStatus::error);
    if (status == IoStatus::closed) return std::nullopt;
  }
  return frame;
}

Frame FakeEngine::expect(protocol::FrameType type) {
  std::optional<Frame> frame = receive();
  CHECK(frame.has_value());
  CHECK(frame->type == type);
  return std::move(*frame);
}

protocol::AckBody FakeEngine::expect_ack(std::uint64_t op_id, protocol::AckStatus status) {
  const protocol::AckBody ack = expect_ack();
  CHECK(ack.op_id == op_id);
  CHECK(ack.status == status);
  CHECK((ack.error == 0) == (status == protocol::AckStatus::done));
  return ack;
}

void FakeEngine::wait_for(int fd, short events) {
  pollfd poll_fd = {fd, events, 0};
  CHECK(::poll(&poll_fd, 1, 20'000) == 1);
}

}  // namespace flexkv
