// SlotPool: which slots of a tier are free. Hands out runs of adjacent slots, because copies of long runs are fast.
//
// A slot is in exactly one state:   free -> used -> free                  allocate, adopt / free
//                                          used -> quarantined -> free   quarantine / release
// (quarantined: an operation that may still touch the slot has not been heard of; docs/ARCHITECTURE.md, D16).
// Invariants: num_free + num_used + num_quarantined == available <= capacity; every bit counted once.
// Slots in [available, capacity) cannot be handed out yet (not prefaulted or not registered); `set_available` only
// grows.
//
// Run allocation: a bitmap with summary levels. Long requests take stretches of whole free 64-slot words, each search
// going on where the last one ended; short ones are served from words already in part used, so that stretches stay.
// Cost is O(slots handed out + log64 capacity). Thread safety: none; the owner (one KVTaskEngine) holds a lock.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "cache/bit_tree.h"

namespace flexkv {

using SlotId = std::int64_t;

class SlotPool {
 public:
  // REQUIRES: 0 < capacity <= 2^32 - 2; 0 <= available <= capacity. Throws std::invalid_argument.
  SlotPool(std::int64_t capacity, std::int64_t available);

  // Hands out `n` slots as few runs, each run ascending. Throws std::runtime_error when n > num_free(),
  // std::invalid_argument when n < 0; nothing changed then.
  [[nodiscard]] std::vector<SlotId> allocate(std::int64_t n);
  // Takes these very slots: those whose blocks a restart has found. Throws std::invalid_argument when one is out of
  // range, named twice, or not free; nothing changed then.
  void adopt(std::span<const SlotId> slots);
  // Throws std::invalid_argument when a slot is out of range, named twice, or not used; nothing changed then.
  void free(std::span<const SlotId> slots);
  void quarantine(std::span<const SlotId> slots);
  void release(std::span<const SlotId> slots);  // quarantined -> free
  void set_available(std::int64_t available);   // throws if it would shrink or exceed capacity
  void reset();                                 // all available slots free, the quarantined ones too

  [[nodiscard]] std::int64_t capacity() const { return capacity_; }
  [[nodiscard]] std::int64_t available() const { return available_; }
  [[nodiscard]] std::int64_t num_free() const { return num_free_; }
  [[nodiscard]] std::int64_t num_used() const { return num_used_; }
  [[nodiscard]] std::int64_t num_quarantined() const { return num_quarantined_; }
  [[nodiscard]] bool is_used(SlotId slot) const;  // throws std::invalid_argument when out of range
  [[nodiscard]] double mean_free_run() const;     // O(capacity / 64); for reports
  // Throws std::logic_error naming what is broken. O(capacity).
  void check_invariants() const;

 private:
  struct Stretch {
    std::size_t first_word = 0;
    std::size_t num_words = 0;
  };
  void take_stretches(std::int64_t n, std::vector<SlotId>& out);
  [[nodiscard]] Stretch find_stretch(std::size_t wanted_words) const;
  void take_pieces(std::int64_t n, std::vector<SlotId>& out);
  [[nodiscard]] bool take_one_run(std::int64_t n, std::vector<SlotId>& out);
  void take_bits(std::size_t word, std::uint64_t bits, std::vector<SlotId>& out);
  void set_free_word(std::size_t word, std::uint64_t bits);  // and the summaries
  void clear_all_or_nothing(std::vector<std::uint64_t>& bits, std::span<const SlotId> slots, const char* state);
  [[noreturn]] void refuse(std::size_t i, SlotId slot, bool named_twice, const char* state) const;
  void make_free(std::span<const SlotId> slots);
  void add_free_range(std::int64_t begin, std::int64_t end);

  std::int64_t capacity_;
  std::int64_t available_ = 0;
  std::int64_t num_free_ = 0;
  std::int64_t num_used_ = 0;
  std::int64_t num_quarantined_ = 0;
  std::vector<std::uint64_t> free_;  // one bit per slot in each; a slot's bit is set in at most one
  std::vector<std::uint64_t> used_;
  std::vector<std::uint64_t> quarantined_;
  std::size_t next_stretch_ = 0;  // word where the next search for a stretch begins
  BitTree whole_words_;           // words of free_ with all 64 slots free
  BitTree partial_words_;         // words of free_ with some
};

}  // namespace flexkv
