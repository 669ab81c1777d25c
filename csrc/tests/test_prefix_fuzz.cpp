// Random histories of a PrefixIndex and its SlotPool against a model of maps and vectors, the invariants checked after
// every step. The model does everything the slow and obvious way: linear searches, no run, no bitmap, no early stop.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "cache/prefix_index.h"
#include "tests/check.h"

using namespace flexkv;

namespace {

using Keys = std::vector<BlockKey>;
using Slots = std::vector<SlotId>;

struct Node {
  BlockKey key;
  SlotId parent = -1;
  EntryMeta meta;
  std::int64_t pins = 0;
  std::uint64_t last_use = 0;
  bool ready = false;
  bool doomed = false;
};

class Model {
 public:
  std::map<SlotId, Node> nodes;
  std::vector<SlotId> leaves;  // evictable ones, the next victim of each priority first

  SlotId find(const BlockKey& key) const {
    for (const auto& [slot, node] : nodes) {
      if (!node.doomed && node.key == key) return slot;
    }
    return -1;
  }

  MatchResult match(const Keys& keys, std::uint32_t now_s) const {
    MatchResult result;
    bool all_ready = true;
    for (const BlockKey& key : keys) {
      const SlotId slot = find(key);
      if (slot < 0) break;
      const Node& node = nodes.at(slot);
      if (node.meta.expiry_s != 0xffffffffu && node.meta.expiry_s <= now_s) {
        result.first_expired = slot;
        break;
      }
      ++result.num_visible;
      result.deepest_visible = slot;
      result.runs.push_back({slot, 1});
      all_ready = all_ready && node.ready;
      if (!all_ready) continue;
      ++result.num_ready;
      result.deepest_ready = slot;
    }
    return result;
  }

  InsertStatus insert(const Keys& keys, std::size_t start, const Slots& slots, const EntryMeta& meta) {
    SlotId parent = start == 0 ? -1 : find(keys[start - 1]);
    if (start > 0 && parent < 0) return InsertStatus::parent_gone;
    for (std::size_t i = start; i < keys.size(); ++i) {
      if (find(keys[i]) >= 0) return InsertStatus::conflict;
    }
    ++tick_;
    for (std::size_t i = start; i < keys.size(); ++i) {
      nodes[slots[i - start]] = {keys[i], parent, meta, 0, tick_, false, false};
      std::erase(leaves, parent);
      parent = slots[i - start];
    }
    if (start == keys.size()) return InsertStatus::inserted;
    for (SlotId at = nodes.at(slots[0]).parent; at >= 0; at = nodes.at(at).parent) {
      EntryMeta& above = nodes.at(at).meta;
      above.priority = std::max(above.priority, meta.priority);
      above.expiry_s = std::max(above.expiry_s, meta.expiry_s);
    }
    return InsertStatus::inserted;
  }

  void mark_ready(const Slots& slots) {
    ++tick_;
    for (const SlotId slot : slots) {
      Node& node = nodes.at(slot);
      if (node.doomed || node.ready) continue;
      node.ready = true;
      node.last_use = tick_;
      settle(slot, LeafCause::used);
    }
  }

  void pin(SlotId slot) {
    ++nodes.at(slot).pins;
    std::erase(leaves, slot);
  }

  Slots unpin(SlotId slot) {
    --nodes.at(slot).pins;
    nodes.at(slot).last_use = ++tick_;
    Slots gone;
    collect(gone);
    settle(slot, LeafCause::used);
    return gone;
  }

  Slots drop(SlotId slot) {
    if (nodes.at(slot).doomed) return {};
    const SlotId parent = nodes.at(slot).parent;
    for (auto& [other, node] : nodes) {
      for (SlotId at = other; at >= 0; at = nodes.at(at).parent) {
        if (at != slot) continue;
        node.doomed = true;
        node.ready = false;
        std::erase(leaves, other);
      }
    }
    Slots gone;
    collect(gone);
    settle(parent, LeafCause::used);
    return gone;
  }

  Slots evict(std::int64_t n) {
    Slots gone;
    while (static_cast<std::int64_t>(gone.size()) < n && !leaves.empty()) {
      const SlotId victim = *std::ranges::min_element(leaves, {}, [this](SlotId slot) {  // the first of the lowest
        return nodes.at(slot).meta.priority;
      });
      const Node node = nodes.at(victim);
      nodes.erase(victim);
      std::erase(leaves, victim);
      gone.push_back(victim);
      if (node.parent < 0) continue;
      const bool used = nodes.at(node.parent).last_use > node.last_use;
      settle(node.parent, used ? LeafCause::used : LeafCause::uncovered);
    }
    return gone;
  }

  Slots reset() {
    leaves.clear();
    for (auto& [slot, node] : nodes) {
      node.doomed = true;
      node.ready = false;
    }
    Slots gone;
    collect(gone);
    return gone;
  }

 private:
  bool has_child(SlotId slot) const {
    return std::ranges::any_of(nodes, [slot](const auto& each) { return each.second.parent == slot; });
  }

  // Takes out doomed nodes that nothing keeps, until there is none; parents of them may become evictable.
  void collect(Slots& gone) {
    for (bool changed = true; changed;) {
      changed = false;
      for (auto at = nodes.begin(); at != nodes.end();) {
        const SlotId slot = at->first;
        const SlotId parent = at->second.parent;
        if (at->second.doomed && at->second.pins == 0 && !has_child(slot)) {
          gone.push_back(slot);
          at = nodes.erase(at);
          changed = true;
          settle(parent, LeafCause::used);
        } else {
          ++at;
        }
      }
    }
  }

  void settle(SlotId slot, LeafCause cause) {
    const auto at = nodes.find(slot);
    if (at == nodes.end()) return;
    const Node& node = at->second;
    if (!node.ready || node.doomed || node.pins > 0 || has_child(slot)) return;
    if (std::ranges::count(leaves, slot) > 0) return;
    leaves.insert(cause == LeafCause::uncovered ? leaves.begin() : leaves.end(), slot);
  }

  std::uint64_t tick_ = 0;
};

class History {
 public:
  History(std::uint64_t seed, std::int64_t capacity, bool parents_expire)
      : random_(seed), pool_(capacity, capacity), index_(capacity, "lru"), parents_expire_(parents_expire) {}

  void step() {
    now_s_ += below(3) == 0 ? 1 : 0;
    switch (below(12)) {
      case 0: case 1: case 2: case 3: insert(); break;
      case 4: case 5: mark_ready(); break;
      case 6: pin(); break;
      case 7: case 8: unpin(); break;
      case 9: evict(); break;
      case 10: if (below(3) == 0) drop(); break;
      default: if (below(20) == 0) reset();
    }
    compare();
  }

 private:
  std::uint64_t below(std::uint64_t bound) { return random_() % bound; }

  Keys random_chain() {
    std::vector<std::int64_t> tokens(below(11));
    for (auto& token : tokens) token = below(4) == 0 ? 1 : 0;
    Keys keys(tokens.size());
    CHECK(hash_token_blocks(tokens, 1, {below(3), 0}, keys) == tokens.size());
    return keys;
  }

  SlotId random_slot() {
    if (model_.nodes.empty()) return -1;
    return std::next(model_.nodes.begin(), static_cast<std::ptrdiff_t>(below(model_.nodes.size())))->first;
  }

  void take_back(Slots got, Slots expected) {
    pool_.free(got);
    std::ranges::sort(got);
    std::ranges::sort(expected);
    CHECK(got == expected);
  }

  void insert() {
    const Keys keys = random_chain();
    const MatchResult found = index_.match(keys, now_s_);
    auto start = static_cast<std::size_t>(found.num_visible);
    if (below(5) == 0) start = below(keys.size() + 1);  // stale
    const auto count = static_cast<std::int64_t>(keys.size() - start);
    if (count > pool_.num_free()) return;
    if (found.first_expired >= 0 && below(2) == 0) {
      take_back(index_.drop(found.first_expired), model_.drop(found.first_expired));
    }
    EntryMeta meta;
    meta.priority = static_cast<std::uint8_t>(below(4) == 0 ? below(8) : 0);
    if (parents_expire_ && below(2) == 0) meta.expiry_s = now_s_ + static_cast<std::uint32_t>(below(30));
    Slots slots = pool_.allocate(count);
    if (below(3) == 0) std::shuffle(slots.begin(), slots.end(), random_);
    const InsertStatus status = index_.insert(keys, static_cast<std::int64_t>(start), slots, meta);
    CHECK(status == model_.insert(keys, start, slots, meta));
    if (status != InsertStatus::inserted) pool_.free(slots);
  }

  void mark_ready() {
    Slots slots;
    for (const auto& [slot, node] : model_.nodes) {
      if (below(3) == 0) slots.push_back(slot);
    }
    std::shuffle(slots.begin(), slots.end(), random_);
    index_.mark_ready(slots);
    model_.mark_ready(slots);
  }

  void pin() {
    const SlotId slot = random_slot();
    if (slot < 0) return;
    if (model_.nodes.at(slot).doomed) {
      CHECK_THROWS(index_.pin(slot), std::invalid_argument);
      return;
    }
    index_.pin(slot);
    model_.pin(slot);
    pins_.push_back(slot);
  }

  void unpin() {
    if (pins_.empty()) return;
    std::swap(pins_[below(pins_.size())], pins_.back());
    const SlotId slot = pins_.back();
    pins_.pop_back();
    take_back(index_.unpin(slot), model_.unpin(slot));
  }

  void evict() {
    const auto n = static_cast<std::int64_t>(below(6));
    const Slots got = index_.evict(n);
    CHECK(got == model_.evict(n));  // the order, too
    pool_.free(got);
  }

  void drop() {
    const SlotId slot = random_slot();
    if (slot >= 0) take_back(index_.drop(slot), model_.drop(slot));
  }

  void reset() { take_back(index_.reset(), model_.reset()); }

  void compare() {
    index_.check_invariants();
    pool_.check_invariants();
    CHECK(pool_.num_used() == static_cast<std::int64_t>(model_.nodes.size()));
    const auto count = [this](auto predicate) {
      return std::ranges::count_if(model_.nodes, [&](const auto& each) { return predicate(each.second); });
    };
    CHECK(index_.num_blocks() == count([](const Node& node) { return !node.doomed; }));
    CHECK(index_.num_doomed() == count([](const Node& node) { return node.doomed; }));
    CHECK(index_.num_unready() == count([](const Node& node) { return !node.doomed && !node.ready; }));
    CHECK(index_.num_pinned() == count([](const Node& node) { return node.pins > 0; }));
    CHECK(index_.num_evictable() == static_cast<std::int64_t>(model_.leaves.size()));
    for (const auto& [slot, node] : model_.nodes) {
      CHECK(index_.pins_of(slot) == node.pins && index_.is_ready(slot) == node.ready);
      CHECK(index_.keys_of(Slots{slot}).front() == node.key);
    }
    const Keys keys = random_chain();
    compare_match(index_.match(keys, now_s_), model_.match(keys, now_s_));
  }

  static void compare_match(const MatchResult& got, const MatchResult& expected) {
    CHECK(got.num_visible == expected.num_visible && got.num_ready == expected.num_ready);
    CHECK(got.deepest_visible == expected.deepest_visible && got.deepest_ready == expected.deepest_ready);
    CHECK(got.first_expired == expected.first_expired);
    Slots slots;
    for (const SlotRun& run : got.runs) {
      CHECK(run.length > 0);
      CHECK(slots.empty() || run.start != slots.back() + 1);  // as few runs as there can be
      for (std::int64_t i = 0; i < run.length; ++i) slots.push_back(run.start + i);
    }
    CHECK(slots.size() == expected.runs.size());
    for (std::size_t i = 0; i < slots.size(); ++i) CHECK(slots[i] == expected.runs[i].start);
  }

  std::mt19937_64 random_;
  SlotPool pool_;
  PrefixIndex index_;
  Model model_;
  Slots pins_;
  std::uint32_t now_s_ = 0;
  bool parents_expire_;
};

}  // namespace

// Arguments: first seed, number of seeds, steps of each (all optional).
int main(int argc, char** argv) {
  const auto argument = [&](int i, std::uint64_t otherwise) {
    return argc > i ? std::strtoull(argv[i], nullptr, 10) : otherwise;
  };
  const std::uint64_t first = argument(1, 1), seeds = argument(2, 12), steps = argument(3, 2000);
  for (std::uint64_t seed = first; seed < first + seeds; ++seed) {
    std::fprintf(stderr, "seed %llu\n", static_cast<unsigned long long>(seed));
    History history(seed, seed % 3 == 0 ? 24 : 60, seed % 2 == 0);
    for (std::uint64_t step = 0; step < steps; ++step) history.step();
  }
}
