// ThreadIo: the disk engine for where io_uring is refused, and for files that have no descriptor: a few threads that
// read and write. The contract is DiskIo's; at most `num_threads` requests move at a time.
#pragma once
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "storage/disk_io.h"
#include "storage/disk_transfer.h"

namespace flexkv {

class ThreadIo final : public DiskIo {
 public:
  // Throws std::system_error when no thread can be had; fewer than wanted are enough.
  ThreadIo(unsigned depth, unsigned num_threads);
  ~ThreadIo() override;
  ThreadIo(const ThreadIo&) = delete;
  ThreadIo& operator=(const ThreadIo&) = delete;

  [[nodiscard]] const char* name() const override { return "threads"; }
  [[nodiscard]] unsigned depth() const override { return depth_; }
  [[nodiscard]] unsigned in_flight() const override { return in_flight_; }
  [[nodiscard]] bool add_buffer(const iovec& /*memory*/) override { return false; }
  void submit(DiskRequest request) override;
  void wait(std::vector<DiskResult>& results, double timeout_s) override;
  void wake() override;

 private:
  void start_threads(unsigned num_threads);
  void work();
  void start_queued();

  const unsigned depth_;
  unsigned in_flight_ = 0;  // of the caller's thread

  std::mutex mutex_;               // guards all below but threads_
  std::condition_variable to_do_;  // the threads wait here
  std::condition_variable done_;   // the caller waits here
  // A ring: from first_ on num_started_ that the threads take, then num_queued_ that were submitted only. It and
  // results_ have room for all, so that nothing can fail on the way to a result.
  std::vector<DiskTransfer> ring_;
  std::size_t first_ = 0;
  std::size_t num_started_ = 0;
  std::size_t num_queued_ = 0;
  std::vector<DiskResult> results_;
  bool is_woken_ = false;
  bool is_ending_ = false;

  std::vector<std::thread> threads_;
};

}  // namespace flexkv
