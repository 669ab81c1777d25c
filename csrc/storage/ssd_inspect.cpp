#include "storage/ssd_inspect.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <numeric>
#include <optional>
#include <span>
#include <stdexcept>
#include <utility>

#include "transfer/os_error.h"

namespace flexkv {
namespace {

[[nodiscard]] Fd open_to_read(const std::string& path) {
  Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file.valid()) throw_errno(errno, path);
  return file;
}

// Fills all of the span; 0 or an errno, ENODATA at the end of the file.
[[nodiscard]] int read_at(const Fd& file, std::span<std::byte> to, std::uint64_t offset) {
  while (!to.empty()) {
    const ssize_t moved = ::pread(file.get(), to.data(), to.size(), static_cast<off_t>(offset));
    if (moved < 0 && errno == EINTR) continue;
    if (moved < 0) return errno;
    if (moved == 0) return ENODATA;
    to = to.subspan(static_cast<std::size_t>(moved));
    offset += static_cast<std::uint64_t>(moved);
  }
  return 0;
}

}  // namespace

std::vector<SsdListing> list_ssd_directories(const std::string& root) {
  std::vector<SsdListing> listings;
  const std::string tree = find_ssd_tree(root);
  if (tree.empty()) return listings;
  constexpr std::int64_t second_ns = 1'000'000'000;
  for (SubDirectory& seen : sub_directories(tree)) {
    SsdListing listing;
    listing.is_busy = SsdLock::is_held(seen.path + "/" + ssd_lock_name);
    listing.fingerprint = std::move(seen.fingerprint);
    listing.path = std::move(seen.path);
    listing.state = seen.state;
    listing.header = std::move(seen.header);
    listing.footprint_bytes = seen.footprint_bytes;
    listing.used_at_s = seen.used_at_ns / second_ns;
    listings.push_back(std::move(listing));
  }
  return listings;
}

SsdCleared clear_ssd_directories(const std::string& root, const std::string& fingerprint) {
  SsdCleared cleared;
  const std::string tree = find_ssd_tree(root);
  if (tree.empty()) return cleared;
  const std::optional<SsdLock> tree_lock = SsdLock::take(tree + "/" + ssd_lock_name);
  if (!tree_lock) throw SsdBusy(tree + " is being changed by another process; try again");
  for (const SubDirectory& seen : sub_directories(tree)) {
    if (!fingerprint.empty() && seen.fingerprint != fingerprint) continue;
    if (seen.state == HeaderState::foreign) {
      cleared.foreign.push_back(seen.fingerprint);
    } else if (const std::optional<SsdLock> lock = SsdLock::take(seen.path + "/" + ssd_lock_name)) {
      remove_sub_directory(tree, seen.fingerprint);
      cleared.removed.push_back(seen.fingerprint);
    } else {
      cleared.busy.push_back(seen.fingerprint);
    }
  }
  return cleared;
}

SsdReader::SsdReader(const std::string& root, const std::string& fingerprint) {
  const std::string tree = find_ssd_tree(root);
  if (tree.empty() || !is_ssd_fingerprint(fingerprint)) {
    throw std::invalid_argument("there is no cache of fingerprint \"" + fingerprint + "\" below " + root);
  }
  SubDirectory seen = look_at_sub_directory(tree, fingerprint);
  if (seen.state != HeaderState::ok) {
    throw std::invalid_argument(seen.path + " has no header that checks; a store that starts there empties it");
  }
  path_ = std::move(seen.path);
  header_ = std::move(seen.header);
  slot_bytes_ = std::accumulate(header_.extent_bytes.begin(), header_.extent_bytes.end(), std::uint64_t{0});
  records_ = open_to_read(path_ + "/" + ssd_records_name);
  data_ = open_to_read(path_ + "/" + ssd_data_name);
}

SsdRecords SsdReader::records() const {
  struct stat info{};
  if (::fstat(records_.get(), &info) != 0) throw_errno(errno, path_);
  const auto size_bytes = static_cast<std::uint64_t>(info.st_size);
  // A store that starts meanwhile may cut the file.
  const std::uint64_t there = size_bytes < ssd_header_bytes ? 0 : (size_bytes - ssd_header_bytes) / ssd_record_bytes;
  const ReadAt read = [this](std::span<std::byte> to, std::uint64_t offset) {
    read_ahead(records_.get(), offset + to.size());
    return read_at(records_, to, offset);
  };
  SsdRecords found;
  const OnRecord on_valid = [&](std::uint64_t slot, const SsdRecord& record) {
    found.valid.push_back({.slot = slot, .record = record});
  };
  const OnOtherRecord on_other = [&](std::uint64_t slot, std::span<const std::byte, ssd_record_bytes> bytes) {
    const RecordState state = state_of_record(bytes, header_.store, slot);
    found.num_other_lives += state == RecordState::other_life ? 1 : 0;
    if (state == RecordState::damaged) found.damaged.push_back(slot);
  };
  const std::uint64_t num_records = std::min(header_.num_slots, there);
  const int error = for_each_record(read, header_.store, num_records, on_valid, on_other);
  if (error != 0) throw_errno(error, "reading the records of " + path_);
  std::ranges::sort(found.valid, {},
                    [](const ScannedRecord& scanned) { return std::pair(scanned.record.used_at_us, scanned.slot); });
  // Of one that was being written meanwhile a part was read.
  std::erase_if(found.damaged, [this](std::uint64_t slot) { return !is_damaged(slot); });
  return found;
}

SsdCheck SsdReader::check(const ScannedRecord& scanned) {
  block_.resize(static_cast<std::size_t>(slot_bytes_));
  const std::uint64_t offset = scanned.slot * slot_bytes_;
  const int error = read_at(data_, block_, offset);
  // What is looked at once is not to push out what others use.
  (void)::posix_fadvise(data_.get(), static_cast<off_t>(offset), static_cast<off_t>(slot_bytes_), POSIX_FADV_DONTNEED);
  if (error == 0) {
    std::vector<std::span<const std::byte>> extents;
    std::span<const std::byte> rest = block_;
    for (const std::uint64_t extent : header_.extent_bytes) {
      extents.push_back(rest.first(static_cast<std::size_t>(extent)));
      rest = rest.subspan(static_cast<std::size_t>(extent));
    }
    const std::uint64_t checksum = block_checksum(header_.store, scanned.slot, scanned.record.key, extents);
    if (checksum == scanned.record.data_checksum) return SsdCheck::whole;
  }
  if (!is_still_there(scanned)) return SsdCheck::changed;
  return error == 0 || error == ENODATA ? SsdCheck::damaged : SsdCheck::unreadable;
}

bool SsdReader::is_damaged(std::uint64_t slot) const {
  std::array<std::byte, ssd_record_bytes> bytes{};
  if (read_at(records_, bytes, record_offset(slot)) != 0) return false;
  return state_of_record(bytes, header_.store, slot) == RecordState::damaged;
}

bool SsdReader::is_still_there(const ScannedRecord& scanned) const {
  std::array<std::byte, ssd_header_bytes> header_bytes{};
  SsdHeader header;
  if (read_at(records_, header_bytes, 0) != 0) return false;
  if (decode_header(header_bytes, header) != HeaderState::ok || header.store != header_.store) return false;
  std::array<std::byte, ssd_record_bytes> bytes{};
  if (read_at(records_, bytes, record_offset(scanned.slot)) != 0) return false;
  const std::optional<SsdRecord> now = decode_record(bytes, header_.store, scanned.slot);
  return now && now->key == scanned.record.key && now->data_checksum == scanned.record.data_checksum;
}

}  // namespace flexkv
