// PrefixIndex::restore: an index from what a restart found, O(n).
//
// Four passes over the rows, each with the cache lines it will need fetched ahead:
//   1 enter    newest first: the entry is written and its key put into the table, so of several copies the newest stays
//   2 resolve  a row's parent key becomes the row of the copy that stayed: a child hangs on a key, not on a slot
//   3 place    from every leaf up to what is placed already, and down again: depth, run start, links. A walk that ends
//              at a missing parent, in a circle or in such a walk places nothing; a circle without a tail has no leaf
//              and is never walked
//   4 settle   what was not placed is taken out again; leaves are given to the policy, oldest first
// Only when some block outlives its parent or goes after it, parents are raised in between, children first. And only
// when some row is expired by its own word, what has expired is looked for after that, since a parent lives as long as
// its children; if there is any, all is taken out and done again without it.
#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cache/bits.h"
#include "cache/prefix_index.h"

namespace flexkv {
namespace {

using Row = std::uint32_t;
// In place of a parent's row. Rows are below 2^31.
constexpr Row left_out = 0xffffffffu;  // the row has no entry
constexpr Row no_parent = 0xfffffffeu;
constexpr Row unknown_parent = 0xfffffffdu;

// What a walk reads of a row, on its way from anywhere to anywhere.
struct Node {
  Row parent;
  SlotIndex slot;
};

// One of a walk, on its way back.
struct Step {
  Row row;
  SlotIndex slot;
};

// Rows ahead: several memory latencies of a pass. Entries are asked for later than the lines that name them.
constexpr std::size_t near_rows = 12;
constexpr std::size_t far_rows = 24;

std::vector<std::uint64_t> bits_for(std::size_t size) { return std::vector<std::uint64_t>((size + 63) / 64); }

}  // namespace

class PrefixIndex::Restore {
 public:
  // Allocates all that is needed: after it nothing throws. REQUIRES: there are rows.
  Restore(PrefixIndex& index, const RestoreColumns& columns)
      : index_(index),
        columns_(columns),
        num_rows_(columns.slots.size()),
        first_tick_(index.tick_ + 1),
        nodes_(num_rows_),
        is_expired_(bits_for(num_rows_)),
        has_child_(is_expired_),
        is_walked_(is_expired_),
        is_placed_(is_expired_) {
    path_.reserve(num_rows_);
    placed_.reserve(num_rows_);
  }

  std::vector<std::int64_t> run(std::uint32_t now_s) {
    do {  // twice at most: what stays without the expired rows is raised as before
      enter(now_s);
      resolve();
      place();
      if (raises_) raise_parents();
    } while (may_expire_ && take_out_expired(now_s));
    settle();
    index_.tick_ += static_cast<std::uint32_t>(num_rows_);
    return std::move(placed_);
  }

 private:
  [[nodiscard]] SlotIndex slot_of(std::size_t row) const { return static_cast<SlotIndex>(columns_.slots[row]); }
  [[nodiscard]] IndexEntry& entry_of(std::size_t row) { return index_.entries_[nodes_[row].slot]; }
  void prefetch_entry(std::size_t row) { __builtin_prefetch(&entry_of(row), 1); }

  [[nodiscard]] bool is_expired_itself(std::size_t row, std::uint32_t now_s) const {
    return columns_.expiry_s[row] != never_expires && columns_.expiry_s[row] <= now_s;
  }

  // The rows that are not known to be expired.
  void enter(std::uint32_t now_s) {
    for (std::size_t row = num_rows_; row-- > 0;) {
      if (row >= near_rows) {
        index_.table_.prefetch(columns_.keys[row - near_rows]);
        __builtin_prefetch(&index_.entries_[slot_of(row - near_rows)], 1);
      }
      const SlotIndex slot = slot_of(row);
      nodes_[row] = {left_out, slot};
      if (is_expired_itself(row, now_s) && !may_enter(row)) continue;
      const EntryMeta meta = {columns_.tenants[row], columns_.priorities[row], columns_.groups[row],
                              columns_.expiry_s[row]};
      index_.write_entry(slot, columns_.keys[row], no_slot, meta);
      IndexEntry& entry = index_.entries_[slot];
      entry.last_use = first_tick_ + static_cast<std::uint32_t>(row);
      const SlotIndex newer = index_.table_.insert(slot);
      if (newer == no_slot) {
        nodes_[row].parent = unknown_parent;
      } else {
        entry = {};
        raise_expiry(newer, meta.expiry_s);
      }
    }
  }

  // Of a row that is expired by its own word.
  [[nodiscard]] bool may_enter(std::size_t row) {
    may_expire_ = true;
    return !test_bit(is_expired_, row);
  }

  void raise_expiry(SlotIndex slot, std::uint32_t expiry_s) {
    IndexEntry& entry = index_.entries_[slot];
    entry.expiry_s = std::max(entry.expiry_s, expiry_s);
  }

  // What is expired although parents live as long as their children has no living block below it. If there is any, the
  // index is empty again.
  [[nodiscard]] bool take_out_expired(std::uint32_t now_s) {
    const bool found = find_expired(now_s);
    if (found) take_out();
    return found;
  }

  // Marks the rows that are to be left out; whether there is one that was not left out anyway.
  [[nodiscard]] bool find_expired(std::uint32_t now_s) {
    bool found = false;
    for (std::size_t row = 0; row < num_rows_; ++row) {
      const std::size_t ahead = row + near_rows;
      if (ahead < num_rows_ && is_expired_itself(ahead, now_s)) prefetch_entry(ahead);
      if (!is_expired_itself(row, now_s)) continue;
      const bool is_copy = nodes_[row].parent == left_out;
      if (!is_copy && (!test_bit(is_placed_, row) || !entry_of(row).expired(now_s))) continue;
      set_bit(is_expired_, row);
      found = found || !is_copy;
    }
    return found;
  }

  void take_out() {
    index_.table_.clear();
    for (std::size_t row = 0; row < num_rows_; ++row) {
      if (row + near_rows < num_rows_) prefetch_entry(row + near_rows);
      if (nodes_[row].parent == left_out) continue;
      const SlotIndex slot = nodes_[row].slot;
      index_.entries_[slot] = {};
      index_.ready_[slot / 64] &= ~(std::uint64_t{1} << (slot % 64));
    }
    for (auto* bits : {&has_child_, &is_walked_, &is_placed_}) std::ranges::fill(*bits, std::uint64_t{0});
    placed_.clear();
    raises_ = false;
  }

  void resolve() {
    for (std::size_t row = 0; row < num_rows_; ++row) {
      if (row + far_rows < num_rows_) index_.table_.prefetch(columns_.parents[row + far_rows]);
      if (row + near_rows < num_rows_) index_.table_.prefetch_entry(columns_.parents[row + near_rows]);
      Row& parent = nodes_[row].parent;
      if (parent == left_out) continue;
      parent = row_of_parent(row);
      if (parent < num_rows_) set_bit(has_child_, parent);
    }
  }

  [[nodiscard]] Row row_of_parent(std::size_t row) const {
    const BlockKey& parent = columns_.parents[row];
    if (parent == BlockKey{}) return no_parent;
    // Blocks of a chain were mostly written one after the other.
    if (row > 0 && columns_.keys[row - 1] == parent && nodes_[row - 1].parent != left_out)
      return static_cast<Row>(row - 1);
    const SlotIndex slot = index_.table_.find(parent);
    return slot == no_slot ? unknown_parent : index_.entries_[slot].last_use - first_tick_;
  }

  void place() {
    for (std::size_t leaf = 0; leaf < num_rows_; ++leaf) {
      if (nodes_[leaf].parent == left_out || test_bit(has_child_, leaf)) continue;
      path_.clear();
      auto above = static_cast<Row>(leaf);
      while (above < num_rows_ && !test_bit(is_walked_, above)) {
        set_bit(is_walked_, above);
        path_.push_back({above, nodes_[above].slot});
        above = nodes_[above].parent;
      }
      if (above == no_parent || (above < num_rows_ && test_bit(is_placed_, above))) place_path(above);
    }
  }

  // The rows of path_, the deepest first, below `above`.
  void place_path(Row above) {
    SlotIndex parent = above == no_parent ? no_slot : nodes_[above].slot;
    for (std::size_t i = path_.size(); i-- > 0;) {
      if (i >= near_rows) __builtin_prefetch(&index_.entries_[path_[i - near_rows].slot], 1);
      const auto [row, slot] = path_[i];
      index_.entries_[slot].state = EntryState::ready;
      if (parent != no_slot) place_below(slot, parent);
      index_.ready_[slot / 64] |= std::uint64_t{1} << (slot % 64);
      set_bit(is_placed_, row);
      placed_.push_back(row);
      parent = slot;
    }
  }

  void place_below(SlotIndex slot, SlotIndex parent) {
    IndexEntry& entry = index_.entries_[slot];
    const IndexEntry& above = index_.entries_[parent];
    entry.parent = parent;
    entry.depth = above.depth + 1;
    if (slot == parent + 1) entry.run_start = above.run_start;
    raises_ = raises_ || entry.priority > above.priority || entry.expiry_s > above.expiry_s;
    index_.link(slot, parent);
  }

  // Children come before their parents, from the end of placed_.
  void raise_parents() {
    for (std::size_t i = placed_.size(); i-- > 0;) {
      if (i >= near_rows) prefetch_entry(static_cast<std::size_t>(placed_[i - near_rows]));
      const IndexEntry& entry = entry_of(static_cast<std::size_t>(placed_[i]));
      if (entry.parent == no_slot) continue;
      IndexEntry& above = index_.entries_[entry.parent];
      above.priority = std::max<std::uint8_t>(above.priority, entry.priority) & (num_priorities - 1);
      above.expiry_s = std::max(above.expiry_s, entry.expiry_s);
    }
  }

  void settle() {
    for (std::size_t row = 0; row < num_rows_; ++row) {
      if (row + near_rows < num_rows_ && needs_settling(row + near_rows)) prefetch_entry(row + near_rows);
      if (!needs_settling(row)) continue;
      const SlotIndex slot = nodes_[row].slot;
      if (test_bit(is_placed_, row)) {
        index_.policy_->add(slot, LeafCause::used);
      } else {
        index_.table_.erase(slot);
        index_.entries_[slot] = {};
      }
    }
  }

  // A leaf, or entered but not placed.
  [[nodiscard]] bool needs_settling(std::size_t row) const {
    return nodes_[row].parent != left_out && (!test_bit(is_placed_, row) || !test_bit(has_child_, row));
  }

  PrefixIndex& index_;
  const RestoreColumns& columns_;
  std::size_t num_rows_;
  std::uint32_t first_tick_;
  MappedArray<Node> nodes_;
  std::vector<std::uint64_t> is_expired_;  // one bit per row, as in the three after it; known after a first run
  std::vector<std::uint64_t> has_child_;
  std::vector<std::uint64_t> is_walked_;
  std::vector<std::uint64_t> is_placed_;
  std::vector<Step> path_;
  std::vector<std::int64_t> placed_;
  bool raises_ = false;
  bool may_expire_ = false;  // some row is expired by its own word
};

std::vector<std::int64_t> PrefixIndex::restore(const RestoreColumns& columns, std::uint32_t now_s) {
  check_restore(columns);
  if (columns.slots.empty()) return {};
  return Restore(*this, columns).run(now_s);
}

void PrefixIndex::check_restore(const RestoreColumns& columns) const {
  if (num_blocks() + num_doomed_ != 0) {
    throw std::invalid_argument("only an empty index can be restored; it holds " +
                                std::to_string(num_blocks() + num_doomed_) + " blocks");
  }
  const std::size_t num_rows = columns.slots.size();
  for (const std::size_t size : {columns.keys.size(), columns.parents.size(), columns.expiry_s.size(),
                                 columns.tenants.size(), columns.groups.size(), columns.priorities.size()}) {
    if (size != num_rows) {
      throw std::invalid_argument("the columns must be of one length; slots has " + std::to_string(num_rows) +
                                  ", another " + std::to_string(size));
    }
  }
  std::vector<std::uint64_t> named = bits_for(entries_.size());
  for (std::size_t row = 0; row < num_rows; ++row) {
    const SlotIndex slot = checked(columns.slots[row]);
    if (test_bit(named, slot)) {
      throw std::invalid_argument("slots[" + std::to_string(row) + "] = " + std::to_string(slot) + " is named twice");
    }
    set_bit(named, slot);
    check_priority({.priority = columns.priorities[row]});
  }
}

}  // namespace flexkv
