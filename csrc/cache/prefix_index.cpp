// The verbs that change a PrefixIndex. Finding is in prefix_match.cpp, the check of the invariants in prefix_check.cpp.
#include "cache/prefix_index.h"

#include <algorithm>
#include <limits>
#include <ranges>
#include <stdexcept>

#include "cache/bits.h"

namespace flexkv {
namespace {

constexpr std::int64_t max_capacity = std::int64_t{1} << 31;
constexpr std::size_t prefetch_distance = 16;  // keys ahead: about one memory latency of inserting

std::size_t checked_capacity(std::int64_t capacity) {
  if (capacity <= 0 || capacity > max_capacity) {
    throw std::invalid_argument("capacity must be in [1, 2^31], got " + std::to_string(capacity));
  }
  return static_cast<std::size_t>(capacity);
}

}  // namespace

PrefixIndex::PrefixIndex(std::int64_t capacity, const std::string& policy)
    : entries_(checked_capacity(capacity)),
      ready_((entries_.size() + 63) / 64),
      table_(entries_.span()),
      policy_(make_eviction_policy(policy, entries_.span())) {}

PrefixIndex::~PrefixIndex() = default;
PrefixIndex::PrefixIndex(PrefixIndex&&) noexcept = default;

InsertStatus PrefixIndex::insert(std::span<const BlockKey> keys, std::int64_t start, std::span<const SlotId> slots,
                                 const EntryMeta& meta) {
  check_insert(keys, start, slots, meta);
  SlotIndex parent = no_slot;
  if (start > 0) {
    const auto depth = static_cast<std::size_t>(start - 1);
    parent = find_at(keys[depth], depth);
    if (parent == no_slot) return InsertStatus::parent_gone;
  }
  const auto added = keys.subspan(static_cast<std::size_t>(start));
  ++tick_;
  SlotIndex previous = parent;
  for (std::size_t i = 0; i < added.size(); ++i) {
    if (i + prefetch_distance < added.size()) table_.prefetch(added[i + prefetch_distance]);
    const auto slot = static_cast<SlotIndex>(slots[i]);
    if (entries_[slot].state != EntryState::absent) {
      remove_tail(slots.first(i));
      throw std::invalid_argument("slots[" + std::to_string(i) + "] = " + std::to_string(slot) +
                                  " is in the index already or named twice");
    }
    write_entry(slot, added[i], previous, meta);
    if (const SlotIndex holder = table_.insert(slot); holder != no_slot) {
      entries_[slot] = {};
      const bool named_twice = std::ranges::count(slots.first(i), SlotId{holder}) > 0;
      remove_tail(slots.first(i));
      if (named_twice)
        throw std::invalid_argument("keys[" + std::to_string(start + static_cast<std::int64_t>(i)) +
                                    "] is named twice");
      return InsertStatus::conflict;
    }
    if (i > 0) entries_[previous].first_child = slot;
    previous = slot;
  }
  if (!added.empty() && parent != no_slot) {
    link(static_cast<SlotIndex>(slots[0]), parent);
    raise_ancestors(parent, meta);
  }
  num_unready_ += static_cast<std::int64_t>(added.size());
  return InsertStatus::inserted;
}

void PrefixIndex::check_insert(std::span<const BlockKey> keys, std::int64_t start, std::span<const SlotId> slots,
                               const EntryMeta& meta) const {
  const auto num_keys = static_cast<std::int64_t>(keys.size());
  if (start < 0 || start > num_keys) {
    throw std::invalid_argument("start must be in [0, " + std::to_string(num_keys) + "], got " + std::to_string(start));
  }
  if (static_cast<std::int64_t>(slots.size()) != num_keys - start) {
    throw std::invalid_argument("slots must have one entry for each new key: " + std::to_string(num_keys - start) +
                                " keys, " + std::to_string(slots.size()) + " slots");
  }
  check_priority(meta);
  for (const SlotId slot : slots) (void)checked(slot);
}

void PrefixIndex::check_priority(const EntryMeta& meta) {
  if (meta.priority >= num_priorities) {
    throw std::invalid_argument("priority must be in [0, 7], got " + std::to_string(meta.priority));
  }
}

void PrefixIndex::write_entry(SlotIndex slot, const BlockKey& key, SlotIndex parent, const EntryMeta& meta) {
  IndexEntry& entry = entries_[slot];
  const bool follows = parent != no_slot && slot == parent + 1;
  entry.key = key;
  entry.parent = parent;
  entry.first_child = entry.next_sibling = entry.previous_sibling = no_slot;
  entry.run_start = follows ? entries_[parent].run_start : slot;
  entry.policy_previous = entry.policy_next = no_slot;
  entry.pins = 0;
  entry.depth = parent == no_slot ? 0 : entries_[parent].depth + 1;
  entry.last_use = tick_;
  entry.expiry_s = meta.expiry_s;
  entry.tenant = meta.tenant;
  entry.group = meta.group;
  entry.priority = meta.priority & (num_priorities - 1);
  entry.state = EntryState::unready;
  entry.held = false;
}

// Takes back what an insert had written before it failed; nothing is linked to it yet.
void PrefixIndex::remove_tail(std::span<const SlotId> slots) {
  for (const SlotId id : slots) {
    const auto slot = static_cast<SlotIndex>(id);
    table_.erase(slot);
    entries_[slot] = {};
  }
}

void PrefixIndex::raise_ancestors(SlotIndex slot, const EntryMeta& meta) {
  for (SlotIndex at = slot; at != no_slot; at = entries_[at].parent) {
    IndexEntry& entry = entries_[at];
    if (entry.priority >= meta.priority && entry.expiry_s >= meta.expiry_s) return;  // so have all above it
    if (entry.priority < meta.priority) entry.priority = meta.priority & (num_priorities - 1);
    entry.expiry_s = std::max(entry.expiry_s, meta.expiry_s);
  }
}

void PrefixIndex::link(SlotIndex slot, SlotIndex parent) {
  IndexEntry& above = entries_[parent];
  if (above.held) policy_->remove(parent);
  entries_[slot].next_sibling = above.first_child;
  if (above.first_child != no_slot) entries_[above.first_child].previous_sibling = slot;
  above.first_child = slot;
}

void PrefixIndex::unlink(SlotIndex slot) {
  const IndexEntry& entry = entries_[slot];
  if (entry.parent == no_slot) return;
  if (entry.previous_sibling == no_slot) {
    entries_[entry.parent].first_child = entry.next_sibling;
  } else {
    entries_[entry.previous_sibling].next_sibling = entry.next_sibling;
  }
  if (entry.next_sibling != no_slot) entries_[entry.next_sibling].previous_sibling = entry.previous_sibling;
}

void PrefixIndex::mark_ready(std::span<const SlotId> slots) {
  for (const SlotId slot : slots) (void)checked_present(slot);
  ++tick_;
  for (const SlotId id : slots) {
    const auto slot = static_cast<SlotIndex>(id);
    IndexEntry& entry = entries_[slot];
    if (entry.state != EntryState::unready) continue;
    entry.state = EntryState::ready;
    entry.last_use = tick_;
    set_bit(ready_, slot);
    --num_unready_;
    hold_if_evictable(slot, LeafCause::used);
  }
}

void PrefixIndex::hold_if_evictable(SlotIndex slot, LeafCause cause) {
  const IndexEntry& entry = entries_[slot];
  if (entry.state == EntryState::ready && entry.pins == 0 && entry.is_leaf() && !entry.held) policy_->add(slot, cause);
}

void PrefixIndex::pin(SlotId slot) {
  const SlotIndex index = checked_present(slot);
  IndexEntry& entry = entries_[index];
  if (entry.state == EntryState::doomed) {
    throw std::invalid_argument("slot " + std::to_string(slot) + " is doomed: it was dropped and cannot be pinned");
  }
  if (entry.pins == std::numeric_limits<std::uint32_t>::max()) throw std::runtime_error("too many pins on one block");
  if (entry.held) policy_->remove(slot);
  if (entry.pins++ == 0) ++num_pinned_;
}

// A pinned block is in no list of the policy, nor is a block with a child: priorities may change.
void PrefixIndex::raise(SlotId slot, const EntryMeta& meta) {
  const SlotIndex index = checked_present(slot);
  check_priority(meta);
  if (entries_[index].pins == 0) throw std::invalid_argument("slot " + std::to_string(slot) + " is not pinned");
  raise_ancestors(index, meta);
}

std::vector<SlotId> PrefixIndex::unpin(SlotId slot) {
  const SlotIndex index = checked_present(slot);
  IndexEntry& entry = entries_[index];
  if (entry.pins == 0) throw std::invalid_argument("slot " + std::to_string(slot) + " is not pinned");
  entry.last_use = ++tick_;
  std::vector<SlotId> gone;
  if (--entry.pins == 0) {
    --num_pinned_;
    vanish_upward(index, gone);
  }
  return gone;
}

// Doomed already but for the table, which the caller sees to.
void PrefixIndex::hide(SlotIndex slot) {
  IndexEntry& entry = entries_[slot];
  if (entry.held) policy_->remove(slot);
  if (entry.state == EntryState::unready) --num_unready_;
  clear_bit(ready_, slot);
  entry.state = EntryState::doomed;
  ++num_doomed_;
}

// REQUIRES: doomed, no pin, no child.
void PrefixIndex::vanish(SlotIndex slot, std::vector<SlotId>& gone) {
  unlink(slot);
  entries_[slot].state = EntryState::absent;
  --num_doomed_;
  gone.push_back(slot);
}

// The entry and its ancestors, as far as nothing keeps them; the first one that stays may have become evictable.
void PrefixIndex::vanish_upward(SlotIndex slot, std::vector<SlotId>& gone) {
  SlotIndex at = slot;
  while (at != no_slot) {
    const IndexEntry& entry = entries_[at];
    if (entry.state != EntryState::doomed || entry.pins != 0 || !entry.is_leaf()) {
      hold_if_evictable(at, LeafCause::used);
      return;
    }
    const SlotIndex parent = entry.parent;
    vanish(at, gone);
    at = parent;
  }
}

std::vector<SlotId> PrefixIndex::drop(SlotId slot) {
  const SlotIndex top = checked_present(slot);
  std::vector<SlotId> gone;
  if (entries_[top].state == EntryState::doomed) return gone;
  const SlotIndex parent = entries_[top].parent;
  std::vector<SlotIndex> subtree = {top};  // visible part, parents before children; iterative: chains are deep
  for (std::size_t i = 0; i < subtree.size(); ++i) {
    const SlotIndex at = subtree[i];
    for (SlotIndex child = entries_[at].first_child; child != no_slot; child = entries_[child].next_sibling) {
      if (entries_[child].visible()) subtree.push_back(child);
    }
  }
  gone.reserve(subtree.size());
  for (const SlotIndex at : subtree) {
    table_.erase(at);
    hide(at);
  }
  for (const SlotIndex at : std::views::reverse(subtree)) {
    if (entries_[at].pins == 0 && entries_[at].is_leaf()) vanish(at, gone);
  }
  if (parent != no_slot) hold_if_evictable(parent, LeafCause::used);
  return gone;
}

std::vector<SlotId> PrefixIndex::evict(std::int64_t n) {
  if (n < 0) throw std::invalid_argument("n must not be negative, got " + std::to_string(n));
  std::vector<SlotId> gone;
  gone.reserve(static_cast<std::size_t>(std::min(n, num_blocks())));
  for (std::int64_t left = n; left > 0 && policy_->size() > 0; --left) {
    const auto victim = static_cast<SlotIndex>(policy_->victim());
    const SlotIndex parent = entries_[victim].parent;
    table_.erase(victim);
    hide(victim);
    vanish(victim, gone);
    if (parent == no_slot) continue;
    const bool used_since = entries_[parent].used_after(entries_[victim]);
    hold_if_evictable(parent, used_since ? LeafCause::used : LeafCause::uncovered);
  }
  return gone;
}

std::vector<SlotId> PrefixIndex::reset() {
  std::vector<SlotId> gone;
  gone.reserve(table_.size() + static_cast<std::size_t>(num_doomed_));
  policy_->clear();
  table_.clear();
  for (SlotIndex slot = 0; slot < entries_.size(); ++slot) {
    if (entries_[slot].visible()) hide(slot);
  }
  for (SlotIndex slot = 0; slot < entries_.size(); ++slot) {
    if (entries_[slot].state == EntryState::doomed) vanish_upward(slot, gone);
  }
  return gone;
}

std::int64_t PrefixIndex::num_evictable() const { return policy_->size(); }

std::int64_t PrefixIndex::memory_bytes() const {
  return static_cast<std::int64_t>(entries_.bytes() + ready_.bytes() + table_.bytes());
}

}  // namespace flexkv
