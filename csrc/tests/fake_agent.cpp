#include "tests/fake_agent.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/check.h"
#include "transfer/protocol.h"
#include "transfer/socket.h"

namespace flexkv {

FakeAgent::FakeAgent(const std::string& path) : socket_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  CHECK(socket_.valid() && path.size() < sizeof(address.sun_path));
  std::memcpy(address.sun_path, path.data(), path.size());
  CHECK(::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
}

void FakeAgent::register_rank(const FakeRank& rank) {
  const protocol::RegisterBody body = {
      rank.rank,       rank.num_ranks,        rank.num_blocks,
      rank.slot_bytes, rank.tokens_per_block, static_cast<std::uint32_t>(rank.tag.size())};
  send(protocol::FrameType::register_rank, bytes_of(body), std::as_bytes(std::span(rank.tag)));
}

protocol::PoolBody FakeAgent::serve_pool() {
  const Frame frame = expect(protocol::FrameType::pool);
  CHECK(frame.fd.valid());
  const auto pool = read_body<protocol::PoolBody>(frame.body);
  send_mapped(pool.num_slots);
  return pool;
}

FakeAgent::Op FakeAgent::expect_op() {
  const Frame frame = expect(protocol::FrameType::op);
  Op op = {read_body<protocol::OpBody>(frame.body), {}, {}};
  const std::byte* ids = frame.body.data() + sizeof(protocol::OpBody);
  for (std::vector<std::int64_t>* list : {&op.slots, &op.blocks}) {
    list->resize(op.body.num_blocks);
    std::memcpy(list->data(), ids, list->size() * sizeof(std::int64_t));
    ids += list->size() * sizeof(std::int64_t);
  }
  return op;
}

void FakeAgent::send(protocol::FrameType type, std::span<const std::byte> head, std::span<const std::byte> tail) {
  writer_.push(type, head, tail);
  while (writer_.flush(socket_.get()) == IoStatus::would_block) CHECK(ready(POLLOUT));
}

std::optional<Frame> FakeAgent::receive() {
  Frame frame;
  while (!reader_.next(frame)) {
    CHECK(!reader_.failed());
    CHECK(ready(POLLIN));
    const IoStatus status = reader_.fill(socket_.get());
    CHECK(status != IoStatus::error);
    if (status == IoStatus::closed) return std::nullopt;
  }
  return frame;
}

Frame FakeAgent::expect(protocol::FrameType type) {
  std::optional<Frame> frame = receive();
  CHECK(frame.has_value() && frame->type == type);
  return std::move(*frame);
}

void FakeAgent::expect_refused(const std::string& part) {
  const Frame frame = expect(protocol::FrameType::refused);
  const std::string reason(reinterpret_cast<const char*>(frame.body.data()), frame.body.size());
  CHECK(reason.find(part) != std::string::npos);
  expect_closed();
}

bool FakeAgent::ready(short events) {
  pollfd entry = {socket_.get(), events, 0};
  return ::poll(&entry, 1, 20'000) == 1;
}

}  // namespace flexkv
