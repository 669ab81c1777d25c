// AgentLane: what becomes of a copy whose device fails.
#include <cerrno>
#include <stdexcept>
#include <thread>

#include "tests/check.h"
#include "transfer/agent_lane.h"
#include "transfer/host_pool.h"

using namespace flexkv;

namespace {

// Fails until it is told not to.
class BrokenCopier final : public BlockCopier {
 public:
  explicit BrokenCopier(const bool& is_broken) : is_broken_(is_broken) {}
  std::uint64_t copy(const HostShard& /*host*/, std::span<const std::int64_t> slots,
                     std::span<const std::int64_t> /*blocks*/, std::uint64_t /*after_step*/) override {
    if (is_broken_) throw std::runtime_error("cuLaunchKernel: ON_PURPOSE");
    return slots.size();
  }

 private:
  const bool& is_broken_;
};

protocol::AckBody run_one(AgentLane& lane, const std::shared_ptr<const PoolMapping>& pool, std::uint64_t op_id) {
  lane.submit({op_id, 0, {0}, {0}, pool});
  while (true) {
    const auto results = lane.take_results();
    if (!results.empty()) return results.front();
    std::this_thread::yield();
  }
}

void a_copy_that_fails_is_acknowledged_and_what_the_device_said_is_kept() {
  const HostPool pool({1, {4096}, 1, false});
  const protocol::PoolBody body = {pool.generation(), 1, pool.stride_bytes(0),
                                   static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(pool.base(0)))};
  const auto mapping = std::make_shared<const PoolMapping>(body, pool.fd(0), 4096, true);
  const WakeEvent wake;
  bool is_broken = true;
  AgentLane lane(std::make_unique<BrokenCopier>(is_broken), wake);
  std::thread thread([&lane] { lane.run(); });
  CHECK(lane.last_error().empty());
  const protocol::AckBody failed = run_one(lane, mapping, 1);
  CHECK(failed.op_id == 1 && failed.status == protocol::AckStatus::failed && failed.error == EIO);
  CHECK(lane.last_error() == "cuLaunchKernel: ON_PURPOSE" && lane.stats().failed == 1);
  is_broken = false;
  CHECK(run_one(lane, mapping, 2).status == protocol::AckStatus::done);
  lane.close();
  thread.join();
}

}  // namespace

int main() {
  a_copy_that_fails_is_acknowledged_and_what_the_device_said_is_kept();
  return 0;
}
