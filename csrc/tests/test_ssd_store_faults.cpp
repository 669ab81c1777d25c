// SsdStore on files that fail, shorten or hang (faulty_file.h), with the thread engine.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include "tests/check.h"
#include "tests/child_process.h"
#include "tests/choices.h"
#include "tests/faulty_file.h"
#include "tests/ssd_store_kit.h"
#include "tests/volatile_files.h"

using namespace flexkv;

namespace {

using Positions = std::vector<std::uint32_t>;

struct Rig {
  FaultyFileSystem files;
  StoreKit kit;

  explicit Rig(StoreShape shape = {}) : kit(std::move(shape), files) { (void)kit.open(); }
  FaultSchedule& schedule() { return files.schedule; }
};

bool is_good(const DiskAck& ack) { return ack.failed.empty() && ack.error.empty() && !ack.cancelled; }
bool is_failed(const DiskAck& ack, std::uint32_t at) { return std::ranges::find(ack.failed, at) != ack.failed.end(); }

// Each call once: a block whose write was said to be good is read, or its read says that it failed; one whose write was
// not is never served. After the faults all works again.
void no_fault_of_any_call_makes_wrong_bytes() {
  for (const FileCall kind : {FileCall::read, FileCall::write}) {
    for (const char* name : {"data", "records"}) {
      for (const int error : {EIO, ENOSPC, EROFS, EINTR, EAGAIN, 0}) {
        // The record file is not read and written by a DiskIo, and a File has no EINTR.
        if (name == std::string("records") && (error == EINTR || error == EAGAIN)) continue;
        for (std::uint64_t first = 0; first < 10; ++first) {
          Rig rig({1, {4096, 8192}});
          CHECK(is_good(rig.kit.write({0, 1, 2, 3}, 10)));
          rig.schedule().add({kind, name, {error, error == 0 ? 700 : Fault::all}, first});
          const DiskAck written = rig.kit.write({1, 2, 3}, 20);
          const DiskAck read = rig.kit.read({1, 2, 3}, 20);
          for (std::uint32_t at = 0; at < 3; ++at) CHECK(!is_failed(written, at) || is_failed(read, at));
          const bool is_lasting = error == EIO || error == ENOSPC || error == EROFS;
          for (const DiskAck* ack : {&written, &read}) {
            CHECK(ack->num_bad_checksums == 0 && (ack->io_errno == 0 || (is_lasting && ack->io_errno == error)));
          }
          if (!is_lasting) CHECK(is_good(written) && is_good(read));
          CHECK((kind == FileCall::read || written.failed.size() == (written.io_errno == 0 ? 0u : 1u)));
          CHECK(rig.kit.read({0}, 10).num_bad_checksums == 0);
          rig.schedule().clear();
          CHECK(is_good(rig.kit.write({1, 2, 3}, 30)) && is_good(rig.kit.read({1, 2, 3}, 30)));
          const SsdScan scan = rig.kit.reopen();
          for (std::size_t i = 0; i < scan.slots.size(); ++i) {
            CHECK(is_good(rig.kit.read({scan.slots[i]}, ~scan.keys[i].hi)));
          }
        }
      }
    }
  }
}

// Random ops while every few calls fail, beside a model of what each slot holds.
void histories_with_faults_never_serve_what_was_not_written() {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Choices choices(seed);
    Rig rig({1 + seed % 2, {4096}, 6});
    std::map<std::int64_t, std::optional<std::uint64_t>> held;  // nothing: unknown or none
    rig.schedule().add(
        {FileCall::write, "", {EIO, Fault::all}, choices.below(5), FaultSchedule::forever, 2 + choices.below(7)});
    rig.schedule().add(
        {FileCall::read, "data", {0, choices.below(4096)}, 0, FaultSchedule::forever, 2 + choices.below(4)});
    for (std::uint64_t step = 1; step < 120; ++step) {
      const auto slot = static_cast<std::int64_t>(choices.below(6));
      if (choices.one_in(3)) {  // of what may be there, while something else goes on
        const auto touched = static_cast<std::int64_t>(choices.below(6));
        rig.kit.store().touch(touched, key_of(held[touched].value_or(step * 10)), 0, 3);
      }
      if (choices.one_in(2)) {
        held[slot].reset();
        if (is_good(rig.kit.write({slot}, step * 10))) held[slot] = step * 10;
      } else {
        const DiskAck ack = rig.kit.read({slot}, held[slot].value_or(step * 10 + 1));  // checks the bytes
        CHECK(is_good(ack) == held[slot].has_value());
      }
    }
  }
}

// What is listed after the cut is read with its bytes, or is found not to check.
void a_power_cut_at_any_call_leaves_blocks_or_misses() {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    Choices choices(seed);
    auto files = std::make_unique<VolatileFileSystem>();
    StoreKit kit({1 + seed % 2, {4096, 4096}, 6}, *files);
    (void)kit.open();
    CHECK(is_good(kit.write({0, 1, 2, 3, 4, 5}, 1000)));
    if (seed % 3 == 0) {
      CHECK(kit.reopen().slots.size() == 6);  // that syncs
    }
    files->cut_after(1 + choices.below(60), choices);
    std::map<std::int64_t, std::set<std::uint64_t>> written;
    for (std::int64_t slot = 0; slot < 6; ++slot) written[slot].insert(1000 + static_cast<std::uint64_t>(slot));
    for (std::uint64_t round = 2; !files->is_cut(); ++round) {
      (void)kit.write({0, 2, 4}, round * 1000);
      for (const std::int64_t slot : {0, 2, 4})
        written[slot].insert(round * 1000 + static_cast<std::uint64_t>(slot) / 2);
      kit.store().touch(2, key_of(round * 1000 + 1), 0, 3);
      (void)kit.read({1, 3}, 1001);
    }
    kit.close();
    files = std::make_unique<VolatileFileSystem>();
    kit.use(*files);
    const SsdScan scan = kit.open();
    for (std::size_t i = 0; i < scan.slots.size(); ++i) {
      const std::uint64_t number = ~scan.keys[i].hi;
      CHECK(written[scan.slots[i]].contains(number));
      const DiskAck ack = kit.read({scan.slots[i]}, number);  // checks the bytes
      CHECK(is_good(ack) || ack.num_bad_checksums == 1);
    }
    if (seed % 3 == 0) CHECK(is_good(kit.read({5}, 1005)));  // synced, and neither written nor used since
    CHECK(is_good(kit.write({0, 1, 2, 3, 4, 5}, 9000)) && is_good(kit.read({0, 1, 2, 3, 4, 5}, 9000)));
    kit.close();
  }
}

void a_read_goes_before_queued_writes() {
  Rig rig({1, {4096}, 16, "auto", 4, 1});
  CHECK(is_good(rig.kit.write({8}, 100)));
  const std::uint64_t before = rig.schedule().num_calls(FileCall::write, "data");
  rig.schedule().hold(FileCall::write, "data");
  const std::int64_t writes = rig.kit.begin_write({0, 1, 2, 3}, 10);
  rig.schedule().wait_held(1);
  CHECK(is_good(rig.kit.read({8}, 100)));
  const SsdDeviceInfo info = rig.kit.store().devices()[0];
  CHECK(info.queued_writes == 3 && !rig.kit.acks().has(writes));
  CHECK(rig.schedule().num_calls(FileCall::write, "data") == before + 1);  // one at a time
  rig.schedule().release();
  CHECK(is_good(rig.kit.acks().wait(writes)) && is_good(rig.kit.read({0, 1, 2, 3}, 10)));
}

void cancel_drops_the_blocks_that_were_not_started() {
  Rig rig({1, {4096}, 16, "auto", 4, 1});
  rig.schedule().hold(FileCall::write, "data");
  const std::int64_t op_id = rig.kit.begin_write({0, 1, 2, 3}, 10);
  rig.schedule().wait_held(1);
  rig.kit.store().cancel(op_id);
  rig.kit.store().cancel(12345);
  rig.schedule().release();
  const DiskAck ack = rig.kit.acks().wait(op_id);
  CHECK(ack.cancelled && (ack.failed == Positions{1, 2, 3}) && ack.bytes == 4096 && ack.io_errno == 0);
  CHECK((rig.kit.read({0, 1, 2, 3}, 10).failed == Positions{1, 2, 3}));
}

void what_is_in_flight_while_the_store_is_emptied_does_not_end_well() {
  Rig rig({1, {4096}, 16, "auto", 4, 2});
  CHECK(is_good(rig.kit.write({8}, 100)));
  for (const FileCall kind : {FileCall::write, FileCall::read}) {
    rig.schedule().hold(kind, "data");
    const bool is_read = kind == FileCall::read;
    const std::int64_t op_id = is_read ? rig.kit.begin_read({8}, 100) : rig.kit.begin_write({0, 1, 2, 3}, 10);
    rig.schedule().wait_held(1);
    if (is_read) {  // the block is there as long as nothing else says so
      CHECK(rig.kit.store().devices()[0].in_flight == 1);
    }
    CHECK(rig.kit.store().renew() == 0);
    rig.schedule().release();
    const DiskAck ack = rig.kit.acks().wait(op_id);
    CHECK(ack.failed.size() == (is_read ? 1u : 4u) && ack.bytes == 0 && !ack.error.empty() && ack.io_errno == 0);
    CHECK((rig.kit.read({0, 1, 2, 3}, 10).failed.size() == 4));
    CHECK(is_good(rig.kit.write({8}, 100)));
  }
  CHECK(rig.kit.reopen().slots == Ids{8});
}

void a_store_that_could_not_be_emptied_serves_nothing() {
  Rig rig;
  CHECK(is_good(rig.kit.write({0}, 10)));
  rig.schedule().add({FileCall::write, "records", {EIO, Fault::all}, 0, FaultSchedule::forever});
  CHECK(rig.kit.store().renew() == EIO);
  CHECK(rig.kit.read({0}, 10).io_errno == EIO && rig.kit.write({1}, 20).io_errno == EIO);
  rig.schedule().clear();
  CHECK(rig.kit.store().renew() == 0);
  CHECK(rig.kit.read({0}, 10).failed == Positions{0} && is_good(rig.kit.write({1}, 20)));
}

void stop_drops_what_is_queued_and_waits_for_what_is_in_flight() {
  Rig rig({1, {4096}, 16, "auto", 4, 1});
  rig.schedule().hold(FileCall::write, "data");
  const std::int64_t op_id = rig.kit.begin_write({0, 1, 2, 3}, 10);
  rig.schedule().wait_held(1);
  bool stopped = false;
  std::thread stopper([&] { stopped = rig.kit.store().stop(20); });
  rig.schedule().release();
  stopper.join();
  const DiskAck ack = rig.kit.acks().wait(op_id);
  CHECK(stopped && (ack.failed.empty() || ack.cancelled) && ack.io_errno == 0);
  CHECK(rig.schedule().num_calls(FileCall::sync, "data") > 0);
  rig.schedule().clear();
}

void hanging_io_does_not_keep_stop_and_ends_late() {
  const auto rig = std::make_unique<Rig>(StoreShape{1, {4096}, 16, "auto", 4, 1});
  rig->schedule().hold(FileCall::write, "data");
  const std::int64_t op_id = rig->kit.begin_write({0, 1}, 10);
  rig->schedule().wait_held(1);
  CHECK(!rig->kit.store().stop(0.05) && !rig->kit.store().stop(0));
  CHECK(!rig->kit.acks().has(op_id));
  rig->schedule().release();
  const DiskAck ack = rig->kit.acks().wait(op_id);
  CHECK(ack.cancelled && ack.failed == Positions{1});
  CHECK(rig->kit.store().stop(20));
}

}  // namespace

int main() {
  in_child(hanging_io_does_not_keep_stop_and_ends_late);
  no_fault_of_any_call_makes_wrong_bytes();
  histories_with_faults_never_serve_what_was_not_written();
  a_power_cut_at_any_call_leaves_blocks_or_misses();
  a_read_goes_before_queued_writes();
  cancel_drops_the_blocks_that_were_not_started();
  what_is_in_flight_while_the_store_is_emptied_does_not_end_well();
  a_store_that_could_not_be_emptied_serves_nothing();
  stop_drops_what_is_queued_and_waits_for_what_is_in_flight();
  std::puts("test_ssd_store_faults: ok");
  return 0;
}
