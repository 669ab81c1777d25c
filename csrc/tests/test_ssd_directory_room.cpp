// SsdDirectory: the cap on all files of a root, who makes room for whom, and a disk that is full.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "storage/ssd_room.h"
#include "tests/check.h"
#include "tests/faulty_file.h"
#include "tests/ssd_directory_kit.h"

using namespace flexkv;

namespace {

namespace fs = std::filesystem;

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

void another_capacity_keeps_the_slots_that_fit() {
  const TempDir temp;
  (void)full_store(temp, 100);
  for (const std::uint64_t num_slots : {100, 40, 300, 39, 1, 2}) {
    const SsdDirectoryConfig config = small_store(temp.file("root"), num_slots);
    SsdDirectory directory(disk(), config);
    static std::uint64_t kept = 100;
    kept = std::min(kept, num_slots);
    CHECK(directory.origin() == SsdOrigin::warm && directory.num_slots() == num_slots);
    CHECK(directory.scan().size() == kept && bytes_below(config.root) == config.capacity_bytes);
  }
}

void what_is_not_ours_is_never_touched_or_counted() {
  const TempDir temp;
  const SsdDirectoryConfig config = small_store(temp.file("root"), 100);
  const std::string tree = config.root + "/flexkv-ssd-v1/";
  fs::create_directories(tree + "00000000000000ff");
  fs::create_directories(tree + "not-a-fingerprint");
  fs::permissions(tree, fs::perms::owner_all);
  for (const std::string& path :
       {config.root + "/lock", config.root + "/big", tree + "data", tree + "00000000000000ff/records",
        tree + "00000000000000ff/data", tree + "not-a-fingerprint/data"}) {
    std::ofstream(path) << std::string(100'000, 'x');
  }
  const std::uint64_t before = bytes_below(config.root);
  const SsdDirectory directory(disk(), config);
  CHECK(directory.num_slots() == 100 && bytes_below(config.root) == before + config.capacity_bytes);

  SsdDirectoryConfig foreign = config;
  foreign.fingerprint = "00000000000000ff";
  expect_in(why_not<SsdConfigError>(foreign), {"00000000000000ff/records", "not a file of this cache", "remove it"});
  CHECK(fs::file_size(tree + "00000000000000ff/records") == 100'000);
  CHECK(fs::file_size(tree + "00000000000000ff/data") == 100'000);
}

void the_least_recently_used_make_room_first_and_only_as_many_as_it_takes() {
  const TempDir temp;
  const std::string root = temp.file("root");
  const std::vector<std::string> names = {"00000000000000a1", "00000000000000a2", "00000000000000a3"};
  const std::uint64_t each = small_store(root, 20).capacity_bytes;
  {
    std::vector<std::unique_ptr<SsdDirectory>> together;
    for (std::size_t i = 0; i < names.size(); ++i) {
      SsdDirectoryConfig config = small_store(root, 20, names[i]);
      config.capacity_bytes = (i + 1) * each;
      together.push_back(std::make_unique<SsdDirectory>(disk(), config));
      CHECK(together.back()->num_slots() == 20);
    }
  }
  const auto set_used = [&](const std::string& name, std::int64_t at_s) {
    const timespec times[2] = {{.tv_sec = at_s, .tv_nsec = 0}, {.tv_sec = at_s, .tv_nsec = 0}};
    CHECK(::utimensat(AT_FDCWD, (root + "/flexkv-ssd-v1/" + name + "/lock").c_str(), times, 0) == 0);
  };
  set_used(names[0], 300);
  set_used(names[1], 100);
  set_used(names[2], 200);
  // A slot of 20 of their size and a little: two others have to go, the one used last may stay.
  SsdDirectoryConfig config = small_store(root, 1, "00000000000000a4");
  config.extent_bytes = {2 * each};
  config.capacity_bytes = ssd_footprint_bytes(1, 2 * each) + each;
  const SsdDirectory directory(disk(), config);
  CHECK(directory.removed() == (std::vector<std::string>{names[1], names[2]}));
  CHECK(bytes_below(root) <= config.capacity_bytes && fs::exists(root + "/flexkv-ssd-v1/" + names[0] + "/data"));
}

void a_disk_that_is_full_at_start_is_said_with_its_numbers_and_nothing_is_lost() {
  for (const std::string name : {"/data", "/records"}) {
    const TempDir temp;
    const SsdDirectoryConfig small = full_store(temp, 10);
    const SsdDirectoryConfig large = small_store(small.root, 500);
    FaultyFileSystem files;
    // Records are first cut to what is kept, then grown.
    files.schedule.add(
        {.kind = FileCall::allocate, .name = name, .fault = {.error = ENOSPC}, .first = name == "/data" ? 0u : 1u});
    CHECK_THROWS(SsdDirectory(files, large), SsdConfigError);
    CHECK(files.schedule.num_faults() == 1 && bytes_below(small.root) == small.capacity_bytes);
    SsdDirectory directory(files, small);
    CHECK(directory.origin() == SsdOrigin::warm && directory.scan().size() == 10);

    FaultyFileSystem others;
    others.schedule.add(
        {.kind = FileCall::allocate, .name = name, .fault = {.error = ENOSPC}, .first = name == "/data" ? 0u : 1u});
    CHECK_THROWS(SsdDirectory(others, small_store(temp.file("fresh"), 100)), SsdConfigError);
    CHECK(bytes_below(temp.file("fresh")) == 0 && !fs::exists(data_of(small_store(temp.file("fresh"), 1))));
  }
}

}  // namespace

int main() {
  all_files_together_stay_within_the_capacity();
  another_model_gets_what_the_busy_ones_leave();
  another_capacity_keeps_the_slots_that_fit();
  what_is_not_ours_is_never_touched_or_counted();
  the_least_recently_used_make_room_first_and_only_as_many_as_it_takes();
  a_disk_that_is_full_at_start_is_said_with_its_numbers_and_nothing_is_lost();
  std::puts("test_ssd_directory_room: ok");
  return 0;
}
