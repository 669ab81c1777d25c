#include "tests/index_history.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

#include "cache/prefix_index.h"
#include "tests/check.h"
#include "tests/found_columns.h"
#include "tests/index_model.h"

namespace flexkv {

void IndexHistory::step() {
  now_s_ += below(3) == 0 ? 1 : 0;
  const std::uint64_t verb = below(60);
  if (verb < 20) {
    insert();
  } else if (verb < 30) {
    mark_ready();
  } else if (verb < 39) {
    pin();
  } else if (verb < 49) {
    unpin();
  } else if (verb < 54) {
    evict();
  } else if (verb < 59) {
    drop();
  } else if (const std::uint64_t rare = below(5); rare == 0) {
    reset();
  } else if (rare == 1) {
    restart();
  }
  compare();
}

Keys IndexHistory::random_chain() {
  std::vector<std::int64_t> tokens(below(11));
  for (auto& token : tokens) token = below(4) == 0 ? 1 : 0;
  Keys keys(tokens.size());
  CHECK(hash_token_blocks(tokens, 1, {below(3), 0}, keys) == tokens.size());
  return keys;
}

SlotId IndexHistory::random_slot() {
  if (model_.nodes.empty()) return -1;
  return std::next(model_.nodes.begin(), static_cast<std::ptrdiff_t>(below(model_.nodes.size())))->first;
}

void IndexHistory::take_back(Slots got, Slots expected) {
  pool_.free(got);
  std::ranges::sort(got);
  std::ranges::sort(expected);
  CHECK(got == expected);
}

void IndexHistory::insert() {
  const Keys keys = random_chain();
  const MatchResult found = index_.match(keys, now_s_);
  auto start = static_cast<std::size_t>(found.num_visible);
  if (below(5) == 0) start = below(keys.size() + 1);  // stale
  const auto count = static_cast<std::int64_t>(keys.size() - start);
  if (count > pool_.num_free()) return;
  if (found.first_expired >= 0 && below(2) == 0) {
    take_back(index_.drop(found.first_expired), model_.drop(found.first_expired));
  }
  EntryMeta meta;
  meta.priority = static_cast<std::uint8_t>(below(4) == 0 ? below(8) : 0);
  if (parents_expire_ && below(2) == 0) meta.expiry_s = now_s_ + static_cast<std::uint32_t>(below(30));
  Slots slots = pool_.allocate(count);
  if (below(3) == 0) choices_.shuffle(slots);
  const InsertStatus status = index_.insert(keys, static_cast<std::int64_t>(start), slots, meta);
  CHECK(status == model_.insert(keys, start, slots, meta));
  if (status != InsertStatus::inserted) pool_.free(slots);
}

void IndexHistory::mark_ready() {
  Slots slots;
  for (const auto& [slot, node] : model_.nodes) {
    if (below(3) == 0) slots.push_back(slot);
  }
  choices_.shuffle(slots);
  index_.mark_ready(slots);
  model_.mark_ready(slots);
}

void IndexHistory::pin() {
  const SlotId slot = random_slot();
  if (slot < 0) return;
  if (model_.nodes.at(slot).doomed) {
    CHECK_THROWS(index_.pin(slot), std::invalid_argument);
    return;
  }
  index_.pin(slot);
  model_.pin(slot);
  pins_.push_back(slot);
}

void IndexHistory::unpin() {
  if (pins_.empty()) return;
  std::swap(pins_[below(pins_.size())], pins_.back());
  const SlotId slot = pins_.back();
  pins_.pop_back();
  take_back(index_.unpin(slot), model_.unpin(slot));
}

void IndexHistory::evict() {
  const auto n = static_cast<std::int64_t>(below(6));
  const Slots got = index_.evict(n);
  CHECK(got == model_.evict(n));  // the order, too
  pool_.free(got);
}

void IndexHistory::drop() {
  const SlotId slot = random_slot();
  if (slot >= 0) take_back(index_.drop(slot), model_.drop(slot));
}

void IndexHistory::restart() {
  std::vector<FoundBlock> found = ready_blocks();
  while (!pins_.empty()) unpin();
  reset();
  std::erase_if(found, [this](const FoundBlock&) { return below(16) == 0; });
  if (below(2) == 0 && !found.empty()) break_chains(found);
  if (below(2) == 0) choices_.shuffle(found);
  add_copies(found);
  Slots slots;
  const FoundColumns columns(found);
  const std::vector<std::int64_t> rows = index_.restore(columns.view(), now_s_);
  CHECK(std::set(rows.begin(), rows.end()) == model_.restore(found, now_s_));
  for (const std::int64_t row : rows) slots.push_back(found[static_cast<std::size_t>(row)].slot);
  CHECK(slots.size() == model_.nodes.size());
  pool_.adopt(slots);
}

std::vector<FoundBlock> IndexHistory::ready_blocks() {
  std::vector<std::pair<std::uint64_t, FoundBlock>> by_use;
  for (const auto& [slot, node] : model_.nodes) {
    if (!node.ready || node.doomed) continue;
    const BlockKey parent = node.parent < 0 ? BlockKey{} : model_.nodes.at(node.parent).key;
    EntryMeta written = node.meta;  // it may have been raised since
    if (parents_expire_ && below(3) == 0) {
      written.expiry_s = std::min(written.expiry_s, now_s_ + static_cast<std::uint32_t>(below(2)));
    }
    by_use.push_back({node.last_use, {slot, node.key, parent, written}});
  }
  std::ranges::sort(by_use, {}, [](const auto& each) { return std::pair(each.first, each.second.slot); });
  std::vector<FoundBlock> found;
  for (const auto& each : by_use) found.push_back(each.second);
  return found;
}

void IndexHistory::break_chains(std::vector<FoundBlock>& found) {
  for (std::uint64_t i = below(3); i > 0; --i) {
    const BlockKey below_all = found[below(found.size())].key;
    BlockKey above = below_all;
    for (std::uint64_t up = below(4); up > 0; --up) {
      const auto at = std::ranges::find(found, above, &FoundBlock::key);
      if (at != found.end()) above = at->parent;
    }
    const auto at = std::ranges::find(found, above, &FoundBlock::key);
    if (at != found.end()) at->parent = below(4) == 0 ? BlockKey{1, 1} : below_all;
  }
}

void IndexHistory::add_copies(std::vector<FoundBlock>& found) {
  for (SlotId slot = 0; slot < index_.capacity() && !found.empty(); ++slot) {
    const bool is_taken = std::ranges::any_of(found, [&](const FoundBlock& block) { return block.slot == slot; });
    if (is_taken || below(6) != 0) continue;
    FoundBlock copy = found[below(found.size())];
    copy.slot = slot;
    if (parents_expire_ && below(2) == 0) copy.meta.expiry_s = now_s_ + static_cast<std::uint32_t>(below(30));
    found.insert(found.begin() + static_cast<std::ptrdiff_t>(below(found.size() + 1)), copy);
  }
}

void IndexHistory::compare() {
  index_.check_invariants();
  pool_.check_invariants();
  CHECK(pool_.num_used() == static_cast<std::int64_t>(model_.nodes.size()));
  const auto count = [this](auto predicate) {
    return std::ranges::count_if(model_.nodes, [&](const auto& each) { return predicate(each.second); });
  };
  CHECK(index_.num_blocks() == count([](const ModelNode& node) { return !node.doomed; }));
  CHECK(index_.num_doomed() == count([](const ModelNode& node) { return node.doomed; }));
  CHECK(index_.num_unready() == count([](const ModelNode& node) { return !node.doomed && !node.ready; }));
  CHECK(index_.num_pinned() == count([](const ModelNode& node) { return node.pins > 0; }));
  CHECK(index_.num_evictable() == static_cast<std::int64_t>(model_.leaves.size()));
  for (const auto& [slot, node] : model_.nodes) {
    CHECK(index_.pins_of(slot) == node.pins && index_.is_ready(slot) == node.ready);
    CHECK(index_.keys_of(Slots{slot}).front() == node.key);
  }
  const Keys keys = random_chain();
  compare_match(index_.match(keys, now_s_), model_.match(keys, now_s_));
}

void IndexHistory::compare_match(const MatchResult& got, const MatchResult& expected) {
  CHECK(got.num_visible == expected.num_visible && got.num_ready == expected.num_ready);
  CHECK(got.deepest_visible == expected.deepest_visible && got.deepest_ready == expected.deepest_ready);
  CHECK(got.first_expired == expected.first_expired);
  Slots slots;
  for (const SlotRun& run : got.runs) {
    CHECK(run.length > 0);
    CHECK(slots.empty() || run.start != slots.back() + 1);  // as few runs as there can be
    for (std::int64_t i = 0; i < run.length; ++i) slots.push_back(run.start + i);
  }
  CHECK(slots.size() == expected.runs.size());
  for (std::size_t i = 0; i < slots.size(); ++i) CHECK(slots[i] == expected.runs[i].start);
}

}  // namespace flexkv
