// The order of use over a restart, and SsdStore::touch: what a record becomes by it, when, and when nothing does.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <stdexcept>
#include <string>

#include "cache/prefix_index.h"
#include "storage/use_clock.h"
#include "tests/check.h"
#include "tests/child_process.h"
#include "tests/faulty_file.h"
#include "tests/ssd_store_kit.h"

using namespace flexkv;

namespace {

struct Rig {
  FaultyFileSystem files;
  StoreKit kit;

  explicit Rig(StoreShape shape = {}) : kit(std::move(shape), files) { (void)kit.open(); }
  FaultSchedule& schedule() { return files.schedule; }
  [[nodiscard]] std::uint64_t num_writes(const std::string& name) const {
    return files.schedule.num_calls(FileCall::write, name);
  }
  void touch(std::int64_t slot, std::uint64_t number, std::uint32_t expiry_s = 0, std::uint8_t priority = 0) {
    kit.store().touch(slot, key_of(number), expiry_s, priority);
  }
  [[nodiscard]] SsdDeviceInfo info() { return kit.store().devices()[0]; }
};

bool is_good(const DiskAck& ack) { return ack.failed.empty() && ack.error.empty() && !ack.cancelled; }

std::uint8_t priority_of(const SsdScan& scan, std::int64_t slot) {
  const auto at = std::ranges::find(scan.slots, slot) - scan.slots.begin();
  return scan.priorities.at(static_cast<std::size_t>(at));
}

// --- the clock

void times_of_use_grow_whatever_the_clock_does() {
  CHECK(use_after(0, 1'000) == 1'000);
  CHECK(use_after(1'000, 1'000) == 1'001);
  CHECK(use_after(1'000, 5) == 1'001);  // it was set back
  CHECK(use_after(1'000, -5) == 1'001);
  CHECK(use_after(ssd_max_used_at_us, 5) == ssd_max_used_at_us);
  const auto now_us = [] {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(now).count());
  };
  UseClock uses;
  const std::uint64_t before = now_us();
  const std::uint64_t first = uses.take(1'000'000'000);
  CHECK(first >= before && first <= now_us());
  CHECK(UseClock::nth(first, 5) == first + 5 && uses.take(1) == first + 1'000'000'000);
  uses.pass(first);
  CHECK(uses.take(1) == first + 1'000'000'001);
  uses.pass(2 * first);
  CHECK(uses.take(2) == 2 * first + 1 && uses.take(1) == 2 * first + 3);
  uses.pass(ssd_max_used_at_us - 1);
  CHECK(UseClock::nth(uses.take(5), 4) == ssd_max_used_at_us && uses.take(1) == ssd_max_used_at_us);
}

// --- the order of use

void blocks_of_an_op_are_used_in_its_order_whatever_the_disks_do() {
  Rig rig({2});
  const Ids slots = {0, 1, 2, 3};
  CHECK(is_good(rig.kit.write({4, 5}, 50)));
  const std::uint64_t writes = rig.num_writes("/ssd1/");
  rig.schedule().hold(FileCall::write, "/ssd0/");
  const std::int64_t written = rig.kit.begin_write(slots, 10);
  rig.schedule().wait_calls(FileCall::write, "/ssd1/", writes + 4);  // data and records of 1 and 3
  rig.schedule().release();
  CHECK(is_good(rig.kit.acks().wait(written)));
  CHECK((rig.kit.reopen().slots == Ids{4, 5, 0, 1, 2, 3}));

  CHECK(is_good(rig.kit.write({4, 5}, 50)));
  const std::uint64_t touches = rig.num_writes("/ssd1/");
  rig.schedule().hold(FileCall::read, "/ssd0/");
  const std::int64_t read = rig.kit.begin_read(slots, 10);
  rig.schedule().wait_calls(FileCall::write, "/ssd1/", touches + 2);
  rig.schedule().release();
  CHECK(is_good(rig.kit.acks().wait(read)));
  CHECK((rig.kit.reopen().slots == Ids{4, 5, 0, 1, 2, 3}));
}

// The clock was a day ahead when the first block was used.
void what_is_used_after_a_restart_is_later_than_all_before() {
  Rig rig;
  CHECK(is_good(rig.kit.write({0, 1}, 10)));
  rig.kit.close();
  {
    const SsdStoreConfig config = rig.kit.config();
    SsdDirectory directory(rig.files, {config.directories[0], config.fingerprint, config.model, config.extent_bytes,
                                       config.tokens_per_block, config.capacity_bytes});
    const std::uint64_t day_us = std::uint64_t{24} * 3600 * 1'000'000;
    const SsdUse ahead = {.used_at_us = directory.scan()[0].record.used_at_us + day_us};
    CHECK(directory.touch(0, key_of(10), ahead) == 0);
  }
  CHECK((rig.kit.open().slots == Ids{1, 0}));
  CHECK(is_good(rig.kit.write({2}, 20)));
  rig.touch(1, 11);
  CHECK((rig.kit.reopen().slots == Ids{0, 2, 1}));
}

void write_chain(Rig& rig, std::int64_t op_id, const Ids& slots, std::uint64_t first) {
  OpSpec op = {op_id, OpType::h2disk, {}, slots, 0, {}, chain_of(first, slots.size(), true)};
  op.chain.parents[0] = {};
  for (std::size_t i = 0; i < slots.size(); ++i) op.src.push_back(static_cast<std::int64_t>(i));
  rig.kit.store().submit(op);
  CHECK(is_good(rig.kit.acks().wait(op_id)));
}

// Only the last block of a hit is touched: that is enough for its chain to outlive what was used before the hit, and
// when it goes, it goes from its leaf on without anything in between.
void a_touch_of_the_last_block_is_one_of_the_chain() {
  Rig rig({2});
  write_chain(rig, 900, {0, 1, 2, 3}, 100);
  write_chain(rig, 901, {4, 5, 6, 7}, 200);
  write_chain(rig, 902, {8, 9, 10, 11}, 300);
  rig.touch(3, 103);
  const SsdScan scan = rig.kit.reopen();
  CHECK((scan.slots == Ids{0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 3}));
  PrefixIndex index(rig.kit.store().num_slots(), "lru");
  const RestoreColumns columns = {scan.slots,   scan.keys,   scan.parents,   scan.expiry_s,
                                  scan.tenants, scan.groups, scan.priorities};
  CHECK(index.restore(columns, 1).size() == 12);
  CHECK((index.evict(12) == Ids{7, 6, 5, 4, 11, 10, 9, 8, 3, 2, 1, 0}));
}

// --- what a touch does

void a_touch_makes_a_block_the_last_one_used_and_raises_what_it_says() {
  Rig rig;
  OpSpec op = {900, OpType::h2disk, {0, 1, 2}, {0, 1, 2}, 0, {}, chain_of(10, 3, true)};
  op.chain.expiry_s = 1000, op.chain.priority = 2;
  for (const std::int64_t at : op.src) rig.kit.fill(at, 10 + static_cast<std::uint64_t>(at));
  rig.kit.store().submit(op);
  CHECK(is_good(rig.kit.acks().wait(900)));
  rig.touch(1, 11, 2000, 1);
  rig.touch(0, 10, 900, 5);
  const SsdScan scan = rig.kit.reopen();
  CHECK((scan.slots == Ids{2, 1, 0}));
  CHECK((scan.expiry_s == std::vector<std::uint32_t>{1000, 2000, 1000}));
  CHECK((scan.priorities == std::vector<std::uint8_t>{2, 2, 5}));
  rig.touch(2, 12, ssd_never_expires, 0);
  rig.touch(2, 12, 5000, 0);
  CHECK(rig.kit.reopen().expiry_s[2] == ssd_never_expires);
  CHECK(is_good(rig.kit.read({0, 1, 2}, 10)) && rig.info().write_errors == 0);
}

void a_touch_of_what_is_not_there_writes_nothing() {
  Rig rig;
  CHECK(is_good(rig.kit.write({0, 1}, 10)));
  const std::uint64_t before = rig.num_writes("/records");
  rig.touch(0, 99);  // another block lies there
  rig.touch(7, 10);  // nothing does
  rig.touch(1, 11);
  rig.schedule().wait_calls(FileCall::write, "/records", before + 1);
  CHECK((rig.kit.reopen().slots == Ids{0, 1}) && rig.num_writes("/records") == before + 1);
  CHECK_THROWS(rig.touch(16, 10), std::invalid_argument);
  CHECK_THROWS(rig.touch(-1, 10), std::invalid_argument);
  CHECK_THROWS(rig.touch(0, 10, 0, 8), std::invalid_argument);
}

// One in flight, one prepared: the blocks of before are gone, those that come are not there yet.
void a_slot_that_is_being_written_is_not_touched() {
  Rig rig({1, {4096}, 16, "auto", 4, 1});
  CHECK(is_good(rig.kit.write({0, 1, 2, 3}, 10)) && is_good(rig.kit.write({5}, 50)));
  const std::uint64_t records = rig.num_writes("/records");
  rig.schedule().hold(FileCall::write, "/data");
  const std::int64_t op_id = rig.kit.begin_write({0, 1}, 20);
  rig.schedule().wait_held(1);
  rig.schedule().wait_calls(FileCall::write, "/records", records + 2);  // both are invalid
  for (const std::int64_t slot : {0, 1}) {
    rig.touch(slot, 10 + static_cast<std::uint64_t>(slot), 0, 7);
    rig.touch(slot, 20 + static_cast<std::uint64_t>(slot), 0, 7);
  }
  rig.touch(5, 50, 0, 7);
  rig.schedule().wait_calls(FileCall::write, "/records", records + 3);  // the touches before it are over
  rig.schedule().release();
  CHECK(is_good(rig.kit.acks().wait(op_id)));
  const SsdScan scan = rig.kit.reopen();
  CHECK((scan.slots == Ids{2, 3, 0, 1, 5}));
  CHECK(priority_of(scan, 0) == 0 && priority_of(scan, 1) == 0 && priority_of(scan, 5) == 7);
  CHECK(is_good(rig.kit.read({0, 1}, 20)) && rig.kit.read({0, 1}, 10).failed.size() == 2);
}

// --- the queue

void what_was_queued_before_the_store_is_emptied_is_dropped() {
  Rig rig;
  CHECK(is_good(rig.kit.write({0, 1}, 10)));
  rig.kit.close();
  SsdStore store(rig.kit.config());
  for (int i = 0; i < 3; ++i) store.touch(0, key_of(10), 0, 7);
  CHECK(store.devices()[0].queued_touches == 3);
  CHECK(store.renew() == 0 && store.devices()[0].queued_touches == 0);
  store.touch(0, key_of(10), 0, 7);
  CHECK(store.devices()[0].queued_touches == 1 && store.stop(20));
}

void the_oldest_is_dropped_when_too_many_are_queued() {
  constexpr auto most = static_cast<std::int64_t>(SsdDevice::max_touches);
  for (const std::int64_t num_others : {most - 1, most}) {
    Rig rig;
    CHECK(is_good(rig.kit.write({0, 1, 2}, 10)));
    rig.kit.close();
    SsdStore store(rig.kit.config());
    (void)store.scan();
    store.touch(0, key_of(10), 0, 0);
    for (std::int64_t i = 0; i < num_others; ++i) store.touch(1, key_of(11), 0, 0);
    const SsdDeviceInfo info = store.devices()[0];
    const bool is_dropped = num_others == most;
    CHECK(info.queued_touches == most && info.dropped_touches == (is_dropped ? 1 : 0));
    const auto pool = std::make_shared<HostPool>(HostPoolConfig{4, {4096}, 1, false});
    store.start(pool, [](const DiskAck&) {});
    CHECK(store.stop(20) && store.devices()[0].queued_touches == 0);
    CHECK((rig.kit.open().slots == (is_dropped ? Ids{0, 2, 1} : Ids{2, 0, 1})));
  }
}

// The disk hangs in one touch: others can be queued all the same, and are made before the store ends.
void a_touch_never_waits_and_stop_makes_those_that_are_queued() {
  Rig rig;
  CHECK(is_good(rig.kit.write({0, 1, 2, 3}, 10)));
  rig.schedule().hold(FileCall::write, "/records");
  rig.touch(2, 12);
  rig.schedule().wait_held(1);
  rig.touch(0, 10);
  rig.touch(1, 11);
  CHECK(rig.info().queued_touches == 2);
  CHECK(!rig.kit.store().stop(0));
  rig.touch(3, 13, 0, 7);
  CHECK(rig.info().queued_touches == 2);
  rig.schedule().release();
  CHECK(rig.kit.store().stop(20) && rig.info().queued_touches == 0 && rig.info().dropped_touches == 0);
  rig.touch(3, 13, 0, 7);
  const SsdScan scan = rig.kit.reopen();
  CHECK((scan.slots == Ids{3, 2, 0, 1}) && priority_of(scan, 3) == 0);
}

void a_touch_that_fails_is_a_write_error_and_nothing_else() {
  for (const FileCall kind : {FileCall::write, FileCall::read}) {
    Rig rig;
    CHECK(is_good(rig.kit.write({0, 1}, 10)));
    const std::uint64_t writes = rig.num_writes("/records");
    rig.schedule().add({kind, "/records", {EIO, Fault::all}});
    rig.touch(0, 10, 0, 7);
    rig.touch(1, 11, 0, 7);
    rig.schedule().wait_calls(FileCall::write, "/records", writes + (kind == FileCall::write ? 2 : 1));
    CHECK(rig.info().write_errors == 1 && rig.info().read_errors == 0);
    CHECK(is_good(rig.kit.read({0, 1}, 10)) && is_good(rig.kit.write({2}, 30)));
    const SsdScan scan = rig.kit.reopen();
    CHECK((scan.slots == Ids{0, 1, 2}) && priority_of(scan, 0) == 0 && priority_of(scan, 1) == 7);
  }
}

}  // namespace

int main() {
  in_child(a_touch_never_waits_and_stop_makes_those_that_are_queued);
  times_of_use_grow_whatever_the_clock_does();
  blocks_of_an_op_are_used_in_its_order_whatever_the_disks_do();
  what_is_used_after_a_restart_is_later_than_all_before();
  a_touch_of_the_last_block_is_one_of_the_chain();
  a_touch_makes_a_block_the_last_one_used_and_raises_what_it_says();
  a_touch_of_what_is_not_there_writes_nothing();
  a_slot_that_is_being_written_is_not_touched();
  what_was_queued_before_the_store_is_emptied_is_dropped();
  the_oldest_is_dropped_when_too_many_are_queued();
  a_touch_that_fails_is_a_write_error_and_nothing_else();
  std::puts("test_ssd_touch: ok");
  return 0;
}
