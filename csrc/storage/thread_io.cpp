#include "storage/thread_io.h"

#include <algorithm>
#include <chrono>
#include <system_error>
#include <utility>

#include "transfer/native_thread.h"
#include "transfer/timeout.h"

namespace flexkv {
namespace {

// Moves all of it, or as much as can be; the error is in the transfer.
void run(DiskTransfer& transfer) {
  std::int64_t answer = 0;
  do {
    File& file = *transfer.file();
    answer = transfer.is_write() ? file.write(transfer.rest(), transfer.offset())
                                 : file.read(transfer.rest(), transfer.offset());
  } while (transfer.take(answer) == DiskTransfer::Step::more);
}

}  // namespace

ThreadIo::ThreadIo(unsigned depth, unsigned num_threads) : depth_(depth), ring_(depth) {
  results_.reserve(depth);
  start_threads(num_threads);
}

void ThreadIo::start_threads(unsigned num_threads) {
  threads_.reserve(num_threads);
  for (unsigned i = 0; i < num_threads; ++i) {
    try {
      threads_.push_back(start_native_thread("flexkv-disk", [this] { work(); }));
    } catch (const std::system_error&) {
      if (threads_.empty()) throw;
      return;  // what there is does the work, more slowly
    }
  }
}

// What was submitted and not started, is started: a caller that has handed over bytes to be written has them written.
ThreadIo::~ThreadIo() {
  start_queued();
  {
    const std::lock_guard lock(mutex_);
    is_ending_ = true;
  }
  to_do_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadIo::submit(DiskRequest request) {
  ++in_flight_;
  const std::lock_guard lock(mutex_);
  ring_[(first_ + num_started_ + num_queued_++) % ring_.size()] = DiskTransfer(std::move(request));
}

void ThreadIo::start_queued() {
  std::size_t num_new = 0;
  {
    const std::lock_guard lock(mutex_);
    num_new = std::exchange(num_queued_, 0);
    num_started_ += num_new;
  }
  for (std::size_t i = 0; i < std::min(num_new, threads_.size()); ++i) to_do_.notify_one();
}

void ThreadIo::wait(std::vector<DiskResult>& results, double timeout_s) {
  results.reserve(results.size() + in_flight_);
  start_queued();
  std::unique_lock lock(mutex_);
  // A wait of no time is one of 50 us and more: the kernel sets a timer, and gives it the thread's slack.
  if (timeout_s > 0) {
    const auto limit = std::chrono::duration_cast<std::chrono::nanoseconds>(bounded_timeout(timeout_s));
    done_.wait_for(lock, limit, [this] { return is_woken_ || !results_.empty(); });
  }
  is_woken_ = false;
  results.insert(results.end(), results_.begin(), results_.end());
  in_flight_ -= static_cast<unsigned>(results_.size());
  results_.clear();
}

void ThreadIo::wake() {
  const std::lock_guard lock(mutex_);
  is_woken_ = true;
  done_.notify_one();
}

void ThreadIo::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    to_do_.wait(lock, [this] { return is_ending_ || num_started_ > 0; });
    if (num_started_ == 0) return;  // it is ending, and all is done
    DiskTransfer transfer = std::move(ring_[first_]);
    first_ = (first_ + 1) % ring_.size();
    --num_started_;
    lock.unlock();
    if (!transfer.is_complete()) run(transfer);
    lock.lock();
    results_.push_back({transfer.tag(), transfer.error()});
    done_.notify_one();
  }
}

}  // namespace flexkv
