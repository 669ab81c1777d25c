// PrefixIndex::check_invariants: what the header promises, read back from every entry.
#include <stdexcept>

#include "cache/prefix_index.h"

namespace flexkv {
namespace {

void require(bool holds, SlotIndex slot, const char* what) {
  if (!holds) throw std::logic_error("prefix index: slot " + std::to_string(slot) + ": " + what);
}

void require(bool holds, const char* what) {
  if (!holds) throw std::logic_error(std::string("prefix index: ") + what);
}

}  // namespace

void PrefixIndex::check_invariants() const {
  std::int64_t visible = 0, unready = 0, doomed = 0, pinned = 0, held = 0, with_parent = 0, listed = 0;
  for (SlotIndex slot = 0; slot < entries_.size(); ++slot) {
    const IndexEntry& entry = entries_[slot];
    check_entry(slot);
    if (entry.state == EntryState::absent) continue;
    visible += entry.visible() ? 1 : 0;
    unready += entry.state == EntryState::unready ? 1 : 0;
    doomed += entry.state == EntryState::doomed ? 1 : 0;
    pinned += entry.pins > 0 ? 1 : 0;
    held += entry.held ? 1 : 0;
    with_parent += entry.parent != no_slot ? 1 : 0;
    SlotIndex previous = no_slot;
    for (SlotIndex child = entry.first_child; child != no_slot; child = entries_[child].next_sibling) {
      require(++listed <= capacity(), slot, "its list of children does not end");
      require(entries_[child].state != EntryState::absent, child, "is listed as a child but absent");
      require(entries_[child].parent == slot, child, "is in the list of another parent");
      require(entries_[child].previous_sibling == previous, child, "previous sibling is wrong");
      previous = child;
    }
  }
  require(listed == with_parent, "an entry is missing from its parent's children");
  require(visible == num_blocks(), "num_blocks differs from the entries");
  require(unready == num_unready_, "num_unready differs from the entries");
  require(doomed == num_doomed_, "num_doomed differs from the entries");
  require(pinned == num_pinned_, "num_pinned differs from the entries");
  require(held == policy_->size(), "the policy's size differs from the entries it holds");
  policy_->check_invariants();
}

void PrefixIndex::check_entry(SlotIndex slot) const {
  const IndexEntry& entry = entries_[slot];
  const bool evictable = entry.state == EntryState::ready && entry.pins == 0 && entry.is_leaf();
  require(is_ready(slot) == (entry.state == EntryState::ready), slot, "ready bit differs from its state");
  require(entry.held == evictable, slot, "is held by the policy though not evictable, or the other way round");
  if (entry.state == EntryState::absent) return;
  if (entry.visible()) {
    require(find(entry.key) == SlotId{slot}, slot, "cannot be found by its key");
  } else {
    require(find(entry.key) != SlotId{slot}, slot, "is doomed but found by its key");
    require(entry.pins > 0 || !entry.is_leaf(), slot, "is doomed and kept by nothing");
  }
  check_chain(slot);
}

void PrefixIndex::check_chain(SlotIndex slot) const {
  const IndexEntry& entry = entries_[slot];
  if (entry.parent == no_slot) {
    require(entry.depth == 0 && entry.run_start == slot, slot, "is a first block with a depth or in another's run");
    return;
  }
  const IndexEntry& parent = entries_[entry.parent];
  require(parent.state != EntryState::absent, slot, "has no parent any more");
  require(!entry.visible() || parent.visible(), slot, "is visible under an invisible parent");
  require(entry.depth == parent.depth + 1, slot, "depth differs from its parent's plus one");
  require(entry.expiry_s <= parent.expiry_s, slot, "expires after its parent");
  require(entry.priority <= parent.priority, slot, "has a higher priority than its parent");
  const SlotIndex run_start = slot == entry.parent + 1 ? parent.run_start : slot;
  require(entry.run_start == run_start, slot, "run start is wrong");
}

}  // namespace flexkv
