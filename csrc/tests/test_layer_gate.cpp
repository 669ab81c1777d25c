// LayerGate: whoever waits for a layer is let go when its bytes are on their way, or when they never come.
#include <cstdio>
#include <stdexcept>
#include <thread>

#include "tests/check.h"
#include "transfer/layer_gate.h"

using namespace flexkv;

namespace {

constexpr double long_s = 60.0;

struct Served {
  Served() { gate.set_connected(true); }
  LayerGate gate;
};

void a_layer_is_waited_for_until_its_bytes_are_on_their_way() {
  Served served;
  LayerGate& gate = served.gate;
  gate.expect(3, long_s);
  std::thread copies([&gate] {
    CHECK(gate.begin(3));
    gate.advance(3, 100, 7);
    gate.advance(3, 200, 8);
    gate.end(3, true);
  });
  CHECK(gate.wait_part(3, 60) == CopyMark{7});
  CHECK(gate.wait_part(3, 100) == CopyMark{7} && gate.wait_part(3, 101) == CopyMark{8});
  CHECK(gate.finish(3));
  copies.join();
}

void either_side_may_come_first() {
  Served served;
  CHECK(served.gate.begin(1));
  served.gate.advance(1, 10, 0);
  served.gate.end(1, true);
  served.gate.expect(1, long_s);
  CHECK(served.gate.wait_part(1, 10) == CopyMark{0});
  CHECK(served.gate.wait_part(1, 99) == CopyMark{0});  // it has ended: all of it is there
  CHECK(served.gate.finish(1));
}

void a_load_that_fails_lets_go_at_once() {
  Served served;
  served.gate.expect(1, long_s);
  CHECK(served.gate.begin(1));
  served.gate.advance(1, 10, 5);
  std::thread copies([&served] { served.gate.end(1, false); });
  CHECK(!served.gate.wait_part(1, 20).has_value());
  copies.join();
  CHECK(!served.gate.wait_part(1, 10).has_value());  // what was on its way may never have come
  CHECK(!served.gate.finish(1));
  CHECK(!served.gate.begin(1));
}

void a_load_that_does_not_begin_in_time_fails_and_never_runs() {
  Served served;
  served.gate.expect(4, 0.0);
  CHECK(!served.gate.wait_part(4, 1).has_value());
  CHECK(!served.gate.begin(4));  // its blocks may be computed by now
  CHECK(!served.gate.finish(4));
  CHECK(!served.gate.begin(4));
  CHECK(!served.gate.begin(2));
}

void a_load_that_runs_is_waited_for_beyond_its_time_and_not_without_end() {
  Served served;
  served.gate.expect(1, 0.01);
  CHECK(served.gate.begin(1));
  CHECK_THROWS((void)served.gate.wait_part(1, 1), std::runtime_error);
  CHECK_THROWS((void)served.gate.finish(1), std::runtime_error);
  served.gate.end(1, true);
  CHECK(served.gate.finish(1));
}

void a_lost_connection_fails_what_has_not_begun_and_only_that() {
  Served served;
  served.gate.expect(1, long_s);
  CHECK(served.gate.begin(1));
  served.gate.expect(2, long_s);
  std::thread link([&served] { served.gate.set_connected(false); });
  CHECK(!served.gate.wait_part(2, 1).has_value());
  link.join();
  served.gate.end(1, true);
  CHECK(served.gate.finish(1) && !served.gate.finish(2));
  served.gate.expect(3, long_s);
  CHECK(!served.gate.finish(3));
  served.gate.set_connected(true);
  served.gate.expect(4, long_s);
  CHECK(served.gate.begin(4));
  served.gate.end(4, true);
  CHECK(served.gate.finish(4));
}

void a_load_that_will_not_come_lets_go_whoever_waits_or_will() {
  Served served;
  served.gate.expect(1, long_s);
  std::thread link([&served] { served.gate.lose(1); });
  CHECK(!served.gate.wait_part(1, 1).has_value());
  link.join();
  CHECK(!served.gate.begin(1) && !served.gate.finish(1));
  served.gate.lose(1);  // over
  served.gate.lose(2);
  served.gate.expect(2, long_s);
  CHECK(!served.gate.begin(2) && !served.gate.finish(2));
  CHECK(served.gate.begin(3));
  served.gate.lose(3);  // it has come
  served.gate.expect(3, long_s);
  served.gate.end(3, true);
  CHECK(served.gate.wait_part(3, 1).has_value() && served.gate.finish(3));
}

void only_expected_tickets_are_waited_for_and_they_grow() {
  Served served;
  CHECK_THROWS((void)served.gate.wait_part(1, 1), std::invalid_argument);
  CHECK_THROWS((void)served.gate.finish(1), std::invalid_argument);
  CHECK_THROWS(served.gate.expect(0, long_s), std::invalid_argument);
  served.gate.expect(5, 0.0);
  CHECK_THROWS(served.gate.expect(5, long_s), std::invalid_argument);
  CHECK(!served.gate.finish(5));
  CHECK_THROWS((void)served.gate.finish(5), std::invalid_argument);
}

void loads_that_nobody_waits_for_are_forgotten() {
  Served served;
  for (std::uint64_t ticket = 1; ticket <= 100; ++ticket) {
    CHECK(served.gate.begin(ticket));
    served.gate.end(ticket, true);
  }
  CHECK(!served.gate.begin(50));
  served.gate.expect(100, long_s);
  CHECK(served.gate.finish(100));
}

void what_is_expected_is_kept_however_many_others_come() {
  Served served;
  LayerGate& gate = served.gate;
  gate.expect(1, long_s);
  gate.expect(2, long_s);
  for (std::uint64_t ticket = 3; ticket <= 100; ++ticket) {
    CHECK(gate.begin(ticket));
    gate.end(ticket, true);
  }
  CHECK(gate.begin(1));  // its op is not refused
  gate.advance(1, 10, 7);
  CHECK(gate.wait_part(1, 10) == CopyMark{7});
  gate.end(1, true);
  CHECK(gate.finish(1));
  CHECK(gate.begin(2));
  gate.end(2, true);
  gate.expect(101, 0.0);
  CHECK(!gate.finish(101) && gate.finish(2));  // in any order
  CHECK(!gate.begin(2) && !gate.begin(50));
}

void a_load_that_runs_is_not_forgotten_however_many_others_come() {
  Served served;
  CHECK(served.gate.begin(1));
  for (std::uint64_t ticket = 2; ticket < 50; ++ticket) served.gate.lose(ticket);
  served.gate.advance(1, 10, 5);
  served.gate.expect(1, long_s);
  CHECK(served.gate.wait_part(1, 10) == CopyMark{5});
  served.gate.end(1, true);
  CHECK(served.gate.finish(1));
}

void a_load_that_was_forgotten_fails_at_once_when_it_is_expected() {
  Served served;
  for (std::uint64_t ticket = 2; ticket <= 100; ++ticket) {
    CHECK(served.gate.begin(ticket));
    served.gate.end(ticket, true);
  }
  for (const std::uint64_t ticket : {std::uint64_t{1}, std::uint64_t{50}}) {
    served.gate.expect(ticket, long_s);
    CHECK(!served.gate.wait_part(ticket, 1).has_value());
    CHECK(!served.gate.begin(ticket) && !served.gate.finish(ticket));
  }
  served.gate.expect(99, long_s);
  CHECK(served.gate.finish(99));
}

void only_so_many_are_expected_at_a_time() {
  constexpr std::uint64_t most = LayerGate::max_loads;
  Served served;
  for (std::uint64_t ticket = 1; ticket <= most; ++ticket) served.gate.expect(ticket, long_s);
  CHECK_THROWS(served.gate.expect(most + 1, long_s), std::invalid_argument);
  served.gate.lose(4);
  CHECK(!served.gate.finish(4));
  served.gate.expect(most + 1, long_s);
  for (std::uint64_t ticket = 1; ticket <= most + 1; ++ticket) CHECK(served.gate.begin(ticket) == (ticket != 4));
}

}  // namespace

int main() {
  a_layer_is_waited_for_until_its_bytes_are_on_their_way();
  either_side_may_come_first();
  a_load_that_fails_lets_go_at_once();
  a_load_that_does_not_begin_in_time_fails_and_never_runs();
  a_load_that_runs_is_waited_for_beyond_its_time_and_not_without_end();
  a_lost_connection_fails_what_has_not_begun_and_only_that();
  a_load_that_will_not_come_lets_go_whoever_waits_or_will();
  only_expected_tickets_are_waited_for_and_they_grow();
  loads_that_nobody_waits_for_are_forgotten();
  what_is_expected_is_kept_however_many_others_come();
  a_load_that_runs_is_not_forgotten_however_many_others_come();
  a_load_that_was_forgotten_fails_at_once_when_it_is_expected();
  only_so_many_are_expected_at_a_time();
  std::puts("test_layer_gate: ok");
  return 0;
}
