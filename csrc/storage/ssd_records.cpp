#include "storage/ssd_records.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <utility>

#include "storage/ssd_layout.h"
#include "transfer/os_error.h"

namespace flexkv {
namespace {

constexpr std::size_t scan_piece_bytes = std::size_t{1} << 20;
constexpr std::uint64_t bits_per_word = 64;

[[nodiscard]] std::size_t words_for(std::uint64_t num_slots) {
  return static_cast<std::size_t>((num_slots + bits_per_word - 1) / bits_per_word);
}

}  // namespace

void read_ahead(int fd, std::uint64_t offset) {
  constexpr off_t ahead_bytes = 8 * static_cast<off_t>(scan_piece_bytes);
  if (fd >= 0) (void)::posix_fadvise(fd, static_cast<off_t>(offset), ahead_bytes, POSIX_FADV_WILLNEED);
}

int read_fully(File& file, std::span<std::byte> to, std::uint64_t offset) {
  while (!to.empty()) {
    const iovec piece{.iov_base = to.data(), .iov_len = to.size()};
    const std::int64_t moved = file.read(std::span(&piece, 1), offset);
    if (moved < 0) return static_cast<int>(-moved);
    if (moved == 0) return ENODATA;
    to = to.subspan(static_cast<std::size_t>(moved));
    offset += static_cast<std::uint64_t>(moved);
  }
  return 0;
}

int write_fully(File& file, std::span<const std::byte> from, std::uint64_t offset) {
  while (!from.empty()) {
    // The kernel does not write to what it is to write from.
    const iovec piece{.iov_base = const_cast<std::byte*>(from.data()),  // NOLINT(cppcoreguidelines-pro-type-const-cast)
                      .iov_len = from.size()};
    const std::int64_t moved = file.write(std::span(&piece, 1), offset);
    if (moved < 0) return static_cast<int>(-moved);
    if (moved == 0) return EIO;
    from = from.subspan(static_cast<std::size_t>(moved));
    offset += static_cast<std::uint64_t>(moved);
  }
  return 0;
}

int for_each_record(const ReadAt& read_at, const SsdStoreId& store, std::uint64_t num_slots, const OnRecord& found,
                    const OnOtherRecord& on_other) {
  std::vector<std::byte> piece(scan_piece_bytes);
  constexpr std::uint64_t per_piece = scan_piece_bytes / ssd_record_bytes;
  for (std::uint64_t first = 0; first < num_slots; first += per_piece) {
    const std::uint64_t count = std::min(per_piece, num_slots - first);
    const std::span<std::byte> bytes = std::span(piece).first(count * ssd_record_bytes);
    if (const int error = read_at(bytes, record_offset(first)); error != 0) return error;
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto record_bytes = bytes.subspan(i * ssd_record_bytes).first<ssd_record_bytes>();
      if (const auto record = decode_record(record_bytes, store, first + i)) {
        found(first + i, *record);
      } else if (on_other) {
        on_other(first + i, record_bytes);
      }
    }
  }
  return 0;
}

SsdRecordFile::SsdRecordFile(std::unique_ptr<File> file, std::string path)
    : file_(std::move(file)), path_(std::move(path)) {}

HeaderState SsdRecordFile::read_header() {
  std::array<std::byte, ssd_header_bytes> bytes{};
  const std::int64_t size = file_->size();
  if (size < 0) throw_errno(static_cast<int>(-size), "the size of " + path_);
  const std::span<std::byte> there =
      std::span(bytes).first(std::min<std::size_t>(bytes.size(), static_cast<std::size_t>(size)));
  if (const int error = read_fully(*file_, there, 0); error != 0) throw_errno(error, "reading the header of " + path_);
  const HeaderState state = decode_header(bytes, header_);
  has_magic_ = state != HeaderState::empty && state != HeaderState::foreign;
  return state;
}

std::uint64_t SsdRecordFile::num_records() {
  const std::int64_t size = file_->size();
  if (size < 0) throw_errno(static_cast<int>(-size), "the size of " + path_);
  const auto size_bytes = static_cast<std::uint64_t>(size);
  return size_bytes < ssd_header_bytes ? 0 : (size_bytes - ssd_header_bytes) / ssd_record_bytes;
}

int SsdRecordFile::resize(std::uint64_t num_slots) {
  if (const int error = file_->allocate(record_offset(num_slots)); error != 0) return error;
  may_be_valid_.assign(words_for(num_slots), ~std::uint64_t{0});
  return 0;
}

int SsdRecordFile::clear() {
  has_magic_ = false;
  return file_->allocate(0);
}

int SsdRecordFile::write_header(const SsdHeader& header) {
  const auto bytes = encode_header(header);
  const bool is_other_life = header.store != header_.store;
  constexpr std::size_t first_bytes = ssd_layout::sector_bytes;
  int error = 0;
  if (!has_magic_) {
    // Torn, a header without any magic would look like a stranger's file: the sector with the first one goes before.
    error = write_fully(*file_, std::span(bytes).first<first_bytes>(), 0);
    if (error == 0) error = file_->sync();
  }
  if (error == 0) error = write_fully(*file_, bytes, 0);  // in one piece: the end of the process does not tear it
  if (error == 0) error = file_->sync();
  has_magic_ = has_magic_ || error == 0;
  header_ = header;
  if (is_other_life) std::ranges::fill(may_be_valid_, std::uint64_t{0});
  broken_ = error;
  return error;
}

std::vector<ScannedRecord> SsdRecordFile::scan() {
  const std::uint64_t num_slots = header_.num_slots;
  std::vector<ScannedRecord> records;
  records.reserve(static_cast<std::size_t>(num_slots));  // room that is not used is never touched
  std::ranges::fill(may_be_valid_, std::uint64_t{0});
  const ReadAt read_at = [this](std::span<std::byte> to, std::uint64_t offset) {
    read_ahead(file_->fd(), offset + to.size());
    return read_fully(*file_, to, offset);
  };
  const int error =
      for_each_record(read_at, header_.store, num_slots, [&](std::uint64_t slot, const SsdRecord& record) {
        mark(slot, true);
        records.push_back({.slot = slot, .record = record});
      });
  if (error != 0) {
    std::ranges::fill(may_be_valid_, ~std::uint64_t{0});
    throw_errno(error, "reading the records of " + path_);
  }
  return records;
}

int SsdRecordFile::invalidate(std::uint64_t slot) {
  if (broken_ != 0) return broken_;  // the header before may be there, and with it the record: its bytes are to stay
  if (!may_be_valid(slot)) return 0;
  constexpr std::array<std::byte, ssd_record_bytes> empty{};
  if (const int error = write_fully(*file_, empty, record_offset(slot)); error != 0) return error;
  mark(slot, false);
  return 0;
}

int SsdRecordFile::write(std::uint64_t slot, const SsdRecord& record) {
  if (broken_ != 0) return broken_;
  const auto bytes = encode_record(record, header_.store, slot);
  mark(slot, true);
  return write_fully(*file_, bytes, record_offset(slot));
}

int SsdRecordFile::touch(std::uint64_t slot, const BlockKey& key, const SsdUse& use) {
  if (broken_ != 0) return broken_;
  if (!may_be_valid(slot)) return 0;
  std::array<std::byte, ssd_record_bytes> bytes{};
  if (const int error = read_fully(*file_, bytes, record_offset(slot)); error != 0) return error;
  auto record = decode_record(bytes, header_.store, slot);
  if (!record || record->key != key) return 0;
  record->used_at_us = std::max(record->used_at_us, use.used_at_us);
  record->expiry_s = std::max(record->expiry_s, use.expiry_s);
  record->priority = std::max(record->priority, use.priority);
  return write(slot, *record);
}

int SsdRecordFile::sync() { return file_->sync(); }

bool SsdRecordFile::may_be_valid(std::uint64_t slot) const {
  return (may_be_valid_[slot / bits_per_word] >> slot % bits_per_word & 1) != 0;
}

void SsdRecordFile::mark(std::uint64_t slot, bool may_be_valid) {
  const std::uint64_t bit = std::uint64_t{1} << slot % bits_per_word;
  std::uint64_t& word = may_be_valid_[slot / bits_per_word];
  word = may_be_valid ? word | bit : word & ~bit;
}

}  // namespace flexkv
