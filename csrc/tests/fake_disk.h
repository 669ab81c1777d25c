// FakeDisk: a DiskExecutor that keeps its ops until the test says how they ended; it moves nothing.
#pragma once
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "tests/check.h"
#include "transfer/disk_executor.h"

namespace flexkv {

class FakeDisk final : public DiskExecutor {
 public:
  explicit FakeDisk(std::int64_t num_slots = 16) : num_slots_(num_slots) {}

  [[nodiscard]] std::int64_t num_slots() const override { return num_slots_; }
  void start(std::shared_ptr<HostPool> pool, std::function<void(DiskAck)> done) override {
    if (refuses_) throw std::invalid_argument("the pool does not fit");
    pool_ = std::move(pool);
    done_ = std::move(done);
  }
  void submit(const OpSpec& op) override {
    {
      const std::lock_guard lock(mutex_);
      if (!stopped_) {
        ops_[op.op_id] = op;
        changed_.notify_all();
        return;
      }
    }
    DiskAck ack;
    ack.op_id = op.op_id;
    ack.cancelled = true;
    ack.error = "the double was stopped";
    done_(std::move(ack));
  }
  void cancel(std::int64_t op_id) override {
    const std::lock_guard lock(mutex_);
    cancelled_.insert(op_id);
    changed_.notify_all();
  }
  [[nodiscard]] bool stop(double timeout_s) override {
    std::unique_lock lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
    return changed_.wait_for(lock, std::chrono::duration<double>(timeout_s), [this] { return ops_.empty(); });
  }
  [[nodiscard]] bool is_stopped() const override {
    const std::lock_guard lock(mutex_);
    return stopped_;
  }

  // What follows is the test's.
  void refuse() { refuses_ = true; }
  OpSpec expect(std::int64_t op_id) {
    wait_for([&] { return ops_.contains(op_id); });
    const std::lock_guard lock(mutex_);
    return ops_.at(op_id);
  }
  void expect_cancel(std::int64_t op_id) {
    wait_for([&] { return cancelled_.contains(op_id); });
  }
  void expect_stop() {
    wait_for([&] { return stopped_; });
  }
  void end(DiskAck ack) {
    {
      const std::lock_guard lock(mutex_);
      CHECK(ops_.erase(ack.op_id) == 1);
      changed_.notify_all();
    }
    done_(std::move(ack));
  }
  void end(std::int64_t op_id) {
    DiskAck ack;
    ack.op_id = op_id;
    end(std::move(ack));
  }
  [[nodiscard]] std::size_t num_ops() const {
    const std::lock_guard lock(mutex_);
    return ops_.size();
  }

 private:
  template <typename Condition>
  void wait_for(Condition holds) {
    std::unique_lock lock(mutex_);
    CHECK(changed_.wait_for(lock, std::chrono::seconds(20), holds));
  }

  const std::int64_t num_slots_;
  bool refuses_ = false;
  std::shared_ptr<HostPool> pool_;
  std::function<void(DiskAck)> done_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::int64_t, OpSpec> ops_;
  std::set<std::int64_t> cancelled_;
  bool stopped_ = false;
};

}  // namespace flexkv
