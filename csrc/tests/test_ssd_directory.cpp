// SsdDirectory: what is kept over a restart, the locks, what is found there, and what it says when it cannot work. Its
// room is in test_ssd_directory_room.cpp.
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "storage/crc64.h"
#include "tests/check.h"
#include "tests/faulty_file.h"
#include "tests/ssd_directory_kit.h"

using namespace flexkv;

namespace {

namespace fs = std::filesystem;

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

// --- what is found where the sub-directory belongs

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
  slots_that_one_of_the_files_has_lost_are_given_up();
  another_geometry_or_version_is_emptied_and_made_anew();
  a_damaged_header_or_a_lost_file_empties_it();
  bad_configurations_name_the_value_and_the_fix();
  a_file_that_is_none_is_refused();
  a_tree_that_others_can_write_to_is_refused();
  a_root_that_cannot_be_written_to_is_refused();
  a_slot_known_to_be_empty_is_not_written_again();
  after_a_renewal_that_failed_nothing_is_written_until_one_succeeds();
}
