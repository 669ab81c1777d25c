// SsdDevice: one directory of an SsdStore and the thread that moves its blocks.
//
// A block: queued -> in flight -> ended, or queued -> dropped. Reads go first: a write starts only when no read waits,
// and at most `write_depth` of them are in flight. As many again are prepared. One step of the thread starts what may
// start, hands it to the kernel, and ends one block or prepares one, so that checksums are computed while the disk
// works and never between two of its turns. Touches come last, one to a step, and before the thread sleeps or ends.
//
//   read:   the record is known to be valid -> data into the host slot -> its checksum holds -> the record is touched
//   write:  prepared: the record is made invalid -> checksum; then data from the host slot -> the record is written
//   touch:  the record is known to be valid, and is of that key -> it is written with what it becomes
//
// Invariants
//  1. A block of a read is good only when its bytes check against the record, for this store id, slot and the key that
//     the op names.
//  2. A block that was submitted before `renew` does not end well after it, and leaves no record.
//  3. Every submitted block ends exactly once. Its host memory is touched no more then.
//  4. From before the bytes of a slot change until they have changed its record is not valid: no touch makes it so. At
//     most `max_touches` wait, the oldest goes first. None of before `renew` is made after it.
// Thread safety: all members, any thread, but for scan, start and join, which the owner calls one at a time.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "storage/disk_io.h"
#include "storage/ssd_directory.h"
#include "storage/ssd_op.h"
#include "transfer/host_pool.h"

namespace flexkv {

struct SsdDeviceInfo {
  std::string path;
  std::string io_engine;
  std::string why_not_io_uring;
  bool is_direct = false;
  std::string origin;                // what was found there, see SsdOrigin: "warm", "made", ...
  std::vector<std::string> removed;  // fingerprints that had to make room
  std::int64_t queued_reads = 0;     // blocks, not started
  std::int64_t queued_writes = 0;
  std::int64_t in_flight = 0;
  std::int64_t queued_touches = 0;
  std::uint64_t dropped_touches = 0;  // there were too many
  std::uint64_t bytes_read = 0;
  std::uint64_t bytes_written = 0;
  std::uint64_t read_errors = 0;
  std::uint64_t write_errors = 0;
  std::uint64_t bad_checksums = 0;
};

struct SsdDeviceConfig {
  SsdDirectoryConfig directory;
  std::string io_engine = "auto";
  unsigned read_depth = 16;
  unsigned write_depth = 8;
};

class SsdDevice {
 public:
  struct Block {
    std::shared_ptr<SsdOp> op;
    std::uint32_t at = 0;    // position in the op
    std::uint64_t slot = 0;  // of the directory
    std::uint64_t used_at_us = 0;
    std::uint64_t epoch = 0;
  };
  struct Touch {
    std::uint64_t slot = 0;  // of the directory
    BlockKey key;
    SsdUse use;
  };
  static constexpr std::size_t max_touches = 4096;  // that wait

  SsdDevice(FileSystem& files, const SsdDeviceConfig& config);  // throws as SsdDirectory and make_disk_io do
  ~SsdDevice();
  SsdDevice(const SsdDevice&) = delete;
  SsdDevice& operator=(const SsdDevice&) = delete;

  [[nodiscard]] std::uint64_t num_slots() const { return num_slots_; }
  [[nodiscard]] std::vector<ScannedRecord> scan();  // before start; throws std::system_error
  void start(std::shared_ptr<HostPool> pool);       // throws std::system_error
  void submit(
      const std::vector<Block>& blocks);  // at once dropped after `close`; all of them reads or all of them writes
  void touch(const Touch& touch);         // nothing after `close`. REQUIRES: the record's values have room
  void sweep();                           // ops were cancelled: drops their blocks
  [[nodiscard]] int renew();              // 0 or an errno; then nothing is moved any more
  void close();                           // drops what is queued but touches; the thread drains, syncs and ends
  // Waits for the thread's end, if it was started, at most until then.
  [[nodiscard]] bool wait_ended(std::chrono::steady_clock::time_point deadline) const;
  void join();  // REQUIRES: it has ended. Closes the files, lets the directory's lock go
  [[nodiscard]] SsdDeviceInfo info() const;

 private:
  struct Flight {
    Block block;
    std::uint64_t checksum = 0;  // what its bytes must have, or have
    SsdStoreId store;
    int error = 0;
  };

  void run();
  [[nodiscard]] bool step();
  void take_inbox();
  void count_queued();
  [[nodiscard]] static const Block* block_of(const Block* block) { return block; }
  [[nodiscard]] static const Block* block_of(const Flight* flight) { return &flight->block; }
  template <typename Queued>
  static void drop(std::deque<Queued>& queue, bool all);
  void start_some();
  [[nodiscard]] bool has_room() const;
  [[nodiscard]] bool may_prepare() const;
  template <typename Queued>
  void start_front(std::deque<Queued>& queue, void (SsdDevice::*begin)(Queued));
  void start_read(Block block);
  void prepare_write(Block block);
  void start_write(Flight flight);
  void launch(Flight flight, bool is_write);
  void take_result(const DiskResult& result);
  bool touch_one();
  void end_one();
  [[nodiscard]] BlockEnd end_read(const Flight& flight);
  [[nodiscard]] BlockEnd end_write(const Flight& flight);
  [[nodiscard]] std::uint64_t checksum_of(const Flight& flight) const;
  [[nodiscard]] std::vector<iovec> extents_of(const Block& block) const;
  [[nodiscard]] BlockEnd objection(const Block& block) const;  // good: there is none
  [[nodiscard]] BlockEnd io_error(const Block& block, const char* what, int error) const;
  [[nodiscard]] std::string name_of(const Block& block) const;
  static void end(const Block& block, const BlockEnd& end);
  void add_buffers();
  void sync_at_end();

  const unsigned read_depth_;
  const unsigned write_depth_;
  std::uint64_t slot_bytes_ = 0;
  std::uint64_t num_slots_ = 0;
  SsdDeviceInfo fixed_info_;
  std::shared_ptr<HostPool> pool_;
  std::thread thread_;

  mutable std::mutex record_mutex_;  // the directory's records, and what is known of them
  // Guarded by record_mutex_:
  std::unique_ptr<SsdDirectory> directory_;
  std::vector<std::uint64_t> checksums_;  // of the data of valid slots
  std::vector<bool> valid_;
  int broken_ = 0;                        // the errno that ended the service
  std::atomic<std::uint64_t> epoch_ = 0;  // written under record_mutex_

  mutable std::mutex inbox_mutex_;
  mutable std::condition_variable ended_changed_;
  // Guarded by inbox_mutex_:
  std::deque<Block> inbox_;
  std::deque<Touch> touches_;
  bool sweep_ = false;
  bool closed_ = false;
  bool started_ = false;
  bool ended_ = false;

  // The thread's own:
  std::unique_ptr<DiskIo> io_;  // but for `wake`
  std::deque<Block> reads_;
  std::deque<Block> writes_;
  std::deque<Flight> prepared_;  // of the writes, the first ones; at most `write_depth`
  std::vector<Flight> flights_;  // by tag
  std::vector<std::size_t> free_tags_;
  std::vector<Flight> landed_;  // moved, not yet ended; as many as there are tags, and what is in flight
  std::vector<DiskResult> results_;
  unsigned reads_in_flight_ = 0;
  unsigned writes_in_flight_ = 0;
  bool closing_ = false;
  bool has_touches_ = false;
  bool takes_buffers_ = true;
  std::int64_t slots_added_ = 0;  // to the engine, as buffers

  struct Counters {
    std::atomic<std::int64_t> queued_reads = 0;
    std::atomic<std::int64_t> queued_writes = 0;
    std::atomic<std::int64_t> in_flight = 0;
    std::atomic<std::int64_t> queued_touches = 0;
    std::atomic<std::uint64_t> dropped_touches = 0;
    std::atomic<std::uint64_t> bytes_read = 0;
    std::atomic<std::uint64_t> bytes_written = 0;
    std::atomic<std::uint64_t> read_errors = 0;
    std::atomic<std::uint64_t> write_errors = 0;
    std::atomic<std::uint64_t> bad_checksums = 0;
  };
  Counters counters_;
};

}  // namespace flexkv
