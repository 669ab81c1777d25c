// What a person asks of an SSD directory: what lies there, whether it is whole, and to remove it. Nothing here serves.
//
// Looking opens files for reading only and keeps no lock, so that it works beside a store that serves: what it says is
// of some instant during the call. Thread safety: functions any thread; an SsdReader one.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "storage/ssd_format.h"
#include "storage/ssd_records.h"
#include "storage/ssd_tree.h"

namespace flexkv {

struct SsdListing {
  std::string fingerprint;
  std::string path;
  HeaderState state = HeaderState::empty;
  SsdHeader header;  // when `state` is ok
  bool is_busy = false;
  std::uint64_t footprint_bytes = 0;  // of its files, in whole pages: what counts against the capacity
  std::int64_t used_at_s = 0;         // when it was last opened or closed for serving, since 1970
};
// In the order of fingerprints; nothing where there is no cache. Throws std::system_error.
[[nodiscard]] std::vector<SsdListing> list_ssd_directories(const std::string& root);

struct SsdCleared {  // fingerprints
  std::vector<std::string> removed;
  std::vector<std::string> busy;     // served from: left as they are
  std::vector<std::string> foreign;  // what is in their place is not ours: left as it is
};
// Removes one sub-directory, or all for an empty fingerprint. Throws SsdBusy while another process changes the tree,
// or std::system_error.
SsdCleared clear_ssd_directories(const std::string& root, const std::string& fingerprint = "");

enum class SsdCheck : std::uint8_t {
  whole,
  damaged,     // its bytes are not those of its record
  changed,     // the slot was written, emptied or forgotten meanwhile: there is nothing to say of it
  unreadable,  // the device gave an error
};

struct SsdRecords {
  std::vector<ScannedRecord> valid;    // expired ones too, in the order of use
  std::vector<std::uint64_t> damaged;  // slots whose records were written in this life of the store and do not check
  std::uint64_t num_other_lives = 0;   // records of before the store was last emptied
};

class SsdReader {
 public:
  // Throws std::invalid_argument when there is no such sub-directory or its header is not ok, or std::system_error.
  SsdReader(const std::string& root, const std::string& fingerprint);

  [[nodiscard]] const SsdHeader& header() const { return header_; }
  [[nodiscard]] std::uint64_t slot_bytes() const { return slot_bytes_; }
  // Throws std::system_error.
  [[nodiscard]] SsdRecords records() const;
  // Whether the bytes of the slot are those that the record was written for. Reads all of them.
  [[nodiscard]] SsdCheck check(const ScannedRecord& scanned);

 private:
  [[nodiscard]] bool is_damaged(std::uint64_t slot) const;
  [[nodiscard]] bool is_still_there(const ScannedRecord& scanned) const;

  std::string path_;
  SsdHeader header_;
  std::uint64_t slot_bytes_ = 0;
  Fd records_;
  Fd data_;
  std::vector<std::byte> block_;
};

}  // namespace flexkv
