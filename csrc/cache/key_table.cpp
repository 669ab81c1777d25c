#include "cache/key_table.h"

#include <algorithm>
#include <random>

namespace flexkv {
namespace {

std::uint64_t random_odd() {
  std::random_device source;
  return (std::uint64_t{source()} << 32 | source()) | 1;
}

// Two buckets for each entry: more than there are entries, so that some line always has an empty one.
std::size_t num_lines_for(std::size_t num_entries, std::size_t line_buckets) {
  return 2 * num_entries / line_buckets + 1;
}

}  // namespace

KeyTable::KeyTable(std::span<const IndexEntry> entries)
    : entries_(entries),
      lines_(num_lines_for(entries.size(), line_buckets)),
      low_multiplier_(random_odd()),
      high_multiplier_(random_odd()) {}

std::uint32_t KeyTable::hash_of(const BlockKey& key) const {
  return static_cast<std::uint32_t>((key.lo * low_multiplier_ + key.hi * high_multiplier_) >> 32);
}

KeyTable::Place KeyTable::place_of(const BlockKey& key, std::uint32_t hash) const {
  for (std::size_t line = home_of(hash);; line = after(line)) {  // ends: some line is not full
    for (std::size_t i = 0; i < line_buckets; ++i) {
      const Bucket& bucket = lines_[line].buckets[i];
      if (bucket.slot_plus_one == 0) return {line, i};
      if (bucket.hash == hash && entries_[bucket.slot_plus_one - 1].key == key) return {line, i};
    }
  }
}

SlotIndex KeyTable::find(const BlockKey& key) const {
  const Place place = place_of(key, hash_of(key));
  const std::uint32_t slot_plus_one = lines_[place.line].buckets[place.bucket].slot_plus_one;
  return slot_plus_one == 0 ? no_slot : slot_plus_one - 1;
}

SlotIndex KeyTable::insert(SlotIndex slot) {
  const BlockKey& key = entries_[slot].key;
  const std::uint32_t hash = hash_of(key);
  const Place place = place_of(key, hash);
  Bucket& bucket = lines_[place.line].buckets[place.bucket];
  if (bucket.slot_plus_one != 0) return bucket.slot_plus_one - 1;
  bucket = {hash, slot + 1};
  ++size_;
  return no_slot;
}

void KeyTable::erase(SlotIndex slot) {
  const BlockKey& key = entries_[slot].key;
  Place hole = place_of(key, hash_of(key));
  --size_;
  // Only a full line had displaced anything: what it did may lie in any later line up to the first that is not full.
  for (std::size_t line = hole.line, spilled = lines_[line].full(); spilled;) {
    line = after(line);
    spilled = lines_[line].full();
    const std::size_t i = find_displaced(line, hole.line);
    if (i == line_buckets) continue;
    lines_[hole.line].buckets[hole.bucket] = lines_[line].buckets[i];
    hole = {line, i};
  }
  auto& buckets = lines_[hole.line].buckets;  // the line's last bucket fills the hole
  std::size_t last = line_buckets - 1;
  while (buckets[last].slot_plus_one == 0) --last;
  buckets[hole.bucket] = buckets[last];
  buckets[last] = {};
}

// A bucket of `line` whose home is `hole_line` or before it, so that it may move there; line_buckets when there is
// none.
std::size_t KeyTable::find_displaced(std::size_t line, std::size_t hole_line) const {
  const auto& buckets = lines_[line].buckets;
  std::size_t i = 0;
  for (; i < line_buckets; ++i) {
    if (buckets[i].slot_plus_one == 0) return line_buckets;
    if (distance(home_of(buckets[i].hash), line) >= distance(hole_line, line)) break;
  }
  return i;
}

void KeyTable::clear() {
  std::ranges::fill(lines_.span(), Line{});
  size_ = 0;
}

void KeyTable::prefetch(const BlockKey& key) const { __builtin_prefetch(&lines_[home_of(hash_of(key))], 1); }

void KeyTable::prefetch_entry(const BlockKey& key) const {
  const std::uint32_t hash = hash_of(key);
  for (const Bucket& bucket : lines_[home_of(hash)].buckets) {
    if (bucket.hash == hash && bucket.slot_plus_one != 0) __builtin_prefetch(&entries_[bucket.slot_plus_one - 1]);
  }
}

}  // namespace flexkv
