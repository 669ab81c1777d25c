#include "storage/ssd_room.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "storage/ssd_records.h"
#include "transfer/os_error.h"

namespace flexkv {
namespace {

struct IdleDirectory {
  SubDirectory seen;
  SsdLock lock;
};

[[nodiscard]] std::uint64_t in_pages(std::uint64_t bytes) {
  return (bytes + ssd_page_bytes - 1) / ssd_page_bytes * ssd_page_bytes;
}

// The others: those that nobody serves from, locked against starts without a tree lock, least recently used first; and
// what the rest take.
[[nodiscard]] std::vector<IdleDirectory> lock_idle(const SsdRoomRequest& request, std::uint64_t& busy_bytes) {
  std::vector<IdleDirectory> idle;
  for (SubDirectory& seen : sub_directories(request.tree)) {
    if (seen.fingerprint == request.fingerprint || seen.state == HeaderState::foreign) continue;
    if (auto lock = SsdLock::take(seen.path + "/" + ssd_lock_name)) {
      idle.push_back({.seen = std::move(seen), .lock = std::move(*lock)});
    } else {
      busy_bytes += seen.footprint_bytes;
    }
  }
  std::ranges::sort(idle, {}, [](const IdleDirectory& directory) {
    return std::pair(directory.seen.used_at_ns, directory.seen.fingerprint);
  });
  return idle;
}

void check_capacity(const SsdRoomRequest& request, std::uint64_t busy_bytes) {
  if (ssd_slots_within(request.capacity_bytes, request.slot_bytes) == 0) {
    throw SsdConfigError("the SSD capacity is " + std::to_string(request.capacity_bytes) + " bytes for " +
                         request.tree + ", and one slot takes " +
                         std::to_string(ssd_footprint_bytes(1, request.slot_bytes)) + "; set at least that");
  }
  const std::uint64_t budget = request.capacity_bytes - std::min(request.capacity_bytes, busy_bytes);
  if (ssd_slots_within(budget, request.slot_bytes) == 0) {
    throw SsdBusy("others serve from " + request.tree + " and hold " + std::to_string(busy_bytes) + " of the " +
                  std::to_string(request.capacity_bytes) + " bytes of SSD capacity; set more, or name another root");
  }
}

}  // namespace

std::uint64_t ssd_footprint_bytes(std::uint64_t num_slots, std::uint64_t slot_bytes) {
  return in_pages(record_offset(num_slots)) + in_pages(num_slots * slot_bytes);
}

std::uint64_t ssd_slots_within(std::uint64_t budget_bytes, std::uint64_t slot_bytes) {
  if (budget_bytes <= ssd_header_bytes) return 0;
  std::uint64_t num_slots = (budget_bytes - ssd_header_bytes) / (slot_bytes + ssd_record_bytes);
  // Slots are whole pages: only the last page of records can be what is too much, and it has room for 64.
  while (num_slots > 0 && ssd_footprint_bytes(num_slots, slot_bytes) > budget_bytes) --num_slots;
  return num_slots;
}

SsdRoom make_ssd_room(const SsdRoomRequest& request) {
  SsdRoom room;
  const std::vector<IdleDirectory> idle = lock_idle(request, room.others_bytes);
  check_capacity(request, room.others_bytes);
  const std::uint64_t budget = request.capacity_bytes - room.others_bytes;
  room.num_slots = ssd_slots_within(budget, request.slot_bytes);
  const std::uint64_t wanted = ssd_footprint_bytes(room.num_slots, request.slot_bytes);

  std::uint64_t idle_bytes = 0;
  for (const IdleDirectory& directory : idle) idle_bytes += directory.seen.footprint_bytes;
  const std::uint64_t own_bytes = look_at_sub_directory(request.tree, request.fingerprint).footprint_bytes;
  const std::uint64_t free_bytes = free_disk_bytes(request.tree);
  const std::uint64_t reachable = free_bytes + own_bytes + idle_bytes;
  if (wanted > reachable)
    refuse_capacity(request.capacity_bytes, request.tree, free_bytes, room.others_bytes + reachable);

  for (const IdleDirectory& directory : idle) {
    if (wanted + idle_bytes <= budget && directory.seen.footprint_bytes != 0) continue;
    remove_sub_directory(request.tree, directory.seen.fingerprint);
    idle_bytes -= directory.seen.footprint_bytes;
    room.removed.push_back(directory.seen.fingerprint);
  }
  return room;
}

std::uint64_t free_disk_bytes(const std::string& path) {
  struct statvfs info{};
  int result = 0;
  do {
    result = ::statvfs(path.c_str(), &info);
  } while (result != 0 && errno == EINTR);
  if (result != 0) throw_errno(errno, "the free space of " + path);
  return std::uint64_t{info.f_bavail} * std::uint64_t{info.f_frsize};
}

void refuse_capacity(std::uint64_t capacity_bytes, const std::string& path, std::uint64_t free_bytes,
                     std::uint64_t most_bytes) {
  throw SsdConfigError("the SSD capacity is " + std::to_string(capacity_bytes) + " bytes for " + path +
                       ", whose disk has " + std::to_string(free_bytes) + " bytes free; set at most " +
                       std::to_string(most_bytes) + ", or free space");
}

}  // namespace flexkv
