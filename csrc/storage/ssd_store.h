// SsdStore: the bytes of the SSD tier. Executes DISK2H and H2DISK ops over one or several directories, one thread each,
// against the host pool; every block that is read is checked before it counts as read (D13). It decides nothing: which
// block lies in which slot is the cache engine's to say, and a record tells it again after a restart (D12).
//
// Slot s lies in directory s % num_directories, as its slot s / num_directories: a run of slots is striped. A directory
// with fewer slots than others bounds all. Reads go before writes in a device's queue, and only a few writes are in
// flight at a time, so that a read never waits for a queue of writes.
//
// An op: submitted -> every block done, failed or dropped -> one DiskAck. A block that fails does not keep the others
// from being moved: the ack names the positions that are not good. `cancel` drops the blocks that were not started.
// Slots and host memory of an op are in use until its ack. Blocks of an op are used in the order of its positions, and
// after those of all ops and touches before it, in whatever order the disks are done with them.
// Thread safety: all members, any thread; nothing blocks but the constructor, scan, renew, stop and the destructor.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "storage/ssd_device.h"
#include "storage/ssd_directory.h"
#include "transfer/disk_executor.h"
#include "transfer/host_pool.h"
#include "transfer/transfer_types.h"

namespace flexkv {

struct SsdStoreConfig {
  std::vector<std::string> directories;     // at least one; each gets the same part of the capacity
  std::string fingerprint;                  // hex
  std::string model;                        // for people
  std::vector<std::uint64_t> extent_bytes;  // per shard: the stride of the host pool's
  std::uint32_t tokens_per_block = 16;
  std::uint64_t capacity_bytes = 0;  // of all directories
  std::string io_engine = "auto";    // "auto", "io_uring" or "threads"
  unsigned read_depth = 16;          // blocks in flight per directory
  unsigned write_depth = 8;
};

struct SsdScan {  // columns of one length, in order of use, oldest first
  std::vector<std::int64_t> slots;
  std::vector<BlockKey> keys;
  std::vector<BlockKey> parents;
  std::vector<std::uint32_t> expiry_s;  // since 1970
  std::vector<std::uint16_t> tenants;
  std::vector<std::uint8_t> groups;
  std::vector<std::uint8_t> priorities;

  void reserve(std::size_t num_rows);
  void push_back(std::int64_t slot, const SsdRecord& record);
};

class SsdStore : public DiskExecutor {
 public:
  // Opens every directory. Throws SsdBusy, SsdConfigError, std::invalid_argument or std::system_error.
  explicit SsdStore(const SsdStoreConfig& config, FileSystem& files = posix_file_system());
  ~SsdStore() override;  // stop(5)
  SsdStore(const SsdStore&) = delete;
  SsdStore& operator=(const SsdStore&) = delete;

  [[nodiscard]] std::int64_t num_slots() const override;
  [[nodiscard]] std::uint64_t slot_bytes() const;
  // What lies in it, also what is expired, once, before start. Throws std::system_error.
  [[nodiscard]] SsdScan scan();
  // Lets ops run. `done` is called once per op, from a device's thread or the caller of submit, cancel, stop; it must
  // return soon and not call back.
  // REQUIRES: shard r of the pool has stride extent_bytes[r].
  void start(std::shared_ptr<HostPool> pool, std::function<void(DiskAck)> done) override;
  void submit(const OpSpec& op) override;
  void cancel(std::int64_t op_id) override;
  // The block was used elsewhere: its record gets the time of now, and at least that expiry (since 1970; the largest:
  // never) and priority. It is done later, at the latest by `stop`. Nothing becomes of it where the slot does not hold
  // the block or is being written, nor after `renew` and `stop`; when too many wait the oldest is dropped and counted.
  // An error is a write error of the device. Throws std::invalid_argument on a slot or priority out of range.
  void touch(std::int64_t slot, const BlockKey& key, std::uint32_t expiry_s, std::uint8_t priority);
  // Forgets all blocks, durably: a new store id in every directory. Ops that were submitted before fail or leave
  // nothing that checks. 0 or an errno: then the store takes no more writes and serves no reads.
  [[nodiscard]] int renew();
  // Drops what is not started and drains what is; makes all durable. False when I/O was still in flight after
  // `timeout_s`: its thread, files and the pool are kept for good (D16). Idempotent.
  [[nodiscard]] bool stop(double timeout_s) override;
  [[nodiscard]] bool is_stopped() const override;
  [[nodiscard]] std::vector<SsdDeviceInfo> devices() const;

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace flexkv
