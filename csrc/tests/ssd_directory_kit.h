// What the tests of the SsdDirectory share: records made of a number, what a start that must fail says, its files.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "storage/ssd_directory.h"
#include "tests/check.h"
#include "tests/ssd_kit.h"
#include "tests/temp_dir.h"

namespace flexkv {

inline FileSystem& disk() { return posix_file_system(); }

inline SsdRecord record_named(std::uint64_t number) {
  SsdRecord record;
  record.key = {.lo = number, .hi = ~number};
  record.parent = {.lo = number - 1, .hi = 1};
  record.data_checksum = number * number;
  record.used_at_us = next_test_use();
  return record;
}

inline std::vector<std::uint64_t> slots_of(const std::vector<ScannedRecord>& records) {
  std::vector<std::uint64_t> slots;
  for (const ScannedRecord& scanned : records) slots.push_back(scanned.slot);
  return slots;
}

// What a start that must fail says.
template <typename Error>
std::string why_not(const SsdDirectoryConfig& config) {
  try {
    const SsdDirectory directory(disk(), config);
  } catch (const Error& error) {
    return error.what();
  }
  CHECK(false);
  return {};
}

inline void expect_in(const std::string& text, std::initializer_list<std::string> parts) {
  for (const std::string& part : parts) {
    if (text.find(part) == std::string::npos) std::fprintf(stderr, "no \"%s\" in: %s\n", part.c_str(), text.c_str());
    CHECK(text.find(part) != std::string::npos);
  }
}

inline std::string records_of(const SsdDirectoryConfig& config) {
  return config.root + "/flexkv-ssd-v1/" + config.fingerprint + "/records";
}
inline std::string data_of(const SsdDirectoryConfig& config) {
  return config.root + "/flexkv-ssd-v1/" + config.fingerprint + "/data";
}

inline void put_bytes(const std::string& path, std::uint64_t offset, const std::string& bytes) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(offset));
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  CHECK(file.good());
}
inline void put_bytes(const std::string& path, std::uint64_t offset, std::span<const std::byte> bytes) {
  put_bytes(path, offset, std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

// Fills every slot, and returns the configuration to start again with.
inline SsdDirectoryConfig full_store(const TempDir& temp, std::uint64_t num_slots) {
  const SsdDirectoryConfig config = small_store(temp.file("root"), num_slots);
  SsdDirectory directory(disk(), config);
  for (std::uint64_t slot = 0; slot < num_slots; ++slot) CHECK(directory.write(slot, record_named(slot + 1)) == 0);
  return config;
}

}  // namespace flexkv
