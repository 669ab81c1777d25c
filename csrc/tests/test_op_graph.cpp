// OpGraphTable: the rules one by one, then random histories (op_graph_history.h).
#include <cstdio>
#include <deque>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/check.h"
#include "tests/op_graph_history.h"
#include "transfer/op_graph.h"

using namespace flexkv;
using protocol::AckStatus;

namespace {

OpSpec load(std::int64_t id, std::vector<std::int64_t> predecessors = {}) {
  return {id, OpType::h2d, {1, 2}, {3, 4}, 0, std::move(predecessors)};
}

OpSpec nothing(std::int64_t id, std::vector<std::int64_t> predecessors = {}) {
  return {id, OpType::virtual_op, {}, {}, 0, std::move(predecessors)};
}

struct Table : OpGraphTable {
  explicit Table(std::uint32_t num_ranks, bool up = true) : OpGraphTable(num_ranks) {
    for (std::uint32_t rank = 0; up && rank < num_ranks; ++rank) executor_up(rank);
  }
  bool ack(std::uint32_t rank, std::uint64_t op_id, AckStatus status = AckStatus::done) {
    const bool known = acknowledge(rank, {op_id, 10, 1000, status, 5}, "no luck");
    check_invariants();
    return known;
  }
  std::vector<std::int64_t> sent(std::uint32_t rank, bool recalls = false) {
    std::vector<std::int64_t> ids;
    for (auto send = take_send(rank); send; send = take_send(rank)) {
      if (send->recall == recalls) ids.push_back(send->op->op_id);
    }
    check_invariants();
    return ids;
  }
  // The completions as text: "op 3 done", "status 1 failed", "released 1 failed".
  std::vector<std::string> events() {
    static const char* names[] = {"waiting", "running", "done", "failed", "timed_out", "cancelled"};
    std::vector<std::string> texts;
    for (const Completion& c : take_completions()) {
      const std::string status = names[static_cast<int>(c.status)];
      CHECK((c.status == OpStatus::done) == c.error.empty());
      if (c.kind == CompletionKind::op) texts.push_back("op " + std::to_string(c.op_id) + " " + status);
      if (c.kind == CompletionKind::graph_status)
        texts.push_back("status " + std::to_string(c.graph_id) + " " + status);
      if (c.kind == CompletionKind::graph_released)
        texts.push_back("released " + std::to_string(c.graph_id) + " " + status);
    }
    check_invariants();
    return texts;
  }
};

using Texts = std::vector<std::string>;
using Ids = std::vector<std::int64_t>;

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

void ops_may_wait_for_ops_of_other_graphs() {
  Table table(1);
  table.submit({1, {load(10)}, 5}, 0);
  table.submit({2, {load(20, {10})}, 5}, 0);
  CHECK(table.sent(0) == Ids{10});
  CHECK(table.ack(0, 10));
  CHECK(table.sent(0) == Ids{20});
  CHECK((table.events() == Texts{"op 10 done", "status 1 done", "released 1 done"}));
  table.submit({3, {load(30, {10})}, 5}, 0);  // released, but not yet forgotten: still a predecessor that is done
  CHECK(table.sent(0) == Ids{30});
  table.forget(1);
  CHECK_THROWS(table.submit({4, {load(40, {10})}, 5}, 0), std::invalid_argument);
}

void a_failing_external_predecessor_fails_the_graphs_behind_it() {
  Table table(1);
  table.submit({1, {load(10)}, 5}, 0);
  table.submit({2, {load(20, {10}), load(21)}, 5}, 0);
  table.submit({3, {load(30, {20})}, 5}, 0);
  CHECK((table.sent(0) == Ids{10, 21}));
  CHECK(table.ack(0, 10, AckStatus::failed));
  CHECK((table.events() == Texts{"op 10 failed", "status 1 failed", "released 1 failed", "op 20 cancelled",
                                 "status 2 failed", "op 30 cancelled", "status 3 failed", "released 3 failed"}));
  table.submit({4, {load(40, {10})}, 5}, 0);
  CHECK((table.events() == Texts{"op 40 cancelled", "status 4 failed", "released 4 failed"}));
  CHECK(table.ack(0, 21));
  CHECK((table.events() == Texts{"op 21 done", "released 2 failed"}));
}

void cancel_spares_a_running_op_that_others_wait_for() {
  Table table(1);
  table.submit({1, {load(10)}, 5}, 0);
  table.submit({2, {load(20, {10})}, 5}, 0);
  (void)table.sent(0);
  table.cancel(1);
  CHECK(table.events() == Texts{"status 1 cancelled"});
  CHECK(table.sent(0, true).empty());
  CHECK(table.ack(0, 10));
  CHECK(table.sent(0) == Ids{20});
}

void cancel_spares_an_op_on_its_way_to_the_ranks_that_others_wait_for() {
  Table table(2);
  table.submit({1, {load(10), load(11)}, 5}, 0);
  table.submit({2, {load(20, {10})}, 5}, 0);
  CHECK((table.sent(0) == Ids{10, 11}));  // and not yet to rank 1
  table.cancel(1);
  CHECK((table.events() == Texts{"status 1 cancelled", "op 11 cancelled"}));
  CHECK(table.sent(0, true) == Ids{11} && table.sent(1) == Ids{10});
  CHECK(table.ack(0, 11, AckStatus::cancelled) && table.ack(0, 10) && table.ack(1, 10));
  CHECK((table.events() == Texts{"op 10 done", "released 1 cancelled"}));
  CHECK(table.sent(0) == Ids{20} && table.sent(1) == Ids{20});
}

void a_failure_spares_siblings_on_their_way_that_others_wait_for() {
  Table table(2);
  table.submit({1, {load(10), load(11), load(12)}, 5}, 0);
  table.submit({2, {load(20, {11})}, 5}, 0);
  CHECK((table.sent(0) == Ids{10, 11, 12}));
  CHECK(table.ack(0, 10, AckStatus::failed));
  CHECK((table.events() == Texts{"op 10 failed", "status 1 failed", "op 12 cancelled"}));
  CHECK(table.sent(1) == Ids{11} && table.ack(0, 11) && table.ack(1, 11));
  CHECK(table.sent(1) == Ids{20});
}

void a_spared_op_ends_when_nobody_waits_for_it_any_more_or_at_its_deadline() {
  Table table(1);
  table.submit({1, {load(10)}, 5}, 0);
  table.submit({2, {load(20, {10})}, 50}, 0);
  table.cancel(1);
  table.cancel(2);
  CHECK((table.events() == Texts{"status 1 cancelled", "status 2 cancelled", "op 20 cancelled", "op 10 cancelled",
                                 "released 1 cancelled", "released 2 cancelled"}));
  CHECK(table.sent(0).empty());

  table.submit({3, {load(30)}, 5}, 0);
  table.submit({4, {load(40, {30})}, 50}, 0);
  table.cancel(3);
  table.expire(5);
  CHECK((table.events() == Texts{"status 3 cancelled", "op 30 timed_out", "released 3 cancelled", "op 40 cancelled",
                                 "status 4 failed", "released 4 failed"}));
  CHECK(table.sent(0).empty());
}

void a_spared_op_is_recalled_when_the_last_that_waits_for_it_goes() {
  Table table(1);
  table.submit({1, {load(10)}, 5}, 0);
  table.submit({2, {load(20, {10})}, 50}, 0);
  table.submit({3, {load(30, {10, 10})}, 50}, 0);
  CHECK(table.sent(0) == Ids{10});
  table.cancel(1);
  table.cancel(2);
  CHECK(table.sent(0, true).empty());  // 30 still waits
  table.cancel(3);
  CHECK(table.sent(0, true) == Ids{10});
  CHECK(table.ack(0, 10, AckStatus::cancelled) && table.num_held() == 0);
}

void what_waits_in_a_cancelled_graph_runs_on_for_the_graphs_that_join_it() {
  Table table(1);
  table.submit({1, {load(10), load(11, {10}), nothing(12, {11}), load(13, {12}), load(14, {10})}, 5}, 0);
  table.submit({2, {load(20, {12})}, 50}, 0);
  (void)table.sent(0);
  table.cancel(1);
  CHECK((table.events() == Texts{"status 1 cancelled", "op 13 cancelled", "op 14 cancelled"}));
  CHECK(table.sent(0, true).empty());
  CHECK(table.ack(0, 10) && table.sent(0) == Ids{11});
  CHECK(table.ack(0, 11) && table.sent(0) == Ids{20});
  CHECK((table.events() == Texts{"op 10 done", "op 11 done", "op 12 done", "released 1 cancelled"}));
  CHECK(table.ack(0, 20) && (table.events() == Texts{"op 20 done", "status 2 done", "released 2 done"}));
}

void what_waits_in_a_cancelled_graph_goes_with_the_last_joiner_or_at_the_deadline() {
  Table table(1);
  for (const bool expires : {false, true}) {
    const std::int64_t id = expires ? 100 : 0;
    table.submit({id + 1, {load(id + 10), load(id + 11, {id + 10})}, 5}, 0);
    table.submit({id + 2, {nothing(id + 20, {id + 11})}, 50}, 0);
    (void)table.sent(0);
    table.cancel(id + 1);
    (void)table.events();
    expires ? table.expire(5) : table.cancel(id + 2);
    std::set<std::string> events;
    for (const std::string& text : table.events()) events.insert(text);
    CHECK(events.contains("op " + std::to_string(id + 11) + " cancelled"));
    CHECK(events.contains("released " + std::to_string(id + 2) + (expires ? " failed" : " cancelled")));
    CHECK(table.sent(0, true) == Ids{id + 10} && table.ack(0, static_cast<std::uint64_t>(id + 10)));
  }
  CHECK(table.num_held() == 0);
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

void cancelling_all_spares_nothing() {
  Table table(1);
  table.submit({1, {load(10)}, 5}, 0);
  table.submit({2, {load(20, {10})}, 5}, 0);
  table.submit({3, {load(30)}, 5}, 0);
  CHECK((table.sent(0) == Ids{10, 30}));
  table.submit({4, {load(40)}, 5}, 0);
  table.submit({5, {load(50, {40, 30})}, 5}, 0);
  (void)table.events();
  table.cancel_all();
  CHECK((table.events() == Texts{"status 1 cancelled", "status 2 cancelled", "op 20 cancelled", "released 2 cancelled",
                                 "status 3 cancelled", "status 4 cancelled", "status 5 cancelled", "op 50 cancelled",
                                 "op 40 cancelled", "released 4 cancelled", "released 5 cancelled"}));
  CHECK((table.sent(0, true) == Ids{10, 30}));
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
  ops_may_wait_for_ops_of_other_graphs();
  a_failing_external_predecessor_fails_the_graphs_behind_it();
  cancel_spares_a_running_op_that_others_wait_for();
  cancel_spares_an_op_on_its_way_to_the_ranks_that_others_wait_for();
  a_failure_spares_siblings_on_their_way_that_others_wait_for();
  a_spared_op_ends_when_nobody_waits_for_it_any_more_or_at_its_deadline();
  a_spared_op_is_recalled_when_the_last_that_waits_for_it_goes();
  what_waits_in_a_cancelled_graph_runs_on_for_the_graphs_that_join_it();
  what_waits_in_a_cancelled_graph_goes_with_the_last_joiner_or_at_the_deadline();
  disk_ops_go_to_the_disk_and_need_no_rank();
  without_a_disk_the_graphs_that_need_it_fail_and_no_others();
  a_disk_op_says_which_blocks_were_not_moved_well();
  a_disk_op_that_timed_out_is_released_by_its_acknowledgement();
  cancelling_all_spares_nothing();
  a_lost_rank_fails_every_graph_and_releases_when_it_is_dead();
  a_bad_graph_is_refused_and_changes_nothing();
  for (unsigned seed = 0; seed < 300; ++seed) OpGraphHistory(Choices(std::uint64_t{seed}), 1 + seed % 3).run(300);
  std::puts("test_op_graph: ok");
  return 0;
}
