// PrefixIndex::restore: one case per rule, and random forests beside an index that was built block by block.
#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <stdexcept>
#include <vector>

#include "cache/prefix_index.h"
#include "cache/slot_pool.h"
#include "tests/check.h"
#include "tests/choices.h"
#include "tests/found_columns.h"
#include "tests/index_model.h"

using namespace flexkv;

namespace {

using Rows = std::vector<std::int64_t>;
using Found = std::vector<FoundBlock>;

BlockKey key(std::uint64_t name) { return {name, ~name}; }

// Chain of the named blocks below `parent` (0: none), in the slots named like them.
Found chain(std::uint64_t parent, const std::vector<std::uint64_t>& names, const EntryMeta& meta = {}) {
  Found found;
  BlockKey above = parent == 0 ? BlockKey{} : key(parent);
  for (const std::uint64_t name : names) {
    found.push_back({static_cast<SlotId>(name), key(name), above, meta});
    above = key(name);
  }
  return found;
}

Found joined(std::initializer_list<Found> parts) {
  Found all;
  for (const Found& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

Rows restore(PrefixIndex& index, const Found& found, std::uint32_t now_s = 0) {
  const FoundColumns columns(found);
  Rows rows = index.restore(columns.view(), now_s);
  index.check_invariants();
  CHECK(index.num_blocks() == static_cast<std::int64_t>(rows.size()) && index.num_unready() == 0);
  return rows;
}

std::set<SlotId> slots_of(const Found& found, const Rows& rows) {
  std::set<SlotId> slots;
  for (const std::int64_t row : rows) slots.insert(found[static_cast<std::size_t>(row)].slot);
  CHECK(slots.size() == rows.size());
  return slots;
}

std::set<SlotId> restored_slots(const Found& found, std::uint32_t now_s = 0) {
  PrefixIndex index(100, "lru");
  return slots_of(found, restore(index, found, now_s));
}

void chains_come_back_as_runs_whatever_the_order_of_rows() {
  Found found = chain(0, {5, 6, 7, 20, 21, 8});
  for (int order = 0; order < 3; ++order) {
    PrefixIndex index(100, "lru");
    CHECK(restore(index, found).size() == 6);
    Keys keys;
    for (const std::uint64_t name : {5, 6, 7, 20, 21, 8}) keys.push_back(key(name));
    const MatchResult match = index.match(keys, 0);
    CHECK(match.num_visible == 6 && match.num_ready == 6 && match.deepest_ready == 8 && index.num_evictable() == 1);
    CHECK(match.runs.size() == 3 && match.runs[0].length == 3 && match.runs[1].length == 2);
    order == 0 ? std::ranges::reverse(found) : std::ranges::rotate(found, found.begin() + 2).begin();
  }
}

void rows_come_parents_first_in_one_stretch_for_each_leaf() {
  const Found found = joined({chain(0, {1, 2, 3, 4}), chain(2, {5, 6}), chain(0, {9}), chain(6, {7})});
  PrefixIndex index(100, "lru");
  const Rows rows = restore(index, found);
  std::set<BlockKey, bool (*)(const BlockKey&, const BlockKey&)> seen(
      [](const BlockKey& a, const BlockKey& b) { return a.lo < b.lo; });
  std::int64_t stretches = 0;
  BlockKey last;
  for (const std::int64_t row : rows) {
    const FoundBlock& block = found[static_cast<std::size_t>(row)];
    CHECK(block.parent == BlockKey{} || seen.contains(block.parent));
    stretches += seen.empty() || block.parent != last ? 1 : 0;
    last = block.key;
    seen.insert(last);
  }
  CHECK(rows.size() == 8 && stretches == 3 && index.num_evictable() == 3);
}

void a_chain_without_its_first_block_is_left_out_as_far_as_it_reaches() {
  CHECK(restored_slots(joined({chain(77, {1, 2}), chain(0, {3, 4}), chain(2, {5})})) == std::set<SlotId>({3, 4}));
  CHECK(restored_slots(chain(77, {1})).empty());
  CHECK(restored_slots({}).empty());
}

void circles_and_what_hangs_on_them_are_left_out() {
  Found circle = chain(3, {1, 2, 3});
  CHECK(restored_slots(circle).empty());
  CHECK(restored_slots(chain(1, {1})).empty());
  CHECK(restored_slots(joined({circle, chain(2, {4, 5}), chain(5, {6}), chain(0, {7, 8})})) ==
        std::set<SlotId>({7, 8}));
}

void expired_blocks_are_left_out_with_all_below() {
  const Found found = joined({chain(0, {1, 2}), chain(2, {3, 4}, {.expiry_s = 50}), chain(3, {5}, {.expiry_s = 40}),
                              chain(0, {6}, {.expiry_s = 50})});
  CHECK(restored_slots(found, 39) == std::set<SlotId>({1, 2, 3, 4, 5, 6}));
  CHECK(restored_slots(found, 40) == std::set<SlotId>({1, 2, 3, 4, 6}));
  CHECK(restored_slots(found, 50) == std::set<SlotId>({1, 2}));
}

void a_block_whose_row_is_expired_lives_as_long_as_what_hangs_on_it() {
  const Found found = joined({chain(0, {1, 2}, {.expiry_s = 10}), chain(2, {3}, {.expiry_s = 60}),
                              chain(2, {4}, {.expiry_s = 10}), chain(4, {5}, {.expiry_s = 30})});
  PrefixIndex index(100, "lru");
  CHECK(slots_of(found, restore(index, found, 30)) == std::set<SlotId>({1, 2, 3}));
  CHECK(index.match(Keys{key(1), key(2), key(3)}, 59).num_visible == 3 && index.match(Keys{key(1)}, 60).runs.empty());
  CHECK(index.num_evictable() == 1 && index.evict(4) == Slots({3, 2, 1}));
  CHECK(restored_slots(found, 29) == std::set<SlotId>({1, 2, 3, 4, 5}));
  CHECK(restored_slots(found, 60).empty());
}

void what_hangs_on_nothing_keeps_nothing_alive() {
  const Found found = joined({chain(0, {1, 2}, {.expiry_s = 10}), chain(77, {3}), chain(0, {4})});
  CHECK(restored_slots(found, 10) == std::set<SlotId>({4}));
}

void of_copies_the_newest_stays_and_children_hang_on_it() {
  Found found = joined({chain(0, {1, 2, 3}), chain(2, {4})});
  found.push_back({40, key(2), key(1), {}});
  found.insert(found.begin(), {50, key(3), key(2), {}});
  PrefixIndex index(100, "lru");
  CHECK(slots_of(found, restore(index, found)) == std::set<SlotId>({1, 40, 3, 4}));
  const MatchResult match = index.match(Keys{key(1), key(2), key(3)}, 0);
  CHECK(match.num_ready == 3 && match.runs.size() == 3 && match.runs[1].start == 40);
  CHECK(index.find(key(2)) == 40 && index.find(key(3)) == 3);
}

void of_copies_the_newest_lives_as_long_as_any_of_them() {
  Found found = chain(0, {1}, {.expiry_s = 20});
  found.push_back({40, key(1), {}, {.expiry_s = 10}});
  PrefixIndex index(100, "lru");
  CHECK(slots_of(found, restore(index, found, 10)) == std::set<SlotId>({40}));
  CHECK(index.match(Keys{key(1)}, 19).num_visible == 1 && index.match(Keys{key(1)}, 20).first_expired == 40);
  CHECK(restored_slots(found, 20).empty());
  found.push_back({2, key(2), key(1), {.expiry_s = 25}});
  CHECK(restored_slots(found, 20) == std::set<SlotId>({40, 2}));
}

void parents_are_raised_to_their_children() {
  const Found found = joined({chain(0, {1}, {.expiry_s = 20}), chain(1, {2}, {.priority = 3, .expiry_s = 60}),
                              chain(2, {3}, {.expiry_s = 90}), chain(0, {4})});
  PrefixIndex index(100, "lru");
  CHECK(restore(index, found).size() == 4);
  CHECK(index.match(Keys{key(1), key(2), key(3)}, 89).num_visible == 3);
  CHECK(index.evict(4) == Slots({3, 4, 2, 1}));  // 2 has priority 3, and so has 1 above it
}

void bad_columns_throw_and_change_nothing() {
  const Found good = chain(0, {1, 2, 3});
  PrefixIndex index(4, "lru");
  const auto refused = [&](const Found& found) {
    const FoundColumns columns(found);
    CHECK_THROWS(index.restore(columns.view(), 0), std::invalid_argument);
  };
  refused(joined({good, chain(0, {4})}));  // out of range
  refused(joined({good, {{-1, key(9), {}, {}}}}));
  refused(joined({good, {{2, key(9), {}, {}}}}));               // named twice
  refused(joined({good, {{0, key(9), {}, {.priority = 8}}}}));  // no such priority
  refused(joined({good, {{2, key(9), {}, {.expiry_s = 1}}}}));  // named twice, though one would be left out
  FoundColumns uneven(good);
  uneven.groups.pop_back();
  CHECK_THROWS(index.restore(uneven.view(), 0), std::invalid_argument);
  index.check_invariants();
  CHECK(index.num_blocks() == 0 && index.num_evictable() == 0);
  CHECK(restore(index, good).size() == 3);
  refused(good);  // not empty
  CHECK(index.num_blocks() == 3);
  index.pin(3);
  CHECK(index.reset().empty());
  refused(good);  // doomed entries
  CHECK(index.unpin(3).size() == 3);
  CHECK(restore(index, good).size() == 3);
}

void the_index_works_on_after_a_restore() {
  PrefixIndex index(100, "lru");
  SlotPool pool(100, 100);
  const Found found = joined({chain(0, {1, 2, 3}), chain(2, {10, 11})});
  const std::set<SlotId> restored = slots_of(found, restore(index, found));
  pool.adopt(std::vector<SlotId>(restored.begin(), restored.end()));
  CHECK_THROWS(pool.adopt(Slots{0, 2}), std::invalid_argument);
  CHECK(pool.num_used() == 5);
  const Slots added = pool.allocate(2);
  CHECK(std::ranges::none_of(added, [&](SlotId slot) { return restored.contains(slot); }));
  const Keys longer = {key(1), key(2), key(3), key(50), key(51)};
  CHECK(index.insert(longer, 3, added, {}) == InsertStatus::inserted);
  index.mark_ready(added);
  CHECK(index.match(longer, 0).num_ready == 5);
  index.pin(11);
  index.check_invariants();
  pool.free(index.evict(100));
  CHECK(index.num_blocks() == 4);  // 1, 2, 10 and 11
  CHECK(index.unpin(11).empty());
  const Slots dropped = index.drop(1);
  pool.free(dropped);
  CHECK(dropped.size() == 4 && index.num_blocks() == 0 && pool.num_used() == 0);
  index.check_invariants();
  pool.check_invariants();
}

// A forest, parents before children; slots at random or adjacent, metadata that may grow with depth.
Found random_forest(Choices& choices, std::size_t size, std::size_t capacity) {
  Slots slots(capacity);
  std::iota(slots.begin(), slots.end(), 0);
  if (!choices.one_in(3)) choices.shuffle(slots);
  Found found;
  for (std::size_t i = 0; i < size; ++i) {
    BlockKey parent;
    if (i > 0 && !choices.one_in(12)) parent = found[choices.one_in(4) ? choices.below(i) : i - 1].key;
    EntryMeta meta;
    if (choices.one_in(4)) meta.priority = static_cast<std::uint8_t>(choices.below(8));
    if (choices.one_in(3)) meta.expiry_s = static_cast<std::uint32_t>(100 + choices.below(100));
    found.push_back({slots[i], key(i + 1), parent, meta});
  }
  return found;
}

// Inserted block by block, parents first; then each is used, in the order of `found`.
void build(PrefixIndex& index, const Found& parents_first, const Found& found) {
  std::map<std::uint64_t, Keys> chains;
  for (const FoundBlock& block : parents_first) {
    Keys keys = block.parent == BlockKey{} ? Keys{} : chains.at(block.parent.lo);
    keys.push_back(block.key);
    CHECK(index.insert(keys, static_cast<std::int64_t>(keys.size()) - 1, Slots{block.slot}, block.meta) ==
          InsertStatus::inserted);
    index.mark_ready(Slots{block.slot});
    chains[block.key.lo] = keys;
  }
  for (const FoundBlock& block : found) {
    index.pin(block.slot);
    CHECK(index.unpin(block.slot).empty());
  }
}

void compare_matches(const PrefixIndex& index, const PrefixIndex& expected, const Found& found) {
  for (const FoundBlock& leaf : found) {
    Keys keys;
    for (BlockKey at = leaf.key; at != BlockKey{}; at = found[at.lo - 1].parent) keys.push_back(at);
    std::ranges::reverse(keys);
    for (const std::uint32_t now_s : {0U, 120U, 150U, 180U}) {
      const MatchResult a = index.match(keys, now_s), b = expected.match(keys, now_s);
      CHECK(a.num_visible == b.num_visible && a.num_ready == b.num_ready && a.first_expired == b.first_expired);
      CHECK(a.deepest_ready == b.deepest_ready && a.runs.size() == b.runs.size());
      for (std::size_t i = 0; i < a.runs.size(); ++i) {
        CHECK(a.runs[i].start == b.runs[i].start && a.runs[i].length == b.runs[i].length);
      }
    }
  }
}

// Without what has expired once all is there.
Found living(const Found& found, const PrefixIndex& index, std::uint32_t now_s) {
  Found rest = found;
  std::erase_if(rest, [&](const FoundBlock& block) {
    const std::uint32_t expiry_s = index.meta_of(block.slot).expiry_s;
    return expiry_s != never_expires && expiry_s <= now_s;
  });
  return rest;
}

void it_equals_an_index_built_block_by_block(std::uint64_t seed) {
  Choices choices(seed);
  const std::size_t capacity = 40 + choices.below(200);
  const Found forest = random_forest(choices, choices.below(capacity) + 1, capacity);
  Found found = forest;
  if (!choices.one_in(3)) choices.shuffle(found);
  const auto size = static_cast<std::int64_t>(capacity);
  PrefixIndex restored(size, "lru"), full(size, "lru"), built(size, "lru");
  const std::uint32_t now_s = choices.one_in(2) ? 0 : static_cast<std::uint32_t>(90 + choices.below(120));
  const Rows rows = restore(restored, found, now_s);
  CHECK(now_s > 0 || rows.size() == found.size());
  build(full, forest, found);
  build(built, living(forest, full, now_s), living(found, full, now_s));
  CHECK(restored.num_blocks() == built.num_blocks() && restored.num_evictable() == built.num_evictable());
  compare_matches(restored, built, forest);
  while (built.num_blocks() > 0) {
    CHECK(restored.evict(3) == built.evict(3));
    restored.check_invariants();
  }
  CHECK(restored.num_blocks() == 0);
}

void a_deep_chain_whose_expiry_grows_is_raised_in_one_pass() {
  constexpr std::size_t depth = 200000;  // raised block by block, these would be 2 * 10^10 steps
  Found found;
  for (std::size_t i = 0; i < depth; ++i) {
    const EntryMeta meta{.expiry_s = static_cast<std::uint32_t>(i + 1)};
    found.push_back({static_cast<SlotId>(i), key(i + 1), i == 0 ? BlockKey{} : key(i), meta});
  }
  std::ranges::reverse(found);
  PrefixIndex index(depth, "lru");
  CHECK(restore(index, found).size() == depth);
  CHECK(index.match(Keys{key(1)}, depth - 1).num_visible == 1);
}

}  // namespace

int main() {
  chains_come_back_as_runs_whatever_the_order_of_rows();
  rows_come_parents_first_in_one_stretch_for_each_leaf();
  a_chain_without_its_first_block_is_left_out_as_far_as_it_reaches();
  circles_and_what_hangs_on_them_are_left_out();
  expired_blocks_are_left_out_with_all_below();
  a_block_whose_row_is_expired_lives_as_long_as_what_hangs_on_it();
  what_hangs_on_nothing_keeps_nothing_alive();
  of_copies_the_newest_stays_and_children_hang_on_it();
  of_copies_the_newest_lives_as_long_as_any_of_them();
  parents_are_raised_to_their_children();
  bad_columns_throw_and_change_nothing();
  the_index_works_on_after_a_restore();
  a_deep_chain_whose_expiry_grows_is_raised_in_one_pass();
  for (std::uint64_t seed = 1; seed <= 300; ++seed) it_equals_an_index_built_block_by_block(seed);
}
