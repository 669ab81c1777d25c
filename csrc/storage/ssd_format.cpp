#include "storage/ssd_format.h"

#include <algorithm>
#include <bit>
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

// Fields are template arguments, so that each is one load or store: a scan reads millions.
static_assert(std::endian::native == std::endian::little, "numbers are written as they lie in memory");
template <Field field>
void put(std::byte* to, std::uint64_t value) {
  static_assert(field.bytes <= sizeof value);
  std::memcpy(to + field.offset, &value, field.bytes);
}

template <Field field>
[[nodiscard]] std::uint64_t get(const std::byte* from) {
  static_assert(field.bytes <= sizeof(std::uint64_t));
  std::uint64_t value = 0;
  std::memcpy(&value, from + field.offset, field.bytes);
  return value;
}

template <Field field>
void put_pair(std::byte* to, std::uint64_t lo, std::uint64_t hi) {
  put<Field{field.offset, 8}>(to, lo);
  put<Field{field.offset + 8, 8}>(to, hi);
}

template <typename Pair, Field field>
[[nodiscard]] Pair get_pair(const std::byte* from) {
  return {.lo = get<Field{field.offset, 8}>(from), .hi = get<Field{field.offset + 8, 8}>(from)};
}

[[nodiscard]] bool all_zero(std::span<const std::byte> bytes) {
  return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

void put_binding(std::byte* to, const SsdStoreId& store, std::uint64_t slot) {
  put_pair<Field{0, 16}>(to, store.lo, store.hi);
  put<Field{16, 8}>(to, slot);
}

// In one piece: a call for each part would cost more than the sum itself.
[[nodiscard]] std::uint64_t record_checksum(std::span<const std::byte, ssd_record_bytes> bytes, const SsdStoreId& store,
                                            std::uint64_t slot) {
  std::array<std::byte, binding_bytes + record_at::checksum.offset> input;
  put_binding(input.data(), store, slot);
  std::memcpy(input.data() + binding_bytes, bytes.data(), record_at::checksum.offset);
  return crc64(input);
}

[[nodiscard]] std::uint64_t life_of(const SsdStoreId& store) { return store.lo & 0xffff; }

[[nodiscard]] std::size_t extent_offset(std::size_t extent_idx) {
  return header_at::extent_bytes.offset + 8 * extent_idx;
}

// What has a good checksum was written by this code, or by code that has gone wrong: it is not trusted with sizes.
[[nodiscard]] bool read_fields(std::span<const std::byte, ssd_header_bytes> bytes, SsdHeader& header) {
  const std::uint64_t num_extents = get<header_at::num_extents>(bytes.data());
  const std::uint64_t model_bytes = get<header_at::model_bytes>(bytes.data());
  if (get<header_at::record_bytes>(bytes.data()) != ssd_record_bytes) return false;
  if (num_extents == 0 || num_extents > ssd_layout::max_extents) return false;
  if (model_bytes > header_at::model.bytes) return false;
  SsdHeader read;
  read.store = get_pair<SsdStoreId, header_at::store_id>(bytes.data());
  read.num_slots = get<header_at::num_slots>(bytes.data());
  read.tokens_per_block = static_cast<std::uint32_t>(get<header_at::tokens_per_block>(bytes.data()));
  for (std::size_t i = 0; i < num_extents; ++i) {
    read.extent_bytes.push_back(get<Field{0, 8}>(bytes.data() + extent_offset(i)));
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
  if (record.used_at_us > ssd_max_used_at_us) {
    throw std::invalid_argument("used_at_us is " + std::to_string(record.used_at_us) +
                                "; a record has room for 56 bits");
  }
  if (record.group >= 32) {
    throw std::invalid_argument("group is " + std::to_string(record.group) + "; it must be below 32");
  }
  if (record.priority >= 8) {
    throw std::invalid_argument("priority is " + std::to_string(record.priority) + "; it must be below 8");
  }
  std::array<std::byte, ssd_record_bytes> bytes{};
  put_pair<record_at::key>(bytes.data(), record.key.lo, record.key.hi);
  put_pair<record_at::parent>(bytes.data(), record.parent.lo, record.parent.hi);
  put<record_at::data_checksum>(bytes.data(), record.data_checksum);
  put<record_at::used_at_us>(bytes.data(), record.used_at_us);
  put<record_at::group_priority>(bytes.data(), record.group | std::uint64_t{record.priority} << 5);
  put<record_at::tenant>(bytes.data(), record.tenant);
  put<record_at::life>(bytes.data(), life_of(store));
  put<record_at::expiry_s>(bytes.data(), record.expiry_s);
  put<record_at::checksum>(bytes.data(), record_checksum(bytes, store, slot));
  return bytes;
}

std::optional<SsdRecord> decode_record(std::span<const std::byte, ssd_record_bytes> bytes, const SsdStoreId& store,
                                       std::uint64_t slot) {
  if (get<record_at::checksum>(bytes.data()) == 0 && all_zero(bytes)) return std::nullopt;  // most of a young store's
  if (get<record_at::checksum>(bytes.data()) != record_checksum(bytes, store, slot)) return std::nullopt;
  const std::uint64_t group_priority = get<record_at::group_priority>(bytes.data());
  SsdRecord record;
  record.key = get_pair<BlockKey, record_at::key>(bytes.data());
  record.parent = get_pair<BlockKey, record_at::parent>(bytes.data());
  record.data_checksum = get<record_at::data_checksum>(bytes.data());
  record.used_at_us = get<record_at::used_at_us>(bytes.data());
  record.expiry_s = static_cast<std::uint32_t>(get<record_at::expiry_s>(bytes.data()));
  record.tenant = static_cast<std::uint16_t>(get<record_at::tenant>(bytes.data()));
  record.group = static_cast<std::uint8_t>(group_priority & 31);
  record.priority = static_cast<std::uint8_t>(group_priority >> 5);
  return record;
}

RecordState state_of_record(std::span<const std::byte, ssd_record_bytes> bytes, const SsdStoreId& store,
                            std::uint64_t slot) {
  if (all_zero(bytes)) return RecordState::empty;
  if (decode_record(bytes, store, slot)) return RecordState::valid;
  return get<record_at::life>(bytes.data()) == life_of(store) ? RecordState::damaged : RecordState::other_life;
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
  put<header_at::magic>(bytes.data(), ssd_layout::magic_number);
  put<header_at::version>(bytes.data(), ssd_format_version);
  put<header_at::record_bytes>(bytes.data(), ssd_record_bytes);
  put_pair<header_at::store_id>(bytes.data(), header.store.lo, header.store.hi);
  put<header_at::num_slots>(bytes.data(), header.num_slots);
  put<header_at::tokens_per_block>(bytes.data(), header.tokens_per_block);
  put<header_at::num_extents>(bytes.data(), num_extents);
  for (std::size_t i = 0; i < num_extents; ++i)
    put<Field{0, 8}>(bytes.data() + extent_offset(i), header.extent_bytes[i]);
  put<header_at::model_bytes>(bytes.data(), header.model.size());
  std::memcpy(bytes.data() + header_at::model.offset, header.model.data(), header.model.size());
  put<header_at::magic_again>(bytes.data(), ssd_layout::magic_number);
  put<header_at::checksum>(bytes.data(), crc64(std::span(bytes).first<header_at::checksum.offset>()));
  return bytes;
}

HeaderState decode_header(std::span<const std::byte, ssd_header_bytes> bytes, SsdHeader& header) {
  const bool has_magic = get<header_at::magic>(bytes.data()) == ssd_layout::magic_number;
  const bool has_magic_again = get<header_at::magic_again>(bytes.data()) == ssd_layout::magic_number;
  if (!has_magic && !has_magic_again) return all_zero(bytes) ? HeaderState::empty : HeaderState::foreign;
  if (get<header_at::checksum>(bytes.data()) != crc64(bytes.first<header_at::checksum.offset>()))
    return HeaderState::damaged;
  if (!has_magic) return HeaderState::damaged;
  if (get<header_at::version>(bytes.data()) != ssd_format_version) return HeaderState::other_version;
  return read_fields(bytes, header) ? HeaderState::ok : HeaderState::damaged;
}

std::uint64_t block_checksum(const SsdStoreId& store, std::uint64_t slot, const BlockKey& key,
                             std::span<const std::span<const std::byte>> extents) {
  std::array<std::byte, binding_bytes + sizeof(BlockKey)> input;
  put_binding(input.data(), store, slot);
  put_pair<Field{binding_bytes, 16}>(input.data(), key.lo, key.hi);
  std::uint64_t checksum = crc64(input);
  for (const std::span<const std::byte> extent : extents) checksum = crc64(extent, checksum);
  return checksum;
}

}  // namespace flexkv
