// CopyAgent: an engine that serves it, lies, babbles and vanishes in any order. Every op gets exactly one ACK with the
// status it must have; no byte changes but those of the slots and blocks that ops name; the agent stops in time.
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "fuzz/fuzz_target.h"
#include "fuzz/raw_peer.h"
#include "tests/check.h"
#include "tests/fake_engine.h"
#include "tests/temp_dir.h"
#include "transfer/copy_agent.h"

namespace flexkv {
namespace {

using protocol::AckBody;
using protocol::AckStatus;
using protocol::Direction;
using protocol::FrameType;

constexpr std::int64_t num_slots = 16;
constexpr std::int64_t num_blocks = 16;
constexpr std::int64_t first_stored = 8;  // loads use the slots and blocks below, stores those from here on: lanes race
constexpr std::uint64_t chunk_bytes = 300;
constexpr std::uint64_t slot_bytes = 2 * chunk_bytes;
constexpr std::uint64_t stride_bytes = 1024;
constexpr double patience_s = 20;

using Bytes = std::vector<std::byte>;
using Ids = std::vector<std::int64_t>;

Fd accept_agent(int listener) { return Fd(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)); }

struct SentOp {
  bool valid = false;
  bool had_pool = false;
  std::uint64_t bytes = 0;
  bool is_by_layers = false;
};

class AgentHistory {
 public:
  AgentHistory(Choices choices, const std::string& path, int listener)
      : choices_(choices), pool_(num_slots, stride_bytes), memory_(2 * num_blocks * chunk_bytes) {
    for (std::size_t i = 0; i < memory_.size(); ++i) memory_[i] = static_cast<std::byte>(i / chunk_bytes + 1);
    for (std::size_t i = 0; i < pool_.bytes().size(); ++i)
      pool_.bytes()[i] = static_cast<std::byte>(i / stride_bytes + 100);
    const auto base = reinterpret_cast<std::uint64_t>(memory_.data());
    layout_ = {num_blocks,
               {{base, chunk_bytes, chunk_bytes}, {base + num_blocks * chunk_bytes, chunk_bytes, chunk_bytes}}};
    agent_ = std::make_unique<CopyAgent>(AgentConfig{path, 0, 1, 16, "tag", 1}, layout_);
    while (accept_agent(listener).valid()) continue;  // the agent before had come back until it was stopped
    agent_->start();
    CHECK(wait_ready(listener, POLLIN, patience_ms));
    engine_ = std::make_unique<RawPeer>(accept_agent(listener), PeerRole::agent);
    const std::optional<Frame> frame = engine_->receive(patience_ms);
    CHECK(frame && frame->type == FrameType::register_rank);
  }

  void run() {
    const Bytes pool_before(pool_.bytes().begin(), pool_.bytes().end());
    const Bytes memory_before = memory_;
    if (!choices_.one_in(4)) send_pool();
    for (int i = 0; i < 60 && !choices_.over(); ++i) act();
    const bool stop_early = choices_.one_in(4);
    if (clean_ && !stop_early) take_all_answers();
    if (!clean_) engine_.reset();
    CHECK(agent_->stop(patience_s));
    CHECK(agent_->stats().ops_outstanding == 0);
    if (!clean_) return;
    if (stop_early) take_answers(0);
    check_bytes(pool_before, memory_before);
  }

 private:
  void act() {
    const std::uint64_t verb = choices_.below(16);
    if (!clean_ && verb != 9 && verb != 10) return babble(verb);
    switch (verb) {
      case 0:
        return send_pool();
      case 7:
        return send_bad_op();
      case 8:
        return engine_->send(FrameType::cancel, bytes_of(protocol::CancelBody{choices_.below(next_op_id_ + 2)}));
      case 9:
        return agent_->record_step(choices_.below(5));
      case 10:
        return agent_->hold(choices_.one_in(2));
      case 11:
        return take_answers(0);
      case 12:
        if (choices_.one_in(2)) return babble(choices_.below(16));
        return engine_->send(FrameType::lost, bytes_of(protocol::LostBody{1 + choices_.below(8)}));
      default:
        return send_op();
    }
  }

  // From here on the agent may hang up at any time; no descriptor is sent any more, see send_garbage.
  void babble(std::uint64_t verb) {
    clean_ = false;
    if (verb == 1) return engine_->send(FrameType::pool, bytes_of(pool_.body(false)));  // without its descriptor
    if (verb == 2) return engine_->send(FrameType::refused);
    if (verb == 3) {
      const protocol::OpBody op = {next_op_id_++, 0, choices_.below(3), static_cast<Direction>(choices_.below(4)),
                                   static_cast<std::uint32_t>(1 + choices_.below(1u << 20))};
      const Bytes too_few_ids(16, std::byte{1});
      return engine_->send(FrameType::op, bytes_of(op), too_few_ids);
    }
    engine_->send_garbage(choices_, FrameType::op);
  }

  // The first is served. Another one, or one with numbers that do not fit, makes the agent hang up.
  void send_pool() {
    protocol::PoolBody body = pool_.body(false);
    const std::uint64_t wrong = choices_.below(12);
    if (wrong == 1) body.num_slots = choices_.below(~std::uint64_t{0});
    if (wrong == 2) body.stride_bytes = choices_.below(~std::uint64_t{0});
    if (wrong == 3) body.stride_bytes = choices_.below(2 * stride_bytes);
    const bool good = wrong == 0 || wrong > 3;
    engine_->send(FrameType::pool, bytes_of(body), {}, {}, pool_.fd());
    if (pool_sent_ || !good) clean_ = false;
    pool_sent_ = true;
  }

  void send_op() {
    const bool load = choices_.one_in(2);
    const std::int64_t first = load ? 0 : first_stored;
    Ids slots;
    Ids blocks;
    for (std::uint64_t i = choices_.below(4); i > 0; --i) {
      const std::int64_t slot = first + static_cast<std::int64_t>(choices_.below(first_stored));
      const std::int64_t block = first + static_cast<std::int64_t>(choices_.below(first_stored));
      if (std::ranges::count(load ? blocks : slots, load ? block : slot) > 0) continue;  // no op writes a place twice
      slots.push_back(slot);
      blocks.push_back(block);
    }
    const std::uint64_t after_step = choices_.one_in(3) ? choices_.below(6) : 0;
    const std::uint64_t layer_ticket = load && choices_.one_in(4) ? choices_.below(8) : 0;
    const protocol::OpBody op = {next_op_id_++, after_step, layer_ticket, load ? Direction::load : Direction::store,
                                 static_cast<std::uint32_t>(slots.size())};
    sent_[op.op_id] = {true, pool_sent_, slots.size() * slot_bytes, layer_ticket != 0};
    for (std::size_t i = 0; i < slots.size(); ++i) {
      (load ? may_load_ : may_store_)[load ? blocks[i] : slots[i]].insert(load ? slots[i] : blocks[i]);
    }
    engine_->send(FrameType::op, bytes_of(op), std::as_bytes(std::span(slots)), std::as_bytes(std::span(blocks)));
  }

  void send_bad_op() {
    const Ids bad = {-1, num_slots, INT64_MAX, INT64_MIN, std::int64_t{1} << 40};
    Ids ids = {0, bad[choices_.below(bad.size())]};
    const Ids fine = {first_stored, first_stored + 1};
    const bool in_slots = choices_.one_in(2);
    const protocol::OpBody op = {next_op_id_++, 0, 0, Direction::store, 2};
    sent_[op.op_id] = {false, pool_sent_, 0};
    engine_->send(FrameType::op, bytes_of(op), std::as_bytes(std::span(in_slots ? ids : fine)),
                  std::as_bytes(std::span(in_slots ? fine : ids)));
  }

  void take_answers(int timeout_ms) {
    while (const std::optional<Frame> frame = engine_->receive(timeout_ms)) take(*frame);
  }

  void take_all_answers() {
    agent_->hold(false);
    agent_->record_step(100);
    while (clean_ && !sent_.empty()) {
      const std::optional<Frame> frame = engine_->receive(patience_ms);
      CHECK(frame.has_value());
      take(*frame);
    }
  }

  void take(const Frame& frame) {
    if (frame.type == FrameType::mapped) {
      CHECK(read_body<protocol::MappedBody>(frame.body).num_slots <= num_slots);
    }
    if (frame.type != FrameType::ack) return;
    const auto ack = read_body<AckBody>(frame.body);
    const auto op = sent_.find(ack.op_id);
    CHECK(op != sent_.end());
    const bool runs = op->second.valid && op->second.had_pool;
    CHECK((ack.status == AckStatus::done) == (ack.error == 0));
    CHECK(ack.status != AckStatus::done || (runs && ack.bytes == op->second.bytes));
    if (ack.status == AckStatus::failed) {
      const bool is_refused = !runs && ack.error == (op->second.had_pool ? EINVAL : ENODEV);
      CHECK(is_refused || (op->second.is_by_layers && ack.error == EIO));  // its ticket was used before, or lost
    }
    sent_.erase(op);
  }

  [[nodiscard]] static Bytes block_in(const Bytes& memory, std::int64_t block) {
    Bytes bytes;
    for (const std::int64_t row : {block, block + num_blocks}) {
      const auto at = memory.begin() + static_cast<std::ptrdiff_t>(static_cast<std::uint64_t>(row) * chunk_bytes);
      bytes.insert(bytes.end(), at, at + chunk_bytes);
    }
    return bytes;
  }

  [[nodiscard]] static Bytes slot_in(std::span<const std::byte> pool, std::int64_t slot) {
    const auto bytes = pool.subspan(static_cast<std::uint64_t>(slot) * stride_bytes, slot_bytes);
    return {bytes.begin(), bytes.end()};
  }

  // What no op names is as before; what ops name is as before or one of the sources they name for it.
  void check_bytes(const Bytes& pool_before, const Bytes& memory_before) {
    for (std::int64_t id = 0; id < num_blocks; ++id) {
      const Bytes block = block_in(memory_, id);
      bool known = block == block_in(memory_before, id);
      for (const std::int64_t slot : may_load_[id]) known = known || block == slot_in(pool_before, slot);
      CHECK(known);
      const Bytes slot = slot_in(pool_.bytes(), id);
      known = slot == slot_in(pool_before, id);
      for (const std::int64_t source : may_store_[id]) known = known || slot == block_in(memory_before, source);
      CHECK(known);
      const std::byte* padding = pool_.slot(id) + slot_bytes;
      CHECK(std::memcmp(padding, pool_before.data() + (padding - pool_.slot(0)), stride_bytes - slot_bytes) == 0);
    }
  }

  Choices choices_;
  FakePool pool_;
  Bytes memory_;
  DeviceLayout layout_;
  std::unique_ptr<CopyAgent> agent_;
  std::unique_ptr<RawPeer> engine_;
  bool clean_ = true;  // only what an engine may say has been sent
  bool pool_sent_ = false;
  std::uint64_t next_op_id_ = 0;
  std::map<std::uint64_t, SentOp> sent_;                      // not answered yet
  std::map<std::int64_t, std::set<std::int64_t>> may_load_;   // block -> slots
  std::map<std::int64_t, std::set<std::int64_t>> may_store_;  // slot -> blocks
};

}  // namespace
}  // namespace flexkv

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const flexkv::TempDir directory;
  static const std::string path = directory.file("engine.sock");
  static const flexkv::Fd listener = flexkv::listen_unix(path);
  flexkv::AgentHistory(flexkv::Choices(std::span(data, size)), path, listener.get()).run();
  return 0;
}
