// FakeDisk: a DiskExecutor that keeps its ops until the test says how they ended; it moves nothing. It checks what it
// may rely on.
#pragma once
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "transfer/disk_executor.h"

namespace flexkv {

class FakeDisk final : public DiskExecutor {
 public:
  explicit FakeDisk(std::int64_t num_slots = 16) : num_slots_(num_slots) {}

  [[nodiscard]] std::int64_t num_slots() const override { return num_slots_; }
  void start(std::shared_ptr<HostPool> pool, std::function<void(DiskAck)> done) override;
  void submit(const OpSpec& op) override;
  void cancel(std::int64_t op_id) override;
  [[nodiscard]] bool stop(double timeout_s) override;
  [[nodiscard]] bool is_stopped() const override;

  // What follows is the test's.
  void refuse() { refuses_ = true; }
  OpSpec expect(std::int64_t op_id);
  void expect_cancel(std::int64_t op_id);
  void expect_stop();
  void end(DiskAck ack);
  void end(std::int64_t op_id);
  // Ends well what it has, and from now on what comes.
  void end_all();
  [[nodiscard]] std::size_t num_ops() const;
  [[nodiscard]] std::vector<std::int64_t> held() const;
  [[nodiscard]] bool has(std::int64_t op_id) const;
  // All that it was ever given.
  [[nodiscard]] std::set<std::int64_t> taken() const;

 private:
  void check(const OpSpec& op) const;

  void wait_for(const std::function<bool()>& holds);

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
