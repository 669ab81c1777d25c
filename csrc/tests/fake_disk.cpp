#include "tests/fake_disk.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

#include "tests/check.h"
#include "transfer/disk_executor.h"

namespace flexkv {

void FakeDisk::start(std::shared_ptr<HostPool> pool, std::function<void(DiskAck)> done) {
  if (refuses_) throw std::invalid_argument("the pool does not fit");
  CHECK(pool && !done_);
  pool_ = std::move(pool);
  done_ = std::move(done);
}

void FakeDisk::submit(const OpSpec& op) {
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

void FakeDisk::cancel(std::int64_t op_id) {
  const std::lock_guard lock(mutex_);
  cancelled_.insert(op_id);
  changed_.notify_all();
}

bool FakeDisk::stop(double timeout_s) {
  std::unique_lock lock(mutex_);
  stopped_ = true;
  changed_.notify_all();
  return changed_.wait_for(lock, std::chrono::duration<double>(timeout_s), [this] { return ops_.empty(); });
}

bool FakeDisk::is_stopped() const {
  const std::lock_guard lock(mutex_);
  return stopped_;
}

OpSpec FakeDisk::expect(std::int64_t op_id) {
  wait_for([&] { return ops_.contains(op_id); });
  const std::lock_guard lock(mutex_);
  return ops_.at(op_id);
}

void FakeDisk::expect_cancel(std::int64_t op_id) {
  wait_for([&] { return cancelled_.contains(op_id); });
}

void FakeDisk::expect_stop() {
  wait_for([&] { return stopped_; });
}

void FakeDisk::end(DiskAck ack) {
  {
    const std::lock_guard lock(mutex_);
    CHECK(ops_.erase(ack.op_id) == 1);
    changed_.notify_all();
  }
  done_(std::move(ack));
}

void FakeDisk::end(std::int64_t op_id) {
  DiskAck ack;
  ack.op_id = op_id;
  end(std::move(ack));
}

void FakeDisk::end_all() {
  {
    const std::lock_guard lock(mutex_);
    ends_at_once_ = true;
  }
  for (const std::int64_t op_id : held()) end(op_id);
}

std::size_t FakeDisk::num_ops() const {
  const std::lock_guard lock(mutex_);
  return ops_.size();
}

std::vector<std::int64_t> FakeDisk::held() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::int64_t> ids;
  for (const auto& [op_id, op] : ops_) ids.push_back(op_id);
  return ids;
}

bool FakeDisk::has(std::int64_t op_id) const {
  const std::lock_guard lock(mutex_);
  return ops_.contains(op_id);
}

std::set<std::int64_t> FakeDisk::taken() const {
  const std::lock_guard lock(mutex_);
  return taken_;
}

void FakeDisk::check(const OpSpec& op) const {
  CHECK(done_ && (op.type == OpType::disk2h || op.type == OpType::h2disk));
  const bool is_read = op.type == OpType::disk2h;
  const std::size_t count = op.src.size();
  CHECK(count > 0 && op.dst.size() == count && op.chain.keys.size() == count);
  CHECK(op.chain.parents.size() == (is_read ? 0 : count));
  for (const std::int64_t slot : is_read ? op.dst : op.src) CHECK(slot >= 0 && slot < pool_->num_slots());
  for (const std::int64_t slot : is_read ? op.src : op.dst) CHECK(slot >= 0 && slot < num_slots_);
}

void FakeDisk::wait_for(const std::function<bool()>& holds) {
  std::unique_lock lock(mutex_);
  CHECK(changed_.wait_for(lock, std::chrono::seconds(20), holds));
}

}  // namespace flexkv
