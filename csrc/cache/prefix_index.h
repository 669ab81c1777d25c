// PrefixIndex: which blocks a tier holds, found by the chain of their keys. One index per (tier, size class).
//
// Entries are indexed by slot, one 64-byte cache line each (key, parent, first child, siblings, run start, policy
// links, pins, state, depth, last use, expiry, tenant, priority, group); an open-addressing table maps key -> slot.
//
// Invariants
//  1. Closure: a visible block's parent is visible. So the longest match is found by bisecting the chain: O(log n)
//  probes.
//  2. run_start(slot) is the first slot of the stretch of adjacent slots in which each is the parent of the next. It
//  never
//     changes during an entry's life, since leaves go first. So a match is returned as runs, O(number of runs).
//  3. Pinning a block protects its ancestors: they have a child. Only the deepest block of a plan is pinned.
//  4. Expiry and priority never grow with depth (insert raises ancestors), so an expired block has only expired
//  descendants.
//  5. An entry is in the eviction policy if and only if it is visible, ready, unpinned and has no child, doomed or not.
//
// Expiry: an expired block does not match, but it stays visible (it is in the way of an insert of its key, and can be a
// parent: an insert below it raises its expiry again) until it is evicted or dropped. A match names the first expired
// block of its chain: whoever wants to insert there drops that one first and gives the slots back.
//
// An entry's life:
//   insert -> unready -> mark_ready -> ready -> evict -> gone
//        \________________\______________\-> drop -> doomed (invisible) -> last pin and last child gone -> gone
// `doomed` entries keep their slots: whoever pins one may still copy from or to it (and to its ancestors). A doomed
// entry stays its parent's child until it is gone, so a visible parent of it cannot be evicted either. Slots that
// become "gone" are returned by the call that did it; the caller gives them back to the SlotPool.
//
// Readiness is not monotone (a child's bytes can land before its parent's): match reports the visible prefix and, apart
// from it, the ready prefix.
// Thread safety: none; the owner holds a lock. Times are seconds on a clock the caller passes in.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cache/eviction.h"
#include "cache/hash.h"
#include "cache/index_entry.h"
#include "cache/key_table.h"
#include "cache/mapped_array.h"
#include "cache/slot_pool.h"

namespace flexkv {

struct SlotRun {
  SlotId start;
  std::int64_t length;
};

struct MatchResult {
  std::int64_t num_visible = 0;  // blocks of the chain present, from its start
  std::int64_t num_ready = 0;    // of these, how many from the start have their bytes
  SlotId deepest_visible = -1;   // slot of block num_visible-1
  SlotId deepest_ready = -1;     // slot of block num_ready-1: the one to pin
  SlotId first_expired = -1;  // slot of block num_visible, when that is present but expired: to drop before an insert
  std::vector<SlotRun> runs;  // slots of the num_visible blocks, in chain order

  // Slots of blocks begin .. end-1. REQUIRES: 0 <= begin <= end <= num_visible.
  [[nodiscard]] std::vector<SlotId> slots(std::int64_t begin, std::int64_t end) const;
};

struct EntryMeta {
  std::uint16_t tenant = 0;
  std::uint8_t priority = 0;  // 0 (goes first) .. 7
  std::uint8_t group = 0;
  std::uint32_t expiry_s = 0xffffffffu;  // on the caller's clock; the maximum means never
};

// What a restart knows of the blocks that lie in slots; columns of one length, in order of last use, the oldest first.
struct RestoreColumns {
  std::span<const SlotId> slots;
  std::span<const BlockKey> keys;
  std::span<const BlockKey> parents;        // key of the block before; all zero: the first of its chain
  std::span<const std::uint32_t> expiry_s;  // on the index's clock
  std::span<const std::uint16_t> tenants;
  std::span<const std::uint8_t> groups;
  std::span<const std::uint8_t> priorities;  // 0 .. 7
};

enum class InsertStatus : std::uint8_t {
  inserted,
  conflict,     // a new key is already there: somebody else inserted it, or it is expired; the caller keeps its slots
  parent_gone,  // keys[start-1] is not visible any more; the caller keeps its slots
};

class PrefixIndex {
 public:
  // `policy`: name of an eviction policy (cache/eviction.h). Throws std::invalid_argument on an unknown one, or unless
  // 0 < capacity <= 2^31.
  PrefixIndex(std::int64_t capacity, const std::string& policy);
  ~PrefixIndex();
  PrefixIndex(PrefixIndex&&) noexcept;
  PrefixIndex& operator=(PrefixIndex&&) = delete;
  PrefixIndex(const PrefixIndex&) = delete;
  PrefixIndex& operator=(const PrefixIndex&) = delete;

  // Longest prefix of the chain `keys` that is visible and not expired at `now_s`. Does not touch recency.
  // REQUIRES: keys is one chain: a key stands for its block and for all before it.
  [[nodiscard]] MatchResult match(std::span<const BlockKey> keys, std::uint32_t now_s) const;

  // Inserts keys[start..] in slots[0..] as children of keys[start-1], unready. All or nothing. The parent may be
  // unready. Throws std::invalid_argument unless slots.size() == keys.size() - start, slots in range, not in the index
  // and not named twice, no new key named twice, priority <= 7.
  [[nodiscard]] InsertStatus insert(std::span<const BlockKey> keys, std::int64_t start, std::span<const SlotId> slots,
                                    const EntryMeta& meta);

  // Fills an empty index with ready blocks, as if they had been inserted and then used in the order of the rows:
  // parents are raised to the priority and expiry of their children, whatever their own rows say. Of several rows of
  // one key the newest stays, with the latest expiry of them. Left out is every block whose chain of parents does not
  // lead to a first block (missing, or a circle); and what is then expired at `now_s`, which has nothing below it that
  // is not. Returns the rows (positions in the columns) of the blocks restored, parents before children: stretches in
  // which each row is the parent of the next, one for each leaf. O(n); needs 25 bytes a row while it runs.
  // Throws std::invalid_argument, nothing changed, unless the index is empty (no doomed entries either), the columns
  // are of one length, slots in range and not named twice, priorities <= 7.
  [[nodiscard]] std::vector<std::int64_t> restore(const RestoreColumns& columns, std::uint32_t now_s);

  // The calls below throw std::invalid_argument on a slot out of range or without entry; nothing changed then.

  // Doomed entries among `slots` are passed over, ready ones stay so.
  void mark_ready(std::span<const SlotId> slots);

  void pin(SlotId slot);  // throws std::invalid_argument on a doomed entry too
  // Priority and expiry of the block and its ancestors become at least those of `meta`, as if a block had been inserted
  // below it. Throws std::invalid_argument when it is not pinned, or unless priority <= 7.
  void raise(SlotId slot, const EntryMeta& meta);
  // Last use becomes the newest of all. Returns the slots that are gone now (only when the entry was doomed).
  // Throws std::invalid_argument when it is not pinned.
  [[nodiscard]] std::vector<SlotId> unpin(SlotId slot);

  // Makes the block and its descendants invisible; returns those gone at once. The rest goes with its last pin.
  // Of a doomed entry: nothing to do.
  [[nodiscard]] std::vector<SlotId> drop(SlotId slot);
  // Up to `n` victims in policy order, leaves first; O(1) each.
  [[nodiscard]] std::vector<SlotId> evict(std::int64_t n);
  // Drops everything; returns the slots gone at once. O(capacity).
  [[nodiscard]] std::vector<SlotId> reset();

  [[nodiscard]] std::vector<BlockKey> keys_of(std::span<const SlotId> slots) const;  // of entries visible or doomed
  [[nodiscard]] SlotId find(const BlockKey& key) const;                              // -1 when not visible
  [[nodiscard]] EntryMeta meta_of(SlotId slot) const;                                // of an entry visible or doomed
  [[nodiscard]] std::int64_t pins_of(SlotId slot) const;                             // 0 when there is no entry
  [[nodiscard]] bool is_ready(SlotId slot) const;                                    // false when there is no entry
  // How many of the leading slots hold ready blocks. Throws std::invalid_argument on a slot out of range.
  [[nodiscard]] std::int64_t count_ready(std::span<const SlotId> slots) const;
  [[nodiscard]] std::int64_t capacity() const { return static_cast<std::int64_t>(entries_.size()); }
  [[nodiscard]] std::int64_t num_blocks() const { return static_cast<std::int64_t>(table_.size()); }  // visible
  [[nodiscard]] std::int64_t num_doomed() const { return num_doomed_; }
  [[nodiscard]] std::int64_t num_unready() const { return num_unready_; }  // visible, bytes not there yet
  [[nodiscard]] std::int64_t num_pinned() const { return num_pinned_; }    // entries with a pin, visible or doomed
  [[nodiscard]] std::int64_t num_evictable() const;                        // leaves the policy holds
  [[nodiscard]] std::int64_t memory_bytes() const;
  // Throws std::logic_error naming what is broken. O(capacity).
  void check_invariants() const;

 private:
  [[nodiscard]] SlotIndex checked(SlotId slot) const;          // in range, else throws
  [[nodiscard]] SlotIndex checked_present(SlotId slot) const;  // and with an entry
  [[nodiscard]] SlotIndex find_at(const BlockKey& key, std::size_t depth) const;
  void find_runs(MatchResult& result) const;
  void find_ready_prefix(MatchResult& result) const;
  [[nodiscard]] std::int64_t ready_in(const SlotRun& run) const;

  static void check_priority(const EntryMeta& meta);
  void check_insert(std::span<const BlockKey> keys, std::int64_t start, std::span<const SlotId> slots,
                    const EntryMeta& meta) const;
  void write_entry(SlotIndex slot, const BlockKey& key, SlotIndex parent, const EntryMeta& meta);
  class Restore;
  void check_restore(const RestoreColumns& columns) const;
  void remove_tail(std::span<const SlotId> slots);
  void raise_ancestors(SlotIndex slot, const EntryMeta& meta);

  void link(SlotIndex slot, SlotIndex parent);
  void unlink(SlotIndex slot);
  void hold_if_evictable(SlotIndex slot, LeafCause cause);
  void hide(SlotIndex slot);
  void vanish(SlotIndex slot, std::vector<SlotId>& gone);
  void vanish_upward(SlotIndex slot, std::vector<SlotId>& gone);

  void check_entry(SlotIndex slot) const;
  void check_chain(SlotIndex slot) const;

  MappedArray<IndexEntry> entries_;   // by slot
  MappedArray<std::uint64_t> ready_;  // one bit per slot: state == ready, for scanning runs
  KeyTable table_;                    // of the visible entries
  std::unique_ptr<EvictionPolicy> policy_;
  std::uint32_t tick_ = 0;  // of the newest use
  std::int64_t num_doomed_ = 0;
  std::int64_t num_unready_ = 0;
  std::int64_t num_pinned_ = 0;
};

}  // namespace flexkv
