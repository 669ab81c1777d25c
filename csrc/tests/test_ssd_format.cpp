// The on-disk format: golden bytes, what has no room, and that nothing but what was written there ever checks.
#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "storage/crc64.h"
#include "storage/ssd_format.h"
#include "storage/ssd_layout.h"
#include "tests/check.h"
#include "tests/ssd_kit.h"

using namespace flexkv;

namespace {

constexpr SsdStoreId golden_store{.lo = 0x0706050403020100, .hi = 0x0f0e0d0c0b0a0908};

SsdRecord golden_record() {
  SsdRecord record;
  record.key = {.lo = 0x1716151413121110, .hi = 0x1f1e1d1c1b1a1918};
  record.parent = {.lo = 0x2726252423222120, .hi = 0x2f2e2d2c2b2a2928};
  record.data_checksum = 0x3736353433323130;
  record.used_at_us = 0x46454443424140;
  record.expiry_s = 0x57565554;
  record.tenant = 0x5150;
  record.group = 5;
  record.priority = 6;
  return record;
}

SsdHeader golden_header() {
  return {.store = golden_store,
          .num_slots = 0x123456,
          .extent_bytes = {4096, 8192},
          .tokens_per_block = 16,
          .model = "llama"};
}

std::string hex(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", std::to_integer<unsigned>(byte));
    text += digits;
  }
  return text;
}

void a_record_has_the_golden_bytes() {
  const auto bytes = encode_record(golden_record(), golden_store, 0x29);
  CHECK(hex(std::span(bytes).first(56)) ==
        "101112131415161718191a1b1c1d1e1f"
        "202122232425262728292a2b2c2d2e2f"
        "3031323334353637"
        "40414243444546"
        "c5"
        "5051"
        "0001"
        "54555657");
  CHECK(hex(std::span(bytes).subspan(56)) == "9f0ae16225cdeb34");
  CHECK(decode_record(bytes, golden_store, 0x29) == golden_record());
}

void a_header_has_the_golden_bytes() {
  const auto bytes = encode_header(golden_header());
  CHECK(hex(std::span(bytes).first(64)) ==
        "464c584b56535344"
        "01000000"
        "40000000"
        "000102030405060708090a0b0c0d0e0f"
        "5634120000000000"
        "10000000"
        "02000000"
        "0010000000000000"
        "0020000000000000");
  CHECK(hex(std::span(bytes).subspan(560, 10)) == "050000006c6c616d6100");
  CHECK(hex(std::span(bytes).subspan(4080)) == "464c584b565353449292a4ab7cc35d00");
  SsdHeader header;
  CHECK(decode_header(bytes, header) == HeaderState::ok && header == golden_header());
}

// The checksum's input once more, as docs/formats/ssd.md says it.
void checksums_are_over_the_bytes_that_the_document_says() {
  const auto bytes = encode_record(golden_record(), golden_store, 0x29);
  std::vector<std::byte> input;
  for (unsigned i = 0; i < 16; ++i) input.push_back(static_cast<std::byte>(i));
  const auto add_slot = [&] {
    input.push_back(std::byte{0x29});
    input.resize(input.size() + 7);
  };
  add_slot();
  std::vector<std::byte> block_input = input;
  input.insert(input.end(), bytes.begin(), bytes.begin() + 56);
  std::uint64_t stored = 0;
  std::memcpy(&stored, bytes.data() + 56, 8);
  CHECK(crc64(input) == stored);

  const std::vector<std::byte> first(4096, std::byte{1});
  const std::vector<std::byte> second(8192, std::byte{2});
  block_input.insert(block_input.end(), bytes.begin(), bytes.begin() + 16);
  block_input.insert(block_input.end(), first.begin(), first.end());
  block_input.insert(block_input.end(), second.begin(), second.end());
  const std::array<std::span<const std::byte>, 2> extents{first, second};
  CHECK(crc64(block_input) == block_checksum(golden_store, 0x29, golden_record().key, extents));

  const auto header = encode_header(golden_header());
  std::memcpy(&stored, header.data() + 4088, 8);
  CHECK(crc64(std::span(header).first(4088)) == stored);
}

void values_without_room_are_refused() {
  SsdRecord record;
  record.used_at_us = ssd_max_used_at_us;
  record.group = 31;
  record.priority = 7;
  CHECK(decode_record(encode_record(record, golden_store, 0), golden_store, 0) == record);
  record.used_at_us = ssd_max_used_at_us + 1;
  CHECK_THROWS(encode_record(record, golden_store, 0), std::invalid_argument);
  record = SsdRecord();
  record.group = 32;
  CHECK_THROWS(encode_record(record, golden_store, 0), std::invalid_argument);
  record = SsdRecord();
  record.priority = 8;
  CHECK_THROWS(encode_record(record, golden_store, 0), std::invalid_argument);
  for (const std::vector<std::uint64_t>& extents :
       {std::vector<std::uint64_t>{}, {0}, {4095}, std::vector<std::uint64_t>(65, 4096)}) {
    SsdHeader header = golden_header();
    header.extent_bytes = extents;
    CHECK_THROWS(encode_header(header), std::invalid_argument);
  }
  SsdHeader header = golden_header();
  header.extent_bytes.assign(64, 4096);
  header.model.assign(1024, 'm');
  SsdHeader read;
  CHECK(decode_header(encode_header(header), read) == HeaderState::ok && read == header);
  header.model += 'm';
  CHECK_THROWS(encode_header(header), std::invalid_argument);
}

void what_does_not_decode_is_empty_of_another_life_or_damaged() {
  auto bytes = encode_record(golden_record(), golden_store, 0x29);
  CHECK(state_of_record(bytes, golden_store, 0x29) == RecordState::valid);
  CHECK(state_of_record(bytes, golden_store, 0x28) == RecordState::damaged);  // it lies where it was not written
  const SsdStoreId other{.lo = golden_store.lo ^ 0x8000, .hi = golden_store.hi};
  CHECK(state_of_record(bytes, other, 0x29) == RecordState::other_life);
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    auto flipped = bytes;
    flipped[at] ^= std::byte{0x10};
    const bool hits_life = at - ssd_layout::record::life.offset < ssd_layout::record::life.bytes;
    CHECK(state_of_record(flipped, golden_store, 0x29) == (hits_life ? RecordState::other_life : RecordState::damaged));
  }
  bytes.fill(std::byte{0});
  CHECK(state_of_record(bytes, golden_store, 0x29) == RecordState::empty);
}

void a_headers_state_is_told_by_its_magic_version_and_checksum() {
  SsdHeader header;
  std::array<std::byte, ssd_header_bytes> bytes{};
  CHECK(decode_header(bytes, header) == HeaderState::empty);
  bytes[100] = std::byte{1};
  CHECK(decode_header(bytes, header) == HeaderState::foreign);

  bytes = encode_header(golden_header());
  bytes[0] ^= std::byte{1};  // one magic is left: a flipped bit does not make it a stranger's
  CHECK(decode_header(bytes, header) == HeaderState::damaged);
  bytes = encode_header(golden_header());
  std::fill_n(bytes.end() - 512, 512, std::byte{0});  // its last sector was not written
  CHECK(decode_header(bytes, header) == HeaderState::damaged);

  bytes = encode_header(golden_header());
  bytes[ssd_layout::header::version.offset] = std::byte{2};
  CHECK(decode_header(bytes, header) == HeaderState::damaged);
  const std::uint64_t checksum = crc64(std::span(bytes).first(4088));
  std::memcpy(bytes.data() + 4088, &checksum, 8);
  CHECK(decode_header(bytes, header) == HeaderState::other_version);
  CHECK(header == SsdHeader{});
}

// A header whose checksum holds but whose numbers make no sense is not believed.
void a_header_of_impossible_numbers_is_damaged() {
  const auto changed = [](std::size_t offset, unsigned value) {
    auto bytes = encode_header(golden_header());
    std::memcpy(bytes.data() + offset, &value, sizeof value);
    const std::uint64_t checksum = crc64(std::span(bytes).first(4088));
    std::memcpy(bytes.data() + 4088, &checksum, 8);
    SsdHeader header;
    return decode_header(bytes, header);
  };
  CHECK(changed(ssd_layout::header::record_bytes.offset, 128) == HeaderState::damaged);
  CHECK(changed(ssd_layout::header::num_extents.offset, 0) == HeaderState::damaged);
  CHECK(changed(ssd_layout::header::num_extents.offset, 65) == HeaderState::damaged);
  CHECK(changed(ssd_layout::header::num_extents.offset, 3) == HeaderState::damaged);  // the third has 0 bytes
  CHECK(changed(ssd_layout::header::extent_bytes.offset, 4097) == HeaderState::damaged);
  CHECK(changed(ssd_layout::header::model_bytes.offset, 1025) == HeaderState::damaged);
  CHECK(changed(ssd_layout::header::num_slots.offset, 7) == HeaderState::ok);
}

// Each sector of the page is of the old header or of the new: only the two whole ones check.
void a_torn_header_never_checks() {
  SsdHeader old_header = golden_header();
  SsdHeader new_header = golden_header();
  new_header.store.lo ^= 0x1234;
  const auto old_bytes = encode_header(old_header);
  const auto new_bytes = encode_header(new_header);
  unsigned num_whole = 0;
  for (unsigned sectors = 0; sectors < 256; ++sectors) {
    auto bytes = old_bytes;
    for (std::size_t sector = 0; sector < 8; ++sector) {
      if ((sectors >> sector & 1) != 0)
        std::copy_n(new_bytes.begin() + 512 * sector, 512, bytes.begin() + 512 * sector);
    }
    SsdHeader read;
    const HeaderState state = decode_header(bytes, read);
    CHECK(state == HeaderState::damaged || state == HeaderState::ok);
    if (state != HeaderState::ok) continue;
    CHECK(bytes == old_bytes || bytes == new_bytes);
    ++num_whole;
  }
  CHECK(num_whole == 128);  // sectors 1 to 6 are alike
}

struct Store {
  SsdStoreId id{.lo = 7, .hi = 9};
  std::vector<SsdRecord> records;
  std::vector<std::byte> bytes;
};

Store filled_store(Choices& choices, std::uint64_t num_slots) {
  Store store;
  for (std::uint64_t slot = 0; slot < num_slots; ++slot) {
    SsdRecord record = record_of(choices);
    record.used_at_us = choices.below(ssd_max_used_at_us);
    const auto bytes = encode_record(record, store.id, slot);
    store.bytes.insert(store.bytes.end(), bytes.begin(), bytes.end());
    store.records.push_back(record);
  }
  return store;
}

// Flips, zeros, fills, copies a stretch elsewhere, or swaps two records.
void damage(Choices& choices, std::vector<std::byte>& bytes) {
  const std::uint64_t size = bytes.size();
  const std::uint64_t at = choices.below(size);
  const std::uint64_t length = std::min(size - at, 1 + choices.below(choices.one_in(2) ? 16 : 300));
  const auto first = bytes.begin() + static_cast<std::ptrdiff_t>(at);
  switch (choices.below(6)) {
    case 0:
      *first ^= std::byte{1} << choices.below(8);
      break;
    case 1:
      std::fill_n(first, length, std::byte{0});
      break;
    case 2:
      std::fill_n(first, length, std::byte{0xff});
      break;
    case 3:
      std::copy_n(first, length, bytes.begin() + static_cast<std::ptrdiff_t>(choices.below(size - length + 1)));
      break;
    case 4: {
      const std::uint64_t a = choices.below(size / ssd_record_bytes) * ssd_record_bytes;
      const std::uint64_t b = choices.below(size / ssd_record_bytes) * ssd_record_bytes;
      std::swap_ranges(bytes.begin() + static_cast<std::ptrdiff_t>(a),
                       bytes.begin() + static_cast<std::ptrdiff_t>(std::min(a + ssd_record_bytes, size)),
                       bytes.begin() + static_cast<std::ptrdiff_t>(b));
      break;
    }
    default:
      for (std::uint64_t i = 0; i < length; ++i) {
        first[static_cast<std::ptrdiff_t>(i)] = static_cast<std::byte>(choices.below(256));
      }
  }
}

void damaged_records_are_never_read_as_others(Choices& choices) {
  Store store = filled_store(choices, 1 + choices.below(16));
  const std::vector<std::byte> whole = store.bytes;
  for (std::uint64_t times = 1 + choices.below(3); times > 0; --times) damage(choices, store.bytes);
  for (std::size_t slot = 0; slot < store.records.size(); ++slot) {
    const auto bytes = std::span(std::as_const(store.bytes)).subspan(slot * 64).first<64>();
    const bool is_whole = std::ranges::equal(bytes, std::span(whole).subspan(slot * 64, 64));
    const auto read = decode_record(bytes, store.id, slot);
    CHECK(read.has_value() == is_whole);
    CHECK(!read || *read == store.records[slot]);
    const SsdStoreId other{.lo = store.id.lo, .hi = store.id.hi + 1 + choices.below(100)};
    CHECK(!decode_record(bytes, other, slot));
    // Bytes of another slot are right in that one only.
    CHECK(!is_whole || !decode_record(bytes, store.id, slot + 1 + choices.below(100)));
  }
}

void a_damaged_header_is_never_read_as_another(Choices& choices) {
  SsdHeader header = golden_header();
  header.store = {.lo = choices.below(UINT64_MAX), .hi = choices.below(UINT64_MAX)};
  header.num_slots = choices.below(1u << 30);
  header.model.assign(choices.below(1025), 'x');
  const auto whole = encode_header(header);
  std::vector<std::byte> bytes(whole.begin(), whole.end());
  for (std::uint64_t times = 1 + choices.below(3); times > 0; --times) damage(choices, bytes);
  if (choices.one_in(4))
    std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(choices.below(4096)), bytes.end(), std::byte{0});
  SsdHeader read;
  const HeaderState state = decode_header(std::span(bytes).first<ssd_header_bytes>(), read);
  CHECK((state == HeaderState::ok) == std::ranges::equal(bytes, whole));
  CHECK(state == HeaderState::ok ? read == header : read == SsdHeader{});
}

}  // namespace

int main(int argc, char** argv) {
  a_record_has_the_golden_bytes();
  a_header_has_the_golden_bytes();
  checksums_are_over_the_bytes_that_the_document_says();
  values_without_room_are_refused();
  what_does_not_decode_is_empty_of_another_life_or_damaged();
  a_headers_state_is_told_by_its_magic_version_and_checksum();
  a_header_of_impossible_numbers_is_damaged();
  a_torn_header_never_checks();
  const RunLength length = run_length(argc, argv);
  for_each_seed("damaged records", length, length.cases(500, 10'000), damaged_records_are_never_read_as_others);
  for_each_seed("damaged headers", length, length.cases(500, 10'000), a_damaged_header_is_never_read_as_another);
}
