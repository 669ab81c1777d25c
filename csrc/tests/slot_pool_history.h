// A SlotPool led through a random history beside a plain vector of states.
#pragma once
#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "cache/slot_pool.h"
#include "tests/check.h"
#include "tests/choices.h"

namespace flexkv {

class SlotPoolHistory {
 public:
  SlotPoolHistory(Choices& choices, std::int64_t capacity)
      : choices_(choices), pool_(capacity, capacity / 2), states_(static_cast<std::size_t>(capacity / 2)) {}

  void step() {
    switch (choices_.below(10)) {
      case 0:
      case 1:
      case 2:
        allocate();
        break;
      case 3:
      case 4:
        move(State::used, State::free, [this](const Slots& slots) { pool_.free(slots); });
        break;
      case 5:
        move(State::used, State::quarantined, [this](const Slots& slots) { pool_.quarantine(slots); });
        break;
      case 6:
        move(State::quarantined, State::free, [this](const Slots& slots) { pool_.release(slots); });
        break;
      case 7:
        free_a_bad_slot();
        break;
      case 8:
        move(State::free, State::used, [this](const Slots& slots) { pool_.adopt(slots); });
        adopt_a_bad_slot();
        break;
      default:
        grow();
    }
    compare();
  }

 private:
  enum class State : std::uint8_t { free, used, quarantined };
  using Slots = std::vector<SlotId>;

  [[nodiscard]] std::int64_t count(State state) const { return std::ranges::count(states_, state); }

  Slots some_in(State wanted) {
    Slots slots;
    for (std::size_t i = 0; i < states_.size(); ++i) {
      if (states_[i] == wanted && choices_.one_in(3)) slots.push_back(static_cast<SlotId>(i));
    }
    choices_.shuffle(slots);
    return slots;
  }

  void set(const Slots& slots, State from, State to) {
    for (const SlotId slot : slots) {
      CHECK(states_.at(static_cast<std::size_t>(slot)) == from);
      states_[static_cast<std::size_t>(slot)] = to;
    }
  }

  void allocate() {
    const std::uint64_t most = static_cast<std::uint64_t>(pool_.num_free()) + 1;
    const auto n =
        static_cast<std::int64_t>(choices_.below(choices_.one_in(2) ? most : std::min<std::uint64_t>(most, 20)));
    const Slots slots = pool_.allocate(n);
    CHECK(static_cast<std::int64_t>(slots.size()) == n);
    set(slots, State::free, State::used);
    CHECK_THROWS(pool_.allocate(pool_.num_free() + 1), std::runtime_error);
  }

  template <typename Verb>
  void move(State from, State to, Verb verb) {
    const Slots slots = some_in(from);
    verb(slots);
    set(slots, from, to);
  }

  // All or nothing: the good ones before the bad one stay used.
  void free_a_bad_slot() {
    Slots slots = some_in(State::used);
    const auto bad = static_cast<SlotId>(choices_.below(static_cast<std::uint64_t>(pool_.capacity()) + 1));
    const auto at = static_cast<std::size_t>(bad);
    const bool is_used = at < states_.size() && states_[at] == State::used;
    slots.push_back(is_used && std::ranges::count(slots, bad) == 0 ? -1 : bad);
    CHECK_THROWS(pool_.free(slots), std::invalid_argument);
    CHECK_THROWS(pool_.quarantine(slots), std::invalid_argument);
  }

  void adopt_a_bad_slot() {
    Slots slots = some_in(State::free);
    const auto bad = static_cast<SlotId>(choices_.below(static_cast<std::uint64_t>(pool_.capacity()) + 1));
    const auto at = static_cast<std::size_t>(bad);
    const bool is_free = at < states_.size() && states_[at] == State::free;
    slots.push_back(is_free && std::ranges::count(slots, bad) == 0 ? -1 : bad);
    CHECK_THROWS(pool_.adopt(slots), std::invalid_argument);
  }

  void grow() {
    if (choices_.one_in(8)) {
      pool_.reset();
      std::ranges::fill(states_, State::free);
    }
    const auto more = static_cast<std::int64_t>(choices_.below(200));
    pool_.set_available(std::min(pool_.capacity(), pool_.available() + more));
    states_.resize(static_cast<std::size_t>(pool_.available()), State::free);
  }

  void compare() const {
    CHECK(pool_.num_free() == count(State::free) && pool_.num_used() == count(State::used));
    CHECK(pool_.num_quarantined() == count(State::quarantined));
    pool_.check_invariants();
  }

  Choices& choices_;
  SlotPool pool_;
  std::vector<State> states_;  // of the available slots
};

}  // namespace flexkv
