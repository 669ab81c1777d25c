// TransferEngine: agents of this process that register, answer, lie, babble and vanish in any order, and disks that end
// ops well or badly, are stopped and replaced, while graphs over both are submitted and cancelled. Every graph gets its
// completions exactly once, its release last, when no disk has an op of it; a disk gets no op that was meant for
// another. When the agents have closed and the disks have ended what they have, nothing is in anybody's hands and the
// engine stops.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "fuzz/fuzz_target.h"
#include "fuzz/raw_peer.h"
#include "tests/check.h"
#include "tests/fake_disk.h"
#include "tests/temp_dir.h"
#include "transfer/op_graph.h"
#include "transfer/transfer_engine.h"

namespace flexkv {
namespace {

using protocol::AckStatus;
using protocol::FrameType;

constexpr std::int64_t num_slots = 8;
constexpr std::uint64_t num_blocks = 16;
constexpr std::uint64_t slot_bytes = 4096;
constexpr std::int64_t num_disk_slots = 8;
constexpr std::size_t max_agents = 5;
constexpr std::size_t max_disks = 5;
constexpr double patience_s = 20;

std::shared_ptr<HostPool> pool_of(std::uint32_t num_segments) {
  static std::map<std::uint32_t, std::shared_ptr<HostPool>> pools;
  std::shared_ptr<HostPool>& pool = pools[num_segments];
  if (!pool) {
    pool = std::make_shared<HostPool>(
        HostPoolConfig{num_slots, std::vector<std::uint64_t>(num_segments, slot_bytes), 1, false});
    CHECK(pool->wait_prefaulted(num_slots, patience_s));
  }
  return pool;
}

struct Agent {
  RawPeer peer;
  std::vector<std::uint64_t> in_hand;  // ops received and not answered
};

struct Expected {
  std::set<std::int64_t> ops;
  std::set<std::int64_t> open_ops;
  bool decided = false;
  bool released = false;
};

class EngineHistory {
 public:
  EngineHistory(Choices choices, const std::string& path)
      : choices_(choices),
        path_(path),
        shape_(static_cast<std::uint32_t>(choices_.below(128))),
        engine_({path, num_ranks_, 64, replicas_}) {
    engine_.start();
  }

  void run() {
    if (!choices_.one_in(4)) begin_well();
    for (int i = 0; i < 60 && !choices_.over(); ++i) act();
    finish();
  }

 private:
  // All ranks registered, the pool mapped by each.
  void begin_well() {
    for (std::uint32_t rank = 0; rank < num_ranks_; ++rank) {
      connect();
      register_rank(*agents_.back(), valid_rank(rank));
    }
    CHECK(engine_.wait_ranks(patience_s));
    give_pool();
    CHECK(has_pool_);
    for (const auto& agent : agents_) {
      const std::optional<Frame> pool = agent->peer.receive(patience_ms);
      CHECK(pool && pool->type == FrameType::pool && pool->fd.valid());
      agent->peer.send(FrameType::mapped, bytes_of(protocol::MappedBody{num_slots}));
    }
    CHECK(engine_.wait_slots(num_slots, patience_s));
    if (!choices_.one_in(4)) give_disk();
  }

  void act() {
    const std::uint64_t verb = choices_.below(32);
    if (verb < 5) return submit();
    if (verb == 24) return give_disk();
    if (verb == 25 && !disks_.empty()) return (void)disks_.back()->stop(0);
    if (verb > 25) return end_disk_op();
    if (verb == 5) return engine_.cancel(static_cast<std::int64_t>(choices_.below(next_id_ + 1)));
    if (verb == 6) return poll();
    if (verb == 7) return give_pool();
    if (verb == 8 && agents_.size() < max_agents) return connect();
    if (agents_.empty()) return;
    const std::size_t at = choices_.below(agents_.size());
    if (verb == 9) return (void)agents_.erase(agents_.begin() + static_cast<std::ptrdiff_t>(at));
    speak(*agents_[at], verb);
  }

  void speak(Agent& agent, std::uint64_t verb) {
    switch (verb) {
      case 10:
        return register_rank(agent, any_rank());
      case 11:
        return agent.peer.send(FrameType::mapped, bytes_of(protocol::MappedBody{choices_.below(num_slots + 2)}));
      case 12:
        return agent.peer.send(FrameType::bye);
      case 13:
        return agent.peer.send_garbage(choices_, FrameType{});
      case 14:
        return answer(agent, choices_.below(next_id_ + 1));
      case 15:
        return agent.peer.send(FrameType::bye, {}, {}, {}, 0);  // with a descriptor that belongs to nothing
      case 16:
      case 17:
      case 18:
        return listen(agent, 1);
      default:
        listen(agent, 0);
        if (agent.in_hand.empty()) return;
        const std::size_t which = choices_.below(agent.in_hand.size());
        const std::uint64_t op_id = agent.in_hand[which];
        agent.in_hand.erase(agent.in_hand.begin() + static_cast<std::ptrdiff_t>(which));
        answer(agent, op_id);
    }
  }

  void connect() {
    int error = 0;
    Fd socket = connect_unix(path_, error);
    CHECK(socket.valid());
    agents_.push_back(std::make_unique<Agent>(Agent{RawPeer(std::move(socket), PeerRole::engine), {}}));
  }

  [[nodiscard]] protocol::RegisterBody valid_rank(std::uint32_t rank) const {
    return {rank, num_ranks_, num_blocks, slot_bytes, 16, 3};
  }

  protocol::RegisterBody any_rank() {
    protocol::RegisterBody body = valid_rank(static_cast<std::uint32_t>(choices_.below(num_ranks_)));
    const std::uint64_t wrong = choices_.below(16);
    if (wrong == 1) body.rank = static_cast<std::uint32_t>(choices_.below(std::uint64_t{1} << 32));
    if (wrong == 2) body.num_blocks = choices_.below(~std::uint64_t{0});
    if (wrong == 3) body.slot_bytes = choices_.below(~std::uint64_t{0});
    if (wrong == 4) body.tokens_per_block = static_cast<std::uint32_t>(choices_.below(64));
    if (wrong == 5) body.tag_bytes = static_cast<std::uint32_t>(choices_.below(8));
    return body;
  }

  static void register_rank(Agent& agent, const protocol::RegisterBody& body) {
    const char tag[] = {'t', 'a', 'g'};
    agent.peer.send(FrameType::register_rank, bytes_of(body), std::as_bytes(std::span(tag)));
  }

  void answer(Agent& agent, std::uint64_t op_id) {
    const auto status = static_cast<AckStatus>(choices_.one_in(4) ? choices_.below(4) : 0);
    const std::uint32_t error = status == AckStatus::done ? 0 : static_cast<std::uint32_t>(choices_.below(200));
    agent.peer.send(FrameType::ack, bytes_of(protocol::AckBody{op_id, slot_bytes, 1000, status, error}));
  }

  static void listen(Agent& agent, int timeout_ms) {
    while (const std::optional<Frame> frame = agent.peer.receive(timeout_ms)) {
      if (frame->type == FrameType::op) agent.in_hand.push_back(read_body<protocol::OpBody>(frame->body).op_id);
    }
  }

  // Before all ranks have registered, and a second time, it must be refused.
  void give_pool() {
    try {
      engine_.set_pool(pool_of(num_ranks_ / replicas_));
      has_pool_ = true;
    } catch (const std::runtime_error&) {
    } catch (const std::invalid_argument&) {  // a rank has registered with other slots
    }
  }

  // Before there is a pool, and while there is a disk that was not stopped, it must be refused.
  void give_disk() {
    if (disks_.size() == max_disks) return;
    const bool is_due = has_pool_ && (disks_.empty() || disks_.back()->is_stopped());
    const auto disk = std::make_shared<FakeDisk>(choices_.one_in(3) ? num_disk_slots / 2 : num_disk_slots);
    try {
      engine_.set_disk(disk);
      CHECK(is_due);
      disks_.push_back(disk);
    } catch (const std::runtime_error&) {
      CHECK(!is_due);
    }
  }

  void end_disk_op() {
    if (disks_.empty()) return;
    FakeDisk& disk = *disks_[choices_.below(disks_.size())];
    const std::vector<std::int64_t> held = disk.held();
    if (held.empty()) return;
    const OpSpec op = disk.expect(held[choices_.below(held.size())]);
    DiskAck ack;
    ack.op_id = op.op_id;
    for (std::uint32_t at = choices_.one_in(3) ? 0 : ~0u; at < op.src.size(); ++at) {
      if (choices_.one_in(2)) ack.failed.push_back(at);
    }
    ack.bytes = (op.src.size() - ack.failed.size()) * slot_bytes;
    if (ack.failed.empty()) {
      ended_well_.insert(op.op_id);
    } else {
      ack.error = "on purpose";
      if (choices_.one_in(2)) ack.num_bad_checksums = static_cast<std::uint32_t>(ack.failed.size());
      if (ack.num_bad_checksums == 0) ack.io_errno = EIO;
      ack.cancelled = disk.is_stopped() && choices_.one_in(2);
    }
    disk.end(std::move(ack));
  }

  // Mostly one of the last ops; else any id, which may be a graph's or its own.
  std::int64_t any_predecessor() {
    if (submitted_.empty() || choices_.one_in(8)) return static_cast<std::int64_t>(choices_.below(next_id_));
    return submitted_[submitted_.size() - 1 - choices_.below(std::min<std::size_t>(submitted_.size(), 4))];
  }

  OpSpec any_op() {
    OpSpec op;
    op.op_id = static_cast<std::int64_t>(next_id_++);
    constexpr OpType routes[] = {OpType::h2d, OpType::d2h, OpType::disk2h, OpType::h2disk};
    op.type = choices_.one_in(5) ? OpType::virtual_op : routes[choices_.below(std::size(routes))];
    const std::uint64_t count = op.type == OpType::virtual_op ? 0 : choices_.below(4);
    const auto num_ids = static_cast<std::uint64_t>(disks_.empty() ? num_slots : disks_.back()->num_slots());
    for (std::uint64_t k = 0; k < count; ++k) {
      op.src.push_back(static_cast<std::int64_t>(choices_.below(num_ids)));
      op.dst.push_back(static_cast<std::int64_t>(choices_.below(num_ids)));
    }
    if (needs_disk(op.type)) op.chain.keys.resize(op.src.size());
    if (op.type == OpType::h2disk) op.chain.parents.resize(op.src.size());
    if (choices_.one_in(16)) op.src.assign(1, static_cast<std::int64_t>(choices_.below(100)));
    if (choices_.one_in(2)) op.predecessors.push_back(any_predecessor());
    return op;
  }

  void submit() {
    GraphSpec spec;
    spec.graph_id = static_cast<std::int64_t>(next_id_++);
    if (choices_.one_in(6)) spec.timeout_s = 1e-6;
    Expected expected;
    for (std::uint64_t i = choices_.below(4); i > 0; --i) {
      spec.ops.push_back(any_op());
      expected.ops.insert(spec.ops.back().op_id);
      disk_of_[spec.ops.back().op_id] = disks_.empty() ? nullptr : disks_.back().get();
    }
    expected.open_ops = expected.ops;
    const std::int64_t graph_id = spec.graph_id;
    try {
      engine_.submit(std::move(spec));
      submitted_.insert(submitted_.end(), expected.ops.begin(), expected.ops.end());
      graphs_[graph_id] = expected;
    } catch (const std::runtime_error&) {     // no pool yet, or too many graphs
    } catch (const std::invalid_argument&) {  // unequal lengths, ids out of range, an unknown predecessor, a cycle
    }
  }

  void poll() {
    for (const Completion& completion : engine_.poll(100)) {
      Expected& graph = graphs_.at(completion.graph_id);
      CHECK(!graph.released && (completion.status == OpStatus::done) == completion.error.empty());
      if (completion.kind == CompletionKind::op) {
        CHECK(graph.open_ops.erase(completion.op_id) == 1);
        check_op(completion);
      } else if (completion.kind == CompletionKind::graph_status) {
        CHECK(!graph.decided && (completion.status != OpStatus::done || graph.open_ops.empty()));
        graph.decided = true;
      } else {
        CHECK(graph.decided && graph.open_ops.empty());
        graph.released = true;
        for (const auto& disk : disks_) {
          CHECK(std::ranges::none_of(graph.ops, [&](std::int64_t op_id) { return disk->has(op_id); }));
        }
      }
    }
  }

  void check_op(const Completion& completion) {
    const bool is_done = completion.status == OpStatus::done;
    CHECK(!is_done || (completion.failed_blocks.empty() && completion.io_errno == 0));
    if (!needs_disk(completion.type)) {
      CHECK(completion.failed_blocks.empty() && completion.io_errno == 0 && completion.num_bad_checksums == 0);
    } else if (is_done && completion.num_blocks > 0 && !ends_well_) {
      CHECK(ended_well_.contains(completion.op_id));
    }
    CHECK(std::ranges::is_sorted(completion.failed_blocks));
    CHECK(completion.failed_blocks.empty() || completion.failed_blocks.back() < completion.num_blocks);
  }

  void finish() {
    poll();
    ends_well_ = true;
    for (const auto& disk : disks_) disk->end_all();
    agents_.clear();
    const auto begin = std::chrono::steady_clock::now();
    CHECK(engine_.stop(patience_s));
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(10));
    CHECK(engine_.num_graphs() == 0);
    for (std::size_t i = 0; i <= next_id_; ++i) poll();
    for (const auto& [graph_id, graph] : graphs_) CHECK(graph.released);
    for (const auto& disk : disks_) {
      CHECK(disk->num_ops() == 0);
      for (const std::int64_t op_id : disk->taken()) CHECK(disk_of_.at(op_id) == disk.get());
    }
  }

  Choices choices_;
  std::string path_;
  std::uint32_t shape_;  // both of these, in one byte
  std::uint32_t num_ranks_ = 1 + shape_ % 2;
  std::uint32_t replicas_ = shape_ < 64 ? 1 : num_ranks_;
  TransferEngine engine_;
  std::vector<std::unique_ptr<Agent>> agents_;
  std::vector<std::shared_ptr<FakeDisk>> disks_;     // the last one is the engine's
  std::map<std::int64_t, const FakeDisk*> disk_of_;  // by op: the engine's when it was submitted
  std::set<std::int64_t> ended_well_;                // ops
  bool ends_well_ = false;                           // from now on all ops that disks have
  std::map<std::int64_t, Expected> graphs_;
  std::vector<std::int64_t> submitted_;  // ops
  bool has_pool_ = false;
  std::uint64_t next_id_ = 0;
};

}  // namespace
}  // namespace flexkv

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const flexkv::TempDir directory;
  flexkv::EngineHistory(flexkv::Choices(std::span(data, size)), directory.file("engine.sock")).run();
  return 0;
}
