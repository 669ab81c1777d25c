// How a PrefixIndex finds: the match of a chain, and the look-ups of single slots and keys.
#include <algorithm>
#include <bit>
#include <stdexcept>

#include "cache/bits.h"
#include "cache/prefix_index.h"

namespace flexkv {

std::vector<SlotId> MatchResult::slots(std::int64_t begin, std::int64_t end) const {
  std::vector<SlotId> all(static_cast<std::size_t>(end - begin));
  auto out = all.begin();
  std::int64_t first = 0;  // block of the chain that the run starts with
  for (const SlotRun& run : runs) {
    const std::int64_t from = std::max(begin, first);
    const std::int64_t to = std::min(end, first + run.length);
    for (std::int64_t block = from; block < to; ++block) *out++ = run.start + block - first;
    first += run.length;
  }
  return all;
}

// By closure a chain's blocks are visible up to some depth and not below: bisection, the whole chain tried first. A
// block found at another depth than its place in `keys` is of another chain, and no match.
MatchResult PrefixIndex::match(std::span<const BlockKey> keys, std::uint32_t now_s) const {
  MatchResult result;
  std::size_t known = 0;          // keys[0 .. known-1] match
  std::size_t end = keys.size();  // keys[end] does not
  for (std::size_t probe = end - 1; known < end; probe = known + (end - known) / 2) {
    const SlotIndex slot = find_at(keys[probe], probe);
    if (slot != no_slot && !entries_[slot].expired(now_s)) {
      known = probe + 1;
      result.deepest_visible = slot;
    } else {
      end = probe;
      result.first_expired = slot == no_slot ? -1 : SlotId{slot};
    }
  }
  result.num_visible = static_cast<std::int64_t>(known);
  find_runs(result);
  find_ready_prefix(result);
  return result;
}

void PrefixIndex::find_runs(MatchResult& result) const {
  for (SlotId last = result.deepest_visible; last >= 0;) {
    const IndexEntry& entry = entries_[static_cast<std::size_t>(last)];
    const SlotIndex first = entry.run_start;
    result.runs.push_back({first, last - SlotId{first} + 1});
    const SlotIndex above = entries_[first].parent;
    last = above == no_slot ? -1 : SlotId{above};
  }
  std::ranges::reverse(result.runs);
}

void PrefixIndex::find_ready_prefix(MatchResult& result) const {
  if (num_unready_ == 0) {
    result.num_ready = result.num_visible;
    result.deepest_ready = result.deepest_visible;
    return;
  }
  for (const SlotRun& run : result.runs) {
    const std::int64_t ready = ready_in(run);
    result.num_ready += ready;
    if (ready > 0) result.deepest_ready = run.start + ready - 1;
    if (ready < run.length) return;
  }
}

// How many blocks of the run are ready, from its start up to the first that is not.
std::int64_t PrefixIndex::ready_in(const SlotRun& run) const {
  std::int64_t count = 0;
  while (count < run.length) {
    const auto at = static_cast<std::size_t>(run.start + count);
    const int in_word = static_cast<int>(64 - at % 64);
    const int ones = std::countr_one(ready_[at / 64] >> (at % 64));
    count += ones;
    if (ones < in_word) break;
  }
  return std::min(count, run.length);
}

SlotIndex PrefixIndex::find_at(const BlockKey& key, std::size_t depth) const {
  const SlotIndex slot = table_.find(key);
  return slot != no_slot && entries_[slot].depth == depth ? slot : no_slot;
}

SlotIndex PrefixIndex::checked(SlotId slot) const {
  if (slot < 0 || slot >= capacity()) {
    throw std::invalid_argument("slot " + std::to_string(slot) + " is out of range [0, " + std::to_string(capacity()) +
                                ")");
  }
  return static_cast<SlotIndex>(slot);
}

SlotIndex PrefixIndex::checked_present(SlotId slot) const {
  const SlotIndex index = checked(slot);
  if (entries_[index].state == EntryState::absent) {
    throw std::invalid_argument("slot " + std::to_string(slot) + " has no entry in the index");
  }
  return index;
}

std::vector<BlockKey> PrefixIndex::keys_of(std::span<const SlotId> slots) const {
  std::vector<BlockKey> keys;
  keys.reserve(slots.size());
  for (const SlotId slot : slots) keys.push_back(entries_[checked_present(slot)].key);
  return keys;
}

SlotId PrefixIndex::find(const BlockKey& key) const {
  const SlotIndex slot = table_.find(key);
  return slot == no_slot ? -1 : SlotId{slot};
}

EntryMeta PrefixIndex::meta_of(SlotId slot) const {
  const IndexEntry& entry = entries_[checked_present(slot)];
  return {entry.tenant, entry.priority, entry.group, entry.expiry_s};
}

std::int64_t PrefixIndex::pins_of(SlotId slot) const {
  const IndexEntry& entry = entries_[checked(slot)];
  return entry.state == EntryState::absent ? 0 : std::int64_t{entry.pins};
}

std::int64_t PrefixIndex::count_ready(std::span<const SlotId> slots) const {
  std::int64_t count = 0;
  for (const SlotId slot : slots) {
    if (!is_ready(slot)) break;
    ++count;
  }
  return count;
}

bool PrefixIndex::is_ready(SlotId slot) const { return test_bit(ready_, checked(slot)); }

}  // namespace flexkv
