// IndexModel: what a PrefixIndex must do, done the slow and obvious way: linear searches, no run, no bitmap, no early
// stop. For index_history.h.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "cache/prefix_index.h"

namespace flexkv {

using Keys = std::vector<BlockKey>;
using Slots = std::vector<SlotId>;

struct ModelNode {
  BlockKey key;
  SlotId parent = -1;
  EntryMeta meta;
  std::int64_t pins = 0;
  std::uint64_t last_use = 0;
  bool ready = false;
  bool doomed = false;
};

// A block as a restart finds it.
struct FoundBlock {
  SlotId slot = -1;
  BlockKey key;
  BlockKey parent;
  EntryMeta meta;
};

class IndexModel {
 public:
  std::map<SlotId, ModelNode> nodes;
  std::vector<SlotId> leaves;  // evictable ones, the next victim of each priority first

  SlotId find(const BlockKey& key) const;
  MatchResult match(const Keys& keys, std::uint32_t now_s) const;
  InsertStatus insert(const Keys& keys, std::size_t start, const Slots& slots, const EntryMeta& meta);
  void mark_ready(const Slots& slots);
  void pin(SlotId slot);
  Slots unpin(SlotId slot);
  Slots drop(SlotId slot);
  Slots evict(std::int64_t n);

  // `found` in order of use; nothing is held. Returns the positions of what stays.
  std::set<std::int64_t> restore(const std::vector<FoundBlock>& found, std::uint32_t now_s);

  Slots reset();

 private:
  void raise_above(SlotId slot, const EntryMeta& meta);

  bool has_child(SlotId slot) const {
    return std::ranges::any_of(nodes, [slot](const auto& each) { return each.second.parent == slot; });
  }

  // Takes out doomed nodes that nothing keeps, until there is none; parents of them may become evictable.
  void collect(Slots& gone);

  void settle(SlotId slot, LeafCause cause);

  std::uint64_t tick_ = 0;
};

}  // namespace flexkv
