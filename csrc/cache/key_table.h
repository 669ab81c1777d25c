// KeyTable: key -> slot for the visible entries of a PrefixIndex. Open addressing, linear probing, backward-shift deletion.
//
// A bucket is 8 bytes: 32 bits of the key's hash, and the slot. The key itself is in the entry, read only when the 32 bits
// agree. Load is at most 0.8. The hash has two random odd multipliers, so that nobody can choose keys that collide here.
// Thread safety: none.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "cache/index_entry.h"
#include "cache/mapped_array.h"

namespace flexkv {

class KeyTable {
 public:
  // `entries` must outlive the table; entries[slot].key is the key of a slot in it.
  explicit KeyTable(std::span<const IndexEntry> entries);

  [[nodiscard]] SlotIndex find(const BlockKey& key) const;  // no_slot when it is not there
  // The slot that has entries[slot].key already, with nothing changed; no_slot when `slot` was put in.
  [[nodiscard]] SlotIndex insert(SlotIndex slot);
  void erase(SlotIndex slot);  // REQUIRES: inserted
  void clear();
  void prefetch(const BlockKey& key) const;

  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::size_t bytes() const { return buckets_.bytes(); }

 private:
  struct Bucket {
    std::uint32_t hash;
    std::uint32_t slot_plus_one;  // 0: empty
  };
  [[nodiscard]] std::uint32_t hash_of(const BlockKey& key) const;
  [[nodiscard]] std::size_t home_of(std::uint32_t hash) const { return hash * std::uint64_t{num_buckets_} >> 32; }
  [[nodiscard]] std::size_t after(std::size_t at) const { return at + 1 == num_buckets_ ? 0 : at + 1; }
  [[nodiscard]] std::size_t distance(std::size_t from, std::size_t to) const {
    return to >= from ? to - from : to + num_buckets_ - from;
  }

  std::span<const IndexEntry> entries_;
  std::size_t num_buckets_;
  MappedArray<Bucket> buckets_;
  std::size_t size_ = 0;
  std::uint64_t low_multiplier_;
  std::uint64_t high_multiplier_;
};

}  // namespace flexkv
