// What tests of the SSD tier share: records made of a number, configurations of small stores, how long a run is.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "storage/ssd_directory.h"
#include "tests/choices.h"

namespace flexkv {

inline constexpr std::uint64_t test_slot_bytes = 2 * ssd_page_bytes;

// Each is later than the last, as a UseClock's.
inline std::uint64_t next_test_use() {
  static std::uint64_t last = 0;
  return ++last;
}
inline SsdUse test_use() { return {.used_at_us = next_test_use()}; }

inline SsdRecord record_of(Choices& choices) {
  SsdRecord record;
  record.key = {.lo = choices.below(UINT64_MAX), .hi = choices.below(UINT64_MAX)};
  record.parent = {.lo = choices.below(UINT64_MAX), .hi = choices.below(UINT64_MAX)};
  record.data_checksum = choices.below(UINT64_MAX);
  record.expiry_s = choices.one_in(2) ? ssd_never_expires : static_cast<std::uint32_t>(1000 + choices.below(1000));
  record.tenant = static_cast<std::uint16_t>(choices.below(65536));
  record.group = static_cast<std::uint8_t>(choices.below(32));
  record.priority = static_cast<std::uint8_t>(choices.below(8));
  return record;
}

// A store of that many slots of two extents.
inline SsdDirectoryConfig small_store(const std::string& root, std::uint64_t num_slots,
                                      const std::string& fingerprint = "00000000aaaaaaaa") {
  SsdDirectoryConfig config;
  config.root = root;
  config.fingerprint = fingerprint;
  config.model = "a model";
  config.extent_bytes = {ssd_page_bytes, ssd_page_bytes};
  const std::uint64_t record_pages = (record_offset(num_slots) + ssd_page_bytes - 1) / ssd_page_bytes;
  config.capacity_bytes = record_pages * ssd_page_bytes + num_slots * test_slot_bytes;
  return config;
}

// What the files below a root take, in whole pages: what the cap is on.
inline std::uint64_t bytes_below(const std::string& root) {
  std::uint64_t total = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    if (!entry.is_regular_file()) continue;
    total += (entry.file_size() + ssd_page_bytes - 1) / ssd_page_bytes * ssd_page_bytes;
  }
  return total;
}

// `--long` asks for the cases that a campaign runs. Another argument is the first seed.
struct RunLength {
  bool is_long = false;
  std::uint64_t first_seed = 1;
  [[nodiscard]] std::uint64_t cases(std::uint64_t usual, std::uint64_t in_campaign) const {
    return is_long ? in_campaign : usual;
  }
};
inline RunLength run_length(int argc, char** argv) {
  RunLength length;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--long") == 0) {
      length.is_long = true;
    } else {
      length.first_seed = std::strtoull(argv[i], nullptr, 10);
    }
  }
  return length;
}

// Runs a case per seed; a failure is that of the last seed printed.
template <typename Case>
void for_each_seed(const char* name, const RunLength& length, std::uint64_t num_cases, Case&& run) {
  for (std::uint64_t seed = length.first_seed; seed < length.first_seed + num_cases; ++seed) {
    std::fprintf(stderr, "\r%s: seed %llu", name, static_cast<unsigned long long>(seed));
    Choices choices(seed);
    run(choices);
  }
  std::fputs("\n", stderr);
}

}  // namespace flexkv
