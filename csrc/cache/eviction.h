// Eviction policies: each keeps the evictable leaves of a PrefixIndex in its own lists and names the next victim in
// O(1). One policy per file behind this protocol; links live in the entries (no allocation per block).
//
// Victim order of "lru": the lowest priority first; within a priority the least recently used. A block is used when it
// is made ready and when a pin on it ends. A parent uncovered by the eviction of its last child, and not used since
// that child was, is as old as that child and goes next; any other block that becomes a leaf counts as used then.
// Thread safety: none.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cache/index_entry.h"
#include "cache/slot_pool.h"

namespace flexkv {

// Why an entry becomes evictable.
enum class LeafCause : std::uint8_t {
  used,       // made ready, unpinned, or its last child went some other way than by eviction
  uncovered,  // its last child was evicted, and it was not used since that child was
};

class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;
  virtual void add(SlotId slot, LeafCause cause) = 0;  // REQUIRES: not held. The entry's metadata stay while it is held
  virtual void remove(SlotId slot) = 0;                // REQUIRES: held
  [[nodiscard]] virtual SlotId victim() const = 0;     // -1 when it holds none
  [[nodiscard]] virtual bool holds(SlotId slot) const = 0;
  [[nodiscard]] virtual std::int64_t size() const = 0;
  virtual void clear() = 0;                   // O(held)
  virtual void check_invariants() const = 0;  // throws std::logic_error naming what is broken. O(held)
};

[[nodiscard]] std::vector<std::string> eviction_policy_names();
// `entries` must outlive the policy. Throws std::invalid_argument naming the known policies.
[[nodiscard]] std::unique_ptr<EvictionPolicy> make_eviction_policy(std::string_view name,
                                                                   std::span<IndexEntry> entries);

}  // namespace flexkv
