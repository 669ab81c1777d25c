// SlotPool: exact counts, all-or-nothing errors, runs, and random histories (slot_pool_history.h).
#include <algorithm>
#include <stdexcept>
#include <vector>

#include "cache/slot_pool.h"
#include "tests/check.h"
#include "tests/slot_pool_history.h"

using namespace flexkv;

namespace {

using Slots = std::vector<SlotId>;

std::size_t count_runs(const Slots& slots) {
  std::size_t runs = 0;
  for (std::size_t i = 0; i < slots.size(); ++i) runs += i == 0 || slots[i] != slots[i - 1] + 1 ? 1 : 0;
  return runs;
}

void bad_sizes_are_refused() {
  CHECK_THROWS(SlotPool(0, 0), std::invalid_argument);
  CHECK_THROWS(SlotPool(-1, 0), std::invalid_argument);
  CHECK_THROWS(SlotPool((std::int64_t{1} << 32) - 1, 0), std::invalid_argument);
  CHECK_THROWS(SlotPool(10, 11), std::invalid_argument);
  CHECK_THROWS(SlotPool(10, -1), std::invalid_argument);
}

void counts_are_exact_through_a_slots_life() {
  SlotPool pool(100, 100);
  const Slots slots = pool.allocate(10);
  CHECK(pool.num_free() == 90 && pool.num_used() == 10 && pool.is_used(slots[3]));
  pool.quarantine(std::span(slots).first(4));
  CHECK(pool.num_used() == 6 && pool.num_quarantined() == 4 && !pool.is_used(slots[0]));
  pool.free(std::span(slots).subspan(4));
  CHECK(pool.num_free() == 96);
  pool.release(std::span(slots).first(4));
  CHECK(pool.num_free() == 100 && pool.num_used() == 0 && pool.num_quarantined() == 0);
  pool.check_invariants();
}

void too_large_a_request_changes_nothing() {
  SlotPool pool(100, 70);
  (void)pool.allocate(60);
  CHECK_THROWS(pool.allocate(11), std::runtime_error);
  CHECK_THROWS(pool.allocate(-1), std::invalid_argument);
  CHECK(pool.num_free() == 10 && pool.num_used() == 60);
  CHECK(pool.allocate(0).empty());
  CHECK(pool.allocate(10).size() == 10);
  CHECK(pool.num_free() == 0);
  pool.check_invariants();
}

void a_bad_slot_leaves_all_slots_of_the_call_alone() {
  SlotPool pool(200, 200);
  const Slots slots = pool.allocate(5);
  const std::vector<Slots> bad_calls = {
      {slots[0], slots[1], slots[0]}, {slots[0], 150}, {slots[0], -1}, {slots[0], 200},
      {slots[0], INT64_MAX},          {INT64_MIN}};
  for (const Slots& bad : bad_calls) {
    CHECK_THROWS(pool.free(bad), std::invalid_argument);
    CHECK_THROWS(pool.quarantine(bad), std::invalid_argument);
    CHECK_THROWS(pool.release(bad), std::invalid_argument);
    CHECK(pool.num_used() == 5 && pool.num_free() == 195 && pool.num_quarantined() == 0);
    pool.check_invariants();
  }
  pool.free(slots);
  CHECK_THROWS(pool.free(slots), std::invalid_argument);  // double free
  CHECK_THROWS(pool.is_used(200), std::invalid_argument);
  pool.check_invariants();
}

void available_only_grows() {
  SlotPool pool(1000, 0);
  CHECK_THROWS(pool.allocate(1), std::runtime_error);
  pool.set_available(130);
  CHECK(pool.num_free() == 130);
  const Slots slots = pool.allocate(130);
  CHECK(*std::ranges::max_element(slots) == 129);
  CHECK_THROWS(pool.set_available(129), std::invalid_argument);
  CHECK_THROWS(pool.set_available(1001), std::invalid_argument);
  pool.set_available(1000);
  CHECK(pool.num_free() == 870);
  pool.reset();
  CHECK(pool.num_free() == 1000 && pool.available() == 1000);
  pool.check_invariants();
}

void long_requests_come_as_one_run_and_short_ones_fill_the_gaps() {
  SlotPool pool(64 * 100, 64 * 100);
  CHECK(count_runs(pool.allocate(1000)) == 1);
  const Slots small = pool.allocate(5);  // from the word that the long one broke
  CHECK(small.front() == 1000 && count_runs(small) == 1);
  Slots all = pool.allocate(pool.num_free());
  Slots gaps;
  for (SlotId slot = 2048; slot < 4096; slot += 2) gaps.push_back(slot);
  pool.free(gaps);
  Slots stretch;
  for (SlotId slot = 4096; slot < 4096 + 640; ++slot) stretch.push_back(slot);
  pool.free(stretch);
  CHECK(pool.mean_free_run() > 1.0 && pool.mean_free_run() < 2.0);
  const Slots kept_whole = pool.allocate(300);
  CHECK(count_runs(kept_whole) == 1 && kept_whole.front() == 4096);
  CHECK(pool.allocate(1).front() == 2048);  // a gap, though the stretch still has whole words
  pool.check_invariants();
}

void a_full_pool_of_gaps_is_handed_out_to_the_last_slot() {
  SlotPool pool(1000, 1000);
  const Slots all = pool.allocate(1000);
  Slots odd;
  for (SlotId slot = 1; slot < 1000; slot += 2) odd.push_back(slot);
  pool.free(odd);
  CHECK(pool.mean_free_run() == 1.0);
  Slots again = pool.allocate(500);
  std::ranges::sort(again);
  CHECK(again == odd);
  pool.check_invariants();
}

}  // namespace

int main() {
  bad_sizes_are_refused();
  counts_are_exact_through_a_slots_life();
  too_large_a_request_changes_nothing();
  a_bad_slot_leaves_all_slots_of_the_call_alone();
  available_only_grows();
  long_requests_come_as_one_run_and_short_ones_fill_the_gaps();
  a_full_pool_of_gaps_is_handed_out_to_the_last_slot();
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Choices choices(seed);
    SlotPoolHistory history(choices, static_cast<std::int64_t>(1 + choices.below(5000)));
    for (int step = 0; step < 300; ++step) history.step();
  }
}
