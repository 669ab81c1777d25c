// FakeDisk: a DiskExecutor that keeps its ops until the test says how they ended; it moves nothing. It checks what it
// may rely on.
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
    CHECK(pool && !done_);
    pool_ = std::move(pool);
    done_ = std::move(done);
  }
  void submit(const OpSpec& op) override {
    check(op);
    DiskAck ack;
    ack.op_id = op.op_id;
    {
      const std::lock_guard lock(mutex_);
      CHECK(taken_.insert(op.op_id).second);
      if (stopped_) {
        ack.cancelled = true;
        ack.error = "the double was stopped";
      } else if (!ends_at_once_) {
        ops_[op.op_id] = op;
        changed_.notify_all();
        return;
      }
    }
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
  // Ends well what it has, and from now on what comes.
  void end_all() {
    {
      const std::lock_guard lock(mutex_);
      ends_at_once_ = true;
    }
    for (const std::int64_t op_id : held()) end(op_id);
  }
  [[nodiscard]] std::size_t num_ops() const {
    const std::lock_guard lock(mutex_);
    return ops_.size();
  }
  [[nodiscard]] std::vector<std::int64_t> held() const {
    const std::lock_guard lock(mutex_);
    std::vector<std::int64_t> ids;
    for (const auto& [op_id, op] : ops_) ids.push_back(op_id);
    return ids;
  }
  [[nodiscard]] bool has(std::int64_t op_id) const {
    const std::lock_guard lock(mutex_);
    return ops_.contains(op_id);
  }
  // All that it was ever given.
  [[nodiscard]] std::set<std::int64_t> taken() const {
    const std::lock_guard lock(mutex_);
    return taken_;
  }

 private:
  void check(const OpSpec& op) const {
    CHECK(done_ && (op.type == OpType::disk2h || op.type == OpType::h2disk));
    const bool is_read = op.type == OpType::disk2h;
    const std::size_t count = op.src.size();
    CHECK(count > 0 && op.dst.size() == count && op.chain.keys.size() == count);
    CHECK(op.chain.parents.size() == (is_read ? 0 : count));
    for (const std::int64_t slot : is_read ? op.dst : op.src) CHECK(slot >= 0 && slot < pool_->num_slots());
    for (const std::int64_t slot : is_read ? op.src : op.dst) CHECK(slot >= 0 && slot < num_slots_);
  }

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
  std::set<std::int64_t> taken_;
  std::set<std::int64_t> cancelled_;
  bool ends_at_once_ = false;
  bool stopped_ = false;
};

}  // namespace flexkv
