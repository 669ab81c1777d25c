// Eviction policies: each keeps the evictable leaves of a PrefixIndex in its own lists and names the next victim in O(1).
// One policy per file behind this protocol; links live in the entries (no allocation per block).
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cache/slot_pool.h"

namespace flexkv {

// What the policy may know of an entry when it becomes evictable.
struct LeafInfo {
  std::uint8_t priority = 0;
  // True when the entry became a leaf because its last child was evicted and it was not used since that child was:
  // it is as old as the victim and goes next.
  bool uncovered_by_eviction = false;
};

class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;
  virtual void add(SlotId slot, const LeafInfo& info) = 0;     // REQUIRES: not held
  virtual void remove(SlotId slot) = 0;                        // REQUIRES: held
  [[nodiscard]] virtual SlotId victim() const = 0;             // -1 when it holds none
  [[nodiscard]] virtual bool holds(SlotId slot) const = 0;
  [[nodiscard]] virtual std::int64_t size() const = 0;
  virtual void clear() = 0;
};

[[nodiscard]] std::vector<std::string> eviction_policy_names();
// Throws std::invalid_argument naming the known policies.
[[nodiscard]] std::unique_ptr<EvictionPolicy> make_eviction_policy(std::string_view name, std::int64_t capacity);

}  // namespace flexkv
