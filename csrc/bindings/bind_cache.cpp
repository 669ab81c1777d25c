// Bindings of the cache area: slot pool, prefix index, and the faces of their results. Hashing is in bind_hash.cpp.
// Array arguments take None only to refuse it by name.
// Pool and index belong to whoever holds their owner's lock. Nothing here releases the GIL but restore: the other calls
// are short.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <limits>
#include <string>
#include <utility>

#include "bindings/array_args.h"
#include "bindings/array_results.h"
#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "cache/eviction.h"
#include "cache/prefix_index.h"
#include "cache/slot_pool.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace flexkv {
namespace {

template <typename Integer>
Integer int_arg_as(std::int64_t value, const char* name) {
  return static_cast<Integer>(int_arg(value, name, 0, std::numeric_limits<Integer>::max()));
}

EntryMeta meta_arg(std::int64_t tenant, std::int64_t priority, std::int64_t group, std::int64_t expiry_s) {
  return {int_arg_as<std::uint16_t>(tenant, "tenant"),
          static_cast<std::uint8_t>(int_arg(priority, "priority", 0, num_priorities - 1)),
          int_arg_as<std::uint8_t>(group, "group"), int_arg_as<std::uint32_t>(expiry_s, "expiry_s")};
}

InsertStatus insert(PrefixIndex& index, nb::handle keys, std::int64_t start, nb::handle slots, std::int64_t tenant,
                    std::int64_t priority, std::int64_t group, std::int64_t expiry_s) {
  const KeysArg key_array(keys, "keys");
  const Int64Arg slot_array(slots, "slots");
  return index.insert(key_array.span(), start, slot_array.span(), meta_arg(tenant, priority, group, expiry_s));
}

SlotArray restore(PrefixIndex& index, nb::handle slots, nb::handle keys, nb::handle parents, nb::handle expiry_s,
                  nb::handle tenants, nb::handle groups, nb::handle priorities, std::int64_t now_s) {
  const Int64Arg slot_array(slots, "slots");
  const KeysArg key_array(keys, "keys"), parent_array(parents, "parents");
  const ColumnArg<std::uint32_t> expiry_array(expiry_s, "expiry_s");
  const ColumnArg<std::uint16_t> tenant_array(tenants, "tenants");
  const ColumnArg<std::uint8_t> group_array(groups, "groups"), priority_array(priorities, "priorities");
  const RestoreColumns columns = {slot_array.span(),   key_array.span(),   parent_array.span(),  expiry_array.span(),
                                  tenant_array.span(), group_array.span(), priority_array.span()};
  const auto now = int_arg_as<std::uint32_t>(now_s, "now_s");
  std::vector<std::int64_t> rows;
  {
    const GilRelease release;
    rows = index.restore(columns, now);
  }
  return to_array(std::move(rows));
}

SlotArray slots_range(const MatchResult& match, std::int64_t begin, std::int64_t end) {
  const std::int64_t last = int_arg(end, "end", 0, match.num_visible);
  return to_array(match.slots(int_arg(begin, "begin", 0, last), last));
}

void bind_slot_pool(nb::module_& m) {
  nb::class_<SlotPool>(m, "SlotPool", "Which slots of a tier are free. Not thread-safe: the owner holds a lock.")
      .def(nb::init<std::int64_t, std::int64_t>(), "capacity"_a, "available"_a)
      .def(
          "allocate", [](SlotPool& pool, std::int64_t n) { return to_array(pool.allocate(n)); }, "n"_a,
          "Hand out n slots, as few runs. RuntimeError when fewer are free.")
      .def(
          "adopt", [](SlotPool& pool, nb::handle slots) { pool.adopt(Int64Arg(slots, "slots").span()); },
          "slots"_a.none(), nb::sig(SLOTS_TO_NONE("adopt")), "Take these free slots. All or, with ValueError, none.")
      .def(
          "free", [](SlotPool& pool, nb::handle slots) { pool.free(Int64Arg(slots, "slots").span()); },
          "slots"_a.none(), nb::sig(SLOTS_TO_NONE("free")), "Give used slots back. All or, with ValueError, none.")
      .def(
          "quarantine", [](SlotPool& pool, nb::handle slots) { pool.quarantine(Int64Arg(slots, "slots").span()); },
          "slots"_a.none(), nb::sig(SLOTS_TO_NONE("quarantine")),
          "Set used slots aside. All or, with ValueError, none.")
      .def(
          "release", [](SlotPool& pool, nb::handle slots) { pool.release(Int64Arg(slots, "slots").span()); },
          "slots"_a.none(), nb::sig(SLOTS_TO_NONE("release")), "Free quarantined slots. All or, with ValueError, none.")
      .def("set_available", &SlotPool::set_available, "available"_a, "Let slots below `available` be handed out.")
      .def("reset", &SlotPool::reset, "Make all available slots free.")
      .def("is_used", &SlotPool::is_used, "slot"_a)
      .def("mean_free_run", &SlotPool::mean_free_run, "Mean length of the runs of free slots. O(capacity / 64).")
      .def("check_invariants", &SlotPool::check_invariants, "Raise RuntimeError naming what is broken. O(capacity).")
      .def_prop_ro("capacity", &SlotPool::capacity)
      .def_prop_ro("available", &SlotPool::available)
      .def_prop_ro("num_free", &SlotPool::num_free)
      .def_prop_ro("num_used", &SlotPool::num_used)
      .def_prop_ro("num_quarantined", &SlotPool::num_quarantined);
}

void bind_match(nb::module_& m) {
  nb::enum_<InsertStatus>(m, "InsertStatus", "What became of an insert; the caller keeps its slots unless INSERTED.")
      .value("INSERTED", InsertStatus::inserted)
      .value("CONFLICT", InsertStatus::conflict)
      .value("PARENT_GONE", InsertStatus::parent_gone);
  nb::class_<MatchResult>(m, "Match", "The longest prefix of a chain that an index holds. A value.")
      .def_ro("num_visible", &MatchResult::num_visible, "Blocks present, from the chain's start.")
      .def_ro("num_ready", &MatchResult::num_ready, "Of these, how many from the start have their bytes.")
      .def_ro("deepest_visible", &MatchResult::deepest_visible, "Slot of block num_visible-1, or -1.")
      .def_ro("deepest_ready", &MatchResult::deepest_ready, "Slot of block num_ready-1, the one to pin, or -1.")
      .def_ro("first_expired", &MatchResult::first_expired,
              "Slot of block num_visible when it is present but expired, else -1. Drop it before inserting there.")
      .def_prop_ro(
          "runs", [](const MatchResult& match) { return to_array(match.runs); }, nb::rv_policy::automatic,
          "Slots of the visible blocks as (start, length), in chain order. Shape: [r, 2].")
      .def(
          "slots", [](const MatchResult& match) { return to_array(match.slots(0, match.num_visible)); },
          "Slots of the visible blocks. Shape: [num_visible].")
      .def("slots_range", &slots_range, "begin"_a, "end"_a, "Slots of blocks begin to end-1. Shape: [end - begin].");
}

void bind_index_verbs(nb::class_<PrefixIndex>& index) {
  index
      .def(
          "match",
          [](const PrefixIndex& self, nb::handle keys, std::int64_t now_s) {
            return self.match(KeysArg(keys, "keys").span(), int_arg_as<std::uint32_t>(now_s, "now_s"));
          },
          "keys"_a.none(), "now_s"_a, nb::sig("def match(self, keys: " KEYS ", now_s: int) -> Match"),
          "Find the longest prefix of the chain that is present and not expired. Recency stays as it is.")
      .def("insert", &insert, "keys"_a.none(), "start"_a, "slots"_a.none(), "tenant"_a = 0, "priority"_a = 0,
           "group"_a = 0, "expiry_s"_a = never_expires,
           nb::sig("def insert(self, keys: " KEYS ", start: int, slots: " SLOTS ", tenant: int = 0, priority: int = 0, "
                   "group: int = 0, expiry_s: int = 4294967295) -> InsertStatus"),
           "Insert keys[start:] in the slots, unready, as children of keys[start-1]. All or nothing.")
      .def("restore", &restore, "slots"_a.none(), "keys"_a.none(), "parents"_a.none(), "expiry_s"_a.none(),
           "tenants"_a.none(), "groups"_a.none(), "priorities"_a.none(), "now_s"_a,
           nb::sig("def restore(self, slots: " SLOTS ", keys: " KEYS ", parents: " KEYS
                   ", expiry_s: numpy.typing.NDArray[numpy.uint32], tenants: numpy.typing.NDArray[numpy.uint16], "
                   "groups: numpy.typing.NDArray[numpy.uint8], priorities: numpy.typing.NDArray[numpy.uint8], "
                   "now_s: int) -> " SLOTS),
           "Fill an empty index with ready blocks, rows in order of use. Returns the rows restored, parents first, one "
           "stretch of rows for each leaf.")
      .def(
          "mark_ready", [](PrefixIndex& self, nb::handle slots) { self.mark_ready(Int64Arg(slots, "slots").span()); },
          "slots"_a.none(), nb::sig(SLOTS_TO_NONE("mark_ready")), "Say that the bytes of these blocks are there.")
      .def("pin", &PrefixIndex::pin, "slot"_a, "Keep a block and its ancestors from eviction.")
      .def(
          "raise_meta",
          [](PrefixIndex& self, SlotId slot, std::int64_t priority, std::int64_t expiry_s) {
            self.raise(slot, meta_arg(0, priority, 0, expiry_s));
          },
          "slot"_a, "priority"_a, "expiry_s"_a,
          "Raise priority and expiry of a pinned block and its ancestors, where theirs are lower.")
      .def(
          "unpin", [](PrefixIndex& self, SlotId slot) { return to_array(self.unpin(slot)); }, "slot"_a,
          "End one pin; the block counts as used now. Returns the slots that are gone.")
      .def(
          "drop", [](PrefixIndex& self, SlotId slot) { return to_array(self.drop(slot)); }, "slot"_a,
          "Make a block and its descendants invisible. Returns the slots gone at once; pinned ones go with the last "
          "pin.")
      .def(
          "evict", [](PrefixIndex& self, std::int64_t n) { return to_array(self.evict(n)); }, "n"_a,
          "Evict up to n blocks in policy order, leaves first. Returns their slots.")
      .def(
          "reset", [](PrefixIndex& self) { return to_array(self.reset()); },
          "Drop everything. Returns the slots gone at once. O(capacity).");
}

void bind_index_queries(nb::class_<PrefixIndex>& index) {
  index
      .def(
          "keys_of",
          [](const PrefixIndex& self, nb::handle slots) {
            return to_array(self.keys_of(Int64Arg(slots, "slots").span()));
          },
          "slots"_a.none(), nb::sig("def keys_of(self, slots: " SLOTS ") -> " KEYS),
          "Keys of the slots. Shape: [n, 16].")
      .def(
          "find", [](const PrefixIndex& self, nb::handle key) { return self.find(key_arg(key, "key")); },
          "key"_a.none(), nb::sig("def find(self, key: bytes) -> int"), "Slot of a visible block, or -1.")
      .def(
          "meta_of",
          [](const PrefixIndex& self, SlotId slot) {
            const EntryMeta meta = self.meta_of(slot);
            return nb::make_tuple(meta.tenant, meta.priority, meta.group, meta.expiry_s);
          },
          "slot"_a, nb::sig("def meta_of(self, slot: int) -> tuple[int, int, int, int]"),
          "Tenant, priority, group and expiry_s of a block.")
      .def(
          "count_ready",
          [](const PrefixIndex& self, nb::handle slots) { return self.count_ready(Int64Arg(slots, "slots").span()); },
          "slots"_a.none(), nb::sig("def count_ready(self, slots: " SLOTS ") -> int"),
          "How many of the leading slots hold ready blocks.")
      .def("pins_of", &PrefixIndex::pins_of, "slot"_a)
      .def("is_ready", &PrefixIndex::is_ready, "slot"_a)
      .def("check_invariants", &PrefixIndex::check_invariants, "Raise RuntimeError naming what is broken. O(capacity).")
      .def_prop_ro("capacity", &PrefixIndex::capacity)
      .def_prop_ro("num_blocks", &PrefixIndex::num_blocks)
      .def_prop_ro("num_doomed", &PrefixIndex::num_doomed)
      .def_prop_ro("num_unready", &PrefixIndex::num_unready)
      .def_prop_ro("num_pinned", &PrefixIndex::num_pinned)
      .def_prop_ro("num_evictable", &PrefixIndex::num_evictable)
      .def_prop_ro("memory_bytes", &PrefixIndex::memory_bytes);
}

}  // namespace

void bind_cache(nb::module_& m) {
  bind_hash(m);
  bind_slot_pool(m);
  bind_match(m);
  nb::class_<PrefixIndex> index(
      m, "PrefixIndex",
      "Which blocks a tier holds, by the chain of their keys. Not thread-safe: the owner holds a lock.");
  index.def(nb::init<std::int64_t, const std::string&>(), "capacity"_a, "policy"_a = "lru");
  bind_index_verbs(index);
  bind_index_queries(index);
  m.def("eviction_policy_names", &eviction_policy_names);
}

}  // namespace flexkv
