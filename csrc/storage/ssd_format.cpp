#include "storage/ssd_format.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "storage/crc64.h"
#include "storage/ssd_layout.h"

namespace flexkv {
namespace {

using ssd_layout::Field;
namespace record_at = ssd_layout::record;
namespace header_at = ssd_layout::header;

static_assert(record_at::checksum.end() == ssd_record_bytes);
static_assert(header_at::checksum.end() == ssd_header_bytes);
static_assert(ssd_header_bytes % ssd_layout::sector_bytes == 0);
static_assert(ssd_layout::sector_bytes % ssd_record_bytes == 0);

constexpr std::size_t binding_bytes = 24;  // store id and slot, before what they bind

void put(std::span<std::byte> to, Field field, std::uint64_t value) {
  for (std::size_t i = 0; i < field.bytes; ++i) to[field.offset + i] = static_cast<std::byte>(value >> (8 * i));
}

[[nodiscard]] std::uint64_t get(std::span<const std::byte> from, Field field) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < field.bytes; ++i) {
    value |= std::to_integer<std::uint64_t>(from[field.offset + i]) << (8 * i);
  }
  return value;
}

// The two halves of a 16-byte field.
[[nodiscard]] constexpr Field low_half(Field field) { return {field.offset, 8}; }
[[nodiscard]] constexpr Field high_half(Field field) { return {field.offset + 8, 8}; }

[[nodiscard]] BlockKey get_key(std::span<const std::byte> from, Field field) {
  return {.lo = get(from, low_half(field)), .hi = get(from, high_half(field))};
}

[[nodiscard]] bool all_zero(std::span<const std::byte> bytes) {
  return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

void put_binding(std::span<std::byte> to, const SsdStoreId& store, std::uint64_t slot) {
  put(to, {0, 8}, store.lo);
  put(to, {8, 8}, store.hi);
  put(to, {16, 8}, slot);
}

// In one piece: a call for each part would cost more than the sum itself.
[[nodiscard]] std::uint64_t record_checksum(std::span<const std::byte, ssd_record_bytes> bytes, const SsdStoreId& store,
                                            std::uint64_t slot) {
  std::array<std::byte, binding_bytes + record_at::checksum.offset> input;
  put_binding(input, store, slot);
  std::memcpy(input.data() + binding_bytes, bytes.data(), record_at::checksum.offset);
  return crc64(input);
}

[[nodiscard]] Field extent_field(std::size_t extent_idx) {
  return {header_at::extent_bytes.offset + 8 * extent_idx, 8};
}

// What has a good checksum was written by this code, or by code that has gone wrong: it is not trusted with sizes.
[[nodiscard]] bool read_fields(std::span<const std::byte, ssd_header_bytes> bytes, SsdHeader& header) {
  const std::uint64_t num_extents = get(bytes, header_at::num_extents);
  const std::uint64_t model_bytes = get(bytes, header_at::model_bytes);
  if (get(bytes, header_at::record_bytes) != ssd_record_bytes) return false;
  if (num_extents == 0 || num_extents > ssd_layout::max_extents) return false;
  if (model_bytes > header_at::model.bytes) return false;
  SsdHeader read;
  read.store = {.lo = get(bytes, low_half(header_at::store_id)), .hi = get(bytes, high_half(header_at::store_id))};
  read.num_slots = get(bytes, header_at::num_slots);
  read.tokens_per_block = static_cast<std::uint32_t>(get(bytes, header_at::tokens_per_block));
  for (std::size_t i = 0; i < num_extents; ++i) {
    read.extent_bytes.push_back(get(bytes, extent_field(i)));
    if (read.extent_bytes.back() == 0 || read.extent_bytes.back() % ssd_page_bytes != 0) return false;
  }
  read.model.resize(model_bytes);
  std::memcpy(read.model.data(), bytes.data() + header_at::model.offset, model_bytes);
  header = std::move(read);
  return true;
}

}  // namespace

std::array<std::byte, ssd_record_bytes> encode_record(const SsdRecord& record, const SsdStoreId& store,
                                                      std::uint64_t slot) {
  if (record.sequence > ssd_max_sequence) {
    throw std::invalid_argument("sequence is " + std::to_string(record.sequence) + "; a record has room for 40 bits");
  }
  if (record.group >= 32) {
    throw std::invalid_argument("group is " + std::to_string(record.group) + "; it must be below 32");
  }
  if (record.priority >= 8) {
    throw std::invalid_argument("priority is " + std::to_string(record.priority) + "; it must be below 8");
  }
  std::array<std::byte, ssd_record_bytes> bytes{};
  put(bytes, low_half(record_at::key), record.key.lo);
  put(bytes, high_half(record_at::key), record.key.hi);
  put(bytes, low_half(record_at::parent), record.parent.lo);
  put(bytes, high_half(record_at::parent), record.parent.hi);
  put(bytes, record_at::data_checksum, record.data_checksum);
  put(bytes, record_at::sequence, record.sequence);
  put(bytes, record_at::group_priority, record.group | std::uint64_t{record.priority} << 5);
  put(bytes, record_at::tenant, record.tenant);
  put(bytes, record_at::expiry_s, record.expiry_s);
  put(bytes, record_at::checksum, record_checksum(bytes, store, slot));
  return bytes;
}

std::optional<SsdRecord> decode_record(std::span<const std::byte, ssd_record_bytes> bytes, const SsdStoreId& store,
                                       std::uint64_t slot) {
  if (get(bytes, record_at::checksum) == 0 && all_zero(bytes)) return std::nullopt;  // most of a young store's
  if (get(bytes, record_at::checksum) != record_checksum(bytes, store, slot)) return std::nullopt;
  const std::uint64_t group_priority = get(bytes, record_at::group_priority);
  SsdRecord record;
  record.key = get_key(bytes, record_at::key);
  record.parent = get_key(bytes, record_at::parent);
  record.data_checksum = get(bytes, record_at::data_checksum);
  record.sequence = get(bytes, record_at::sequence);
  record.expiry_s = static_cast<std::uint32_t>(get(bytes, record_at::expiry_s));
  record.tenant = static_cast<std::uint16_t>(get(bytes, record_at::tenant));
  record.group = static_cast<std::uint8_t>(group_priority & 31);
  record.priority = static_cast<std::uint8_t>(group_priority >> 5);
  return record;
}

std::array<std::byte, ssd_header_bytes> encode_header(const SsdHeader& header) {
  const std::size_t num_extents = header.extent_bytes.size();
  if (num_extents == 0 || num_extents > ssd_layout::max_extents) {
    throw std::invalid_argument("a slot has " + std::to_string(num_extents) + " extents; there must be 1 to 64");
  }
  for (const std::uint64_t extent : header.extent_bytes) {
    if (extent == 0 || extent % ssd_page_bytes != 0) {
      throw std::invalid_argument("an extent has " + std::to_string(extent) + " bytes; it must be a multiple of 4096");
    }
  }
  if (header.model.size() > header_at::model.bytes) {
    throw std::invalid_argument("the model's name has " + std::to_string(header.model.size()) +
                                " bytes; there is room for 1024");
  }
  std::array<std::byte, ssd_header_bytes> bytes{};
  put(bytes, header_at::magic, ssd_layout::magic_number);
  put(bytes, header_at::version, ssd_format_version);
  put(bytes, header_at::record_bytes, ssd_record_bytes);
  put(bytes, low_half(header_at::store_id), header.store.lo);
  put(bytes, high_half(header_at::store_id), header.store.hi);
  put(bytes, header_at::num_slots, header.num_slots);
  put(bytes, header_at::tokens_per_block, header.tokens_per_block);
  put(bytes, header_at::num_extents, num_extents);
  for (std::size_t i = 0; i < num_extents; ++i) put(bytes, extent_field(i), header.extent_bytes[i]);
  put(bytes, header_at::model_bytes, header.model.size());
  std::memcpy(bytes.data() + header_at::model.offset, header.model.data(), header.model.size());
  put(bytes, header_at::magic_again, ssd_layout::magic_number);
  put(bytes, header_at::checksum, crc64(std::span(bytes).first<header_at::checksum.offset>()));
  return bytes;
}

HeaderState decode_header(std::span<const std::byte, ssd_header_bytes> bytes, SsdHeader& header) {
  const bool has_magic = get(bytes, header_at::magic) == ssd_layout::magic_number;
  const bool has_magic_again = get(bytes, header_at::magic_again) == ssd_layout::magic_number;
  if (!has_magic && !has_magic_again) return all_zero(bytes) ? HeaderState::empty : HeaderState::foreign;
  if (get(bytes, header_at::checksum) != crc64(bytes.first<header_at::checksum.offset>())) return HeaderState::damaged;
  if (!has_magic) return HeaderState::damaged;
  if (get(bytes, header_at::version) != ssd_format_version) return HeaderState::other_version;
  return read_fields(bytes, header) ? HeaderState::ok : HeaderState::damaged;
}

std::uint64_t block_checksum(const SsdStoreId& store, std::uint64_t slot, const BlockKey& key,
                             std::span<const std::span<const std::byte>> extents) {
  std::array<std::byte, binding_bytes + sizeof(BlockKey)> input;
  put_binding(input, store, slot);
  put(input, {binding_bytes, 8}, key.lo);
  put(input, {binding_bytes + 8, 8}, key.hi);
  std::uint64_t checksum = crc64(input);
  for (const std::span<const std::byte> extent : extents) checksum = crc64(extent, checksum);
  return checksum;
}

}  // namespace flexkv
