// IndexEntry: what a PrefixIndex keeps of one slot, in one cache line. All-zero bytes are an absent entry.
//
//    0 key 16B | 16 parent | 20 first child | 24 next sibling | 28 previous sibling
//   32 run start | 36 policy previous | 40 policy next | 44 pins | 48 depth | 52 last use | 56 expiry
//   60 tenant 2B | 62 group 1B | 63 priority 3 bits, state 2 bits, held 1 bit
#pragma once
#include <cstdint>

#include "cache/hash.h"

namespace flexkv {

using SlotIndex = std::uint32_t;  // a SlotId as entries keep it
inline constexpr SlotIndex no_slot = 0xffffffffu;
inline constexpr std::uint8_t num_priorities = 8;
inline constexpr std::uint32_t never_expires = 0xffffffffu;

//   absent -> unready -> ready -> absent        insert, mark_ready, evict
//             unready, ready -> doomed, absent   drop: doomed while pinned or a child is left
enum class EntryState : std::uint8_t { absent, unready, ready, doomed };

struct alignas(64) IndexEntry {
  BlockKey key;
  SlotIndex parent;
  SlotIndex first_child;
  SlotIndex next_sibling;
  SlotIndex previous_sibling;
  SlotIndex run_start;
  SlotIndex policy_previous;  // the eviction policy's own, as is `held`
  SlotIndex policy_next;
  std::uint32_t pins;
  std::uint32_t depth;     // blocks before this one in its chain
  std::uint32_t last_use;  // ticks of the index; compare with used_after
  std::uint32_t expiry_s;
  std::uint16_t tenant;
  std::uint8_t group;
  std::uint8_t priority : 3;
  EntryState state : 2;
  bool held : 1;

  [[nodiscard]] bool visible() const { return state == EntryState::unready || state == EntryState::ready; }
  [[nodiscard]] bool expired(std::uint32_t now_s) const { return expiry_s != never_expires && expiry_s <= now_s; }
  [[nodiscard]] bool is_leaf() const { return first_child == no_slot; }
  // Ticks wrap: right for uses less than 2^31 ticks apart, and only a hint to the policy anyway.
  [[nodiscard]] bool used_after(const IndexEntry& other) const {
    return static_cast<std::int32_t>(last_use - other.last_use) > 0;
  }
};
static_assert(sizeof(IndexEntry) == 64);

}  // namespace flexkv
