// SsdDirectory: what is kept over a restart, the cap, the locks, and what it says when it cannot work.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "storage/crc64.h"
#include "storage/ssd_directory.h"
#include "storage/ssd_room.h"
#include "tests/check.h"
#include "tests/faulty_file.h"
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
  record.used_at_us = next_test_use();
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
    CHECK(directory.scan().empty());
    id = directory.store_id();
    for (const std::uint64_t slot : {5, 99, 0, 7}) CHECK(directory.write(slot, record_named(slot + 1)) == 0);
    CHECK(directory.invalidate(7) == 0 && directory.invalidate(8) == 0);
    CHECK(directory.touch(5, record_named(6).key, test_use()) == 0);
    CHECK(directory.touch(0, record_named(6).key, test_use()) == 0);  // not its key: nothing happens
    CHECK(directory.touch(7, record_named(8).key, test_use()) == 0);
  }
  SsdDirectory directory(disk(), config);
  CHECK(directory.origin() == SsdOrigin::warm && directory.store_id() == id && directory.num_slots() == 100);
  const std::vector<ScannedRecord> records = directory.scan();
  CHECK(slots_of(records) == (std::vector<std::uint64_t>{0, 5, 99}));
  CHECK(records[0].record.key == record_named(1).key && records[0].record.parent == record_named(1).parent);
  CHECK(records[0].record.data_checksum == 1);
  CHECK(records[2].record.used_at_us < records[0].record.used_at_us);  // in the order of use: 99, 0, 5
  CHECK(records[0].record.used_at_us < records[1].record.used_at_us);
  CHECK(directory.write(1, record_named(2)) == 0);
  CHECK(directory.scan()[1].record.used_at_us > records[1].record.used_at_us);
}

void a_touch_raises_and_never_lowers() {
  const TempDir temp;
  SsdDirectory directory(disk(), small_store(temp.file("root"), 2));
  SsdRecord record = record_named(1);
  record.used_at_us = 500, record.expiry_s = 1000, record.priority = 2;
  CHECK(directory.write(0, record) == 0);
  const auto touched = [&](const SsdUse& use) {
    CHECK(directory.touch(0, record.key, use) == 0);
    return directory.scan()[0].record;
  };
  CHECK(touched({400, 0, 0}) == record && touched({400, 999, 1}) == record);
  record.used_at_us = 600;
  CHECK(touched({600, 0, 0}) == record);
  record.expiry_s = 2000;
  CHECK(touched({0, 2000, 0}) == record);
  record.expiry_s = ssd_never_expires, record.priority = 7;
  CHECK(touched({0, ssd_never_expires, 7}) == record && touched({0, 3000, 3}) == record);
}

void an_expired_record_is_there_until_its_slot_is_used_again() {
  const TempDir temp;
  SsdDirectory directory(disk(), small_store(temp.file("root"), 10));
  SsdRecord record = record_named(1);
  record.expiry_s = 500;
  CHECK(directory.write(3, record) == 0);
  const std::vector<ScannedRecord> records = directory.scan();
  CHECK(records.size() == 1 && records[0].record.expiry_s == 500);  // long ago
  CHECK(directory.invalidate(3) == 0);
  CHECK(directory.scan().empty());
}

void renewing_forgets_everything() {
  const TempDir temp;
  const SsdDirectoryConfig config = small_store(temp.file("root"), 10);
  {
    SsdDirectory directory(disk(), config);
    const SsdStoreId id = directory.store_id();
    CHECK(directory.write(3, record_named(1)) == 0);
    CHECK(directory.renew() == 0);
    CHECK(!(directory.store_id() == id) && directory.scan().empty());
    CHECK(directory.write(4, record_named(2)) == 0);
  }
  SsdDirectory directory(disk(), config);
  CHECK(directory.origin() == SsdOrigin::warm);
  CHECK(slots_of(directory.scan()) == std::vector<std::uint64_t>{4});
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

// --- what is found where the sub-directory belongs

std::string records_of(const SsdDirectoryConfig& config) {
  return config.root + "/flexkv-ssd-v1/" + config.fingerprint + "/records";
}
std::string data_of(const SsdDirectoryConfig& config) {
  return config.root + "/flexkv-ssd-v1/" + config.fingerprint + "/data";
}

void put_bytes(const std::string& path, std::uint64_t offset, const std::string& bytes) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(offset));
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  CHECK(file.good());
}
void put_bytes(const std::string& path, std::uint64_t offset, std::span<const std::byte> bytes) {
  put_bytes(path, offset, std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

// Fills every slot, and returns the configuration to start again with.
SsdDirectoryConfig full_store(const TempDir& temp, std::uint64_t num_slots) {
  const SsdDirectoryConfig config = small_store(temp.file("root"), num_slots);
  SsdDirectory directory(disk(), config);
  for (std::uint64_t slot = 0; slot < num_slots; ++slot) CHECK(directory.write(slot, record_named(slot + 1)) == 0);
  return config;
}

void expect_emptied(const SsdDirectoryConfig& config, SsdOrigin origin) {
  {
    SsdDirectory directory(disk(), config);
    CHECK(directory.origin() == origin && directory.scan().empty());
    CHECK(bytes_below(config.root) <= config.capacity_bytes);
    CHECK(directory.write(2, record_named(1)) == 0);
  }
  SsdDirectory directory(disk(), config);
  CHECK(directory.origin() == SsdOrigin::warm && directory.scan().size() == 1);
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

// As a crash between the two files leaves it.
void slots_that_one_of_the_files_has_lost_are_given_up() {
  const TempDir temp;
  SsdDirectoryConfig config = full_store(temp, 100);
  fs::resize_file(data_of(config), 30 * test_slot_bytes + 5000);
  CHECK(SsdDirectory(disk(), config).scan().size() == 30);
  fs::resize_file(records_of(config), record_offset(20) + 7);
  CHECK(SsdDirectory(disk(), config).scan().size() == 20);
  CHECK(fs::file_size(data_of(config)) == 100 * test_slot_bytes);
}

void another_geometry_or_version_is_emptied_and_made_anew() {
  const TempDir temp;
  SsdDirectoryConfig config = full_store(temp, 100);
  config.extent_bytes = {4 * ssd_page_bytes};
  expect_emptied(config, SsdOrigin::other_geometry);
  config.tokens_per_block = 32;
  expect_emptied(config, SsdOrigin::other_geometry);

  SsdHeader header;
  header.extent_bytes = config.extent_bytes;
  auto bytes = encode_header(header);
  bytes[8] = std::byte{2};
  const std::uint64_t checksum = crc64(std::span(bytes).first(4088));
  std::memcpy(bytes.data() + 4088, &checksum, 8);
  put_bytes(records_of(config), 0, bytes);
  expect_emptied(config, SsdOrigin::other_version);
}

void a_damaged_header_or_a_lost_file_empties_it() {
  const TempDir temp;
  const SsdDirectoryConfig config = full_store(temp, 100);
  put_bytes(records_of(config), 33, "x");
  expect_emptied(config, SsdOrigin::damaged);
  put_bytes(records_of(config), 0, std::string(512, '\0'));
  expect_emptied(config, SsdOrigin::damaged);
  put_bytes(records_of(config), 0, std::string(4096, '\0'));
  expect_emptied(config, SsdOrigin::damaged);
  fs::resize_file(records_of(config), 100);
  expect_emptied(config, SsdOrigin::damaged);
  fs::resize_file(records_of(config), 0);
  expect_emptied(config, SsdOrigin::damaged);
  fs::remove(records_of(config));
  expect_emptied(config, SsdOrigin::damaged);
  fs::resize_file(data_of(config), 100);
  expect_emptied(config, SsdOrigin::damaged);
  fs::remove(data_of(config));
  expect_emptied(config, SsdOrigin::damaged);
  fs::remove_all(config.root + "/flexkv-ssd-v1/" + config.fingerprint);
  expect_emptied(config, SsdOrigin::made);
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

// --- what it says when it cannot work

void bad_configurations_name_the_value_and_the_fix() {
  const TempDir temp;
  const SsdDirectoryConfig good = small_store(temp.file("root"), 10);
  SsdDirectoryConfig config = good;
  config.root = "";
  expect_in(why_not<SsdConfigError>(config), {"empty name"});
  config.root = temp.file("missing/root");
  expect_in(why_not<SsdConfigError>(config), {temp.file("missing/root"), "does not exist", "make it"});
  std::ofstream(temp.file("file")) << "x";
  config.root = temp.file("file");
  expect_in(why_not<SsdConfigError>(config), {temp.file("file"), "not a directory"});
  fs::create_directory(temp.file("real"));
  fs::create_directory_symlink(temp.file("real"), temp.file("link"));
  config.root = temp.file("link");
  expect_in(why_not<SsdConfigError>(config), {temp.file("link"), "symbolic link"});
  CHECK(fs::is_empty(temp.file("real")));

  for (const std::string fingerprint : {"", "abc", "../../00000000", "ABCDEF00", "0000000000/0"}) {
    config = good;
    config.fingerprint = fingerprint;
    expect_in(why_not<SsdConfigError>(config), {"\"" + fingerprint + "\"", "lower-case hex"});
  }
  for (const std::uint64_t extent : {std::uint64_t{0}, std::uint64_t{4097}, std::uint64_t{1} << 62}) {
    config = good;
    config.extent_bytes = {ssd_page_bytes, extent};
    expect_in(why_not<SsdConfigError>(config), {std::to_string(extent) + " bytes", "multiple of 4096"});
  }
  config = good;
  config.extent_bytes.assign(65, ssd_page_bytes);
  expect_in(why_not<SsdConfigError>(config), {"65 extents", "1 to 64"});
  config = good;
  config.model.assign(1025, 'm');
  expect_in(why_not<SsdConfigError>(config), {"1025 bytes"});
  config = good;
  config.capacity_bytes = UINT64_MAX;
  expect_in(why_not<SsdConfigError>(config), {std::to_string(UINT64_MAX), "set at most"});
  config.capacity_bytes = std::uint64_t{1} << 60;
  expect_in(why_not<SsdConfigError>(config), {std::to_string(config.capacity_bytes), "bytes free", "set at most"});
  CHECK(bytes_below(good.root) == 0);  // a start that fails leaves nothing that takes room
}

void a_file_that_is_none_is_refused() {
  const TempDir temp;
  const SsdDirectoryConfig config = full_store(temp, 10);
  const std::string path = config.root + "/flexkv-ssd-v1/" + config.fingerprint + "/";
  for (const std::string name : {"data", "records", "lock"}) {
    fs::rename(path + name, temp.file("aside"));
    fs::create_symlink(temp.file("aside"), path + name);
    expect_in(why_not<SsdConfigError>(config), {path + name, "not a regular file"});
    fs::remove(path + name);
    CHECK(::mkfifo((path + name).c_str(), 0600) == 0);
    expect_in(why_not<SsdConfigError>(config), {path + name, "not a regular file"});
    fs::remove(path + name);
    fs::rename(temp.file("aside"), path + name);
  }
  CHECK(SsdDirectory(disk(), config).scan().size() == 10);
}

void a_tree_that_others_can_write_to_is_refused() {
  const TempDir temp;
  const SsdDirectoryConfig config = full_store(temp, 10);
  fs::permissions(config.root + "/flexkv-ssd-v1", fs::perms::all);
  expect_in(why_not<SsdConfigError>(config), {"can be written to by others", "0700"});
}

// As an ordinary user: root may write anywhere.
void a_root_that_cannot_be_written_to_is_refused() {
  if (::geteuid() != 0) return;
  const TempDir temp;
  fs::create_directory(temp.file("root"));
  fs::permissions(temp.file(""), fs::perms::all);
  const pid_t pid = ::fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    constexpr uid_t nobody = 65534;
    CHECK(::setuid(nobody) == 0);
    expect_in(why_not<SsdConfigError>(small_store(temp.file("root"), 10)), {temp.file("root"), "cannot be written to"});
    ::_exit(0);
  }
  int status = 0;
  CHECK(::waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

// --- faults that the random histories meet too seldom

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

void a_slot_known_to_be_empty_is_not_written_again() {
  const TempDir temp;
  FaultyFileSystem files;
  SsdDirectory directory(files, small_store(temp.file("root"), 10));
  const auto num_writes = [&] { return files.schedule.num_calls(FileCall::write, "/records"); };
  const std::uint64_t before = num_writes();
  CHECK(directory.invalidate(3) == 0 && num_writes() == before);
  CHECK(directory.write(3, record_named(1)) == 0 && directory.invalidate(3) == 0 && num_writes() == before + 2);
  CHECK(directory.invalidate(3) == 0 && num_writes() == before + 2);
  // A write that failed may have reached the disk all the same.
  files.schedule.add({.kind = FileCall::write, .name = "/records", .fault = {.error = EIO}});
  CHECK(directory.write(3, record_named(1)) == EIO);
  CHECK(directory.invalidate(3) == 0 && num_writes() == before + 4);
}

void after_a_renewal_that_failed_nothing_is_written_until_one_succeeds() {
  const TempDir temp;
  FaultyFileSystem files;
  SsdDirectory directory(files, small_store(temp.file("root"), 10));
  CHECK(directory.write(3, record_named(1)) == 0);
  files.schedule.add({.kind = FileCall::sync, .name = "/records", .fault = {.error = EIO}});
  CHECK(directory.renew() == EIO);
  CHECK(directory.write(4, record_named(2)) == EIO && directory.touch(3, record_named(1).key, test_use()) == EIO);
  CHECK(directory.invalidate(3) == EIO && directory.invalidate(5) == EIO);
  CHECK(directory.renew() == 0);
  CHECK(directory.write(4, record_named(2)) == 0 && directory.scan().size() == 1);
}

}  // namespace

int main() {
  what_was_written_is_there_after_a_restart();
  a_touch_raises_and_never_lowers();
  an_expired_record_is_there_until_its_slot_is_used_again();
  renewing_forgets_everything();
  one_store_at_a_time_serves_from_a_sub_directory();
  a_start_while_another_changes_the_tree_is_busy();
  all_files_together_stay_within_the_capacity();
  another_model_gets_what_the_busy_ones_leave();
  another_capacity_keeps_the_slots_that_fit();
  slots_that_one_of_the_files_has_lost_are_given_up();
  another_geometry_or_version_is_emptied_and_made_anew();
  a_damaged_header_or_a_lost_file_empties_it();
  what_is_not_ours_is_never_touched_or_counted();
  the_least_recently_used_make_room_first_and_only_as_many_as_it_takes();
  bad_configurations_name_the_value_and_the_fix();
  a_file_that_is_none_is_refused();
  a_tree_that_others_can_write_to_is_refused();
  a_root_that_cannot_be_written_to_is_refused();
  a_disk_that_is_full_at_start_is_said_with_its_numbers_and_nothing_is_lost();
  a_slot_known_to_be_empty_is_not_written_again();
  after_a_renewal_that_failed_nothing_is_written_until_one_succeeds();
}
