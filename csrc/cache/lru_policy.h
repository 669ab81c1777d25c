// LruPolicy: least recently used, one list per priority (victim order: cache/eviction.h).
#pragma once
#include <array>
#include <cstdint>
#include <span>

#include "cache/eviction.h"

namespace flexkv {

class LruPolicy final : public EvictionPolicy {
 public:
  explicit LruPolicy(std::span<IndexEntry> entries) : entries_(entries) {}

  void add(SlotId slot, LeafCause cause) override;
  void remove(SlotId slot) override;
  [[nodiscard]] SlotId victim() const override;
  [[nodiscard]] bool holds(SlotId slot) const override { return entries_[static_cast<std::size_t>(slot)].held; }
  [[nodiscard]] std::int64_t size() const override { return size_; }
  void clear() override;
  void check_invariants() const override;

 private:
  struct List {
    SlotIndex oldest = no_slot;
    SlotIndex newest = no_slot;
  };
  std::span<IndexEntry> entries_;
  std::array<List, num_priorities> lists_;
  std::int64_t size_ = 0;
};

}  // namespace flexkv
