// What may and what must be in an SsdDirectory after its process or its power has ended in the midst of a history.
#pragma once
#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "storage/ssd_directory.h"
#include "tests/check.h"
#include "tests/ssd_history.h"

namespace flexkv {

enum class EndsBy : std::uint8_t {
  process,  // what an operation has returned for is there
  power,    // what a sync has returned for is there
};

class SsdExpectation {
 public:
  explicit SsdExpectation(EndsBy end) : end_(end) {}

  // An operation starts; it need not end.
  void begin(const SsdOperation& operation) {
    switch (operation.verb) {
      case SsdVerb::write:
        doubt(operation.slot);
        may_[operation.slot].push_back(operation.record);
        break;
      case SsdVerb::invalidate:
        doubt(operation.slot);
        break;
      case SsdVerb::renew:
        doubt_from(0);
        may_be_emptied_ = true;
        break;
      case SsdVerb::reopen:
        doubt_from(operation.num_slots);
        // The header says how many slots there are: a power cut may tear it.
        may_be_emptied_ = may_be_emptied_ || end_ == EndsBy::power;
        break;
      case SsdVerb::touch:
        touches_what_must_be_ = must_.contains(operation.slot);
        if (auto touched = live_.find(operation.slot); is_aimed_at(operation, touched)) {
          doubt(operation.slot);
          may_[operation.slot].push_back(touched->second);
          raise(may_[operation.slot].back(), operation);
        }
        break;
      case SsdVerb::sync:
        break;
    }
  }

  // It has ended well.
  void end(const SsdOperation& operation) {
    switch (operation.verb) {
      case SsdVerb::write:
        live_[operation.slot] = operation.record;
        broken_.erase(operation.slot);
        settle(operation.slot);
        break;
      case SsdVerb::invalidate:
        live_.erase(operation.slot);
        settle(operation.slot);
        break;
      case SsdVerb::renew:
        live_.clear();
        must_.clear();
        may_.clear();
        break;
      case SsdVerb::reopen:
        live_.erase(live_.lower_bound(operation.num_slots), live_.end());
        may_.erase(may_.lower_bound(operation.num_slots), may_.end());
        must_.erase(must_.lower_bound(operation.num_slots), must_.end());
        break;
      case SsdVerb::sync:
        if (end_ == EndsBy::power) settle_all();
        break;
      case SsdVerb::touch:
        if (auto touched = live_.find(operation.slot); is_aimed_at(operation, touched)) {
          raise(touched->second, operation);
          if (touches_what_must_be_) settle(operation.slot);  // else there may have been nothing to be touched
        }
        break;
    }
  }

  // A directory was opened after the end: compares, and takes what it has for what is there from now on.
  void check_and_adopt(SsdDirectory& directory) {
    const std::vector<ScannedRecord> scanned = directory.scan();
    const bool is_warm = directory.origin() == SsdOrigin::warm;
    CHECK(is_warm || may_be_emptied_);
    CHECK(is_warm || scanned.empty());
    std::map<std::uint64_t, SsdRecord> found;
    std::set<std::uint64_t> broken;
    for (const ScannedRecord& one : scanned) {
      CHECK(is_known(one));
      const bool is_whole = block_is_whole(directory, one);
      CHECK(is_whole || end_ == EndsBy::power);
      if (!is_whole) broken.insert(one.slot);
      found[one.slot] = one.record;
    }
    for (const auto& [slot, record] : is_warm ? must_ : std::map<std::uint64_t, SsdRecord>()) {
      CHECK(found.contains(slot) && is_same_block(found.at(slot), record));
      CHECK(!broken.contains(slot) || broken_.contains(slot));
    }
    num_lost = must_.size() > found.size() ? must_.size() - found.size() : 0;
    live_ = std::move(found);
    broken_ = std::move(broken);
    must_ = live_;
    may_.clear();
    may_be_emptied_ = false;
  }

  // The start of a store that is not there yet.
  void begin_making() { may_be_emptied_ = true; }
  // A touch names the key of the block that is there, now and then another.
  void aim(SsdOperation& operation) const {
    const auto found = live_.find(operation.slot);
    if (operation.verb == SsdVerb::touch && found != live_.end() && operation.record.priority != 0) {
      operation.record.key = found->second.key;
    }
  }
  [[nodiscard]] std::size_t num_certain() const { return must_.size(); }
  std::size_t num_lost = 0;

 private:
  using Records = std::map<std::uint64_t, SsdRecord>;

  [[nodiscard]] bool is_aimed_at(const SsdOperation& touch, Records::const_iterator found) const {
    return found != live_.end() && found->second.key == touch.record.key;
  }
  void doubt(std::uint64_t slot) {
    if (const auto found = must_.find(slot); found != must_.end()) {
      may_[slot].push_back(found->second);
      must_.erase(found);
    }
  }
  void doubt_from(std::uint64_t first) {
    while (must_.lower_bound(first) != must_.end()) doubt(must_.lower_bound(first)->first);
  }
  void settle(std::uint64_t slot) {
    if (end_ == EndsBy::power) return;
    may_.erase(slot);
    must_.erase(slot);
    if (const auto found = live_.find(slot); found != live_.end()) must_[slot] = found->second;
  }
  void settle_all() {
    may_.clear();
    must_ = live_;
    may_be_emptied_ = false;
  }
  [[nodiscard]] bool is_known(const ScannedRecord& one) const {
    if (const auto found = must_.find(one.slot); found != must_.end()) return is_same_block(found->second, one.record);
    const auto found = may_.find(one.slot);
    return found != may_.end() && std::ranges::any_of(found->second, [&](const SsdRecord& record) {
             return is_same_block(record, one.record);
           });
  }

  EndsBy end_;
  std::map<std::uint64_t, SsdRecord> live_;              // as a program sees it
  std::map<std::uint64_t, SsdRecord> must_;              // after the end
  std::map<std::uint64_t, std::vector<SsdRecord>> may_;  // instead, or nothing
  std::set<std::uint64_t> broken_;                       // records whose bytes a power cut has taken
  bool may_be_emptied_ = false;
  bool touches_what_must_be_ = false;
};

}  // namespace flexkv
