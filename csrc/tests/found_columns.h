// FoundColumns: blocks that a restart has found, as the columns that PrefixIndex::restore takes.
#pragma once
#include <cstdint>
#include <vector>

#include "cache/prefix_index.h"
#include "tests/index_model.h"

namespace flexkv {

struct FoundColumns {
  explicit FoundColumns(const std::vector<FoundBlock>& found) {
    for (const FoundBlock& block : found) {
      slots.push_back(block.slot);
      keys.push_back(block.key);
      parents.push_back(block.parent);
      expiry_s.push_back(block.meta.expiry_s);
      tenants.push_back(block.meta.tenant);
      groups.push_back(block.meta.group);
      priorities.push_back(block.meta.priority);
    }
  }
  [[nodiscard]] RestoreColumns view() const { return {slots, keys, parents, expiry_s, tenants, groups, priorities}; }

  std::vector<SlotId> slots;
  std::vector<BlockKey> keys;
  std::vector<BlockKey> parents;
  std::vector<std::uint32_t> expiry_s;
  std::vector<std::uint16_t> tenants;
  std::vector<std::uint8_t> groups;
  std::vector<std::uint8_t> priorities;
};

}  // namespace flexkv
