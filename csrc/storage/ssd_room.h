// How many slots a sub-directory may have under the cap of its root, and making room for them. All functions REQUIRE
// the tree's lock. Sizes are those of files in whole pages.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "storage/ssd_tree.h"

namespace flexkv {

// What the files of that many slots take.
[[nodiscard]] std::uint64_t ssd_footprint_bytes(std::uint64_t num_slots, std::uint64_t slot_bytes);
// The most slots whose files take at most `budget_bytes`.
[[nodiscard]] std::uint64_t ssd_slots_within(std::uint64_t budget_bytes, std::uint64_t slot_bytes);

struct SsdRoomRequest {
  std::string tree;
  std::string fingerprint;  // of the one that wants room; its lock is held, and it does not count
  std::uint64_t slot_bytes = 0;
  std::uint64_t capacity_bytes = 0;
};
struct SsdRoom {
  std::uint64_t num_slots = 0;
  std::uint64_t others_bytes = 0;    // what those that are served from take
  std::vector<std::string> removed;  // fingerprints, in the order of removal
};
// Removes sub-directories that nobody serves from until what is left and the slots are within the capacity. Nothing is
// removed when it throws SsdConfigError (not a single slot fits into the capacity; the disk has no room for it) or
// SsdBusy (others hold too much). std::system_error when a removal fails.
[[nodiscard]] SsdRoom make_ssd_room(const SsdRoomRequest& request);

// What is free for this user on the file system of that path. Throws std::system_error.
[[nodiscard]] std::uint64_t free_disk_bytes(const std::string& path);
// Throws the SsdConfigError of a disk that is too small; `most_bytes` is the capacity that would work.
[[noreturn]] void refuse_capacity(std::uint64_t capacity_bytes, const std::string& path, std::uint64_t free_bytes,
                                  std::uint64_t most_bytes);

}  // namespace flexkv
