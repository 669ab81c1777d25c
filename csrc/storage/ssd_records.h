// SsdRecordFile: the record file of one sub-directory, header and records, through a File (docs/formats/ssd.md).
//
// Invariants
//  1. In memory there is one bit per slot: whether its record on disk may be valid. It is set before a record is
//     written and cleared after zeros were: a failed write leaves it set.
//  2. A header that is torn while it is written does not check, and is known for one of ours. Only a power cut tears
//     one that replaces another.
//  3. After an error of `write_header` record calls give it too, until one has succeeded: no slot may change.
// Thread safety: one thread; `header` any, but not beside `write_header`.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "storage/file_system.h"
#include "storage/ssd_format.h"

namespace flexkv {

struct ScannedRecord {
  std::uint64_t slot = 0;
  SsdRecord record;
};

// What a record becomes by a use of its block: at least this, each.
struct SsdUse {
  std::uint64_t used_at_us = 0;
  std::uint32_t expiry_s = 0;
  std::uint8_t priority = 0;  // 0 .. 7
};

// All bytes, or an errno; short counts are gone on with. The end of the file is ENODATA.
[[nodiscard]] int read_fully(File& file, std::span<std::byte> to, std::uint64_t offset);
[[nodiscard]] int write_fully(File& file, std::span<const std::byte> from, std::uint64_t offset);

// Asks the kernel to read on from there while the caller works. Only a hint; nothing for a descriptor of -1.
void read_ahead(int fd, std::uint64_t offset);

// Where the record of a slot lies, and so how long a file of so many records is.
[[nodiscard]] constexpr std::uint64_t record_offset(std::uint64_t slot) {
  return ssd_header_bytes + slot * ssd_record_bytes;
}

// Fills all of the span from the offset; 0 or an errno.
using ReadAt = std::function<int(std::span<std::byte>, std::uint64_t)>;
using OnRecord = std::function<void(std::uint64_t slot, const SsdRecord& record)>;
using OnOtherRecord = std::function<void(std::uint64_t slot, std::span<const std::byte, ssd_record_bytes> bytes)>;
// Calls `found` for each valid record of the first `num_slots` slots, and `on_other` for the rest if it is there, in
// slot order. Reads in large pieces. 0 or an errno.
[[nodiscard]] int for_each_record(const ReadAt& read_at, const SsdStoreId& store, std::uint64_t num_slots,
                                  const OnRecord& found, const OnOtherRecord& on_other = {});

class SsdRecordFile {
 public:
  SsdRecordFile(std::unique_ptr<File> file, std::string path);

  // Throws std::system_error.
  [[nodiscard]] HeaderState read_header();
  // How many records the file has room for. Throws std::system_error.
  [[nodiscard]] std::uint64_t num_records();
  // 0 or an errno. Records beyond are gone; new ones are empty.
  [[nodiscard]] int resize(std::uint64_t num_slots);
  [[nodiscard]] int clear();  // to a length of 0: header and records are gone
  // Durably; 0 or an errno. Records there are from now on those of its store id. REQUIRES: the file has that size.
  [[nodiscard]] int write_header(const SsdHeader& header);
  [[nodiscard]] const SsdHeader& header() const { return header_; }  // as it was last read or written

  // The rest has SsdDirectory's contract. REQUIRES: read_header was ok, or write_header 0.
  [[nodiscard]] std::vector<ScannedRecord> scan();
  [[nodiscard]] int invalidate(std::uint64_t slot);
  [[nodiscard]] int write(std::uint64_t slot, const SsdRecord& record);
  [[nodiscard]] int touch(std::uint64_t slot, const BlockKey& key, const SsdUse& use);
  [[nodiscard]] int sync();

 private:
  [[nodiscard]] bool may_be_valid(std::uint64_t slot) const;
  void mark(std::uint64_t slot, bool may_be_valid);

  std::unique_ptr<File> file_;
  std::string path_;
  SsdHeader header_;
  bool has_magic_ = false;                   // the file on disk is known for one of ours
  std::vector<std::uint64_t> may_be_valid_;  // a bit per slot
  int broken_ = 0;                           // the errno of a header that could not be written
};

}  // namespace flexkv
