// The queue of an SsdDevice: writes that are prepared while others are in flight, and what reads, cancel, renew and
// stop make of them. With `write_depth` 1, of four writes the first is in flight, the second prepared, the others wait.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <functional>
#include <string>

#include "tests/check.h"
#include "tests/child_process.h"
#include "tests/faulty_file.h"
#include "tests/ssd_store_kit.h"

using namespace flexkv;

namespace {

using Positions = std::vector<std::uint32_t>;

bool is_good(const DiskAck& ack) { return ack.failed.empty() && ack.error.empty() && !ack.cancelled; }

class Rig {
 public:
  FaultyFileSystem files;
  StoreKit kit{{1, {4096}, 16, "threads", 1, 1}, files};

  // Blocks 10 to 13 lie in slots 0 to 3, 50 and 51 in slots 8 and 9.
  Rig() {
    (void)kit.open();
    CHECK(is_good(kit.write({0, 1, 2, 3}, 10)) && is_good(kit.write({8, 9}, 50)));
  }
  FaultSchedule& schedule() { return files.schedule; }
  [[nodiscard]] std::uint64_t num_calls(FileCall kind, const std::string& name) const {
    return files.schedule.num_calls(kind, name);
  }
  // Writes 20 to 23 to slots 0 to 3: one hangs in flight, one is prepared when this returns.
  std::int64_t begin_four_writes() {
    const std::uint64_t records = num_calls(FileCall::write, "/records");
    schedule().hold(FileCall::write, "/data");
    const std::int64_t op_id = kit.begin_write({0, 1, 2, 3}, 20);
    schedule().wait_held(1);
    schedule().wait_calls(FileCall::write, "/records", records + 2);  // zeros, of slots 0 and 1
    CHECK(num_calls(FileCall::write, "/records") == records + 2);
    return op_id;
  }
  // One block, to this host slot.
  void begin_read(std::int64_t op_id, std::int64_t slot, std::uint64_t number, std::int64_t host_slot) {
    kit.store().submit({op_id, OpType::disk2h, {slot}, {host_slot}, 0, {}, chain_of(number, 1, false)});
  }
  // The thread has looked at its queues, and started what it may.
  void settle() {
    for (int i = 0; i < 2; ++i) {  // when the second block has ended, the turn that ended the first is over
      const std::int64_t op_id = next_id_++;
      begin_read(op_id, 8, 50, 15);
      kit.store().cancel(op_id);
      (void)kit.acks().wait(op_id);
    }
  }
  [[nodiscard]] SsdDeviceInfo info() { return kit.store().devices()[0]; }

 private:
  std::int64_t next_id_ = 5000;
};

void reads_go_before_a_write_that_is_prepared() {
  Rig rig;
  const std::uint64_t writes = rig.num_calls(FileCall::write, "/data");
  const std::uint64_t records = rig.num_calls(FileCall::write, "/records");
  const std::int64_t op_id = rig.begin_four_writes();
  CHECK(is_good(rig.kit.read({8}, 50)));  // while one write is in flight and one is prepared
  rig.schedule().hold(FileCall::read, "/data");
  rig.begin_read(900, 8, 50, 12);
  rig.schedule().wait_held(2);
  rig.begin_read(901, 9, 51, 13);  // waits: one read at a time
  rig.schedule().release(FileCall::write);
  rig.schedule().wait_calls(FileCall::write, "/records", records + 4);  // touch of the read; the first write has ended
  rig.settle();
  CHECK(rig.info().in_flight == 1 && rig.info().queued_reads >= 1 && rig.info().queued_writes == 3);
  CHECK(rig.num_calls(FileCall::write, "/data") == writes + 1);
  CHECK(rig.num_calls(FileCall::write, "/records") == records + 4);  // nor is another prepared
  rig.schedule().release();
  CHECK(is_good(rig.kit.acks().wait(900)) && is_good(rig.kit.acks().wait(901)));
  CHECK(rig.kit.holds(12, 50) && rig.kit.holds(13, 51));
  CHECK(is_good(rig.kit.acks().wait(op_id)) && is_good(rig.kit.read({0, 1, 2, 3}, 20)));
}

void no_write_is_prepared_while_a_read_waits() {
  Rig rig;
  const std::uint64_t writes = rig.num_calls(FileCall::write, "");
  rig.schedule().hold(FileCall::read, "/data");
  rig.begin_read(900, 8, 50, 12);
  rig.schedule().wait_held(1);
  rig.begin_read(901, 9, 51, 13);
  const std::int64_t op_id = rig.kit.begin_write({0, 1, 2, 3}, 20);
  rig.settle();
  CHECK(rig.info().queued_writes == 4 && rig.num_calls(FileCall::write, "") == writes);
  rig.schedule().release();
  CHECK(is_good(rig.kit.acks().wait(900)) && is_good(rig.kit.acks().wait(901)));
  CHECK(is_good(rig.kit.acks().wait(op_id)) && is_good(rig.kit.read({0, 1, 2, 3}, 20)));
}

// What was prepared has lost its record; what was not is as before.
void expect_dropped_but_the_first(Rig& rig, const DiskAck& ack) {
  CHECK(ack.cancelled && (ack.failed == Positions{1, 2, 3}) && ack.bytes == 4096 && ack.io_errno == 0);
  CHECK(rig.info().queued_writes == 0 && rig.info().in_flight == 0);
  CHECK(rig.info().write_errors == 0);
}

void expect_records_of_the_first_and_the_last_two(Rig& rig) {
  Ids slots = rig.kit.reopen().slots;
  std::ranges::sort(slots);
  CHECK((slots == Ids{0, 2, 3, 8, 9}));
  CHECK((rig.kit.read({0, 1}, 20).failed == Positions{1}) && is_good(rig.kit.read({2, 3}, 12)));
  CHECK(is_good(rig.kit.write({0, 1, 2, 3}, 30)) && is_good(rig.kit.read({0, 1, 2, 3}, 30)));
}

// `begin` has the write dropped while one of its blocks is in flight; `end` once that has ended.
void drops_a_prepared_write(const std::function<void(Rig& rig, std::int64_t op_id)>& begin,
                            const std::function<void(Rig& rig)>& end) {
  Rig rig;
  const std::uint64_t writes = rig.num_calls(FileCall::write, "/data");
  const std::int64_t op_id = rig.begin_four_writes();
  begin(rig, op_id);
  CHECK(!rig.kit.acks().has(op_id));
  rig.schedule().release();
  end(rig);
  expect_dropped_but_the_first(rig, rig.kit.acks().wait(op_id));
  CHECK(rig.num_calls(FileCall::write, "/data") == writes + 1);
  expect_records_of_the_first_and_the_last_two(rig);
}

void cancel_drops_a_prepared_write() {
  const auto cancel = [](Rig& rig, std::int64_t op_id) {
    rig.kit.store().cancel(op_id);
    rig.settle();
    CHECK(rig.info().queued_writes == 0 && rig.info().in_flight == 1);
  };
  drops_a_prepared_write(cancel, [](Rig&) {});
}

void stop_drops_a_prepared_write() {
  const auto begin_stop = [](Rig& rig, std::int64_t) { CHECK(!rig.kit.store().stop(0)); };
  drops_a_prepared_write(begin_stop, [](Rig& rig) { CHECK(rig.kit.store().stop(20)); });
}

void what_was_prepared_before_the_store_is_emptied_is_not_written() {
  Rig rig;
  const std::uint64_t writes = rig.num_calls(FileCall::write, "/data");
  const std::int64_t op_id = rig.begin_four_writes();
  CHECK(rig.kit.store().renew() == 0);
  rig.schedule().release();
  const DiskAck ack = rig.kit.acks().wait(op_id);
  CHECK((ack.failed == Positions{0, 1, 2, 3}) && !ack.cancelled && ack.bytes == 0 && ack.io_errno == 0);
  rig.settle();
  CHECK(!ack.error.empty() && rig.num_calls(FileCall::write, "/data") == writes + 1);
  CHECK(rig.info().queued_writes == 0 && rig.info().in_flight == 0 && rig.info().write_errors == 0);
  CHECK(rig.kit.read({0, 1, 2, 3}, 20).failed.size() == 4);
  CHECK(is_good(rig.kit.write({1, 2}, 30)) && (rig.kit.reopen().slots == Ids{1, 2}));
}

// The record of before may still be there, but is not served any more.
void a_write_that_cannot_be_prepared_fails_alone() {
  Rig rig;
  rig.schedule().add({FileCall::write, "/records", {EIO, Fault::all}, 1});
  const DiskAck ack = rig.kit.write({0, 1, 2, 3}, 20);
  CHECK(ack.failed.size() == 1 && ack.io_errno == EIO && !ack.cancelled && rig.info().write_errors == 1);
  const auto failed = static_cast<std::int64_t>(ack.failed[0]);
  for (std::int64_t slot = 0; slot < 4; ++slot) {
    CHECK(is_good(rig.kit.read({slot}, 20 + static_cast<std::uint64_t>(slot))) == (slot != failed));
    CHECK(rig.kit.read({slot}, 10 + static_cast<std::uint64_t>(slot)).failed.size() == 1);
  }
}

}  // namespace

int main() {
  in_child(stop_drops_a_prepared_write);
  reads_go_before_a_write_that_is_prepared();
  no_write_is_prepared_while_a_read_waits();
  cancel_drops_a_prepared_write();
  what_was_prepared_before_the_store_is_emptied_is_not_written();
  a_write_that_cannot_be_prepared_fails_alone();
  std::puts("test_ssd_queue: ok");
  return 0;
}
