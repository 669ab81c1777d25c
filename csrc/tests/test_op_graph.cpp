// OpGraphTable: the rules one by one, then random histories (op_graph_history.h). Graphs that wait for ops of others
// are in test_op_graph_joins.cpp.
#include <cstdio>
#include <deque>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/check.h"
#include "tests/op_graph_history.h"
#include "tests/op_graph_kit.h"

using namespace flexkv;

namespace {

void an_op_is_done_when_every_rank_has_acknowledged_it() {
  Table table(2);
  table.submit({1, {load(10), load(11, {10})}, 5}, 0);
  CHECK(table.sent(0) == Ids{10} && table.sent(1) == Ids{10});
  CHECK(table.ack(1, 10) && table.events().empty());
  CHECK(table.ack(0, 10) && table.events() == Texts{"op 10 done"});
  CHECK(table.sent(0) == Ids{11} && table.sent(1) == Ids{11});
  CHECK(table.ack(0, 11) && table.ack(1, 11));
  CHECK((table.events() == Texts{"op 11 done", "status 1 done", "released 1 done"}));
  CHECK(table.num_held() == 0 && table.num_known() == 1);
  table.forget(1);
  CHECK(table.num_known() == 0 && !table.next_deadline_s());
}

void a_completion_says_what_its_op_was() {
  Table table(1);
  const OpSpec store = {11, OpType::d2h, {1, 2, 3}, {4, 5, 6}, 0, {}};
  table.submit({1, {load(10), store, nothing(12)}, 5}, 0);
  (void)table.sent(0);
  CHECK(table.ack(0, 10, AckStatus::failed) && table.ack(0, 11));
  std::map<std::int64_t, Completion> ops;
  for (const Completion& completion : table.take_completions()) ops[completion.op_id] = completion;
  CHECK(ops.at(10).type == OpType::h2d && ops.at(10).num_blocks == 2);  // of a failed op, too
  CHECK(ops.at(11).type == OpType::d2h && ops.at(11).num_blocks == 3 && ops.at(11).bytes == 10);
  CHECK(ops.at(12).type == OpType::virtual_op && ops.at(12).num_blocks == 0);
  CHECK(ops.at(-1).type == OpType::virtual_op && ops.at(-1).num_blocks == 0);
}

void empty_graphs_and_virtual_ops_complete_at_once() {
  Table table(1, false);
  table.submit({1, {}, 5}, 0);
  CHECK((table.events() == Texts{"status 1 done", "released 1 done"}));
  std::vector<OpSpec> chain = {nothing(0)};
  for (std::int64_t id = 1; id < 50000; ++id) chain.push_back(nothing(id, {id - 1}));  // no recursion
  table.submit({2, chain, 5}, 0);
  CHECK(table.events().size() == 50002);
}

void acknowledgements_of_ops_a_rank_does_not_have_are_refused() {
  Table table(2);
  table.submit({1, {load(10)}, 5}, 0);
  CHECK(!table.ack(0, 10));  // not sent yet
  CHECK(!table.ack(0, 99));
  CHECK(table.sent(0) == Ids{10});
  CHECK(!table.ack(1, 10) && table.ack(0, 10) && !table.ack(0, 10));
}

void a_failed_op_cancels_what_waits_and_lets_running_siblings_drain() {
  Table table(1);
  table.submit({1, {load(10), load(11), load(12, {10}), load(13, {11, 12})}, 5}, 0);
  CHECK((table.sent(0) == Ids{10, 11}));
  CHECK(table.ack(0, 10, AckStatus::failed));
  CHECK((table.events() == Texts{"op 10 failed", "status 1 failed", "op 12 cancelled", "op 13 cancelled"}));
  CHECK(table.num_held() == 1);
  CHECK(table.ack(0, 11));
  CHECK((table.events() == Texts{"op 11 done", "released 1 failed"}));
}

void a_failure_on_one_rank_recalls_the_op_from_the_others() {
  Table table(2);
  table.submit({1, {load(10)}, 5}, 0);
  (void)table.sent(0), (void)table.sent(1);
  CHECK(table.ack(0, 10, AckStatus::failed));
  CHECK((table.events() == Texts{"op 10 failed", "status 1 failed"}));
  CHECK(table.sent(1, true) == Ids{10});
  CHECK(table.ack(1, 10, AckStatus::cancelled));
  CHECK(table.events() == Texts{"released 1 failed"});
}

void a_deadline_decides_and_a_late_acknowledgement_releases() {
  Table table(2);
  table.submit({1, {load(10), load(11, {10})}, 5}, 100);
  (void)table.sent(0), (void)table.sent(1);
  CHECK(table.next_deadline_s() == 105.0);
  CHECK(table.ack(0, 10));
  table.expire(104.9);
  CHECK(table.events().empty());
  table.expire(105);
  CHECK((table.events() == Texts{"op 10 timed_out", "status 1 timed_out", "op 11 cancelled"}));
  CHECK(!table.next_deadline_s() && table.num_held() == 1);
  CHECK(table.sent(0, true).empty() && table.sent(1, true) == Ids{10});
  CHECK(table.ack(1, 10));
  CHECK(table.events() == Texts{"released 1 timed_out"});
}

void an_op_not_sent_at_the_deadline_is_never_sent() {
  Table table(1);
  table.submit({1, {load(10)}, 5}, 0);
  table.expire(5);
  CHECK((table.events() == Texts{"op 10 timed_out", "status 1 timed_out", "released 1 timed_out"}));
  CHECK(table.sent(0).empty() && table.sent(0, true).empty());
}

void cancel_takes_what_has_not_started() {
  Table table(1);
  table.submit({1, {load(10), load(11, {10})}, 5}, 0);
  (void)table.sent(0);
  table.cancel(1);
  table.cancel(77);
  CHECK((table.events() == Texts{"status 1 cancelled", "op 11 cancelled"}));
  CHECK(table.sent(0, true) == Ids{10});
  CHECK(table.ack(0, 10));  // it had started: it ran on
  CHECK((table.events() == Texts{"op 10 done", "released 1 cancelled"}));
  table.cancel(1);
  CHECK(table.events().empty());
}

OpSpec read(std::int64_t id, std::vector<std::int64_t> predecessors = {}) {
  return {id, OpType::disk2h, {5, 6}, {1, 2}, 0, std::move(predecessors), {{{1, 1}, {2, 2}}, {}}};
}

OpSpec write(std::int64_t id, std::vector<std::int64_t> predecessors = {}) {
  return {id, OpType::h2disk, {1, 2}, {5, 6}, 0, std::move(predecessors), {{{1, 1}, {2, 2}}, {{}, {1, 1}}}};
}

DiskAck disk_ack(std::int64_t id) {
  DiskAck ack;
  ack.op_id = id;
  ack.bytes = 7;
  return ack;
}

void disk_ops_go_to_the_disk_and_need_no_rank() {
  Table table(2, false);
  table.executor_up(table.disk());
  table.submit({1, {read(10), write(11, {10}), nothing(12, {11})}, 5}, 0);
  CHECK(table.sent(0).empty() && table.sent(1).empty() && table.sent(table.disk()) == Ids{10});
  CHECK(!table.acknowledge(disk_ack(11)) && !table.ack(0, 10));  // not its op
  CHECK(table.acknowledge(disk_ack(10)) && !table.acknowledge(disk_ack(10)));
  CHECK(table.sent(table.disk()) == Ids{11} && table.acknowledge(disk_ack(11)));
  CHECK((table.events() == Texts{"op 10 done", "op 11 done", "op 12 done", "status 1 done", "released 1 done"}));
  table.executor_up(0), table.executor_up(1);
  table.executor_lost(1, true, "BYE");
  table.submit({2, {read(20)}, 5}, 0);
  CHECK(table.sent(table.disk()) == Ids{20} && table.events().empty());
}

void without_a_disk_the_graphs_that_need_it_fail_and_no_others() {
  Table table(1);
  table.submit({1, {read(10)}, 5}, 0);
  table.submit({2, {load(20)}, 5}, 0);
  const std::deque<Completion> completions = table.take_completions();
  CHECK(completions.size() == 3 && completions[0].error == "no disk store is set" && completions[2].graph_id == 1);
  CHECK(table.sent(0) == Ids{20});
  table.executor_up(table.disk());
  table.submit({3, {read(30), load(31, {30})}, 5}, 0);
  table.submit({4, {load(40)}, 5}, 0);
  CHECK(table.sent(table.disk()) == Ids{30} && table.sent(0) == Ids{40});
  table.executor_lost(table.disk(), false, "the disk was stopped");
  CHECK((table.events() == Texts{"op 30 failed", "status 3 failed", "op 31 cancelled"}));
  CHECK(table.holds_ops_of(table.disk()) && table.acknowledge(disk_ack(30)));
  CHECK(table.events() == Texts{"released 3 failed"} && table.ack(0, 20) && table.ack(0, 40));
}

void a_disk_op_says_which_blocks_were_not_moved_well() {
  Table table(1);
  table.executor_up(table.disk());
  table.submit({1, {read(10)}, 5}, 0);
  (void)table.sent(table.disk());
  DiskAck ack = disk_ack(10);
  ack.failed = {1};
  ack.num_bad_checksums = 1;
  ack.io_errno = 5;
  ack.error = "block 1 does not check";
  table.submit({2, {nothing(20, {10}), load(21, {20})}, 5}, 0);  // it runs already
  CHECK(table.acknowledge(ack));
  const std::deque<Completion> all = table.take_completions();
  CHECK(all[0].op_id == 10 && all[0].status == OpStatus::failed && all[0].failed_blocks == ack.failed);
  CHECK(all[0].num_bad_checksums == 1 && all[0].io_errno == 5 && all[0].bytes == 7);
  CHECK(all[3].op_id == 20 && all[3].status == OpStatus::cancelled);
  CHECK(all[3].error.find("block 1 does not check") != std::string::npos);

  table.submit({3, {write(30)}, 5}, 0);
  (void)table.sent(table.disk());
  table.cancel(3);
  CHECK(table.sent(table.disk(), true) == Ids{30});
  DiskAck dropped = disk_ack(30);
  dropped.cancelled = true;
  dropped.failed = {0, 1};
  CHECK(table.acknowledge(dropped));
  CHECK((table.events() == Texts{"status 3 cancelled", "op 30 cancelled", "released 3 cancelled"}));
}

void a_disk_op_that_timed_out_is_released_by_its_acknowledgement() {
  Table table(1);
  table.executor_up(table.disk());
  table.submit({1, {read(10)}, 5}, 0);
  (void)table.sent(table.disk());
  table.expire(5);
  CHECK((table.events() == Texts{"op 10 timed_out", "status 1 timed_out"}));
  CHECK(table.sent(table.disk(), true) == Ids{10} && table.acknowledge(disk_ack(10)));
  CHECK(table.events() == Texts{"released 1 timed_out"});
}

void a_lost_rank_fails_every_graph_and_releases_when_it_is_dead() {
  Table table(2);
  table.submit({1, {load(10), load(11, {10})}, 5}, 0);
  table.submit({2, {nothing(20, {10}), load(21, {20})}, 5}, 0);
  (void)table.sent(0), (void)table.sent(1);
  CHECK(table.ack(0, 10));
  table.executor_lost(1, false, "it is gone");
  CHECK((table.events() == Texts{"op 10 failed", "status 1 failed", "status 2 failed", "op 11 cancelled",
                                 "op 20 cancelled", "op 21 cancelled", "released 2 failed"}));
  CHECK(table.num_held() == 1 && table.holds_ops_of(1) && !table.holds_ops_of(0));
  table.submit({3, {load(30)}, 5}, 0);
  CHECK((table.events() == Texts{"status 3 failed", "op 30 cancelled", "released 3 failed"}));
  table.executor_dead(1);
  CHECK(table.events() == Texts{"released 1 failed"});
  table.executor_up(1);
  table.submit({4, {load(40)}, 5}, 0);
  CHECK(table.sent(0) == Ids{40} && table.sent(1) == Ids{40});
  table.executor_lost(0, true, "BYE");
  CHECK((table.events() == Texts{"op 40 failed", "status 4 failed"}));
  CHECK(table.sent(1, true) == Ids{40} && table.ack(1, 40, AckStatus::cancelled));
  CHECK(table.events() == Texts{"released 4 failed"});
}

void a_bad_graph_is_refused_and_changes_nothing() {
  Table table(1);
  table.submit({1, {load(10)}, 5}, 0);
  const auto refuse = [&](GraphSpec spec) {
    CHECK_THROWS(table.submit(std::move(spec), 0), std::invalid_argument);
    table.check_invariants();
    CHECK(table.num_held() == 1 && table.num_known() == 1);
  };
  refuse({1, {}, 5});
  refuse({2, {load(10)}, 5});
  refuse({2, {load(20), load(20)}, 5});
  refuse({2, {load(20, {99})}, 5});
  refuse({2, {load(20, {20})}, 5});
  refuse({2, {load(20, {21}), load(21, {20})}, 5});
  refuse({2, {load(-1)}, 5});
  refuse({2, {OpSpec{20, OpType::h2d, {1}, {1, 2}, 0, {}}}, 5});
  refuse({2, {OpSpec{20, OpType::remote2h, {1}, {1}, 0, {}}}, 5});
  OpSpec keys_are_short = read(20);
  keys_are_short.chain.keys.pop_back();
  OpSpec no_parents = write(20);
  no_parents.chain.parents.clear();
  OpSpec parents_of_a_read = read(20);
  parents_of_a_read.chain.parents = parents_of_a_read.chain.keys;
  OpSpec keys_of_a_load = load(20);
  keys_of_a_load.chain.keys.resize(2);
  OpSpec high_priority = write(20);
  high_priority.chain.priority = 8;
  OpSpec high_group = write(20);
  high_group.chain.group = 32;
  for (const OpSpec& op : {keys_are_short, no_parents, parents_of_a_read, keys_of_a_load, high_priority, high_group}) {
    refuse({2, {op}, 5});
  }
  refuse({2, {load(20)}, 0});
  refuse({2, {load(20)}, -1});
  refuse({2, {load(20)}, std::numeric_limits<double>::quiet_NaN()});
  refuse({2, {load(20)}, std::numeric_limits<double>::infinity()});
  CHECK_THROWS(OpGraphTable(0), std::invalid_argument);
  CHECK_THROWS(OpGraphTable(64), std::invalid_argument);
  CHECK_THROWS(OpGraphTable(4, 0), std::invalid_argument);
  CHECK_THROWS(OpGraphTable(4, 3), std::invalid_argument);
}

}  // namespace

int main() {
  an_op_is_done_when_every_rank_has_acknowledged_it();
  a_completion_says_what_its_op_was();
  empty_graphs_and_virtual_ops_complete_at_once();
  acknowledgements_of_ops_a_rank_does_not_have_are_refused();
  a_failed_op_cancels_what_waits_and_lets_running_siblings_drain();
  a_failure_on_one_rank_recalls_the_op_from_the_others();
  a_deadline_decides_and_a_late_acknowledgement_releases();
  an_op_not_sent_at_the_deadline_is_never_sent();
  cancel_takes_what_has_not_started();
  disk_ops_go_to_the_disk_and_need_no_rank();
  without_a_disk_the_graphs_that_need_it_fail_and_no_others();
  a_disk_op_says_which_blocks_were_not_moved_well();
  a_disk_op_that_timed_out_is_released_by_its_acknowledgement();
  a_lost_rank_fails_every_graph_and_releases_when_it_is_dead();
  a_bad_graph_is_refused_and_changes_nothing();
  for (unsigned seed = 0; seed < 300; ++seed) OpGraphHistory(Choices(std::uint64_t{seed}), 1 + seed % 3).run(300);
  for (unsigned seed = 0; seed < 300; ++seed) {
    const unsigned replicas = 2 + seed % 3;
    OpGraphHistory(Choices(std::uint64_t{seed}), replicas * (1 + seed % 2), replicas).run(300);
  }
  std::puts("test_op_graph: ok");
  return 0;
}
