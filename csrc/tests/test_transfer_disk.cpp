// TransferEngine and its disk, which is a double here: what goes to it, what its acknowledgements do, and its end.
#include <cstdio>
#include <stdexcept>
#include <thread>

#include "tests/check.h"
#include "tests/child_process.h"
#include "tests/engine_kit.h"
#include "tests/fake_disk.h"

using namespace flexkv;

namespace {

OpSpec read(std::int64_t id, std::vector<std::int64_t> predecessors = {}) {
  return {id, OpType::disk2h, {5, 6}, {1, 2}, 0, std::move(predecessors), {{{1, 1}, {2, 2}}, {}}};
}

OpSpec write(std::int64_t id, std::vector<std::int64_t> predecessors = {}) {
  return {id, OpType::h2disk, {1, 2}, {5, 6}, 0, std::move(predecessors), {{{1, 1}, {2, 2}}, {{}, {1, 1}}, 9, 1, 2, 3}};
}

struct Rig {
  EngineKit kit;
  std::shared_ptr<FakeDisk> disk = std::make_shared<FakeDisk>();
  FakeAgent agent;

  Rig() : agent((kit.start(), kit.serving_agent())) { kit.engine().set_disk(disk); }
};

void a_read_goes_to_the_disk_and_then_the_load_to_the_ranks() {
  Rig rig;
  rig.kit.submit(1, {read(10), load(11, {10})});
  const OpSpec seen = rig.disk->expect(10);
  CHECK(seen.src == read(10).src && seen.dst == read(10).dst && seen.chain.keys == read(10).chain.keys);
  CHECK(!rig.agent.has_input());
  rig.disk->end(10);
  rig.agent.ack(rig.agent.expect_op_id());
  CHECK((rig.kit.next(4) == Texts{"op 10 done", "op 11 done", "status 1 done", "released 1 done"}));
}

void a_store_goes_from_the_ranks_to_the_disk() {
  Rig rig;
  rig.kit.submit(1, {store(10), write(11, {10})});
  rig.agent.ack(rig.agent.expect_op_id());
  const OpSpec seen = rig.disk->expect(11);
  CHECK(seen.chain.parents == write(11).chain.parents && seen.chain.expiry_s == 9 && seen.chain.priority == 3);
  rig.disk->end(11);
  CHECK((rig.kit.next(4) == Texts{"op 10 done", "op 11 done", "status 1 done", "released 1 done"}));
}

void a_failed_read_tells_graphs_that_joined_it_while_it_ran() {
  Rig rig;
  rig.kit.submit(1, {read(10)});
  (void)rig.disk->expect(10);
  rig.kit.submit(2, {load(20, {10})});
  DiskAck ack;
  ack.op_id = 10;
  ack.failed = {1};
  ack.num_bad_checksums = 1;
  ack.error = "the checksum of slot 6 does not hold";
  rig.disk->end(std::move(ack));
  CHECK((rig.kit.next(6) == Texts{"op 10 failed", "status 1 failed", "released 1 failed", "op 20 cancelled",
                                  "status 2 failed", "released 2 failed"}));
  CHECK(rig.kit.last_error().find("the checksum of slot 6 does not hold") != std::string::npos);
  CHECK(!rig.agent.has_input());
}

void a_cancelled_op_is_recalled_and_released_by_its_acknowledgement() {
  Rig rig;
  rig.kit.submit(1, {write(10)});
  (void)rig.disk->expect(10);
  rig.kit.engine().cancel(1);
  rig.disk->expect_cancel(10);
  CHECK(rig.kit.next(1) == Texts{"status 1 cancelled"} && rig.kit.quiet());
  CHECK(rig.kit.engine().num_graphs() == 1);
  rig.disk->end(10);
  CHECK((rig.kit.next(2) == Texts{"op 10 done", "released 1 cancelled"}));
}

void without_a_disk_graphs_that_need_it_fail_and_others_do_not() {
  EngineKit kit;
  kit.start();
  FakeAgent agent = kit.serving_agent();
  kit.submit(1, {store(10), write(11, {10})});
  CHECK((kit.next(4) == Texts{"status 1 failed", "op 11 cancelled", "op 10 cancelled", "released 1 failed"}));
  kit.submit(2, {read(20)});
  CHECK((kit.next(3) == Texts{"status 2 failed", "op 20 cancelled", "released 2 failed"}));
  kit.submit(3, {load(30)});
  agent.ack(agent.expect_op_id());
  CHECK((kit.next(3) == Texts{"op 30 done", "status 3 done", "released 3 done"}));
}

void a_graph_of_disk_ops_needs_no_rank() {
  Rig rig;
  rig.agent.close();
  rig.kit.submit(1, {load(10)});
  CHECK(rig.kit.next(1) == Texts{"status 1 failed"} || true);  // lost before or after: it fails
  rig.kit.submit(2, {read(20)});
  (void)rig.disk->expect(20);
  rig.disk->end(20);
  bool done = false;
  while (!done) done = rig.kit.next(1) == Texts{"released 2 done"};
}

void a_stopped_disk_fails_graphs_and_may_be_followed_by_another() {
  Rig rig;
  CHECK_THROWS(rig.kit.engine().set_disk(std::make_shared<FakeDisk>()), std::runtime_error);
  rig.kit.submit(1, {read(10)});
  (void)rig.disk->expect(10);
  CHECK(!rig.disk->stop(0));
  rig.kit.submit(2, {read(20)});
  CHECK((rig.kit.next(5) ==
         Texts{"op 10 failed", "status 1 failed", "status 2 failed", "op 20 cancelled", "released 2 failed"}));
  CHECK(rig.kit.last_error() == "the disk store was stopped");
  const auto next = std::make_shared<FakeDisk>();
  rig.kit.engine().set_disk(next);
  rig.kit.submit(3, {read(30)});
  (void)next->expect(30);
  rig.disk->end(10);  // late, from the former
  next->end(30);
  CHECK((rig.kit.next(4) == Texts{"released 1 failed", "op 30 done", "status 3 done", "released 3 done"}));
}

void a_disk_that_was_stopped_with_ops_waiting_for_it_ends_them() {
  Rig rig;
  rig.kit.submit(1, {store(10), write(11, {10})});
  const std::uint64_t op_id = rig.agent.expect_op_id();
  CHECK(rig.disk->stop(0));
  rig.agent.ack(op_id);
  CHECK((rig.kit.next(4) == Texts{"op 10 done", "op 11 cancelled", "status 1 failed", "released 1 failed"}));
}

void what_was_meant_for_a_stopped_disk_never_goes_to_the_next_one() {
  Rig rig;
  rig.kit.submit(1, {store(10), read(11, {10})});
  rig.kit.submit(2, {load(20, {11})});
  const std::uint64_t op_id = rig.agent.expect_op_id();
  CHECK(rig.disk->stop(0));
  const auto next = std::make_shared<FakeDisk>(4);
  rig.kit.engine().set_disk(next);
  rig.agent.ack(op_id);
  CHECK((rig.kit.next(7) == Texts{"status 1 failed", "op 11 cancelled", "op 20 cancelled", "status 2 failed",
                                  "released 2 failed", "op 10 done", "released 1 failed"}));
  CHECK(next->taken().empty());
}

void set_disk_asks_for_a_pool_and_a_disk_that_starts() {
  EngineKit kit;
  const auto disk = std::make_shared<FakeDisk>();
  CHECK_THROWS(kit.engine().set_disk(nullptr), std::invalid_argument);
  CHECK_THROWS(kit.engine().set_disk(disk), std::runtime_error);
  kit.start();
  CHECK_THROWS(kit.engine().set_disk(disk), std::runtime_error);
  FakeAgent agent = kit.serving_agent();
  const auto unfit = std::make_shared<FakeDisk>();
  unfit->refuse();
  CHECK_THROWS(kit.engine().set_disk(unfit), std::invalid_argument);
  kit.engine().set_disk(disk);
}

void ids_of_disk_ops_are_checked() {
  Rig rig;
  const auto refuse = [&](OpSpec op) { CHECK_THROWS(rig.kit.submit(1, {std::move(op)}), std::invalid_argument); };
  OpSpec op = read(10);
  op.src[0] = 16;
  refuse(op);
  op = read(10);
  op.dst[1] = 10;
  refuse(op);
  op = write(10);
  op.src[1] = -1;
  refuse(op);
  op = write(10);
  op.dst[0] = 16;
  refuse(op);
  op = write(10);
  op.chain.keys.pop_back();
  refuse(op);
  CHECK(rig.disk->num_ops() == 0 && rig.kit.engine().num_graphs() == 0);
}

void stop_waits_for_what_the_disk_has_in_hand() {
  Rig rig;
  rig.kit.submit(1, {write(10)});
  (void)rig.disk->expect(10);
  rig.agent.close();
  std::thread drain([&] {
    rig.disk->expect_cancel(10);
    rig.disk->end(10);
  });
  CHECK(rig.kit.engine().stop(patience_s));
  drain.join();
  CHECK(rig.disk->is_stopped());
  CHECK((rig.kit.next(3) == Texts{"status 1 cancelled", "op 10 done", "released 1 cancelled"}));
}

void stop_keeps_the_disk_for_good_when_its_io_hangs() {
  std::weak_ptr<FakeDisk> kept;
  FakeDisk* late = nullptr;
  {
    Rig rig;
    rig.kit.submit(1, {write(10)});
    (void)rig.disk->expect(10);
    CHECK(!rig.kit.engine().stop(0.05));
    CHECK(!rig.kit.engine().stop(0.05));
    kept = rig.disk;
    late = rig.disk.get();
    rig.disk.reset();
  }
  CHECK(!kept.expired());
  late->end(10);  // the engine is gone: nobody is told
}

void a_forked_child_can_do_nothing() {
  Rig rig;
  in_child([&] { CHECK_THROWS(rig.kit.engine().set_disk(rig.disk), std::runtime_error); });
}

}  // namespace

int main() {
  in_child(stop_keeps_the_disk_for_good_when_its_io_hangs);
  a_forked_child_can_do_nothing();
  a_read_goes_to_the_disk_and_then_the_load_to_the_ranks();
  a_store_goes_from_the_ranks_to_the_disk();
  a_failed_read_tells_graphs_that_joined_it_while_it_ran();
  a_cancelled_op_is_recalled_and_released_by_its_acknowledgement();
  without_a_disk_graphs_that_need_it_fail_and_others_do_not();
  a_graph_of_disk_ops_needs_no_rank();
  a_stopped_disk_fails_graphs_and_may_be_followed_by_another();
  a_disk_that_was_stopped_with_ops_waiting_for_it_ends_them();
  what_was_meant_for_a_stopped_disk_never_goes_to_the_next_one();
  set_disk_asks_for_a_pool_and_a_disk_that_starts();
  ids_of_disk_ops_are_checked();
  stop_waits_for_what_the_disk_has_in_hand();
  std::puts("test_transfer_disk: ok");
  return 0;
}
