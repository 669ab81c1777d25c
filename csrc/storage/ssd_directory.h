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
#include <string>
#include <vector>

#include "storage/file_system.h"
#include "storage/ssd_format.h"
#include "storage/ssd_records.h"
#include "storage/ssd_tree.h"

namespace flexkv {

struct SsdDirectoryConfig {
  std::string root;                         // made (0700) when only its last component is missing
  std::string fingerprint;                  // hex; names the sub-directory
  std::string model;                        // for people
  std::vector<std::uint64_t> extent_bytes;  // per shard: multiples of ssd_page_bytes
  std::uint32_t tokens_per_block = 16;
  std::uint64_t capacity_bytes = 0;  // of all of ROOT: data, records and headers
};

// What was found where the sub-directory belongs, and so what has become of it.
enum class SsdOrigin : std::uint8_t {
  warm,            // it is gone on with; slots beyond the capacity are given up
  made,            // there was none
  other_geometry,  // emptied: its slots are of other extents or tokens per block
  other_version,   // emptied: another version of the format wrote it
  damaged,         // emptied: its header does not check, or its data file is gone
};
[[nodiscard]] const char* name_of(SsdOrigin origin);

class SsdDirectory {
 public:
  // Locks, makes room, creates or opens and preallocates. Throws SsdBusy, SsdConfigError, or std::system_error naming
  // the path. Takes as long as preallocation does; SsdBusy also while another start of the same root is at it.
  SsdDirectory(FileSystem& files, SsdDirectoryConfig config);
  ~SsdDirectory();  // syncs, lets the lock go
  SsdDirectory(const SsdDirectory&) = delete;
  SsdDirectory& operator=(const SsdDirectory&) = delete;

  [[nodiscard]] std::uint64_t num_slots() const;
  [[nodiscard]] std::uint64_t slot_bytes() const;  // sum of the extents
  [[nodiscard]] const SsdStoreId& store_id() const;
  [[nodiscard]] const std::string& path() const;  // of the sub-directory
  [[nodiscard]] SsdOrigin origin() const;
  [[nodiscard]] const std::vector<std::string>& removed() const;  // fingerprints that had to make room
  [[nodiscard]] File& data() const;
  [[nodiscard]] std::uint64_t offset_of(std::uint64_t slot) const { return slot * slot_bytes(); }

  // All valid records, in slot order, expired ones too: what hangs below one of them may live. Reads the record file
  // once, in large pieces. Throws std::system_error when it cannot be read.
  [[nodiscard]] std::vector<ScannedRecord> scan();

  // 0 or an errno; after one of `write` or `touch` the record counts as one that may be valid. REQUIRES: slot <
  // num_slots(); the record's values have room (encode_record).
  [[nodiscard]] int invalidate(std::uint64_t slot);  // nothing is written when it is known to be invalid
  [[nodiscard]] int write(std::uint64_t slot, const SsdRecord& record);
  // The block was used: time of use, expiry and priority become at least those of `use`. Nothing happens unless the
  // record there is valid and of `key`. REQUIRES: priority <= 7.
  [[nodiscard]] int touch(std::uint64_t slot, const BlockKey& key, const SsdUse& use);
  [[nodiscard]] int sync();  // records and data are durable after it
  // Forget everything: a new store id, durably. After an error the record calls give it too, until one succeeds.
  [[nodiscard]] int renew();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace flexkv
