// The LRU policy alone: its victim order, exactly.
#include <stdexcept>
#include <vector>

#include "cache/eviction.h"
#include "tests/check.h"

using namespace flexkv;

namespace {

std::vector<SlotId> drain(EvictionPolicy& policy) {
  std::vector<SlotId> order;
  while (policy.size() > 0) {
    policy.check_invariants();
    order.push_back(policy.victim());
    policy.remove(order.back());
  }
  CHECK(policy.victim() == -1);
  return order;
}

void unknown_policies_are_refused_with_the_known_names() {
  std::vector<IndexEntry> entries(1);
  CHECK(eviction_policy_names() == std::vector<std::string>{"lru"});
  try {
    (void)make_eviction_policy("fifo", entries);
    CHECK(false);
  } catch (const std::invalid_argument& error) {
    CHECK(std::string(error.what()).find("lru") != std::string::npos);
  }
}

void the_least_recently_used_goes_first() {
  std::vector<IndexEntry> entries(10);
  const auto policy = make_eviction_policy("lru", entries);
  for (const SlotId slot : {3, 1, 4, 5, 9}) policy->add(slot, LeafCause::used);
  policy->remove(1);
  policy->add(1, LeafCause::used);
  CHECK(policy->holds(4) && !policy->holds(2) && policy->size() == 5);
  CHECK((drain(*policy) == std::vector<SlotId>{3, 4, 5, 9, 1}));
}

void a_lower_priority_goes_before_any_higher_one() {
  std::vector<IndexEntry> entries(8);
  for (std::size_t slot = 0; slot < 8; ++slot) entries[slot].priority = (7 - slot) & 7;
  const auto policy = make_eviction_policy("lru", entries);
  for (SlotId slot = 0; slot < 8; ++slot) policy->add(slot, LeafCause::used);
  CHECK((drain(*policy) == std::vector<SlotId>{7, 6, 5, 4, 3, 2, 1, 0}));
}

void an_uncovered_parent_goes_next_within_its_priority() {
  std::vector<IndexEntry> entries(6);
  entries[5].priority = 1;
  const auto policy = make_eviction_policy("lru", entries);
  for (const SlotId slot : {0, 1, 2}) policy->add(slot, LeafCause::used);
  policy->add(3, LeafCause::uncovered);
  policy->add(4, LeafCause::used);
  policy->add(5, LeafCause::uncovered);
  CHECK((drain(*policy) == std::vector<SlotId>{3, 0, 1, 2, 4, 5}));
}

void clear_lets_go_of_everything() {
  std::vector<IndexEntry> entries(4);
  entries[2].priority = 7;
  const auto policy = make_eviction_policy("lru", entries);
  for (SlotId slot = 0; slot < 4; ++slot) policy->add(slot, LeafCause::used);
  policy->clear();
  CHECK(policy->size() == 0 && policy->victim() == -1 && !policy->holds(2));
  policy->check_invariants();
  policy->add(2, LeafCause::used);
  CHECK((drain(*policy) == std::vector<SlotId>{2}));
}

}  // namespace

int main() {
  unknown_policies_are_refused_with_the_known_names();
  the_least_recently_used_goes_first();
  a_lower_priority_goes_before_any_higher_one();
  an_uncovered_parent_goes_next_within_its_priority();
  clear_lets_go_of_everything();
}
