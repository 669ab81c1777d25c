// OpGraphTable: graphs whose ops wait for ops of other graphs, and what a failure, a cancel or a deadline of one of
// them makes of the others.
#include <cstdint>
#include <cstdio>
#include <set>
#include <string>

#include "tests/check.h"
#include "tests/op_graph_kit.h"

using namespace flexkv;

namespace {

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
}  // namespace

int main() {
  ops_may_wait_for_ops_of_other_graphs();
  a_failing_external_predecessor_fails_the_graphs_behind_it();
  cancel_spares_a_running_op_that_others_wait_for();
  cancel_spares_an_op_on_its_way_to_the_ranks_that_others_wait_for();
  a_failure_spares_siblings_on_their_way_that_others_wait_for();
  a_spared_op_ends_when_nobody_waits_for_it_any_more_or_at_its_deadline();
  a_spared_op_is_recalled_when_the_last_that_waits_for_it_goes();
  what_waits_in_a_cancelled_graph_runs_on_for_the_graphs_that_join_it();
  what_waits_in_a_cancelled_graph_goes_with_the_last_joiner_or_at_the_deadline();
  cancelling_all_spares_nothing();
  std::puts("test_op_graph_joins: ok");
  return 0;
}
