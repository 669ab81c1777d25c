// IndexHistory: a PrefixIndex and its SlotPool led through a random history beside a naive model (index_model.h); the
// invariants are checked and everything visible is compared after every step.
#pragma once
#include <cstdint>
#include <vector>

#include "cache/prefix_index.h"
#include "tests/choices.h"
#include "tests/found_columns.h"
#include "tests/index_model.h"

namespace flexkv {

class IndexHistory {
 public:
  IndexHistory(Choices choices, std::int64_t capacity, bool parents_expire)
      : choices_(choices), pool_(capacity, capacity), index_(capacity, "lru"), parents_expire_(parents_expire) {}

  [[nodiscard]] bool over() const { return choices_.over(); }

  void step();

 private:
  std::uint64_t below(std::uint64_t bound) { return choices_.below(bound); }

  Keys random_chain();
  SlotId random_slot();
  void take_back(Slots got, Slots expected);
  void insert();
  void mark_ready();
  void pin();
  void unpin();
  void evict();
  void drop();

  void reset() { take_back(index_.reset(), model_.reset()); }

  // What is ready is found again, but for some of it; some of it has a copy, hangs on nothing or in a circle, comes out
  // of order, or says that it lived less long than it had come to.
  void restart();
  std::vector<FoundBlock> ready_blocks();
  void break_chains(std::vector<FoundBlock>& found);

  // In slots that nothing was found in.
  void add_copies(std::vector<FoundBlock>& found);

  void compare();
  static void compare_match(const MatchResult& got, const MatchResult& expected);

  Choices choices_;
  SlotPool pool_;
  PrefixIndex index_;
  IndexModel model_;
  Slots pins_;
  std::uint32_t now_s_ = 0;
  bool parents_expire_;
};

}  // namespace flexkv
