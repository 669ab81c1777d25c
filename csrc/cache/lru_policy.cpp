#include "cache/lru_policy.h"

#include <stdexcept>

namespace flexkv {

void LruPolicy::add(SlotId slot, LeafCause cause) {
  const auto index = static_cast<SlotIndex>(slot);
  IndexEntry& entry = entries_[index];
  List& list = lists_[entry.priority];
  const bool goes_next = cause == LeafCause::uncovered;
  entry.held = true;
  entry.policy_previous = goes_next ? no_slot : list.newest;
  entry.policy_next = goes_next ? list.oldest : no_slot;
  (entry.policy_previous == no_slot ? list.oldest : entries_[entry.policy_previous].policy_next) = index;
  (entry.policy_next == no_slot ? list.newest : entries_[entry.policy_next].policy_previous) = index;
  ++size_;
}

void LruPolicy::remove(SlotId slot) {
  IndexEntry& entry = entries_[static_cast<std::size_t>(slot)];
  List& list = lists_[entry.priority];
  (entry.policy_previous == no_slot ? list.oldest : entries_[entry.policy_previous].policy_next) = entry.policy_next;
  (entry.policy_next == no_slot ? list.newest : entries_[entry.policy_next].policy_previous) = entry.policy_previous;
  entry.held = false;
  --size_;
}

SlotId LruPolicy::victim() const {
  for (const List& list : lists_) {
    if (list.oldest != no_slot) return list.oldest;
  }
  return -1;
}

void LruPolicy::clear() {
  for (List& list : lists_) {
    for (SlotIndex at = list.oldest; at != no_slot; at = entries_[at].policy_next) entries_[at].held = false;
    list = {};
  }
  size_ = 0;
}

void LruPolicy::check_invariants() const {
  std::int64_t count = 0;
  for (std::uint8_t priority = 0; priority < num_priorities; ++priority) {
    SlotIndex previous = no_slot;
    for (SlotIndex at = lists_[priority].oldest; at != no_slot; at = entries_[at].policy_next) {
      const IndexEntry& entry = entries_[at];
      if (!entry.held || entry.priority != priority || entry.policy_previous != previous) {
        throw std::logic_error("lru policy: slot " + std::to_string(at) + " is linked wrongly");
      }
      if (++count > size_) throw std::logic_error("lru policy: a list is longer than the policy");
      previous = at;
    }
    if (lists_[priority].newest != previous) throw std::logic_error("lru policy: a list ends wrongly");
  }
  if (count != size_) throw std::logic_error("lru policy: size differs from the lists");
}

}  // namespace flexkv
