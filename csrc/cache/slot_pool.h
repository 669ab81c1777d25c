// SlotPool: which slots of a tier are free. Hands out runs of adjacent slots, because copies of long runs are fast.
//
// A slot is in exactly one state:   free -> used -> free          allocate / free
//                                          used -> quarantined -> free    quarantine / release
// (quarantined: an operation that may still touch the slot has not been heard of; docs/ARCHITECTURE.md, D16).
// Invariants: num_free + num_used + num_quarantined == available <= capacity; every bit counted once.
// Slots in [available, capacity) cannot be handed out yet (not prefaulted or not registered); `set_available` only grows.
//
// Run allocation: a bitmap with summary levels; whole free 64-slot words are preferred for long requests, short requests
// are served from words already in part used, so that long runs stay. Cost is O(slots handed out + log64 capacity).
// Thread safety: none; the owner (one KVTaskEngine) holds a lock.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace flexkv {

using SlotId = std::int64_t;

class SlotPool {
 public:
  // REQUIRES: 0 < capacity <= 2^32 - 2; 0 <= available <= capacity. Throws std::invalid_argument.
  SlotPool(std::int64_t capacity, std::int64_t available);

  // Hands out `n` slots as few runs, each run ascending. Throws std::runtime_error when n > num_free(); nothing changed then.
  [[nodiscard]] std::vector<SlotId> allocate(std::int64_t n);
  // Throws std::invalid_argument when a slot is out of range, named twice, or not used; nothing changed then.
  void free(std::span<const SlotId> slots);
  void quarantine(std::span<const SlotId> slots);
  void release(std::span<const SlotId> slots);  // quarantined -> free
  void set_available(std::int64_t available);   // throws if it would shrink or exceed capacity
  void reset();                                 // all available slots free

  [[nodiscard]] std::int64_t capacity() const;
  [[nodiscard]] std::int64_t available() const;
  [[nodiscard]] std::int64_t num_free() const;
  [[nodiscard]] std::int64_t num_used() const;
  [[nodiscard]] std::int64_t num_quarantined() const;
  [[nodiscard]] bool is_used(SlotId slot) const;
  [[nodiscard]] double mean_free_run() const;  // O(capacity / 64); for reports
  // Throws std::logic_error naming what is broken. O(capacity).
  void check_invariants() const;
};

}  // namespace flexkv
