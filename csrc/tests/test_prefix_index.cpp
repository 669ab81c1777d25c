// PrefixIndex: one case per rule of its header. Random histories are in test_prefix_fuzz.cpp.
#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <utility>
#include <vector>

#include "cache/prefix_index.h"
#include "tests/check.h"

using namespace flexkv;

namespace {

using Keys = std::vector<BlockKey>;
using Slots = std::vector<SlotId>;

// A chain of `length` keys; chains of one `family` share their first `shared` keys.
Keys chain(std::uint64_t family, std::uint64_t branch, std::size_t shared, std::size_t length) {
  std::vector<std::int64_t> tokens(length);
  for (std::size_t i = 0; i < length; ++i) tokens[i] = static_cast<std::int64_t>(i < shared ? 0 : branch);
  Keys keys(length);
  CHECK(hash_token_blocks(tokens, 1, {family, 0}, keys) == length);
  return keys;
}

Slots range(SlotId begin, SlotId end) {
  Slots slots(static_cast<std::size_t>(end - begin));
  std::iota(slots.begin(), slots.end(), begin);
  return slots;
}

// Inserts as many keys from `start` on as there are slots, and makes them ready.
void put(PrefixIndex& index, const Keys& keys, std::size_t start, const Slots& slots, const EntryMeta& meta = {}) {
  const auto part = std::span(keys).first(start + slots.size());
  CHECK(index.insert(part, static_cast<std::int64_t>(start), slots, meta) == InsertStatus::inserted);
  index.mark_ready(slots);
  index.check_invariants();
}

void a_match_finds_the_longest_prefix_as_runs() {
  PrefixIndex index(100, "lru");
  const Keys keys = chain(1, 1, 0, 10);
  CHECK(index.match({}, 0).num_visible == 0);
  CHECK(index.match(keys, 0).num_visible == 0);
  put(index, keys, 0, {5, 6, 7, 20, 21, 8, 99, 98});
  const MatchResult full = index.match(std::span(keys).first(8), 0);
  CHECK(full.num_visible == 8 && full.num_ready == 8 && full.deepest_visible == 98 && full.deepest_ready == 98);
  CHECK(full.runs.size() == 5);
  CHECK(full.runs[0].start == 5 && full.runs[0].length == 3);
  CHECK(full.runs[1].start == 20 && full.runs[1].length == 2);
  CHECK(full.runs[2].start == 8 && full.runs[3].start == 99 && full.runs[4].start == 98);
  for (std::size_t length = 0; length <= 10; ++length) {
    const MatchResult part = index.match(std::span(keys).first(length), 0);
    CHECK(part.num_visible == static_cast<std::int64_t>(std::min<std::size_t>(length, 8)));
  }
  const Keys divergent = chain(1, 2, 3, 10);
  CHECK(index.match(divergent, 0).num_visible == 0);
  const Keys family = chain(2, 1, 4, 10), cousin = chain(2, 2, 4, 10);
  put(index, family, 0, range(30, 40));
  const MatchResult shared = index.match(cousin, 0);
  CHECK(shared.num_visible == 4 && shared.deepest_visible == 33 && shared.first_expired == -1);
}

void readiness_is_a_prefix_whatever_the_order_of_arrival() {
  PrefixIndex index(300, "lru");
  const Keys keys = chain(1, 1, 0, 200);
  CHECK(index.insert(keys, 0, range(3, 203), {}) == InsertStatus::inserted);
  CHECK(index.num_unready() == 200 && index.num_evictable() == 0);
  index.mark_ready(range(100, 203));
  MatchResult found = index.match(keys, 0);
  CHECK(found.num_visible == 200 && found.num_ready == 0 && found.deepest_ready == -1);
  index.mark_ready(range(3, 70));
  found = index.match(keys, 0);
  CHECK(found.num_ready == 67 && found.deepest_ready == 69);
  index.mark_ready(range(3, 100));
  CHECK(index.match(keys, 0).num_ready == 200 && index.num_unready() == 0);
  CHECK(index.num_evictable() == 1);
  index.check_invariants();
}

void a_stale_insert_conflicts_and_changes_nothing() {
  PrefixIndex index(20, "lru");
  const Keys keys = chain(1, 1, 0, 6);
  put(index, keys, 0, range(0, 4));
  CHECK(index.insert(keys, 2, range(10, 14), {}) == InsertStatus::conflict);
  CHECK(index.insert(chain(9, 1, 0, 3), 2, Slots{10}, {}) == InsertStatus::parent_gone);
  CHECK(index.insert(keys, 4, range(10, 12), {}) == InsertStatus::inserted);
  CHECK(index.insert(keys, 6, Slots{}, {}) == InsertStatus::inserted);
  CHECK(index.num_blocks() == 6 && index.num_unready() == 2);
  index.check_invariants();
}

void bad_inserts_throw_and_change_nothing() {
  PrefixIndex index(20, "lru");
  const Keys keys = chain(1, 1, 0, 6);
  put(index, keys, 0, range(0, 2));
  Keys twice = keys;
  twice[5] = twice[3];
  EntryMeta high;
  high.priority = 8;
  CHECK_THROWS(index.insert(keys, 2, range(10, 13), {}), std::invalid_argument);  // too few slots
  CHECK_THROWS(index.insert(keys, 7, Slots{}, {}), std::invalid_argument);        // start beyond the keys
  CHECK_THROWS(index.insert(keys, -1, range(10, 17), {}), std::invalid_argument);
  CHECK_THROWS(index.insert(keys, 2, Slots{10, 11, 12, 20}, {}), std::invalid_argument);  // out of range
  CHECK_THROWS(index.insert(keys, 2, Slots{10, 11, 12, -1}, {}), std::invalid_argument);
  CHECK_THROWS(index.insert(keys, 2, Slots{10, 11, 12, 1}, {}), std::invalid_argument);   // in the index
  CHECK_THROWS(index.insert(keys, 2, Slots{10, 11, 12, 11}, {}), std::invalid_argument);  // twice
  CHECK_THROWS(index.insert(twice, 2, range(10, 14), {}), std::invalid_argument);
  CHECK_THROWS(index.insert(keys, 2, range(10, 14), high), std::invalid_argument);
  CHECK(index.num_blocks() == 2 && index.num_unready() == 0 && index.num_evictable() == 1);
  index.check_invariants();
  put(index, keys, 2, range(10, 14));  // the same slots can still be used
  CHECK(index.match(keys, 0).num_ready == 6);
}

void a_later_key_that_is_present_conflicts_too() {
  PrefixIndex index(20, "lru");
  const Keys resident = chain(1, 1, 0, 3);
  put(index, resident, 0, range(0, 3));
  Keys forged = chain(2, 1, 0, 3);
  forged[2] = resident[2];
  CHECK(index.insert(forged, 0, range(10, 13), {}) == InsertStatus::conflict);
  CHECK(index.num_blocks() == 3 && index.find(forged[0]) == -1);
  CHECK(index.match(forged, 0).num_visible == 3);  // not a chain: only the deepest key says what it stands for
  const Keys shifted = {resident[1], resident[2]};
  CHECK(index.match(shifted, 0).num_visible == 0);  // right keys at the wrong depth
  index.check_invariants();
}

void a_full_index_takes_no_more() {
  PrefixIndex index(4, "lru");
  const Keys keys = chain(1, 1, 0, 5);
  put(index, keys, 0, {2, 0, 3, 1});
  CHECK_THROWS(index.insert(keys, 4, Slots{4}, {}), std::invalid_argument);
  CHECK(index.evict(1) == Slots{1});
  CHECK(index.match(keys, 0).num_visible == 3);
  put(index, keys, 3, {1});
}

void eviction_goes_leaf_first_in_the_stated_order() {
  PrefixIndex index(40, "lru");
  const Keys a = chain(1, 1, 0, 3), b = chain(2, 1, 0, 2), c = chain(3, 1, 0, 2);
  put(index, a, 0, {0, 1, 2});
  put(index, b, 0, {10, 11});
  put(index, c, 0, {20, 21});
  index.pin(2);
  CHECK(index.unpin(2).empty());  // a is now the newest
  index.pin(20);
  CHECK(index.unpin(20).empty());  // c's first block: used after its child
  CHECK((index.evict(3) == Slots{11, 10, 21}));
  CHECK((index.evict(10) == Slots{2, 1, 0, 20}));
  CHECK(index.num_blocks() == 0);
  index.check_invariants();
}

void priority_protects_a_chain_and_its_ancestors() {
  PrefixIndex index(40, "lru");
  EntryMeta high;
  high.priority = 5;
  put(index, chain(1, 1, 2, 4), 0, range(0, 4));
  put(index, chain(1, 2, 2, 4), 2, {10, 11}, high);  // raises blocks 0 and 1 too
  put(index, chain(2, 1, 0, 2), 0, {20, 21});
  CHECK((index.evict(4) == Slots{3, 2, 21, 20}));
  CHECK((index.evict(9) == Slots{11, 10, 1, 0}));
}

void pinned_and_unready_blocks_are_never_evicted() {
  PrefixIndex index(40, "lru");
  const Keys a = chain(1, 1, 0, 3), b = chain(2, 1, 0, 2);
  put(index, a, 0, {0, 1, 2});
  CHECK(index.insert(b, 0, Slots{10, 11}, {}) == InsertStatus::inserted);
  index.pin(1);
  index.pin(1);
  CHECK(index.pins_of(1) == 2 && index.num_pinned() == 1);
  CHECK((index.evict(10) == Slots{2}));
  CHECK(index.unpin(1).empty());
  CHECK(index.evict(10).empty());
  CHECK(index.unpin(1).empty());
  CHECK((index.evict(10) == Slots{1, 0}));
  CHECK_THROWS(index.unpin(10), std::invalid_argument);
  CHECK_THROWS(index.pin(0), std::invalid_argument);
  CHECK_THROWS(index.pin(40), std::invalid_argument);
  CHECK_THROWS(index.evict(-1), std::invalid_argument);
  CHECK_THROWS(index.mark_ready(Slots{10, 0}), std::invalid_argument);
  CHECK(!index.is_ready(10));
  index.check_invariants();
}

void a_dropped_block_keeps_its_slots_until_the_last_pin_and_child_are_gone() {
  PrefixIndex index(40, "lru");
  const Keys a = chain(1, 1, 2, 5), b = chain(1, 2, 2, 4);
  put(index, a, 0, range(0, 5));
  put(index, b, 2, {10, 11});
  index.pin(4);
  index.pin(3);
  CHECK((index.drop(1) == Slots{11, 10}));  // 4 is pinned and keeps 3, 2 and 1
  CHECK(index.num_blocks() == 1 && index.num_doomed() == 4 && index.num_evictable() == 0);
  CHECK(index.match(a, 0).num_visible == 1);
  CHECK(index.drop(2).empty());  // doomed already
  CHECK_THROWS(index.pin(4), std::invalid_argument);
  index.mark_ready(Slots{4});  // passed over
  CHECK(!index.is_ready(4));
  CHECK((index.keys_of(Slots{4, 0}) == Keys{a[4], a[0]}));
  CHECK(index.evict(5).empty());       // block 0 is visible, but a doomed child is left
  put(index, a, 1, {20, 21, 22, 23});  // the same keys again, beside the doomed ones
  index.check_invariants();
  CHECK((index.unpin(4) == Slots{4}));
  CHECK((index.unpin(3) == Slots{3, 2, 1}));
  CHECK(index.num_doomed() == 0 && index.num_pinned() == 0);
  CHECK(index.match(a, 0).num_ready == 5);
  CHECK_THROWS(index.keys_of(Slots{4}), std::invalid_argument);
  index.check_invariants();
}

void a_drop_passes_over_what_is_doomed_already() {
  PrefixIndex index(40, "lru");
  const Keys keys = chain(1, 1, 0, 3);
  put(index, keys, 0, {0, 1, 2});
  index.pin(2);
  CHECK(index.drop(1).empty());
  put(index, keys, 1, {11, 12});
  CHECK((index.drop(0) == Slots{12, 11}));
  CHECK(index.num_blocks() == 0 && index.num_doomed() == 3);
  index.check_invariants();
  CHECK((index.unpin(2) == Slots{2, 1, 0}));
  index.check_invariants();
}

void the_last_doomed_child_uncovers_its_parent() {
  PrefixIndex index(10, "lru");
  const Keys keys = chain(1, 1, 0, 2);
  put(index, keys, 0, {0, 1});
  index.pin(1);
  CHECK(index.drop(1).empty());
  CHECK(index.num_evictable() == 0);
  CHECK((index.unpin(1) == Slots{1}));
  CHECK(index.num_evictable() == 1);
  index.check_invariants();
}

void reset_dooms_what_is_pinned() {
  PrefixIndex index(40, "lru");
  const Keys a = chain(1, 1, 0, 4), b = chain(2, 1, 0, 2);
  put(index, a, 0, {3, 2, 1, 0});
  CHECK(index.insert(b, 0, Slots{10, 11}, {}) == InsertStatus::inserted);
  index.pin(2);
  Slots gone = index.reset();
  std::ranges::sort(gone);
  CHECK((gone == Slots{0, 1, 10, 11}));
  CHECK(index.num_blocks() == 0 && index.num_doomed() == 2 && index.num_unready() == 0);
  CHECK(index.reset().empty());
  index.check_invariants();
  put(index, a, 0, {20, 21, 22, 23});
  CHECK((index.unpin(2) == Slots{2, 3}));
  CHECK(index.num_blocks() == 4 && index.num_doomed() == 0);
  index.check_invariants();
}

void an_expired_block_does_not_match_and_is_named() {
  PrefixIndex index(40, "lru");
  const Keys keys = chain(1, 1, 0, 4);
  EntryMeta late, soon;
  late.expiry_s = 100;
  soon.expiry_s = 50;
  put(index, keys, 0, {0, 1, 2, 3}, soon);
  const Keys longer = chain(1, 1, 0, 6);
  CHECK(index.match(longer, 49).num_visible == 4 && index.match(longer, 49).first_expired == -1);
  CHECK(index.match(longer, 50).num_visible == 0 && index.match(longer, 50).first_expired == 0);
  put(index, longer, 4, {4, 5}, late);  // below an expired parent: its ancestors live as long as it does
  CHECK(index.match(longer, 99).num_visible == 6);
  const Keys branch = chain(1, 1, 0, 4);
  CHECK(index.match(branch, 99).num_visible == 4);
  CHECK(index.insert(keys, 0, range(10, 14), {}) == InsertStatus::conflict);  // expired, but in the way
  const MatchResult found = index.match(keys, 100);
  CHECK(found.num_visible == 0 && found.first_expired == 0);
  CHECK(index.drop(found.first_expired).size() == 6);
  put(index, keys, 0, range(10, 14));
  CHECK(index.match(keys, 0xfffffffe).num_visible == 4);
}

void a_parent_outlives_its_expired_child() {
  PrefixIndex index(10, "lru");
  EntryMeta soon;
  soon.expiry_s = 10;
  const Keys keys = chain(1, 1, 0, 4);
  put(index, keys, 0, {0, 1});
  put(index, keys, 2, {2, 3}, soon);
  const MatchResult found = index.match(keys, 10);
  CHECK(found.num_visible == 2 && found.deepest_visible == 1 && found.first_expired == 2);
}

void chains_of_a_million_blocks_need_no_recursion() {
  constexpr std::size_t length = 1'000'000;
  PrefixIndex index(length, "lru");
  const Keys keys = chain(1, 1, 0, length);
  Slots slots = range(0, length);
  std::ranges::reverse(slots);  // runs of one: the longest walk
  CHECK(index.insert(keys, 0, slots, {}) == InsertStatus::inserted);
  index.mark_ready(slots);
  index.pin(slots.back());
  CHECK(index.match(keys, 0).runs.size() == length);
  CHECK(index.drop(slots.front()).empty());
  CHECK(index.unpin(slots.back()).size() == length);
  CHECK(index.insert(keys, 0, slots, {}) == InsertStatus::inserted);
  index.mark_ready(slots);
  index.check_invariants();
  CHECK(index.drop(slots.front()).size() == length);
  CHECK(index.insert(keys, 0, slots, {}) == InsertStatus::inserted);
  CHECK(index.reset().size() == length);
  CHECK(index.num_blocks() == 0);
  CHECK(index.memory_bytes() <= static_cast<std::int64_t>(81 * length));
}

void bad_sizes_and_policies_are_refused() {
  CHECK_THROWS(PrefixIndex(0, "lru"), std::invalid_argument);
  CHECK_THROWS(PrefixIndex(-1, "lru"), std::invalid_argument);
  CHECK_THROWS(PrefixIndex((std::int64_t{1} << 31) + 1, "lru"), std::invalid_argument);
  CHECK_THROWS(PrefixIndex(1, "fifo"), std::invalid_argument);
  PrefixIndex index(1, "lru");
  PrefixIndex moved = std::move(index);
  put(moved, chain(1, 1, 0, 1), 0, {0});
}

}  // namespace

int main() {
  a_match_finds_the_longest_prefix_as_runs();
  readiness_is_a_prefix_whatever_the_order_of_arrival();
  a_stale_insert_conflicts_and_changes_nothing();
  bad_inserts_throw_and_change_nothing();
  a_later_key_that_is_present_conflicts_too();
  a_full_index_takes_no_more();
  eviction_goes_leaf_first_in_the_stated_order();
  priority_protects_a_chain_and_its_ancestors();
  pinned_and_unready_blocks_are_never_evicted();
  a_dropped_block_keeps_its_slots_until_the_last_pin_and_child_are_gone();
  a_drop_passes_over_what_is_doomed_already();
  the_last_doomed_child_uncovers_its_parent();
  reset_dooms_what_is_pinned();
  an_expired_block_does_not_match_and_is_named();
  a_parent_outlives_its_expired_child();
  chains_of_a_million_blocks_need_no_recursion();
  bad_sizes_and_policies_are_refused();
}
