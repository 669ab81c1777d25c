// SsdOp: one disk op on its way through the devices of an SsdStore: what its blocks came to, until the last one ends.
// Thread safety: all members, any thread.
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <utility>

#include "transfer/disk_executor.h"

namespace flexkv {

// How a block ended. `good` has no other field but bytes; `dropped` was not started.
struct BlockEnd {
  enum class Kind : std::uint8_t { good, dropped, bad_checksum, failed };
  Kind kind = Kind::failed;
  std::uint64_t bytes = 0;
  int io_errno = 0;   // failed: 0 when it was not the disk's fault
  std::string error;  // for a person
};

class SsdOp {
 public:
  // `ended` is called once, by the thread that ends the last block. REQUIRES: at least one block.
  SsdOp(OpSpec spec, std::function<void(DiskAck)> ended)
      : spec_(std::move(spec)), ended_(std::move(ended)), num_open_(spec_.src.size()) {
    ack_.op_id = spec_.op_id;
    ack_.failed.reserve(num_open_);  // the end of a block needs no memory
  }

  [[nodiscard]] const OpSpec& spec() const { return spec_; }
  [[nodiscard]] bool is_read() const { return spec_.type == OpType::disk2h; }
  [[nodiscard]] std::int64_t disk_slot(std::uint32_t at) const { return is_read() ? spec_.src[at] : spec_.dst[at]; }
  [[nodiscard]] std::int64_t host_slot(std::uint32_t at) const { return is_read() ? spec_.dst[at] : spec_.src[at]; }

  void cancel() { cancelled_ = true; }
  [[nodiscard]] bool cancelled() const { return cancelled_; }

  // The first block goes to the disk: the time of the op counts from here.
  void begin() {
    const std::lock_guard lock(mutex_);
    if (begin_ == Clock::time_point()) begin_ = Clock::now();
  }

  // Once per block; positions that end badly may come in any order.
  void end_block(std::uint32_t at, const BlockEnd& end) {
    const std::unique_lock lock(mutex_);
    if (end.kind == BlockEnd::Kind::good) {
      ack_.bytes += end.bytes;
    } else {
      ack_.failed.push_back(at);
      if (end.kind == BlockEnd::Kind::dropped) ack_.cancelled = true;
      if (end.kind == BlockEnd::Kind::bad_checksum) ++ack_.num_bad_checksums;
      if (ack_.io_errno == 0) ack_.io_errno = end.io_errno;
      // What went wrong says more than what was dropped.
      if (ack_.error.empty() || (only_dropped_ && end.kind != BlockEnd::Kind::dropped)) ack_.error = end.error;
      only_dropped_ = only_dropped_ && end.kind == BlockEnd::Kind::dropped;
    }
    if (--num_open_ > 0) return;
    std::ranges::sort(ack_.failed);
    if (begin_ != Clock::time_point()) {
      ack_.queued_ns = ns_between(submitted_, begin_);
      ack_.duration_ns = ns_between(begin_, Clock::now());
    }
    ended_(std::move(ack_));
  }

 private:
  using Clock = std::chrono::steady_clock;

  [[nodiscard]] static std::uint64_t ns_between(Clock::time_point from, Clock::time_point until) {
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(until - from).count());
  }

  const OpSpec spec_;
  const std::function<void(DiskAck)> ended_;
  std::atomic<bool> cancelled_ = false;
  std::mutex mutex_;
  // Guarded by mutex_:
  std::size_t num_open_;
  bool only_dropped_ = true;  // of the blocks that are not good
  const Clock::time_point submitted_ = Clock::now();
  Clock::time_point begin_;
  DiskAck ack_;
};

}  // namespace flexkv
