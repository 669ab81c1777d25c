// SsdDirectory: one directory's part of the SSD tier, for one model: its lock, its files, its records
// (docs/formats/ssd.md).
//
//   ROOT/flexkv-ssd-v1/                  made by us, mode 0700; nothing outside of it is ever touched
//        lock                            held while sub-directories are made, measured and removed
//        FINGERPRINT/                    one per model
//             lock                       held exclusively (flock) while a store serves from here
//             records                    header, then one record per slot; buffered
//             data                       the slots, preallocated; O_DIRECT where it can be had
//
// Capacity is a cap on the files of all sub-directories of ROOT together. Room is made by removing sub-directories of
// other models that nobody serves from, those not used for longest first, and by giving up slots of this one's; a
// sub-directory that is served from is left as it is and counts. A sub-directory of another geometry or format version,
// or whose header is damaged, is emptied and made anew under a new store id.
//
// Invariants
//  1. A record is invalid on disk before the bytes of its slot change, and written after they have changed.
//  2. What a crash, a power cut or a flipped bit leaves of a record or block does not check, and is a miss.
//  3. After `renew` no record or block of before checks any more, also after a crash in its midst.
// Errors of construction are thrown; later ones are errno values. Thread safety: `renew` and the destructor exclude the
// others; record calls are for one thread (the device's); const members any thread.
#pragma once
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "storage/file_system.h"
#include "storage/ssd_format.h"

namespace flexkv {

// Somebody serves from it, or holds so much of the capacity that no slot is left: it can be tried again later.
class SsdBusy : public std::runtime_error {
  using std::runtime_error::runtime_error;
};
// It cannot work as configured; `what` has the value and the fix.
class SsdConfigError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct SsdDirectoryConfig {
  std::string root;                         // made (0700) when only its last component is missing
  std::string fingerprint;                  // hex; names the sub-directory
  std::string model;                        // for people
  std::vector<std::uint64_t> extent_bytes;  // per shard: multiples of ssd_page_bytes
  std::uint32_t tokens_per_block = 16;
  std::uint64_t capacity_bytes = 0;  // of all of ROOT: data, records and headers
};

struct ScannedRecord {
  std::uint64_t slot = 0;
  SsdRecord record;
};

class SsdDirectory {
 public:
  // Locks, makes room, creates or opens and preallocates. Throws SsdBusy, SsdConfigError, or std::system_error naming
  // the path. Takes as long as preallocation does.
  SsdDirectory(FileSystem& files, SsdDirectoryConfig config);
  ~SsdDirectory();  // syncs, lets the lock go
  SsdDirectory(const SsdDirectory&) = delete;
  SsdDirectory& operator=(const SsdDirectory&) = delete;

  [[nodiscard]] std::uint64_t num_slots() const;
  [[nodiscard]] std::uint64_t slot_bytes() const;  // sum of the extents
  [[nodiscard]] const SsdStoreId& store_id() const;
  [[nodiscard]] const std::string& path() const;  // of the sub-directory
  [[nodiscard]] File& data() const;
  [[nodiscard]] std::uint64_t offset_of(std::uint64_t slot) const { return slot * slot_bytes(); }

  // All valid records, in slot order; those that have expired at `now_s` (since 1970) are left out. Reads the record
  // file once, in large pieces. Throws std::system_error when it cannot be read. The sequence goes on after the
  // highest.
  [[nodiscard]] std::vector<ScannedRecord> scan(std::uint32_t now_s);

  // 0 or an errno. REQUIRES: slot < num_slots().
  [[nodiscard]] int invalidate(std::uint64_t slot);               // nothing is written when it is known to be invalid
  [[nodiscard]] int write(std::uint64_t slot, SsdRecord record);  // `sequence` is filled in
  // The block was used: its sequence becomes the highest. Nothing happens unless the record there is valid and of
  // `key`.
  [[nodiscard]] int touch(std::uint64_t slot, const BlockKey& key);
  [[nodiscard]] int sync();   // records and data are durable after it
  [[nodiscard]] int renew();  // forget everything: a new store id, durably

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// What is below a root, for tools; opens nothing for writing and takes no lock.
struct SsdListing {
  std::string fingerprint;
  HeaderState state = HeaderState::empty;
  SsdHeader header;
  bool is_busy = false;
  std::uint64_t allocated_bytes = 0;
  std::int64_t used_at_s = 0;  // when it was last opened for serving, since 1970
};
[[nodiscard]] std::vector<SsdListing> list_ssd_directories(const std::string& root);

}  // namespace flexkv
