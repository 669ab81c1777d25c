#include "storage/ssd_directory.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include "storage/ssd_layout.h"
#include "storage/ssd_room.h"
#include "transfer/os_error.h"

namespace flexkv {
namespace {

constexpr std::uint64_t max_store_bytes = std::uint64_t{1} << 62;

[[nodiscard]] SsdStoreId random_store_id() {
  SsdStoreId id;
  ssize_t got = 0;
  do {
    got = ::getrandom(&id, sizeof id, 0);
  } while (got < 0 && errno == EINTR);
  if (got != static_cast<ssize_t>(sizeof id)) throw_errno(got < 0 ? errno : EIO, "random bytes for a store id");
  return id;
}

// The bytes of a slot. Throws SsdConfigError on what no sub-directory can be made of.
[[nodiscard]] std::uint64_t check_config(const SsdDirectoryConfig& config) {
  if (!is_ssd_fingerprint(config.fingerprint)) {
    throw SsdConfigError("the fingerprint is \"" + config.fingerprint +
                         "\"; it must be 8 to 128 digits of lower-case hex");
  }
  if (config.extent_bytes.empty() || config.extent_bytes.size() > ssd_layout::max_extents) {
    throw SsdConfigError("a slot has " + std::to_string(config.extent_bytes.size()) + " extents; there must be 1 to " +
                         std::to_string(ssd_layout::max_extents));
  }
  if (config.model.size() > ssd_layout::header::model.bytes) {
    throw SsdConfigError("the model's name has " + std::to_string(config.model.size()) + " bytes; there is room for " +
                         std::to_string(ssd_layout::header::model.bytes));
  }
  if (config.capacity_bytes > max_store_bytes) {
    throw SsdConfigError("the SSD capacity is " + std::to_string(config.capacity_bytes) + " bytes; set at most " +
                         std::to_string(max_store_bytes));
  }
  std::uint64_t slot_bytes = 0;
  for (const std::uint64_t extent : config.extent_bytes) {
    if (extent == 0 || extent % ssd_page_bytes != 0 || extent > max_store_bytes / ssd_layout::max_extents) {
      throw SsdConfigError("an extent has " + std::to_string(extent) + " bytes; it must be a positive multiple of " +
                           std::to_string(ssd_page_bytes));
    }
    slot_bytes += extent;
  }
  return slot_bytes;
}

[[nodiscard]] std::unique_ptr<File> open_file(FileSystem& files, const std::string& path, OpenMode mode) {
  check_regular_or_missing(path);
  int error = 0;
  std::unique_ptr<File> file = files.open(path, mode, error);
  if (file) return file;
  if (error == EACCES || error == EPERM || error == EROFS) {
    throw SsdConfigError(path + " cannot be opened for writing (" + std::generic_category().message(error) +
                         "); change its owner, or name another root");
  }
  throw_errno(error, path);
}

[[nodiscard]] bool is_disk_full(int error) { return error == ENOSPC || error == EDQUOT; }

}  // namespace

const char* name_of(SsdOrigin origin) {
  switch (origin) {
    case SsdOrigin::warm:
      return "warm";
    case SsdOrigin::made:
      return "made";
    case SsdOrigin::other_geometry:
      return "other geometry";
    case SsdOrigin::other_version:
      return "other version";
    case SsdOrigin::damaged:
      return "damaged";
  }
  return "unknown";
}

struct SsdDirectory::Impl {
  Impl(FileSystem& files, SsdDirectoryConfig wanted);
  void open(FileSystem& files);
  void remove_again() const;
  void judge();
  void settle() const;
  [[nodiscard]] int resize(std::uint64_t num_slots) const;
  [[nodiscard]] std::uint64_t size_of_data() const;
  [[noreturn]] void give_back(int error) const;
  [[nodiscard]] SsdHeader new_header(const SsdStoreId& store) const;

  SsdDirectoryConfig config;
  std::uint64_t slot_bytes;
  std::string tree;
  std::string path;
  std::unique_ptr<SsdLock> lock;
  SsdRoom room;
  std::unique_ptr<SsdRecordFile> records;
  std::unique_ptr<File> data;
  SsdOrigin origin = SsdOrigin::made;
  std::uint64_t warm_slots = 0;  // that were there and are gone on with
};

SsdDirectory::Impl::Impl(FileSystem& files, SsdDirectoryConfig wanted)
    : config(std::move(wanted)), slot_bytes(check_config(config)), tree(make_ssd_tree(config.root)) {
  path = tree + "/" + config.fingerprint;
  const std::optional<SsdLock> tree_lock = SsdLock::take(tree + "/" + ssd_lock_name);
  if (!tree_lock) throw SsdBusy(tree + " is being changed by another process; try again");
  const bool is_new = make_sub_directory(tree, config.fingerprint);
  std::optional<SsdLock> taken = SsdLock::take(path + "/" + ssd_lock_name);
  if (!taken) throw SsdBusy(path + " is served from by another process; stop it, or name another root");
  lock = std::make_unique<SsdLock>(std::move(*taken));
  try {
    open(files);
  } catch (...) {
    if (is_new) remove_again();
    throw;
  }
}

void SsdDirectory::Impl::remove_again() const {
  try {
    remove_sub_directory(tree, config.fingerprint);
  } catch (const std::system_error&) {  // NOLINT(bugprone-empty-catch)
    // What kept it from being opened says more; what is left here is removed by the next start.
  }
}

void SsdDirectory::Impl::open(FileSystem& files) {
  const std::string records_path = path + "/" + ssd_records_name;
  records = std::make_unique<SsdRecordFile>(open_file(files, records_path, OpenMode::buffered), records_path);
  const HeaderState state = records->read_header();
  if (state == HeaderState::foreign) {
    throw SsdConfigError(records_path + " is not a file of this cache; remove it, or name another root");
  }
  data = open_file(files, path + "/" + ssd_data_name, OpenMode::direct);
  sync_directory(path);
  if (state == HeaderState::ok) {
    judge();
  } else if (state == HeaderState::other_version) {
    origin = SsdOrigin::other_version;
  } else {
    origin = state == HeaderState::empty && size_of_data() == 0 ? SsdOrigin::made : SsdOrigin::damaged;
  }
  room = make_ssd_room({.tree = tree,
                        .fingerprint = config.fingerprint,
                        .slot_bytes = slot_bytes,
                        .capacity_bytes = config.capacity_bytes});
  settle();
  if (const int error = lock->mark_used(); error != 0) throw_errno(error, path);
}

// Of a header that checks: whether its slots can be gone on with, and how many of them.
void SsdDirectory::Impl::judge() {
  const SsdHeader& found = records->header();
  if (found.extent_bytes != config.extent_bytes || found.tokens_per_block != config.tokens_per_block) {
    origin = SsdOrigin::other_geometry;
    return;
  }
  // A crash while it grew or shrank leaves files of other lengths than the header says: what all three have is good.
  warm_slots = std::min({found.num_slots, records->num_records(), size_of_data() / slot_bytes});
  origin = warm_slots == 0 ? SsdOrigin::damaged : SsdOrigin::warm;
}

// Brings the files to their size. What is given up goes first, so that the files never take more than the cap; records
// that are cut off come back empty.
void SsdDirectory::Impl::settle() const {
  const std::uint64_t num_slots = room.num_slots;
  const std::uint64_t kept = std::min(warm_slots, num_slots);
  const bool is_warm = origin == SsdOrigin::warm;
  int error = 0;
  if (size_of_data() > num_slots * slot_bytes) error = data->allocate(num_slots * slot_bytes);
  if (error == 0) error = is_warm ? records->resize(kept) : records->clear();
  if (error == 0) error = resize(num_slots);
  if (error != 0) give_back(error);
  if (is_warm && records->header().num_slots == num_slots) return;
  error = data->sync();
  if (error == 0) error = records->write_header(new_header(is_warm ? records->header().store : random_store_id()));
  if (error != 0) throw_errno(error, "writing the header of " + path + "/" + ssd_records_name);
}

int SsdDirectory::Impl::resize(std::uint64_t num_slots) const {
  if (const int error = data->allocate(num_slots * slot_bytes); error != 0) return error;
  return records->resize(num_slots);
}

// The files could not be had in their size. What was there stays, in its old size; nothing else takes room.
void SsdDirectory::Impl::give_back(int error) const {
  const int back = origin == SsdOrigin::warm ? resize(std::min(warm_slots, room.num_slots)) : data->allocate(0);
  if (back != 0) throw_errno(back, "giving back the room of " + path);
  if (!is_disk_full(error)) throw_errno(error, "allocating the files of " + path);
  const std::uint64_t own_bytes = look_at_sub_directory(tree, config.fingerprint).footprint_bytes;
  const std::uint64_t free_bytes = free_disk_bytes(path);
  refuse_capacity(config.capacity_bytes, path, free_bytes, room.others_bytes + own_bytes + free_bytes);
}

std::uint64_t SsdDirectory::Impl::size_of_data() const {
  const std::int64_t size = data->size();
  if (size < 0) throw_errno(static_cast<int>(-size), "the size of " + path + "/" + ssd_data_name);
  return static_cast<std::uint64_t>(size);
}

SsdHeader SsdDirectory::Impl::new_header(const SsdStoreId& store) const {
  return {.store = store,
          .num_slots = room.num_slots,
          .extent_bytes = config.extent_bytes,
          .tokens_per_block = config.tokens_per_block,
          .model = config.model};
}

SsdDirectory::SsdDirectory(FileSystem& files, SsdDirectoryConfig config)
    : impl_(std::make_unique<Impl>(files, std::move(config))) {}

SsdDirectory::~SsdDirectory() {
  // Nobody is left to hear of an error. What is not durable for it is a miss, and a time of use that is not noted makes
  // the sub-directory look older than it is.
  (void)sync();
  (void)impl_->lock->mark_used();
}

std::uint64_t SsdDirectory::num_slots() const { return impl_->room.num_slots; }
std::uint64_t SsdDirectory::slot_bytes() const { return impl_->slot_bytes; }
const SsdStoreId& SsdDirectory::store_id() const { return impl_->records->header().store; }
const std::string& SsdDirectory::path() const { return impl_->path; }
SsdOrigin SsdDirectory::origin() const { return impl_->origin; }
const std::vector<std::string>& SsdDirectory::removed() const { return impl_->room.removed; }
File& SsdDirectory::data() const { return *impl_->data; }

std::vector<ScannedRecord> SsdDirectory::scan() { return impl_->records->scan(); }
int SsdDirectory::invalidate(std::uint64_t slot) { return impl_->records->invalidate(slot); }
int SsdDirectory::write(std::uint64_t slot, const SsdRecord& record) { return impl_->records->write(slot, record); }
int SsdDirectory::touch(std::uint64_t slot, const BlockKey& key, const SsdUse& use) {
  return impl_->records->touch(slot, key, use);
}

int SsdDirectory::sync() {
  const int error = impl_->data->sync();
  const int record_error = impl_->records->sync();
  return error != 0 ? error : record_error;
}

int SsdDirectory::renew() {
  SsdHeader header = impl_->records->header();
  header.store = random_store_id();
  return impl_->records->write_header(header);
}

}  // namespace flexkv
