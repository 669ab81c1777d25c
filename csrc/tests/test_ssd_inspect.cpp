// What tools see of an SSD directory beside a store that serves, and how they clear it.
#include <atomic>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "storage/ssd_inspect.h"
#include "tests/check.h"
#include "tests/ssd_history.h"
#include "tests/ssd_kit.h"
#include "tests/temp_dir.h"

using namespace flexkv;

namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

FileSystem& disk() { return posix_file_system(); }
constexpr const char* first_name = "00000000000000a1";
constexpr const char* second_name = "00000000000000a2";
constexpr const char* foreign_name = "00000000000000ff";

SsdRecord record_named(std::uint64_t number) {
  SsdRecord record;
  record.key = {.lo = number, .hi = ~number};
  return record;
}

// One that is served from, one that is not, and one that is not ours.
struct Root {
  TempDir temp;
  std::string path = temp.file("root");
  std::unique_ptr<SsdDirectory> busy;

  Root() {
    SsdDirectoryConfig config = small_store(path, 10, second_name);
    const std::uint64_t each = config.capacity_bytes;
    auto idle = std::make_unique<SsdDirectory>(disk(), config);
    config = small_store(path, 10, first_name);
    config.capacity_bytes = 2 * each;
    busy = std::make_unique<SsdDirectory>(disk(), config);
    fs::create_directory(path + "/flexkv-ssd-v1/" + foreign_name);
    std::ofstream(path + "/flexkv-ssd-v1/" + foreign_name + "/records") << "mine";
  }
};

void a_listing_says_what_is_there_and_who_is_busy() {
  CHECK(list_ssd_directories("/nowhere/at/all").empty());
  const Root root;
  const std::vector<SsdListing> listings = list_ssd_directories(root.path);
  CHECK(listings.size() == 3);
  CHECK(listings[0].fingerprint == first_name && listings[0].is_busy && listings[0].state == HeaderState::ok);
  CHECK(listings[0].header.num_slots == 10 && listings[0].header.model == "a model");
  CHECK(listings[0].path == root.busy->path());
  CHECK(listings[0].footprint_bytes >= 10 * test_slot_bytes + 2 * ssd_page_bytes);
  CHECK(listings[0].used_at_s > 0 && listings[0].used_at_s <= std::time(nullptr) + 1);
  CHECK(listings[1].fingerprint == second_name && !listings[1].is_busy && listings[1].state == HeaderState::ok);
  CHECK(listings[2].fingerprint == foreign_name && listings[2].state == HeaderState::foreign);
}

void clearing_removes_ours_that_nobody_serves_from() {
  Root root;
  const SsdCleared one = clear_ssd_directories(root.path, first_name);
  CHECK(one.removed.empty() && one.busy == Names{first_name} && one.foreign.empty());
  const SsdCleared all = clear_ssd_directories(root.path);
  CHECK(all.removed == Names{second_name} && all.busy == Names{first_name} && all.foreign == Names{foreign_name});
  CHECK(!fs::exists(root.path + "/flexkv-ssd-v1/" + second_name));
  CHECK(fs::exists(root.path + "/flexkv-ssd-v1/" + foreign_name + "/records"));
  CHECK(root.busy->write(3, record_named(1)) == 0 && root.busy->scan().size() == 1);
  root.busy.reset();
  CHECK(clear_ssd_directories(root.path, first_name).removed == Names{first_name});
  CHECK(clear_ssd_directories(root.path, first_name).removed.empty());
  CHECK(clear_ssd_directories(root.temp.file("other")).removed.empty());
  CHECK(!fs::exists(root.temp.file("other")));

  const std::optional<SsdLock> changing = SsdLock::take(root.path + "/flexkv-ssd-v1/lock");
  CHECK_THROWS(clear_ssd_directories(root.path), SsdBusy);
}

void what_else_lies_in_a_sub_directory_stays() {
  Root root;
  const std::string other = root.path + "/flexkv-ssd-v1/" + second_name + "/notes";
  std::ofstream(other) << "mine";
  CHECK(clear_ssd_directories(root.path, second_name).removed == Names{second_name});
  CHECK(fs::exists(other));
  CHECK(list_ssd_directories(root.path)[1].footprint_bytes == 0);
}

void records_are_read_beside_the_store_in_the_order_of_use() {
  const Root root;
  for (const std::uint64_t slot : {4, 2, 7}) CHECK(write_block(*root.busy, slot, record_named(slot)) == 0);
  CHECK(root.busy->touch(2, record_named(2).key, test_use()) == 0);
  const SsdReader reader(root.path, first_name);
  std::vector<std::uint64_t> slots;
  for (const ScannedRecord& one : reader.records().valid) slots.push_back(one.slot);
  CHECK(slots == (std::vector<std::uint64_t>{4, 7, 2}));
  CHECK(reader.header().store == root.busy->store_id() && reader.slot_bytes() == test_slot_bytes);

  CHECK_THROWS(SsdReader(root.path, foreign_name), std::invalid_argument);
  CHECK_THROWS(SsdReader(root.path, "00000000000000a3"), std::invalid_argument);
  CHECK_THROWS(SsdReader(root.path, ".."), std::invalid_argument);
  CHECK_THROWS(SsdReader(root.temp.file("other"), first_name), std::invalid_argument);
}

void checking_tells_damage_from_change() {
  const Root root;
  for (const std::uint64_t slot : {0, 1, 2, 3}) CHECK(write_block(*root.busy, slot, record_named(slot + 1)) == 0);
  SsdReader reader(root.path, first_name);
  const std::vector<ScannedRecord> records = reader.records().valid;
  CHECK(records.size() == 4);
  const std::string data = root.busy->path() + "/data";
  {
    std::fstream file(data, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(test_slot_bytes + 5000));
    file.put('x');
    CHECK(file.good());
  }
  CHECK(root.busy->touch(0, record_named(1).key, {test_use().used_at_us, 5000, 3}) == 0);  // still the same block
  CHECK(write_block(*root.busy, 2, record_named(77)) == 0);                                // another
  CHECK(reader.check(records[0]) == SsdCheck::whole);
  CHECK(reader.check(records[1]) == SsdCheck::damaged);
  CHECK(reader.check(records[2]) == SsdCheck::changed);
  CHECK(root.busy->renew() == 0);
  CHECK(reader.check(records[1]) == SsdCheck::changed);
  fs::resize_file(data, 3 * test_slot_bytes);
  CHECK(reader.check(records[3]) == SsdCheck::changed);  // forgotten, and gone as well
}

// Whoever looks holds the lock for an instant; a start beside it must not take that for somebody who serves.
void looking_does_not_keep_a_store_from_starting() {
  const TempDir temp;
  const SsdDirectoryConfig config = small_store(temp.file("root"), 10);
  {
    const SsdDirectory directory(disk(), config);
  }
  std::jthread looker([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) CHECK(list_ssd_directories(config.root).size() == 1);
  });
  unsigned num_busy = 0;
  for (int i = 0; i < 50; ++i) {
    try {
      const SsdDirectory directory(disk(), config);
    } catch (const SsdBusy&) {
      ++num_busy;
    }
  }
  CHECK(num_busy < 25);
}

// Two starts at once: each works or is busy, and what they leave is within the capacity.
void starts_at_once_never_overstep_the_capacity() {
  const TempDir temp;
  const std::string root = temp.file("root");
  const std::uint64_t capacity_bytes = small_store(root, 50).capacity_bytes;
  std::atomic<unsigned> num_served = 0;
  const auto start = [&](const char* name) {
    SsdDirectoryConfig config = small_store(root, 50, name);
    for (int i = 0; i < 30; ++i) {
      try {
        SsdDirectory directory(disk(), config);
        CHECK(directory.write(0, record_named(1)) == 0);
        CHECK(directory.num_slots() >= 1 && directory.num_slots() <= 50);
        ++num_served;
      } catch (const SsdBusy&) {
        continue;
      }
    }
  };
  {
    const std::jthread one([&] { start(first_name); });
    const std::jthread two([&] { start(second_name); });
    const std::jthread three([&] { start(first_name); });
  }
  CHECK(num_served > 0 && bytes_below(root) <= capacity_bytes);
}

}  // namespace

int main() {
  a_listing_says_what_is_there_and_who_is_busy();
  clearing_removes_ours_that_nobody_serves_from();
  what_else_lies_in_a_sub_directory_stays();
  records_are_read_beside_the_store_in_the_order_of_use();
  checking_tells_damage_from_change();
  looking_does_not_keep_a_store_from_starting();
  starts_at_once_never_overstep_the_capacity();
}
