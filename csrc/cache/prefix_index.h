// PrefixIndex: which blocks a tier holds, found by the chain of their keys. One index per (tier, size class).
//
// Entries are indexed by slot, one 64-byte cache line each (key, parent, first child, siblings, run start, policy links,
// pins, state, depth, last use, expiry, tenant, priority, group); an open-addressing table maps key -> slot.
//
// Invariants
//  1. Closure: a visible block's parent is visible. So the longest match is found by bisecting the chain: O(log n) probes.
//  2. run_start(slot) is the first slot of the stretch of adjacent slots in which each is the parent of the next. It never
//     changes during an entry's life, since leaves go first. So a match is returned as runs, O(number of runs).
//  3. Pinning a block protects its ancestors: they have a child. Only the deepest block of a plan is pinned.
//  4. Expiry and priority never grow with depth (insert raises ancestors), so an expired block has only expired descendants.
//  5. An entry is in the eviction policy if and only if it is visible, ready, unpinned and has no child.
//
// An entry's life:
//   insert -> unready -> mark_ready -> ready -> evict -> gone
//        \________________\______________\-> drop -> doomed (invisible) -> last pin and last child gone -> gone
// `doomed` entries keep their slots: whoever pins one may still copy from or to it (and to its ancestors).
// Slots that become "gone" are returned by the call that did it; the caller gives them back to the SlotPool.
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

#include "cache/hash.h"
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
  std::vector<SlotRun> runs;     // slots of the num_visible blocks, in chain order
};

struct EntryMeta {
  std::uint16_t tenant = 0;
  std::uint8_t priority = 0;     // 0 (goes first) .. 7
  std::uint8_t group = 0;
  std::uint32_t expiry_s = 0xffffffffu;  // on the caller's clock; the maximum means never
};

enum class InsertStatus : std::uint8_t {
  inserted,
  conflict,      // the first new key is already there: somebody else inserted it; the caller keeps its slots
  parent_gone,   // keys[start-1] is not visible any more; the caller keeps its slots
};

class PrefixIndex {
 public:
  // `policy`: name of an eviction policy (cache/eviction.h). Throws std::invalid_argument on an unknown one.
  PrefixIndex(std::int64_t capacity, const std::string& policy);
  ~PrefixIndex();
  PrefixIndex(PrefixIndex&&) noexcept;

  // Longest prefix of the chain `keys` that is visible and not expired at `now_s`. Does not touch recency.
  [[nodiscard]] MatchResult match(std::span<const BlockKey> keys, std::uint32_t now_s) const;

  // Inserts keys[start..] in slots[0..] as children of keys[start-1], unready. All or nothing.
  // REQUIRES: slots.size() == keys.size() - start; slots in range and not in the index (throws std::invalid_argument).
  [[nodiscard]] InsertStatus insert(std::span<const BlockKey> keys, std::int64_t start, std::span<const SlotId> slots,
                                    const EntryMeta& meta);
  // Doomed entries among `slots` are passed over. Throws std::invalid_argument on a slot without entry.
  void mark_ready(std::span<const SlotId> slots);

  void pin(SlotId slot);
  // Last use becomes the newest of all. Returns the slots that are gone now (only when the entry was doomed).
  [[nodiscard]] std::vector<SlotId> unpin(SlotId slot);

  // Makes the block and its descendants invisible; returns those gone at once. The rest goes with its last pin.
  [[nodiscard]] std::vector<SlotId> drop(SlotId slot);
  // Up to `n` victims in policy order, leaves first; O(1) each.
  [[nodiscard]] std::vector<SlotId> evict(std::int64_t n);
  // Drops everything; returns the slots gone at once.
  [[nodiscard]] std::vector<SlotId> reset();

  [[nodiscard]] std::vector<BlockKey> keys_of(std::span<const SlotId> slots) const;  // of entries visible or doomed
  [[nodiscard]] SlotId find(const BlockKey& key) const;                             // -1 when not visible
  [[nodiscard]] std::int64_t pins_of(SlotId slot) const;
  [[nodiscard]] bool is_ready(SlotId slot) const;
  [[nodiscard]] std::int64_t num_blocks() const;     // visible
  [[nodiscard]] std::int64_t num_doomed() const;
  [[nodiscard]] std::int64_t num_unready() const;    // visible, bytes not there yet
  [[nodiscard]] std::int64_t num_pinned() const;     // entries with a pin, visible or doomed
  [[nodiscard]] std::int64_t num_evictable() const;  // leaves the policy holds
  [[nodiscard]] std::int64_t memory_bytes() const;
  // Throws std::logic_error naming what is broken. O(capacity).
  void check_invariants() const;
};

}  // namespace flexkv
