// SsdStore on real files: round trips, restarts, damage, cancel, renew and the end. Faults are in
// test_ssd_store_faults.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <set>
#include <stdexcept>
#include <thread>

#include "tests/check.h"
#include "tests/choices.h"
#include "tests/faulty_file.h"
#include "tests/ssd_store_kit.h"

using namespace flexkv;

namespace {

using Positions = std::vector<std::uint32_t>;

bool is_good(const DiskAck& ack) { return ack.failed.empty() && ack.error.empty() && !ack.cancelled; }

void flip(const std::string& path, std::uint64_t offset) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  CHECK(fd >= 0);
  unsigned char byte = 0;
  CHECK(::pread(fd, &byte, 1, static_cast<off_t>(offset)) == 1);
  byte ^= 0x10;
  CHECK(::pwrite(fd, &byte, 1, static_cast<off_t>(offset)) == 1);
  ::close(fd);
}

void what_is_written_is_read_over_any_number_of_directories_and_shards() {
  for (const std::size_t num_directories : {1, 3}) {
    for (const std::vector<std::uint64_t>& extents : {std::vector<std::uint64_t>{4096}, {8192, 4096, 12288}}) {
      for (const char* engine : {"auto", "threads"}) {
        StoreKit kit({num_directories, extents, 16, engine});
        CHECK(kit.open().slots.empty());
        CHECK(kit.store().num_slots() == static_cast<std::int64_t>(16 * num_directories));
        const Ids slots = {0, 1, 2, 3, 15, 9, 7};
        const DiskAck written = kit.write(slots, 100);
        CHECK(is_good(written) && written.bytes == slots.size() * kit.store().slot_bytes());
        const DiskAck read = kit.read(slots, 100);
        CHECK(is_good(read) && read.bytes == written.bytes && read.duration_ns > 0);
        std::uint64_t bytes_read = 0;
        for (const SsdDeviceInfo& info : kit.store().devices()) bytes_read += info.bytes_read;
        CHECK(bytes_read == read.bytes);
      }
    }
  }
}

void a_slot_written_anew_serves_the_new_block_only() {
  StoreKit kit;
  (void)kit.open();
  CHECK(is_good(kit.write({3}, 1)) && is_good(kit.write({3}, 2)));
  CHECK(is_good(kit.read({3}, 2)));
  const DiskAck old = kit.read({3}, 1);
  CHECK(old.failed == Positions{0} && old.num_bad_checksums == 1 && old.io_errno == 0 && old.bytes == 0);
}

void a_restart_finds_what_was_stored_in_the_order_of_use() {
  StoreKit kit({2, {4096, 4096}});
  (void)kit.open();
  CHECK(is_good(kit.write({4, 6, 8, 10}, 50)) && is_good(kit.write({5}, 60)) && is_good(kit.write({6}, 70)));
  CHECK(is_good(kit.read({4}, 50)));  // it was used: last now, of its directory
  const SsdScan scan = kit.reopen();
  std::vector<std::pair<std::int64_t, BlockKey>> even;  // the first directory's
  for (std::size_t i = 0; i < scan.slots.size(); ++i) {
    if (scan.slots[i] % 2 == 0) even.emplace_back(scan.slots[i], scan.keys[i]);
    if (scan.slots[i] == 5) CHECK(scan.keys[i] == key_of(60) && scan.parents[i] == key_of(59));
    CHECK(scan.expiry_s[i] == ssd_never_expires && scan.groups[i] == 0);
  }
  CHECK(scan.slots.size() == 5 && even.size() == 4);
  std::vector<std::int64_t> order;
  for (const auto& [slot, key] : even) order.push_back(slot);
  CHECK(order.back() == 4 && std::ranges::find(order, 6) > std::ranges::find(order, 10));
  CHECK(is_good(kit.read({8, 10}, 52)) && is_good(kit.read({6}, 70)) && is_good(kit.read({5}, 60)));
  CHECK(kit.read({6}, 51).num_bad_checksums == 1);
}

void what_a_record_says_comes_back() {
  StoreKit kit;
  (void)kit.open();
  kit.fill(0, 5);
  ChainSpec chain = chain_of(5, 1, true);
  chain.expiry_s = 1000, chain.tenant = 77, chain.group = 3, chain.priority = 6;
  kit.store().submit({900, OpType::h2disk, {0}, {2}, 0, {}, chain});
  CHECK(is_good(kit.acks().wait(900)));
  const SsdScan scan = kit.reopen();
  CHECK(scan.slots == Ids{2} && scan.keys == chain.keys && scan.parents == chain.parents);
  CHECK(scan.expiry_s[0] == 1000 && scan.tenants[0] == 77 && scan.groups[0] == 3 && scan.priorities[0] == 6);
}

void a_slot_without_a_valid_record_is_not_read() {
  StoreKit kit;
  (void)kit.open();
  CHECK(is_good(kit.write({1}, 5)));
  const DiskAck ack = kit.read({1, 2, 3}, 5);
  CHECK((ack.failed == Positions{1, 2}) && ack.num_bad_checksums == 0 && ack.io_errno == 0 && !ack.error.empty());
}

void flipped_bytes_of_data_are_found_and_the_others_are_read() {
  StoreKit kit({1, {4096, 8192}});
  (void)kit.open();
  CHECK(is_good(kit.write({0, 1, 2}, 10)));
  flip(kit.file("data"), 1 * 12288 + 5000);
  const DiskAck ack = kit.read({0, 1, 2}, 10);
  CHECK(ack.failed == Positions{1} && ack.num_bad_checksums == 1 && ack.bytes == std::uint64_t{2} * 12288);
  CHECK(kit.store().devices()[0].bad_checksums == 1);
  CHECK((kit.reopen().slots.size() == 2));  // its record is gone, too
}

void flipped_bits_of_records_make_misses() {
  StoreKit kit;
  (void)kit.open();
  CHECK(is_good(kit.write({0, 1, 2, 3}, 10)));
  for (const std::uint64_t byte : {0u, 17u, 63u}) {
    CHECK(kit.store().stop(20));
    flip(kit.file("records"), 4096 + 64 * (byte % 3) + byte);
    const SsdScan scan = kit.reopen();
    for (std::size_t i = 0; i < scan.slots.size(); ++i) {
      CHECK(scan.keys[i] == key_of(10 + static_cast<std::uint64_t>(scan.slots[i])));
    }
    for (std::int64_t slot = 0; slot < 4; ++slot) {
      const bool listed = std::ranges::find(scan.slots, slot) != scan.slots.end();
      CHECK(is_good(kit.read({slot}, 10 + static_cast<std::uint64_t>(slot))) == listed);
    }
  }
}

void a_truncated_data_file_is_an_error_of_its_blocks() {
  StoreKit kit;
  (void)kit.open();
  CHECK(is_good(kit.write({0, 5, 15}, 10)));
  std::filesystem::resize_file(kit.file("data"), 5 * 4096 + 100);
  const DiskAck ack = kit.read({0, 5, 15}, 10);
  CHECK((ack.failed == Positions{1, 2}) && ack.io_errno == ENODATA);
  CHECK(is_good(kit.write({5}, 20)) && is_good(kit.read({5}, 20)));
  std::filesystem::remove(kit.file("data"));
  CHECK(is_good(kit.read({5}, 20)));  // it is open
}

void renew_forgets_everything_also_over_a_restart() {
  StoreKit kit({2});
  (void)kit.open();
  CHECK(is_good(kit.write({0, 1, 2}, 10)));
  CHECK(kit.store().renew() == 0);
  CHECK((kit.read({0, 1, 2}, 10).failed == Positions{0, 1, 2}));
  CHECK(is_good(kit.write({2}, 30)) && is_good(kit.read({2}, 30)));
  CHECK(kit.reopen().slots == Ids{2} && is_good(kit.read({2}, 30)));
  CHECK(kit.store().stop(20) && kit.store().renew() == ESHUTDOWN);
}

void a_stopped_store_takes_ops_and_says_no() {
  StoreKit kit;
  (void)kit.open();
  CHECK(!kit.store().is_stopped() && kit.store().stop(20) && kit.store().stop(20) && kit.store().is_stopped());
  const DiskAck ack = kit.write({0, 1}, 10);
  CHECK(ack.cancelled && (ack.failed == Positions{0, 1}) && !ack.error.empty());
  CHECK_THROWS((void)kit.store().scan(), std::runtime_error);
}

void a_bad_configuration_says_what_is_wrong() {
  const StoreKit kit;
  const auto refuse = [&](auto change) {
    SsdStoreConfig config = kit.config();
    change(config);
    CHECK_THROWS(SsdStore(config), std::invalid_argument);
  };
  refuse([](SsdStoreConfig& config) { config.directories.clear(); });
  refuse([](SsdStoreConfig& config) { config.directories.push_back(config.directories[0]); });
  refuse([](SsdStoreConfig& config) { config.read_depth = 0; });
  refuse([](SsdStoreConfig& config) { config.write_depth = 513; });
  refuse([](SsdStoreConfig& config) { config.io_engine = "tape"; });
  SsdStore store(kit.config());
  CHECK_THROWS(SsdStore(kit.config()), SsdBusy);
  const auto pool = std::make_shared<HostPool>(HostPoolConfig{4, {8192}, 1, false});
  CHECK_THROWS(store.start(pool, [](const DiskAck&) {}), std::invalid_argument);
  CHECK(store.stop(0));
}

// Whatever the instant: what a restart lists is what was written there last, or before the write that was cut off.
void a_writer_that_is_killed_leaves_whole_blocks_or_misses() {
  Choices choices(std::uint64_t{7});
  StoreKit kit({2});
  std::size_t num_kept = 0;
  for (int round = 0; round < 12; ++round) {
    int progress[2] = {-1, -1};
    CHECK(::pipe2(progress, O_CLOEXEC) == 0);
    const pid_t child = ::fork();
    CHECK(child >= 0);
    if (child == 0) {
      ::alarm(60);
      (void)kit.open();
      for (std::uint64_t i = 0;; ++i) {
        const char mark = 1;
        (void)!::write(progress[1], &mark, 1);
        (void)kit.write({0, 1, 2, 3, 4, 5}, 1000 * i);
      }
    }
    ::close(progress[1]);
    std::vector<char> marks(1 + choices.below(40));
    for (char& mark : marks) CHECK(::read(progress[0], &mark, 1) == 1);
    CHECK(::kill(child, SIGKILL) == 0 && ::waitpid(child, nullptr, 0) == child);
    ::close(progress[0]);
    const SsdScan scan = kit.open();
    for (std::size_t i = 0; i < scan.slots.size(); ++i) {
      const std::uint64_t number = ~scan.keys[i].hi;
      CHECK(number % 1000 == static_cast<std::uint64_t>(scan.slots[i]));
      CHECK(is_good(kit.read({scan.slots[i]}, number)));  // read checks the bytes
    }
    num_kept += scan.slots.size();
    kit.close_with_pool();
  }
  CHECK(num_kept >= 24);  // of 72: those that were being written at the instant are gone
}

void many_threads_may_submit_cancel_and_renew_at_once() {
  StoreKit kit({2, {4096}, 64});
  (void)kit.open();
  std::vector<std::thread> threads;
  for (std::int64_t t = 0; t < 3; ++t) {
    threads.emplace_back([&kit, t] {
      for (std::int64_t i = 0; i < 60; ++i) {
        const std::int64_t op_id = 1000 * (t + 1) + i;
        const bool is_read = i % 2 == 1;
        OpSpec op = {op_id, is_read ? OpType::disk2h : OpType::h2disk,           {t, t + 4}, {t, t + 4}, 0,
                     {},    chain_of(static_cast<std::uint64_t>(t), 2, !is_read)};
        kit.store().submit(op);
        if (i % 5 == 0) kit.store().cancel(op_id);
        if (t == 0 && i % 10 == 0) CHECK(kit.store().renew() == 0);
        kit.store().touch(t, op.chain.keys[0], 0, 1);
        (void)kit.store().devices();
        (void)kit.acks().wait(op_id);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(kit.store().stop(20));
}

}  // namespace

int main() {
  a_writer_that_is_killed_leaves_whole_blocks_or_misses();
  what_is_written_is_read_over_any_number_of_directories_and_shards();
  a_slot_written_anew_serves_the_new_block_only();
  a_restart_finds_what_was_stored_in_the_order_of_use();
  what_a_record_says_comes_back();
  a_slot_without_a_valid_record_is_not_read();
  flipped_bytes_of_data_are_found_and_the_others_are_read();
  flipped_bits_of_records_make_misses();
  a_truncated_data_file_is_an_error_of_its_blocks();
  renew_forgets_everything_also_over_a_restart();
  a_stopped_store_takes_ops_and_says_no();
  a_bad_configuration_says_what_is_wrong();
  many_threads_may_submit_cancel_and_renew_at_once();
  std::puts("test_ssd_store: ok");
  return 0;
}
