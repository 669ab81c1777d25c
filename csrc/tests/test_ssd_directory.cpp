// SsdDirectory: what is kept over a restart, the cap, the locks, and what it says when it cannot work.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "storage/ssd_directory.h"
#include "tests/check.h"
#include "tests/ssd_kit.h"
#include "tests/temp_dir.h"

using namespace flexkv;

namespace {

namespace fs = std::filesystem;

FileSystem& disk() { return posix_file_system(); }

SsdRecord record_named(std::uint64_t number) {
  SsdRecord record;
  record.key = {.lo = number, .hi = ~number};
  record.parent = {.lo = number - 1, .hi = 1};
  record.data_checksum = number * number;
  return record;
}

std::vector<std::uint64_t> slots_of(const std::vector<ScannedRecord>& records) {
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

void expect_in(const std::string& text, std::initializer_list<std::string> parts) {
  for (const std::string& part : parts) {
    if (text.find(part) == std::string::npos) std::fprintf(stderr, "no \"%s\" in: %s\n", part.c_str(), text.c_str());
    CHECK(text.find(part) != std::string::npos);
  }
}

void what_was_written_is_there_after_a_restart() {
  const TempDir temp;
  const SsdDirectoryConfig config = small_store(temp.file("root"), 100);
  SsdStoreId id;
  {
    SsdDirectory directory(disk(), config);
    CHECK(directory.origin() == SsdOrigin::made && directory.num_slots() == 100);
    CHECK(directory.slot_bytes() == test_slot_bytes && directory.offset_of(3) == 3 * test_slot_bytes);
    CHECK(directory.scan(0).empty());
    id = directory.store_id();
    for (const std::uint64_t slot : {5, 99, 0, 7}) CHECK(directory.write(slot, record_named(slot + 1)) == 0);
    CHECK(directory.invalidate(7) == 0 && directory.invalidate(8) == 0);
    CHECK(directory.touch(5, record_named(6).key) == 0);
    CHECK(directory.touch(0, record_named(6).key) == 0);  // not its key: nothing happens
    CHECK(directory.touch(7, record_named(8).key) == 0);
  }
  SsdDirectory directory(disk(), config);
  CHECK(directory.origin() == SsdOrigin::warm && directory.store_id() == id && directory.num_slots() == 100);
  const std::vector<ScannedRecord> records = directory.scan(0);
  CHECK(slots_of(records) == (std::vector<std::uint64_t>{0, 5, 99}));
  CHECK(records[0].record.key == record_named(1).key && records[0].record.parent == record_named(1).parent);
  CHECK(records[0].record.data_checksum == 1);
  CHECK(records[2].record.used_at_us < records[0].record.used_at_us);  // in the order of use: 99, 0, 5
  CHECK(records[0].record.used_at_us < records[1].record.used_at_us);
  CHECK(directory.write(1, record_named(2)) == 0);
  CHECK(directory.scan(0)[1].record.used_at_us > records[1].record.used_at_us);
}

void times_of_use_are_the_clocks_and_grow_whatever_it_does() {
  CHECK(use_after(0, 1'000) == 1'000);
  CHECK(use_after(1'000, 1'000) == 1'001);
  CHECK(use_after(1'000, 5) == 1'001);  // it was set back
  CHECK(use_after(1'000, -5) == 1'001);
  CHECK(use_after(ssd_max_used_at_us, 5) == ssd_max_used_at_us);
  const auto now_us = [] {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(now).count());
  };
  const TempDir temp;
  SsdDirectory directory(disk(), small_store(temp.file("root"), 2));
  const std::uint64_t before = now_us();
  CHECK(directory.write(0, record_named(1)) == 0 && directory.write(1, record_named(2)) == 0);
  const std::vector<ScannedRecord> records = directory.scan(0);
  CHECK(records[0].record.used_at_us >= before && records[0].record.used_at_us < records[1].record.used_at_us);
  CHECK(records[1].record.used_at_us <= now_us() + 1);
}

void expired_blocks_are_left_out_and_their_slots_are_invalidated_all_the_same() {
  const TempDir temp;
  SsdDirectory directory(disk(), small_store(temp.file("root"), 10));
  SsdRecord record = record_named(1);
  record.expiry_s = 500;
  CHECK(directory.write(3, record) == 0);
  CHECK(directory.scan(499).size() == 1 && directory.scan(500).empty());
  CHECK(directory.invalidate(3) == 0);
  CHECK(directory.scan(499).empty());
}

void renewing_forgets_everything() {
  const TempDir temp;
  const SsdDirectoryConfig config = small_store(temp.file("root"), 10);
  {
    SsdDirectory directory(disk(), config);
    const SsdStoreId id = directory.store_id();
    CHECK(directory.write(3, record_named(1)) == 0);
    CHECK(directory.renew() == 0);
    CHECK(!(directory.store_id() == id) && directory.scan(0).empty());
    CHECK(directory.write(4, record_named(2)) == 0);
  }
  SsdDirectory directory(disk(), config);
  CHECK(directory.origin() == SsdOrigin::warm);
  CHECK(slots_of(directory.scan(0)) == std::vector<std::uint64_t>{4});
}

// --- the locks

void one_store_at_a_time_serves_from_a_sub_directory() {
  const TempDir temp;
  const SsdDirectoryConfig config = small_store(temp.file("root"), 10);
  auto directory = std::make_unique<SsdDirectory>(disk(), config);
  expect_in(why_not<SsdBusy>(config), {config.fingerprint, "served from by another process"});
  directory.reset();
  const SsdDirectory again(disk(), config);
  CHECK(again.origin() == SsdOrigin::warm);
}

void a_start_while_another_changes_the_tree_is_busy() {
  const TempDir temp;
  const SsdDirectoryConfig config = small_store(temp.file("root"), 10);
  const std::string tree = make_ssd_tree((fs::create_directory(config.root), config.root));
  auto lock = SsdLock::take(tree + "/lock");
  CHECK(lock.has_value());
  expect_in(why_not<SsdBusy>(config), {"being changed by another process"});
  lock.reset();
  const SsdDirectory directory(disk(), config);
}

// --- the cap

void all_files_together_stay_within_the_capacity() {
  for (const std::uint64_t num_slots : {1, 2, 63, 64, 65, 100}) {
    const TempDir temp;
    SsdDirectoryConfig config = small_store(temp.file("root"), num_slots);
    {
      const SsdDirectory directory(disk(), config);
      CHECK(directory.num_slots() == num_slots && bytes_below(config.root) == config.capacity_bytes);
    }
    config.capacity_bytes -= 1;
    if (num_slots == 1) {
      expect_in(why_not<SsdConfigError>(config), {std::to_string(config.capacity_bytes), "set at least that"});
      continue;
    }
    const SsdDirectory directory(disk(), config);
    CHECK(directory.num_slots() == num_slots - 1 && bytes_below(config.root) <= config.capacity_bytes);
  }
}

void another_model_gets_what_the_busy_ones_leave() {
  const TempDir temp;
  const SsdDirectoryConfig first = small_store(temp.file("root"), 50, "00000000000000a1");
  SsdDirectoryConfig second = small_store(temp.file("root"), 80, "00000000000000a2");
  auto one = std::make_unique<SsdDirectory>(disk(), first);
  expect_in(why_not<SsdBusy>(small_store(temp.file("root"), 50, "00000000000000a3")), {"others serve from"});
  {
    const SsdDirectory two(disk(), second);
    CHECK(two.removed().empty() && two.num_slots() == 29);  // the header and the page of records are taken twice
    CHECK(bytes_below(first.root) <= second.capacity_bytes);
  }
  one.reset();
  const SsdDirectory two(disk(), second);
  CHECK(two.removed() == std::vector<std::string>{first.fingerprint} && two.num_slots() == 80);
  CHECK(two.origin() == SsdOrigin::warm && !fs::exists(temp.file("root/flexkv-ssd-v1/00000000000000a1")));
}

}  // namespace

int main() {
  what_was_written_is_there_after_a_restart();
  times_of_use_are_the_clocks_and_grow_whatever_it_does();
  expired_blocks_are_left_out_and_their_slots_are_invalidated_all_the_same();
  renewing_forgets_everything();
  one_store_at_a_time_serves_from_a_sub_directory();
  a_start_while_another_changes_the_tree_is_busy();
  all_files_together_stay_within_the_capacity();
  another_model_gets_what_the_busy_ones_leave();
}
