#include "tests/index_model.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <vector>

#include "cache/prefix_index.h"

namespace flexkv {

SlotId IndexModel::find(const BlockKey& key) const {
  for (const auto& [slot, node] : nodes) {
    if (!node.doomed && node.key == key) return slot;
  }
  return -1;
}

MatchResult IndexModel::match(const Keys& keys, std::uint32_t now_s) const {
  MatchResult result;
  bool all_ready = true;
  for (const BlockKey& key : keys) {
    const SlotId slot = find(key);
    if (slot < 0) break;
    const ModelNode& node = nodes.at(slot);
    if (node.meta.expiry_s != 0xffffffffu && node.meta.expiry_s <= now_s) {
      result.first_expired = slot;
      break;
    }
    ++result.num_visible;
    result.deepest_visible = slot;
    result.runs.push_back({slot, 1});
    all_ready = all_ready && node.ready;
    if (!all_ready) continue;
    ++result.num_ready;
    result.deepest_ready = slot;
  }
  return result;
}

InsertStatus IndexModel::insert(const Keys& keys, std::size_t start, const Slots& slots, const EntryMeta& meta) {
  SlotId parent = start == 0 ? -1 : find(keys[start - 1]);
  if (start > 0 && parent < 0) return InsertStatus::parent_gone;
  for (std::size_t i = start; i < keys.size(); ++i) {
    if (find(keys[i]) >= 0) return InsertStatus::conflict;
  }
  ++tick_;
  for (std::size_t i = start; i < keys.size(); ++i) {
    nodes[slots[i - start]] = {keys[i], parent, meta, 0, tick_, false, false};
    std::erase(leaves, parent);
    parent = slots[i - start];
  }
  if (start < keys.size()) raise_above(slots[0], meta);
  return InsertStatus::inserted;
}

void IndexModel::mark_ready(const Slots& slots) {
  ++tick_;
  for (const SlotId slot : slots) {
    ModelNode& node = nodes.at(slot);
    if (node.doomed || node.ready) continue;
    node.ready = true;
    node.last_use = tick_;
    settle(slot, LeafCause::used);
  }
}

void IndexModel::pin(SlotId slot) {
  ++nodes.at(slot).pins;
  std::erase(leaves, slot);
}

Slots IndexModel::unpin(SlotId slot) {
  --nodes.at(slot).pins;
  nodes.at(slot).last_use = ++tick_;
  Slots gone;
  collect(gone);
  settle(slot, LeafCause::used);
  return gone;
}

Slots IndexModel::drop(SlotId slot) {
  if (nodes.at(slot).doomed) return {};
  const SlotId parent = nodes.at(slot).parent;
  for (auto& [other, node] : nodes) {
    for (SlotId at = other; at >= 0; at = nodes.at(at).parent) {
      if (at != slot) continue;
      node.doomed = true;
      node.ready = false;
      std::erase(leaves, other);
    }
  }
  Slots gone;
  collect(gone);
  settle(parent, LeafCause::used);
  return gone;
}

Slots IndexModel::evict(std::int64_t n) {
  Slots gone;
  while (static_cast<std::int64_t>(gone.size()) < n && !leaves.empty()) {
    const SlotId victim = *std::ranges::min_element(leaves, {}, [this](SlotId slot) {  // the first of the lowest
      return nodes.at(slot).meta.priority;
    });
    const ModelNode node = nodes.at(victim);
    nodes.erase(victim);
    std::erase(leaves, victim);
    gone.push_back(victim);
    if (node.parent < 0) continue;
    const bool used = nodes.at(node.parent).last_use > node.last_use;
    settle(node.parent, used ? LeafCause::used : LeafCause::uncovered);
  }
  return gone;
}

std::set<std::int64_t> IndexModel::restore(const std::vector<FoundBlock>& found, std::uint32_t now_s) {
  const auto place_of = [&](const BlockKey& key) {  // of the newest copy; -1: there is none
    for (std::size_t i = found.size(); i-- > 0;) {
      if (found[i].key == key) return static_cast<std::int64_t>(i);
    }
    return std::int64_t{-1};
  };
  std::set<std::int64_t> stays;
  for (bool changed = true; changed;) {  // first blocks, then what hangs on what stays
    changed = false;
    for (std::size_t i = 0; i < found.size(); ++i) {
      const auto at = static_cast<std::int64_t>(i);
      const bool is_first = found[i].parent == BlockKey{};
      if (stays.contains(at) || place_of(found[i].key) != at) continue;
      if (is_first || stays.contains(place_of(found[i].parent))) changed = stays.insert(at).second;
    }
  }
  for (const std::int64_t at : stays) {
    const FoundBlock& block = found[static_cast<std::size_t>(at)];
    const bool is_first = block.parent == BlockKey{};
    const SlotId parent = is_first ? -1 : found[static_cast<std::size_t>(place_of(block.parent))].slot;
    nodes[block.slot] = {block.key, parent, block.meta, 0, tick_ + 1 + static_cast<std::uint64_t>(at), true, false};
  }
  tick_ += found.size();
  const auto slot_at = [&](std::int64_t at) { return found[static_cast<std::size_t>(at)].slot; };
  for (const FoundBlock& block : found) {  // copies have their say in how long a block lives
    const SlotId slot = find(block.key);
    if (slot >= 0) nodes[slot].meta.expiry_s = std::max(nodes[slot].meta.expiry_s, block.meta.expiry_s);
  }
  for (const std::int64_t at : stays) raise_above(slot_at(at), nodes[slot_at(at)].meta);
  std::erase_if(stays, [&](std::int64_t at) {
    const std::uint32_t expiry_s = nodes[slot_at(at)].meta.expiry_s;
    return expiry_s != 0xffffffffu && expiry_s <= now_s && nodes.erase(slot_at(at)) == 1;
  });
  for (const std::int64_t at : stays) settle(slot_at(at), LeafCause::used);
  return stays;
}

Slots IndexModel::reset() {
  leaves.clear();
  for (auto& [slot, node] : nodes) {
    node.doomed = true;
    node.ready = false;
  }
  Slots gone;
  collect(gone);
  return gone;
}

void IndexModel::raise_above(SlotId slot, const EntryMeta& meta) {
  for (SlotId at = nodes.at(slot).parent; at >= 0; at = nodes.at(at).parent) {
    EntryMeta& above = nodes.at(at).meta;
    above.priority = std::max(above.priority, meta.priority);
    above.expiry_s = std::max(above.expiry_s, meta.expiry_s);
  }
}

void IndexModel::collect(Slots& gone) {
  for (bool changed = true; changed;) {
    changed = false;
    for (auto at = nodes.begin(); at != nodes.end();) {
      const SlotId slot = at->first;
      const SlotId parent = at->second.parent;
      if (at->second.doomed && at->second.pins == 0 && !has_child(slot)) {
        gone.push_back(slot);
        at = nodes.erase(at);
        changed = true;
        settle(parent, LeafCause::used);
      } else {
        ++at;
      }
    }
  }
}

void IndexModel::settle(SlotId slot, LeafCause cause) {
  const auto at = nodes.find(slot);
  if (at == nodes.end()) return;
  const ModelNode& node = at->second;
  if (!node.ready || node.doomed || node.pins > 0 || has_child(slot)) return;
  if (std::ranges::count(leaves, slot) > 0) return;
  leaves.insert(cause == LeafCause::uncovered ? leaves.begin() : leaves.end(), slot);
}

}  // namespace flexkv
