// Ranks that hold the same bytes: one segment for each group of them, stores shared out, loads of everything by each;
// what a rank that differs, fails or dies makes of it. From the OpGraphTable to real CopyAgents.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <set>
#include <stdexcept>

#include "tests/check.h"
#include "tests/engine_kit.h"
#include "tests/worker_rig.h"
#include "transfer/op_graph.h"

using namespace flexkv;
using protocol::AckStatus;

namespace {

OpSpec store_of(std::int64_t id, std::int64_t num_blocks) {
  OpSpec op = {id, OpType::d2h, {}, {}, 0, {}};
  for (std::int64_t i = 0; i < num_blocks; ++i) {
    op.src.push_back(50 + i);
    op.dst.push_back(i);
  }
  return op;
}

void shares_cover_an_op_once_and_differ_by_one_block_at_most() {
  for (std::uint32_t replicas = 1; replicas <= 8; ++replicas) {
    for (std::int64_t num_blocks = 0; num_blocks < 40; ++num_blocks) {
      for (std::int64_t id = 0; id < 20; ++id) {
        const OpSpec op = store_of(id, num_blocks);
        std::vector<int> times(op.src.size());
        std::size_t least = op.src.size();
        std::size_t most = 0;
        for (std::uint32_t rank = replicas; rank < 2 * replicas; ++rank) {  // the second group
          const Share share = share_of(op, rank, replicas);
          for (std::size_t at = share.begin; at < share.end; ++at) ++times.at(at);
          least = std::min(least, share.end - share.begin);
          most = std::max(most, share.end - share.begin);
          const Share same = share_of(op, rank - replicas, replicas);
          CHECK(same.begin == share.begin && same.end == share.end);
        }
        CHECK(std::ranges::all_of(times, [](int count) { return count == 1; }) && most - least <= 1);
      }
    }
  }
  OpSpec whole = store_of(1, 9);
  whole.type = OpType::h2d;
  for (std::uint32_t rank = 0; rank < 4; ++rank) CHECK(share_of(whole, rank, 4).end == 9);
}

void the_longer_shares_go_round_whatever_the_step_of_the_ids() {
  for (std::int64_t step = 1; step <= 8; ++step) {
    std::vector<int> times(4);
    for (std::int64_t i = 0; i < 4000; ++i) {
      for (std::uint32_t rank = 0; rank < 4; ++rank) {
        const Share share = share_of(store_of(i * step, 1), rank, 4);
        times[rank] += static_cast<int>(share.end - share.begin);
      }
    }
    CHECK(std::ranges::all_of(times, [](int count) { return count > 900 && count < 1100; }));
  }
}

// The rank that stores an op of one block.
std::uint32_t storing_rank(std::int64_t id) { return share_of(store_of(id, 1), 0, 2).end == 1 ? 0 : 1; }

struct Pair {
  EngineKit kit{2, 2};
  FakeAgent agents[2] = {FakeAgent(started(kit), {0, 2, 100, 4096, 16, "tag"}),
                         FakeAgent(kit.path(), {1, 2, 100, 4096, 16, "tag"})};

  Pair() {
    kit.give_pool();
    for (FakeAgent& agent : agents) CHECK(agent.serve_pool().base_address == 0);  // each maps it for itself
    CHECK(kit.engine().wait_slots(10, patience_s));
  }
  static const std::string& started(EngineKit& kit) {
    kit.start();
    return kit.path();
  }
};

void a_store_is_shared_out_and_a_load_goes_to_each() {
  Pair pair;
  pair.kit.submit(1, {store_of(10, 5)});
  Ids slots;
  Ids blocks;
  for (FakeAgent& agent : pair.agents) {
    const FakeAgent::Op op = agent.expect_op();
    CHECK(op.body.op_id == 10 && (op.slots.size() == 2 || op.slots.size() == 3));
    for (std::size_t i = 1; i < op.slots.size(); ++i) CHECK(op.slots[i] == op.slots[i - 1] + 1);
    slots.insert(slots.end(), op.slots.begin(), op.slots.end());
    blocks.insert(blocks.end(), op.blocks.begin(), op.blocks.end());
  }
  for (std::size_t i = 0; i < slots.size(); ++i) CHECK(blocks[i] == 50 + slots[i]);
  CHECK((std::set<std::int64_t>(slots.begin(), slots.end()) == std::set<std::int64_t>{0, 1, 2, 3, 4}));
  pair.agents[1].ack(10);
  CHECK(pair.kit.quiet());
  pair.agents[0].ack(10);
  CHECK((pair.kit.next(3) == Texts{"op 10 done", "status 1 done", "released 1 done"}));
  pair.kit.submit(2, {load(20)});
  for (FakeAgent& agent : pair.agents) {
    CHECK((agent.expect_op().slots == Ids{1, 2}));
    agent.ack(20);
  }
  CHECK((pair.kit.next(3) == Texts{"op 20 done", "status 2 done", "released 2 done"}));
}

void a_rank_for_which_nothing_is_left_is_not_sent_the_op() {
  Pair pair;
  for (const std::int64_t id : {10, 11, 12, 13}) {
    pair.kit.submit(id, {store_of(id, 1)});
    FakeAgent& storing = pair.agents[storing_rank(id)];
    CHECK(storing.expect_op_id() == static_cast<std::uint64_t>(id));
    storing.ack(static_cast<std::uint64_t>(id));
    CHECK(pair.kit.next(3).back() == "released " + std::to_string(id) + " done");
    CHECK(!pair.agents[1 - storing_rank(id)].has_input());
  }
}

void a_rank_that_is_gone_matters_only_to_stores_that_it_has_a_share_of() {
  Pair pair;
  FakeAgent& alive = pair.agents[0];
  const auto stored_there = [](std::int64_t id) {
    while (storing_rank(id) != 0) ++id;
    return id;
  };
  const auto take_and_ack = [&alive](std::int64_t id) {
    CHECK(alive.expect_op_id() == static_cast<std::uint64_t>(id));
    alive.ack(static_cast<std::uint64_t>(id));
  };
  const std::int64_t running = stored_there(20);
  OpSpec waiting = store_of(stored_there(running + 1), 1);
  waiting.predecessors = {running};
  pair.kit.submit(1, {store_of(running, 1), waiting});
  CHECK(alive.expect_op_id() == static_cast<std::uint64_t>(running));
  pair.agents[1].bye();
  pair.agents[1].expect_closed();
  alive.ack(static_cast<std::uint64_t>(running));
  take_and_ack(waiting.op_id);
  CHECK(
      (pair.kit.next(4) == Texts{"op " + std::to_string(running) + " done",
                                 "op " + std::to_string(waiting.op_id) + " done", "status 1 done", "released 1 done"}));
  const std::int64_t later = stored_there(100);
  pair.kit.submit(2, {store_of(later, 1)});
  take_and_ack(later);
  CHECK(pair.kit.next(3).back() == "released 2 done");
  pair.kit.submit(3, {store_of(200, 2)});
  CHECK((pair.kit.next(3) == Texts{"status 3 failed", "op 200 cancelled", "released 3 failed"}));
  pair.kit.submit(4, {load(201)});  // each rank has all of a load
  CHECK((pair.kit.next(3) == Texts{"status 4 failed", "op 201 cancelled", "released 4 failed"}));
}

void a_failed_share_fails_the_store_and_the_others_are_waited_for() {
  Pair pair;
  pair.kit.submit(1, {store_of(10, 4)});
  for (FakeAgent& agent : pair.agents) CHECK(agent.expect_op_id() == 10);
  pair.agents[0].ack(10, AckStatus::failed, EIO);
  CHECK((pair.kit.next(2) == Texts{"op 10 failed", "status 1 failed"}));
  CHECK(pair.agents[1].expect_cancel() == 10 && pair.kit.engine().num_graphs() == 1);
  pair.agents[1].ack(10);
  CHECK(pair.kit.next(1) == Texts{"released 1 failed"});
}

void a_rank_that_dies_keeps_the_slots_only_as_long_as_its_replica_touches_them() {
  EngineKit kit(2, 2);
  ChildAgent child(kit.path(), {1, 2, 100, 4096, 16, "tag"});
  kit.start();
  FakeAgent agent(kit.path(), {0, 2, 100, 4096, 16, "tag"});
  child.connect();
  kit.give_pool();
  (void)agent.serve_pool();
  child.take_pool();
  CHECK(kit.engine().wait_slots(10, patience_s));
  kit.submit(1, {store_of(10, 4)});
  CHECK(agent.expect_op_id() == 10);
  child.take_op();
  child.close_socket();  // its process lives: it may still write to slots that both have
  CHECK((kit.next(2) == Texts{"op 10 failed", "status 1 failed"}));
  CHECK(agent.expect_cancel() == 10);
  agent.ack(10);
  CHECK(kit.engine().num_graphs() == 1);
  child.kill();
  CHECK(kit.next(1) == Texts{"released 1 failed"});
}

void a_replica_with_another_layout_is_refused() {
  EngineKit kit(4, 2);
  kit.start();
  FakeAgent zero(kit.path(), {0, 4, 100, 4096, 16, "tag"});
  FakeAgent(kit.path(), {1, 4, 100, 8192, 16, "tag"}).expect_refused("rank 1: slot_bytes is 8192");
  FakeAgent(kit.path(), {1, 4, 100, 4096, 16, "other"}).expect_refused("by rank 0, which holds the same KV");
  FakeAgent one(kit.path(), {1, 4, 90, 4096, 16, "tag"});
  FakeAgent two(kit.path(), {2, 4, 100, 8192, 16, "other"});  // of the other group
  FakeAgent(kit.path(), {3, 4, 100, 4096, 16, "tag"}).expect_refused("by rank 2");
  FakeAgent three(kit.path(), {3, 4, 100, 8192, 16, "other"});
  CHECK(kit.engine().wait_ranks(patience_s) && kit.engine().num_device_blocks() == 90);
  const auto give = [&](std::vector<std::uint64_t> slot_bytes) {
    kit.engine().set_pool(std::make_shared<HostPool>(HostPoolConfig{1, std::move(slot_bytes), 1, false}));
  };
  CHECK_THROWS(give({4096, 4096, 8192, 8192}), std::invalid_argument);
  CHECK_THROWS(give({4096, 4096}), std::invalid_argument);
  give({4096, 8192});
  const auto stride = [](FakeAgent& agent) { return agent.serve_pool().stride_bytes; };
  CHECK(stride(zero) == 4096 && stride(one) == 4096 && stride(two) == 8192 && stride(three) == 8192);
  CHECK_THROWS(TransferEngine({kit.path(), 4, 10, 3}), std::invalid_argument);
}

// Two groups of two in one process: each rank's bytes come back to it and to its replica, from half as many segments.
void real_agents_share_their_segments() {
  constexpr std::uint64_t chunk_bytes = WorkerRig::chunk_bytes;
  const TempDir dir;
  const std::string path = dir.file("engine.sock");
  WorkerRig workers[4];
  TransferEngine engine({path, 4, 1000, 2});
  engine.start();
  for (std::uint32_t rank = 0; rank < 4; ++rank) workers[rank].start(path, rank, 4);
  CHECK(engine.wait_ranks(patience_s));
  engine.set_pool(std::make_shared<HostPool>(HostPoolConfig{8, {chunk_bytes, chunk_bytes}, 1, false}));
  CHECK(engine.wait_slots(8, patience_s));
  for (int round = 0; round < 20; ++round) {
    for (std::uint32_t rank = 0; rank < 4; ++rank) {
      for (std::int64_t block = 0; block < WorkerRig::num_blocks; ++block) {
        const std::int64_t value = block < 8 ? 100 * (rank / 2) + 8 * (round % 10) + block : 0;
        workers[rank].fill(block, static_cast<unsigned char>(value));
      }
    }
    OpSpec there = {2 + round * 10, OpType::d2h, {0, 1, 2, 3, 4, 5, 6}, {6, 5, 4, 3, 2, 1, 0}, 0, {}};
    OpSpec back = {3 + round * 10, OpType::h2d, {0, 1, 2, 3, 4, 5, 6}, {8, 9, 10, 11, 12, 13, 14}, 0, {there.op_id}};
    engine.submit({1 + round * 10, {there, back}, patience_s});
    std::uint64_t bytes[2] = {0, 0};
    for (bool released = false; !released;) {
      CHECK(engine.wait(patience_s));
      for (const Completion& completion : engine.poll(100)) {
        CHECK(completion.status == OpStatus::done);
        if (completion.kind == CompletionKind::op) bytes[completion.type == OpType::h2d] = completion.bytes;
        released = completion.kind == CompletionKind::graph_released;
      }
    }
    CHECK(bytes[0] == 2 * 7 * chunk_bytes && bytes[1] == 4 * 7 * chunk_bytes);
    for (std::uint32_t rank = 0; rank < 4; ++rank) {
      const std::byte* memory = workers[rank].memory.data();
      for (std::size_t i = 0; i < 7; ++i) {
        CHECK(std::memcmp(memory + (8 + i) * chunk_bytes, memory + (6 - i) * chunk_bytes, chunk_bytes) == 0);
      }
      CHECK(memory[15 * chunk_bytes] == std::byte{0});
    }
  }
  for (WorkerRig& worker : workers) CHECK(worker.agent->stop(patience_s));
  CHECK(engine.stop(patience_s));
}

}  // namespace

int main() {
  a_rank_that_dies_keeps_the_slots_only_as_long_as_its_replica_touches_them();  // forks: before any thread
  shares_cover_an_op_once_and_differ_by_one_block_at_most();
  the_longer_shares_go_round_whatever_the_step_of_the_ids();
  a_store_is_shared_out_and_a_load_goes_to_each();
  a_rank_for_which_nothing_is_left_is_not_sent_the_op();
  a_rank_that_is_gone_matters_only_to_stores_that_it_has_a_share_of();
  a_failed_share_fails_the_store_and_the_others_are_waited_for();
  a_replica_with_another_layout_is_refused();
  real_agents_share_their_segments();
  std::puts("test_replicas: ok");
  return 0;
}
