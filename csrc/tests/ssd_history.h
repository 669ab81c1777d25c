// Random histories of an SsdDirectory and what must be there after them: a shadow that is told the same operations.
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "storage/ssd_directory.h"
#include "tests/check.h"
#include "tests/choices.h"
#include "tests/ssd_kit.h"

namespace flexkv {

enum class SsdVerb : std::uint8_t { write, invalidate, touch, sync, renew, reopen };

struct SsdOperation {
  SsdVerb verb = SsdVerb::sync;
  std::uint64_t slot = 0;
  SsdRecord record;             // of a write; the key of a touch, and what it raises to
  std::uint64_t num_slots = 0;  // of a reopen
};

// Mostly writes. Nothing outside of `choices` decides, so that two processes can make the same history.
inline SsdOperation next_operation(Choices& choices, std::uint64_t num_slots, std::uint64_t max_slots) {
  SsdOperation operation;
  operation.slot = choices.below(num_slots);
  operation.record = record_of(choices);
  operation.num_slots = 1 + choices.below(max_slots);
  const std::uint64_t dice = choices.below(100);
  operation.verb = dice < 60   ? SsdVerb::write
                   : dice < 80 ? SsdVerb::touch
                   : dice < 90 ? SsdVerb::invalidate
                   : dice < 96 ? SsdVerb::sync
                   : dice < 97 ? SsdVerb::renew
                               : SsdVerb::reopen;
  return operation;
}

struct alignas(ssd_page_bytes) TestBlock {
  std::array<std::uint64_t, test_slot_bytes / 8> words;

  void fill(const BlockKey& key) {
    std::uint64_t value = key.lo | 1;
    for (std::uint64_t& word : words) word = value = value * 6364136223846793005u + key.hi;
  }
  [[nodiscard]] std::uint64_t checksum(const SsdStoreId& store, std::uint64_t slot, const BlockKey& key) const {
    const std::span<const std::byte> bytes = std::as_bytes(std::span(words));
    const std::array<std::span<const std::byte>, 2> extents{bytes.first(ssd_page_bytes), bytes.subspan(ssd_page_bytes)};
    return block_checksum(store, slot, key, extents);
  }
};

// As the store does it: the record is invalid before the bytes change, and written after.
inline int write_block(SsdDirectory& directory, std::uint64_t slot, SsdRecord record) {
  TestBlock block;
  block.fill(record.key);
  record.data_checksum = block.checksum(directory.store_id(), slot, record.key);
  record.used_at_us = next_test_use();
  if (const int error = directory.invalidate(slot); error != 0) return error;
  const auto bytes = std::as_bytes(std::span(block.words));
  if (const int error = write_fully(directory.data(), bytes, directory.offset_of(slot)); error != 0) return error;
  return directory.write(slot, record);
}

inline SsdUse use_of(const SsdOperation& touch) {
  return {.used_at_us = next_test_use(), .expiry_s = touch.record.expiry_s, .priority = touch.record.priority};
}

// What a touch makes of the record that is there.
inline void raise(SsdRecord& record, const SsdOperation& touch) {
  record.expiry_s = std::max(record.expiry_s, touch.record.expiry_s);
  record.priority = std::max(record.priority, touch.record.priority);
}

// Any verb but reopen. 0 or an errno.
inline int perform(SsdDirectory& directory, const SsdOperation& operation) {
  switch (operation.verb) {
    case SsdVerb::write:
      return write_block(directory, operation.slot, operation.record);
    case SsdVerb::invalidate:
      return directory.invalidate(operation.slot);
    case SsdVerb::touch:
      return directory.touch(operation.slot, operation.record.key, use_of(operation));
    case SsdVerb::sync:
      return directory.sync();
    case SsdVerb::renew:
      return directory.renew();
    case SsdVerb::reopen:
      break;
  }
  CHECK(false);
  return 0;
}

// Whether the bytes of the slot are those of the record; when the checksum says so, they are compared with what was
// written.
inline bool block_is_whole(SsdDirectory& directory, const ScannedRecord& scanned) {
  TestBlock block;
  const auto bytes = std::as_writable_bytes(std::span(block.words));
  CHECK(read_fully(directory.data(), bytes, directory.offset_of(scanned.slot)) == 0);
  const BlockKey& key = scanned.record.key;
  if (block.checksum(directory.store_id(), scanned.slot, key) != scanned.record.data_checksum) return false;
  TestBlock expected;
  expected.fill(key);
  CHECK(block.words == expected.words);
  return true;
}

// Equal in all that a caller gave.
inline bool is_same_block(const SsdRecord& a, const SsdRecord& b) {
  return a.key == b.key && a.parent == b.parent && a.expiry_s == b.expiry_s && a.tenant == b.tenant &&
         a.group == b.group && a.priority == b.priority;
}

class ShadowStore {
 public:
  // A touch names the key of the block that is there, now and then another.
  void aim(SsdOperation& operation) const {
    const auto found = records.find(operation.slot);
    if (operation.verb == SsdVerb::touch && found != records.end() && operation.record.priority != 0) {
      operation.record.key = found->second.key;
    }
  }

  void apply(const SsdOperation& operation) {
    switch (operation.verb) {
      case SsdVerb::write:
        records[operation.slot] = operation.record;
        records[operation.slot].used_at_us = ++uses_;
        break;
      case SsdVerb::invalidate:
        records.erase(operation.slot);
        break;
      case SsdVerb::touch:
        if (const auto found = records.find(operation.slot);
            found != records.end() && found->second.key == operation.record.key) {
          found->second.used_at_us = ++uses_;
          raise(found->second, operation);
        }
        break;
      case SsdVerb::renew:
        records.clear();
        break;
      case SsdVerb::reopen:
        records.erase(records.lower_bound(operation.num_slots), records.end());
        break;
      case SsdVerb::sync:
        break;
    }
  }

  // The same records in the same order of use.
  void check_equal(const std::vector<ScannedRecord>& scanned) const {
    CHECK(scanned.size() == records.size());
    for (const ScannedRecord& one : scanned) CHECK(is_same_block(records.at(one.slot), one.record));
    const auto order = [](auto by_use) {
      std::ranges::sort(by_use);
      return by_use;
    };
    std::vector<std::pair<std::uint64_t, std::uint64_t>> ours;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> theirs;
    for (const auto& [slot, record] : records) ours.emplace_back(record.used_at_us, slot);
    for (const ScannedRecord& one : scanned) theirs.emplace_back(one.record.used_at_us, one.slot);
    ours = order(std::move(ours));
    theirs = order(std::move(theirs));
    for (std::size_t i = 0; i < ours.size(); ++i) CHECK(ours[i].second == theirs[i].second);
  }

  std::map<std::uint64_t, SsdRecord> records;  // by slot

 private:
  std::uint64_t uses_ = 0;
};

}  // namespace flexkv
