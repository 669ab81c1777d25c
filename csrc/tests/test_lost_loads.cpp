// Loads by layers that never reach a rank: whoever waits for one there is told, and nobody else. From the OpGraphTable
// to real CopyAgents.
#include <chrono>
#include <cstdio>
#include <memory>
#include <numeric>
#include <stdexcept>

#include "tests/check.h"
#include "tests/engine_kit.h"
#include "tests/op_graph_kit.h"
#include "tests/worker_rig.h"
#include "transfer/layer_gate.h"

using namespace flexkv;

namespace {

using Tickets = std::vector<std::uint64_t>;

void while_a_rank_is_missing_the_others_are_told() {
  Table table(3, false);
  table.executor_up(0);
  table.executor_up(2);
  table.submit({1, {layer_load(10, 7)}, 5}, 0);
  CHECK((table.events() == Texts{"status 1 failed", "op 10 cancelled", "released 1 failed"}));
  CHECK(table.lost(0) == Tickets{7} && table.lost(2) == Tickets{7});
  CHECK(table.lost(0).empty());
  table.executor_up(1);  // its worker may be about to wait for it
  CHECK(table.lost(1) == Tickets{7});
}

void only_ranks_that_were_not_sent_the_op_are_told() {
  Table table(3);
  table.submit({1, {layer_load(10, 7)}, 5}, 0);
  CHECK(table.sent(0) == Ids{10});
  table.executor_lost(1, true, "gone");
  CHECK(table.events() == (Texts{"op 10 failed", "status 1 failed"}));
  CHECK(table.sent(0, true) == Ids{10});  // CANCEL: its agent knows of the load
  CHECK(table.lost(2) == Tickets{7} && table.lost(1).empty());
}

void cancelled_and_late_loads_are_told_and_good_ones_are_not() {
  Table table(1);
  table.submit({1, {nothing(9), layer_load(10, 7)}, 5}, 0);
  table.cancel(1);
  CHECK(table.lost(0) == Tickets{7});
  table.submit({2, {load(20), layer_load(21, 8)}, 5}, 0);
  table.expire(6);
  CHECK(table.lost(0) == Tickets{8});
  OpSpec waits = layer_load(31, 9);
  waits.predecessors = {30};
  table.submit({3, {load(30), waits}, 5}, 6);
  CHECK(table.sent(0) == Ids{30} && table.ack(0, 30, AckStatus::failed));
  CHECK(table.lost(0) == Tickets{9});
  table.submit({4, {layer_load(40, 10)}, 5}, 6);
  CHECK(table.sent(0) == Ids{40} && table.ack(0, 40));
  table.submit({5, {load(50)}, 5}, 6);  // without a ticket
  table.cancel(5);
  CHECK(table.lost(0).empty());
}

void what_was_not_told_before_a_rank_was_lost_is_told_when_it_comes_again() {
  Table table(2);
  table.lose_load(7);
  table.lose_load(8);
  CHECK((table.lost(1) == Tickets{7, 8}));
  table.executor_lost(0, true, "gone");
  CHECK(table.lost(0).empty());
  table.executor_up(0);
  CHECK((table.lost(0) == Tickets{7, 8}));
}

void of_lost_loads_that_nobody_is_told_only_the_newest_are_kept() {
  Table table(1);
  for (std::uint64_t ticket = 1; ticket <= 1000; ++ticket) table.lose_load(ticket);
  Tickets newest(LayerGate::max_loads);
  std::iota(newest.begin(), newest.end(), 1001 - newest.size());
  CHECK(table.lost(0) == newest);
  table.executor_lost(0, true, "gone");
  table.executor_up(0);
  CHECK(table.lost(0) == newest);
}

std::uint64_t take_lost(FakeAgent& agent) {
  return read_body<protocol::LostBody>(agent.expect(protocol::FrameType::lost).body).layer_ticket;
}

void the_engine_tells_its_agents() {
  EngineKit kit(2);
  kit.start();
  FakeAgent zero(kit.path(), {0, 2, 100, 4096, 16, "tag"});
  FakeAgent one(kit.path(), {1, 2, 100, 4096, 16, "tag"});
  kit.give_pool();
  (void)zero.serve_pool();
  (void)one.serve_pool();
  CHECK(kit.engine().wait_slots(10, patience_s));
  CHECK_THROWS(kit.engine().lose_load(0), std::invalid_argument);
  kit.engine().lose_load(6);
  CHECK(take_lost(zero) == 6 && take_lost(one) == 6);
  one.bye();
  one.expect_closed();
  FakeAgent again(kit.path(), {1, 2, 100, 4096, 16, "tag"});  // has not mapped anything yet
  CHECK(again.expect(protocol::FrameType::pool).fd.valid());
  CHECK(take_lost(again) == 6);
  kit.submit(1, {layer_load(10, 7)});
  CHECK(zero.expect_op_id() == 10 && take_lost(again) == 7);
  CHECK((kit.next(2) == Texts{"op 10 failed", "status 1 failed"}));
  CHECK(zero.expect_cancel() == 10);
}

constexpr double long_s = 60;
constexpr std::chrono::seconds at_once{20};

// Two workers of one engine; the second dies, the first one's step waits for a load that its agent is never sent.
void a_worker_is_let_go_at_once_and_its_load_is_lost() {
  const TempDir dir;
  const std::string path = dir.file("engine.sock");
  constexpr std::uint64_t slot_bytes = WorkerRig::chunk_bytes;
  TransferEngine engine({path, 2, 1000});
  engine.start();
  WorkerRig rig;
  rig.start(path, 0, 2);
  CopyAgent& worker = *rig.agent;
  FakeAgent other(path, {1, 2, WorkerRig::num_blocks, slot_bytes, 16, "layout"});
  CHECK(engine.wait_ranks(patience_s));
  engine.set_pool(std::make_shared<HostPool>(HostPoolConfig{8, {slot_bytes, slot_bytes}, 1, false}));
  (void)other.serve_pool();
  CHECK(engine.wait_slots(8, patience_s));
  other.bye();
  other.expect_closed();
  const auto begin = std::chrono::steady_clock::now();
  worker.expect_load(3, long_s);
  engine.submit({1, {layer_load(10, 3)}, patience_s});
  CHECK(!worker.wait_layer(3, slot_bytes, 0) && !worker.finish_load(3));
  engine.lose_load(4);
  worker.expect_load(4, long_s);
  CHECK(!worker.wait_layer(4, slot_bytes, 0) && !worker.finish_load(4));
  CHECK(std::chrono::steady_clock::now() - begin < at_once);
  CHECK(worker.stop(patience_s));
  CHECK(engine.stop(patience_s));
}

}  // namespace

int main() {
  while_a_rank_is_missing_the_others_are_told();
  only_ranks_that_were_not_sent_the_op_are_told();
  cancelled_and_late_loads_are_told_and_good_ones_are_not();
  what_was_not_told_before_a_rank_was_lost_is_told_when_it_comes_again();
  of_lost_loads_that_nobody_is_told_only_the_newest_are_kept();
  the_engine_tells_its_agents();
  a_worker_is_let_go_at_once_and_its_load_is_lost();
  std::puts("test_lost_loads: ok");
  return 0;
}
