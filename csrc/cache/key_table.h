// KeyTable: key -> slot for the visible entries of a PrefixIndex. Open addressing, one cache line after the other.
//
// A bucket is 8 bytes: 32 bits of the key's hash, and the slot. The key itself is in the entry, read only when the 32
// bits agree. A line is 8 buckets, filled from the front; a key lies in its home line or, as far as all lines from
// there on are full, in a later one. So a search ends at the first line with an empty bucket, and an erase moves back
// what its hole had displaced. Load is at most 1/2: nearly every search reads one line of the table (at 3/4 an insert
// takes 1.7 times as long, to save 5 bytes a block). The hash has two random odd multipliers, so that nobody can choose
// keys that collide here. Thread safety: none.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "cache/index_entry.h"
#include "cache/mapped_array.h"

namespace flexkv {

class KeyTable {
 public:
  // `entries` must outlive the table; entries[slot].key is the key of a slot in it. REQUIRES: entries.size() <= 2^31.
  explicit KeyTable(std::span<const IndexEntry> entries);

  [[nodiscard]] SlotIndex find(const BlockKey& key) const;  // no_slot when it is not there
  // The slot that has entries[slot].key already, with nothing changed; no_slot when `slot` was put in.
  [[nodiscard]] SlotIndex insert(SlotIndex slot);
  void erase(SlotIndex slot);  // REQUIRES: inserted
  void clear();
  void prefetch(const BlockKey& key) const;        // its home line, to be written soon
  void prefetch_entry(const BlockKey& key) const;  // the entry that likely has the key; reads the home line

  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::size_t bytes() const { return lines_.bytes(); }

 private:
  static constexpr std::size_t line_buckets = 8;
  struct Bucket {
    std::uint32_t hash;
    std::uint32_t slot_plus_one;  // 0: empty
  };
  struct alignas(64) Line {
    std::array<Bucket, line_buckets> buckets;
    [[nodiscard]] bool full() const { return buckets.back().slot_plus_one != 0; }
  };
  struct Place {
    std::size_t line;
    std::size_t bucket;
  };

  [[nodiscard]] std::uint32_t hash_of(const BlockKey& key) const;
  [[nodiscard]] std::size_t home_of(std::uint32_t hash) const { return hash * std::uint64_t{lines_.size()} >> 32; }
  [[nodiscard]] std::size_t after(std::size_t line) const { return line + 1 == lines_.size() ? 0 : line + 1; }
  [[nodiscard]] std::size_t distance(std::size_t from, std::size_t to) const {
    return to >= from ? to - from : to + lines_.size() - from;
  }
  // The bucket that holds the key, or the empty one where it belongs.
  [[nodiscard]] Place place_of(const BlockKey& key, std::uint32_t hash) const;
  [[nodiscard]] std::size_t find_displaced(std::size_t line, std::size_t hole_line) const;

  std::span<const IndexEntry> entries_;
  MappedArray<Line> lines_;
  std::size_t size_ = 0;
  std::uint64_t low_multiplier_;
  std::uint64_t high_multiplier_;
};

}  // namespace flexkv
