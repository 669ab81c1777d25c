// The on-disk format of the SSD tier, version 1; drawn byte by byte in docs/formats/ssd.md. Encoding and decoding only.
//
// A directory holds for each model fingerprint one sub-directory with a data file of slots and a file of records, one
// per slot. A record says which block lies in its slot and what the checksum of its bytes is. Both checksums are bound
// to the store id, which is random and changes when the store is emptied, and to the slot: a record or block that lies
// where it was not written, or is of an earlier life of the store, does not check. Pure, thread-safe.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cache/hash.h"

namespace flexkv {

inline constexpr std::uint32_t ssd_format_version = 1;
inline constexpr std::size_t ssd_record_bytes = 64;    // eight to a sector of 512 bytes: none straddles one
inline constexpr std::size_t ssd_header_bytes = 4096;  // at the start of the record file
inline constexpr std::uint64_t ssd_page_bytes = 4096;  // extents, slots and offsets are multiples of it
inline constexpr std::uint32_t ssd_never_expires = 0xffffffffu;
inline constexpr std::uint64_t ssd_max_used_at_us = (std::uint64_t{1} << 56) - 1;

struct SsdStoreId {
  std::uint64_t lo = 0;
  std::uint64_t hi = 0;
  friend bool operator==(const SsdStoreId&, const SsdStoreId&) = default;
};

// What a record says. `used_at_us` is when the block was last written or used, as a UseClock says it.
struct SsdRecord {
  BlockKey key;
  BlockKey parent;  // all zero: the block is the first of its chain
  std::uint64_t data_checksum = 0;
  std::uint64_t used_at_us = 0;                // at most ssd_max_used_at_us
  std::uint32_t expiry_s = ssd_never_expires;  // seconds since 1970, UTC
  std::uint16_t tenant = 0;
  std::uint8_t group = 0;     // below 32
  std::uint8_t priority = 0;  // 0 .. 7
  friend bool operator==(const SsdRecord&, const SsdRecord&) = default;
};

// Throws std::invalid_argument on a value that has no room.
[[nodiscard]] std::array<std::byte, ssd_record_bytes> encode_record(const SsdRecord& record, const SsdStoreId& store,
                                                                    std::uint64_t slot);
// nullopt unless its checksum holds for this store and slot: it is empty (all zero), torn, flipped, or of another life.
[[nodiscard]] std::optional<SsdRecord> decode_record(std::span<const std::byte, ssd_record_bytes> bytes,
                                                     const SsdStoreId& store, std::uint64_t slot);
// What a record is that does not decode, for people: nothing rests on it. A record of another life is what the store
// leaves behind when it is emptied; one in 65,536 lives is taken for damage, and damage to two of its bytes for a life.
enum class RecordState : std::uint8_t { valid, empty, other_life, damaged };
[[nodiscard]] RecordState state_of_record(std::span<const std::byte, ssd_record_bytes> bytes, const SsdStoreId& store,
                                          std::uint64_t slot);

struct SsdHeader {
  SsdStoreId store;
  std::uint64_t num_slots = 0;
  std::vector<std::uint64_t> extent_bytes;  // of each shard in a slot, padded to pages; at most 64
  std::uint32_t tokens_per_block = 0;
  std::string model;  // for people (`flexkv cache inspect`); at most 1024 bytes of UTF-8
  friend bool operator==(const SsdHeader&, const SsdHeader&) = default;
};

// Throws std::invalid_argument on a value that has no room.
[[nodiscard]] std::array<std::byte, ssd_header_bytes> encode_header(const SsdHeader& header);
enum class HeaderState : std::uint8_t { ok, empty, foreign, other_version, damaged };
// `foreign`: not a file of ours. `empty`: all zero. A header of another version has its magic, version and checksum
// where ours has them; where its checksum does not hold it is `damaged`. Only `ok` fills `header`.
[[nodiscard]] HeaderState decode_header(std::span<const std::byte, ssd_header_bytes> bytes, SsdHeader& header);

// The checksum of a block's bytes, bound to where they belong: CRC-64/NVME over store id, slot, key and the extents.
[[nodiscard]] std::uint64_t block_checksum(const SsdStoreId& store, std::uint64_t slot, const BlockKey& key,
                                           std::span<const std::span<const std::byte>> extents);

}  // namespace flexkv
