#include "cache/slot_pool.h"

#include <algorithm>
#include <bit>
#include <stdexcept>
#include <string>

#include "cache/bits.h"

namespace flexkv {
namespace {

constexpr std::size_t word_slots = 64;
constexpr std::uint64_t full_word = ~std::uint64_t{0};
constexpr std::int64_t max_slots = (std::int64_t{1} << 32) - 2;
// Searches for a better place look at this many candidates, so that a request's cost stays bounded.
constexpr int max_partial_words_tried = 16;
constexpr int max_stretches_tried = 32;

std::size_t as_index(std::int64_t value) { return static_cast<std::size_t>(value); }

std::int64_t checked_num_slots(std::int64_t capacity) {
  if (capacity <= 0 || capacity > max_slots) {
    throw std::invalid_argument("capacity must be in [1, 2^32 - 2], got " + std::to_string(capacity));
  }
  return capacity;
}

// First position of a run of `length` set bits in `word`, or 64.
int find_run(std::uint64_t word, std::int64_t length) {
  std::uint64_t starts = word;  // bit i: the run of `have` bits from i is set
  std::int64_t have = 1;
  while (have < length && starts != 0) {
    const std::int64_t step = std::min(have, length - have);
    starts &= starts >> step;
    have += step;
  }
  return std::countr_zero(starts);
}

std::int64_t count_bits(const std::vector<std::uint64_t>& bits) {
  std::int64_t count = 0;
  for (const std::uint64_t word : bits) count += std::popcount(word);
  return count;
}

}  // namespace

SlotPool::SlotPool(std::int64_t capacity, std::int64_t available)
    : capacity_(checked_num_slots(capacity)),
      free_((as_index(capacity) + word_slots - 1) / word_slots),
      used_(free_.size()),
      quarantined_(free_.size()),
      whole_words_(free_.size()),
      partial_words_(free_.size()) {
  set_available(available);
}

std::vector<SlotId> SlotPool::allocate(std::int64_t n) {
  if (n < 0) throw std::invalid_argument("n must not be negative, got " + std::to_string(n));
  if (n > num_free_) {
    throw std::runtime_error("out of slots: " + std::to_string(n) + " asked for, " + std::to_string(num_free_) +
                             " free of " + std::to_string(available_));
  }
  std::vector<SlotId> slots;
  slots.reserve(as_index(n));
  if (n >= static_cast<std::int64_t>(word_slots)) take_stretches(n, slots);
  take_pieces(n - static_cast<std::int64_t>(slots.size()), slots);
  num_free_ -= n;
  num_used_ += n;
  return slots;
}

// Stretches of whole free words; the last word of one may be taken in part. Less than a word may stay missing.
void SlotPool::take_stretches(std::int64_t n, std::vector<SlotId>& out) {
  std::int64_t missing = n;
  while (missing >= static_cast<std::int64_t>(word_slots)) {
    const Stretch stretch = find_stretch(as_index(missing) / word_slots + (as_index(missing) % word_slots != 0));
    if (stretch.num_words == 0) return;
    next_stretch_ = stretch.first_word + stretch.num_words;
    for (std::size_t word = stretch.first_word; word < stretch.first_word + stretch.num_words; ++word) {
      const std::int64_t count = std::min<std::int64_t>(missing, word_slots);
      take_bits(word, count == word_slots ? full_word : (std::uint64_t{1} << count) - 1, out);
      missing -= count;
    }
  }
}

// Of the next stretches, the first one that is long enough; else the longest. The search goes on where the last stretch
// was taken: what lies behind has been taken from already, and what is evicted next was stored in this order too.
SlotPool::Stretch SlotPool::find_stretch(std::size_t wanted_words) const {
  Stretch best;
  bool wrapped = false;
  const auto next_from = [&](std::size_t from) {
    const std::size_t found = whole_words_.find_from(from);
    if (found != BitTree::npos || wrapped) return found;
    wrapped = true;
    return whole_words_.find_from(0);
  };
  std::size_t word = next_from(next_stretch_);
  for (int tried = 0; word != BitTree::npos && tried < max_stretches_tried; ++tried) {
    std::size_t end = word + 1;
    while (end < free_.size() && end - word < wanted_words && whole_words_.contains(end)) ++end;
    if (end - word > best.num_words) best = {word, end - word};
    if (best.num_words == wanted_words) break;
    word = next_from(end);
  }
  return best;
}

// From words already in part used; a whole word is broken only when there is none.
void SlotPool::take_pieces(std::int64_t n, std::vector<SlotId>& out) {
  std::int64_t missing = n;
  if (missing > 0 && take_one_run(missing, out)) return;
  while (missing > 0) {
    std::size_t word = partial_words_.find_from(0);
    if (word == BitTree::npos) word = whole_words_.find_from(0);
    std::uint64_t bits = free_[word];
    while (std::popcount(bits) > missing) bits &= ~(std::uint64_t{1} << (63 - std::countl_zero(bits)));
    missing -= std::popcount(bits);
    take_bits(word, bits, out);
  }
}

// All of a short request as one run, from one of the first words in part used or from a whole one.
bool SlotPool::take_one_run(std::int64_t n, std::vector<SlotId>& out) {
  if (n > static_cast<std::int64_t>(word_slots)) return false;
  const std::uint64_t run = n == word_slots ? full_word : (std::uint64_t{1} << n) - 1;
  std::size_t word = partial_words_.find_from(0);
  for (int tried = 0; word != BitTree::npos && tried < max_partial_words_tried; ++tried) {
    const int at = find_run(free_[word], n);
    if (at < 64) {
      take_bits(word, run << at, out);
      return true;
    }
    word = partial_words_.find_from(word + 1);
  }
  word = whole_words_.find_from(0);
  if (word == BitTree::npos) return false;
  take_bits(word, run, out);
  return true;
}

void SlotPool::take_bits(std::size_t word, std::uint64_t bits, std::vector<SlotId>& out) {
  set_free_word(word, free_[word] & ~bits);
  used_[word] |= bits;
  for (; bits != 0; bits &= bits - 1) {
    out.push_back(static_cast<SlotId>(word * word_slots + static_cast<std::size_t>(std::countr_zero(bits))));
  }
}

void SlotPool::set_free_word(std::size_t word, std::uint64_t bits) {
  const std::uint64_t before = free_[word];
  free_[word] = bits;
  const auto is_partial = [](std::uint64_t value) { return value != 0 && value != full_word; };
  if ((before == full_word) != (bits == full_word)) {
    bits == full_word ? whole_words_.insert(word) : whole_words_.erase(word);
  }
  if (is_partial(before) != is_partial(bits)) {
    is_partial(bits) ? partial_words_.insert(word) : partial_words_.erase(word);
  }
}

// Clears the bit of every slot, or of none: a slot named twice is found because its bit is gone the second time.
// Not const: `bits` is one of the pool's own.
// NOLINTNEXTLINE(readability-make-member-function-const)
void SlotPool::clear_all_or_nothing(std::vector<std::uint64_t>& bits, std::span<const SlotId> slots,
                                    const char* state) {
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const SlotId slot = slots[i];
    const bool in_range = slot >= 0 && slot < capacity_;
    if (in_range && test_bit(bits, as_index(slot))) {
      clear_bit(bits, as_index(slot));
      continue;
    }
    const bool named_twice = in_range && std::ranges::count(slots.first(i), slot) > 0;
    for (const SlotId done : slots.first(i)) set_bit(bits, as_index(done));
    refuse(i, slot, named_twice, state);
  }
}

void SlotPool::refuse(std::size_t i, SlotId slot, bool named_twice, const char* state) const {
  const std::string what = "slots[" + std::to_string(i) + "] = " + std::to_string(slot);
  if (slot < 0 || slot >= capacity_) {
    throw std::invalid_argument(what + " is out of range [0, " + std::to_string(capacity_) + ")");
  }
  throw std::invalid_argument(what + (named_twice ? " is named twice" : std::string(" is not ") + state));
}

void SlotPool::make_free(std::span<const SlotId> slots) {
  for (const SlotId slot : slots) {
    const std::size_t word = as_index(slot) / word_slots;
    set_free_word(word, free_[word] | std::uint64_t{1} << (as_index(slot) % word_slots));
  }
  num_free_ += static_cast<std::int64_t>(slots.size());
}

// Marks them as used first, which tells a slot named twice, and takes the marks back when one cannot be had.
void SlotPool::adopt(std::span<const SlotId> slots) {
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const SlotId slot = slots[i];
    const bool in_range = slot >= 0 && slot < capacity_;
    if (in_range && test_bit(free_, as_index(slot)) && !test_bit(used_, as_index(slot))) {
      set_bit(used_, as_index(slot));
      continue;
    }
    const bool named_twice = in_range && std::ranges::count(slots.first(i), slot) > 0;
    for (const SlotId done : slots.first(i)) clear_bit(used_, as_index(done));
    refuse(i, slot, named_twice, "free");
  }
  for (const SlotId slot : slots) {
    const std::size_t word = as_index(slot) / word_slots;
    set_free_word(word, free_[word] & ~(std::uint64_t{1} << (as_index(slot) % word_slots)));
  }
  num_free_ -= static_cast<std::int64_t>(slots.size());
  num_used_ += static_cast<std::int64_t>(slots.size());
}

void SlotPool::free(std::span<const SlotId> slots) {
  clear_all_or_nothing(used_, slots, "used");
  num_used_ -= static_cast<std::int64_t>(slots.size());
  make_free(slots);
}

void SlotPool::quarantine(std::span<const SlotId> slots) {
  clear_all_or_nothing(used_, slots, "used");
  num_used_ -= static_cast<std::int64_t>(slots.size());
  for (const SlotId slot : slots) set_bit(quarantined_, as_index(slot));
  num_quarantined_ += static_cast<std::int64_t>(slots.size());
}

void SlotPool::release(std::span<const SlotId> slots) {
  clear_all_or_nothing(quarantined_, slots, "quarantined");
  num_quarantined_ -= static_cast<std::int64_t>(slots.size());
  make_free(slots);
}

void SlotPool::set_available(std::int64_t available) {
  if (available < available_ || available > capacity_) {
    throw std::invalid_argument("available must be in [" + std::to_string(available_) + ", " +
                                std::to_string(capacity_) + "], got " + std::to_string(available));
  }
  add_free_range(available_, available);
  available_ = available;
}

void SlotPool::add_free_range(std::int64_t begin, std::int64_t end) {
  for (std::int64_t at = begin; at < end;) {
    const std::size_t word = as_index(at) / word_slots;
    const std::int64_t word_end = std::min(end, static_cast<std::int64_t>((word + 1) * word_slots));
    const std::int64_t count = word_end - at;
    const std::uint64_t bits = count == word_slots ? full_word : (std::uint64_t{1} << count) - 1;
    set_free_word(word, free_[word] | bits << (as_index(at) % word_slots));
    num_free_ += count;
    at = word_end;
  }
}

void SlotPool::reset() {
  next_stretch_ = 0;
  for (std::size_t word = 0; word < free_.size(); ++word) set_free_word(word, 0);
  std::ranges::fill(used_, 0);
  std::ranges::fill(quarantined_, 0);
  num_free_ = num_used_ = num_quarantined_ = 0;
  add_free_range(0, available_);
}

bool SlotPool::is_used(SlotId slot) const {
  if (slot < 0 || slot >= capacity_) {
    throw std::invalid_argument("slot " + std::to_string(slot) + " is out of range [0, " + std::to_string(capacity_) +
                                ")");
  }
  return test_bit(used_, as_index(slot));
}

double SlotPool::mean_free_run() const {
  std::int64_t num_runs = 0;
  std::uint64_t carry = 0;  // 1 when the word before ended in a free slot
  for (const std::uint64_t word : free_) {
    num_runs += std::popcount(word & ~(word << 1 | carry));
    carry = word >> 63;
  }
  return num_runs == 0 ? 0.0 : static_cast<double>(num_free_) / static_cast<double>(num_runs);
}

void SlotPool::check_invariants() const {
  const auto require = [](bool holds, const char* what) {
    if (!holds) throw std::logic_error(std::string("slot pool: ") + what);
  };
  require(count_bits(free_) == num_free_, "num_free differs from the bitmap");
  require(count_bits(used_) == num_used_, "num_used differs from the bitmap");
  require(count_bits(quarantined_) == num_quarantined_, "num_quarantined differs from the bitmap");
  require(num_free_ + num_used_ + num_quarantined_ == available_, "states do not add up to the available slots");
  require(available_ <= capacity_, "more slots available than there are");
  for (std::size_t word = 0; word < free_.size(); ++word) {
    const std::uint64_t bits = free_[word];
    require((bits & used_[word]) == 0 && (bits & quarantined_[word]) == 0 && (used_[word] & quarantined_[word]) == 0,
            "a slot is in two states");
    const std::uint64_t any = bits | used_[word] | quarantined_[word];
    const bool beyond =
        any != 0 && static_cast<std::int64_t>(word * word_slots) + 64 - std::countl_zero(any) > available_;
    require(!beyond, "a slot that is not available has a state");
    require(whole_words_.contains(word) == (bits == full_word), "whole_words differs from the bitmap");
    require(partial_words_.contains(word) == (bits != 0 && bits != full_word), "partial_words differs from the bitmap");
  }
  require(whole_words_.consistent() && partial_words_.consistent(), "a summary bit is wrong");
}

}  // namespace flexkv
