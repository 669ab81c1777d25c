// UringIo: the disk engine on io_uring. The contract is DiskIo's.
//
// Life of a request: queued (an entry of the ring, ours) -> in the kernel -> answered; after a short answer queued
// again -> result. There is one entry per request at most, and one that watches the wake event: the rings, with room
// for both, cannot overflow.
//
// When the kernel takes no entries (it is short of memory, say), they stay queued and are tried again after a pause in
// the kernel, a bounded number of times; then they fail with EIO. What the kernel has is waited for, however its calls
// fail. Thread safety: as DiskIo's; a kernel from 6.1 on binds the ring to the thread that first calls `wait`.
#pragma once
#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "storage/disk_io.h"
#include "storage/disk_transfer.h"
#include "storage/uring_ring.h"
#include "transfer/wake_event.h"

namespace flexkv {

class UringIo final : public DiskIo {
 public:
  // Throws std::system_error where the kernel refuses it, or a file has no descriptor.
  UringIo(const DiskIoConfig& config, std::unique_ptr<UringSyscalls> system);
  ~UringIo() override;
  UringIo(const UringIo&) = delete;
  UringIo& operator=(const UringIo&) = delete;

  [[nodiscard]] const char* name() const override { return "io_uring"; }
  [[nodiscard]] unsigned depth() const override { return static_cast<unsigned>(slots_.size()); }
  [[nodiscard]] unsigned in_flight() const override { return in_flight_; }
  [[nodiscard]] bool add_buffer(const iovec& memory) override;
  void submit(DiskRequest request) override;
  void wait(std::vector<DiskResult>& results, double timeout_s) override;
  void wake() override { event_.signal(); }

 private:
  struct Piece {  // of registered memory
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
    std::uint16_t index = 0;
  };
  using Clock = std::chrono::steady_clock;

  void register_files(const std::vector<File*>& files);
  void queue(std::size_t slot);
  void aim(uring::Sqe& sqe, const DiskTransfer& transfer) const;
  [[nodiscard]] std::optional<std::uint16_t> registered_index(const iovec& memory) const;
  void watch_wake_event();
  // One call of the kernel, with what belongs before and after it. 0 or an errno; after one it has paused.
  int turn(std::vector<DiskResult>& results, std::chrono::nanoseconds timeout);
  [[nodiscard]] int enter(std::chrono::nanoseconds timeout);
  void collect(std::vector<DiskResult>& results);
  void take_wake(std::int32_t answer);
  void pause(std::chrono::nanoseconds timeout);
  void finish(std::size_t slot, int error, std::vector<DiskResult>& results);
  void give_up_queued(std::vector<DiskResult>& results);

  std::unique_ptr<UringSyscalls> system_;
  WakeEvent event_;
  UringRing ring_;
  std::vector<File*> registered_files_;
  std::vector<Piece> pieces_;  // by address
  bool has_buffer_table_ = false;
  unsigned num_pieces_used_ = 0;  // of the table; those that failed, too

  std::vector<DiskTransfer> slots_;
  std::vector<std::size_t> free_;   // of slots_
  std::vector<std::size_t> empty_;  // slots of requests that have nothing to ask for
  unsigned in_flight_ = 0;
  bool is_bound_ = false;
  bool is_watching_ = false;  // an entry for the wake event is queued or in the kernel
  bool is_woken_ = false;
  int num_failures_ = 0;  // calls in a row that failed, without an entry taken or answered
};

}  // namespace flexkv
