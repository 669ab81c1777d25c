#include "cache/key_table.h"

#include <algorithm>
#include <random>

namespace flexkv {
namespace {

std::uint64_t random_odd() {
  std::random_device source;
  return (std::uint64_t{source()} << 32 | source()) | 1;
}

}  // namespace

KeyTable::KeyTable(std::span<const IndexEntry> entries)
    : entries_(entries),
      num_buckets_(entries.size() + entries.size() / 4 + 1),
      buckets_(num_buckets_),
      low_multiplier_(random_odd()),
      high_multiplier_(random_odd()) {}

std::uint32_t KeyTable::hash_of(const BlockKey& key) const {
  return static_cast<std::uint32_t>((key.lo * low_multiplier_ + key.hi * high_multiplier_) >> 32);
}

SlotIndex KeyTable::find(const BlockKey& key) const {
  const std::uint32_t hash = hash_of(key);
  for (std::size_t at = home_of(hash); buckets_[at].slot_plus_one != 0; at = after(at)) {
    const Bucket& bucket = buckets_[at];
    if (bucket.hash == hash && entries_[bucket.slot_plus_one - 1].key == key) return bucket.slot_plus_one - 1;
  }
  return no_slot;
}

SlotIndex KeyTable::insert(SlotIndex slot) {
  const BlockKey& key = entries_[slot].key;
  const std::uint32_t hash = hash_of(key);
  std::size_t at = home_of(hash);
  for (; buckets_[at].slot_plus_one != 0; at = after(at)) {
    const Bucket& bucket = buckets_[at];
    if (bucket.hash == hash && entries_[bucket.slot_plus_one - 1].key == key) return bucket.slot_plus_one - 1;
  }
  buckets_[at] = {hash, slot + 1};
  ++size_;
  return no_slot;
}

void KeyTable::erase(SlotIndex slot) {
  std::size_t hole = home_of(hash_of(entries_[slot].key));
  while (buckets_[hole].slot_plus_one != slot + 1) hole = after(hole);
  for (std::size_t at = after(hole); buckets_[at].slot_plus_one != 0; at = after(at)) {
    if (distance(home_of(buckets_[at].hash), at) < distance(hole, at)) continue;  // it may not go before its home
    buckets_[hole] = buckets_[at];
    hole = at;
  }
  buckets_[hole] = {};
  --size_;
}

void KeyTable::clear() {
  std::ranges::fill(buckets_.span(), Bucket{});
  size_ = 0;
}

void KeyTable::prefetch(const BlockKey& key) const { __builtin_prefetch(&buckets_[home_of(hash_of(key))], 1); }

}  // namespace flexkv
