// DiskExecutor: who carries out the disk ops of a TransferEngine, as a seam: SsdStore (csrc/storage), or a double.
//
// Contract. After `start`, every op that `submit` took has exactly one DiskAck, whatever happens; `done` gets it, from
// any thread, also from within `submit` and `cancel`. Until its ack an op's disk slots and host memory may be touched,
// after it never. `submit` and `cancel` do not block. After `stop` an op is taken and acknowledged at once, not moved.
// Thread safety: all members, any thread.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "transfer/host_pool.h"
#include "transfer/transfer_types.h"

namespace flexkv {

// One op has ended. `failed` has the positions (indices into src and dst) of the blocks that were not moved well,
// ascending; of a read, what lies in their host slots is undefined.
struct DiskAck {
  std::int64_t op_id = 0;
  bool cancelled = false;         // blocks were dropped before they were started; they are in `failed`
  std::uint64_t bytes = 0;        // of the good blocks
  std::uint64_t queued_ns = 0;    // from its submission until its first block was started
  std::uint64_t duration_ns = 0;  // from then on
  std::uint32_t num_bad_checksums = 0;
  int io_errno = 0;  // of the first block that failed so; 0: none did
  std::vector<std::uint32_t> failed;
  std::string error;  // what and where, for a person; empty when all are good
};

class DiskExecutor {
 public:
  DiskExecutor() = default;
  virtual ~DiskExecutor() = default;
  DiskExecutor(const DiskExecutor&) = delete;
  DiskExecutor& operator=(const DiskExecutor&) = delete;

  [[nodiscard]] virtual std::int64_t num_slots() const = 0;
  // Once. Throws std::invalid_argument when the pool does not fit, std::system_error when no thread can be had.
  virtual void start(std::shared_ptr<HostPool> pool, std::function<void(DiskAck)> done) = 0;
  // REQUIRES: started; disk2h or h2disk, ids in range, one key per block. When it throws, the op was not taken.
  virtual void submit(const OpSpec& op) = 0;
  virtual void cancel(std::int64_t op_id) = 0;  // drops what was not started; unknown ids: no-op
  // Drops what is not started, drains what is. False when I/O was still in flight after `timeout_s`. Idempotent.
  [[nodiscard]] virtual bool stop(double timeout_s) = 0;
  [[nodiscard]] virtual bool is_stopped() const = 0;  // `stop` was called; never blocks
};

}  // namespace flexkv
