// AgentLane: what becomes of a copy whose device fails, or does not end.
#include <cerrno>
#include <chrono>
#include <future>
#include <stdexcept>
#include <thread>

#include "tests/check.h"
#include "transfer/agent_lane.h"
#include "transfer/host_pool.h"

using namespace flexkv;

namespace {

using namespace std::chrono_literals;

// Does what the test says.
class Copier final : public BlockCopier {
 public:
  explicit Copier(const std::function<void()>& action) : action_(action) {}
  std::uint64_t copy(const HostShard& /*host*/, std::span<const std::int64_t> slots,
                     std::span<const std::int64_t> /*blocks*/, std::uint64_t /*after_step*/) override {
    action_();
    return slots.size();
  }

 private:
  const std::function<void()>& action_;
};

// A lane at work.
class Rig {
 public:
  explicit Rig(std::chrono::nanoseconds stuck_after)
      : lane_(std::make_unique<Copier>(action), wake_, gate_, stuck_after) {
    const protocol::PoolBody body = {pool_.generation(), 1, pool_.stride_bytes(0),
                                     static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(pool_.base(0)))};
    mapping_ = std::make_shared<const PoolMapping>(body, pool_.fd(0), 4096, true);
    thread_ = std::thread([this] { lane_.run(); });
  }
  ~Rig() {
    lane_.close();
    thread_.join();
  }
  Rig(const Rig&) = delete;
  Rig& operator=(const Rig&) = delete;

  void submit(std::uint64_t op_id) { lane_.submit({op_id, 0, {0}, {0}, mapping_, 0}); }
  protocol::AckBody result() {
    while (true) {
      const auto results = lane_.take_results();
      if (!results.empty()) return results.front();
      std::this_thread::yield();
    }
  }
  AgentLane& lane() { return lane_; }

  std::function<void()> action = [] {};  // changed only while nothing runs

 private:
  const HostPool pool_{{1, {4096}, 1, false}};
  std::shared_ptr<const PoolMapping> mapping_;
  const WakeEvent wake_;
  LayerGate gate_;
  AgentLane lane_;
  std::thread thread_;
};

void a_copy_that_fails_is_acknowledged_and_what_the_device_said_is_kept() {
  Rig rig(1h);
  CHECK(rig.lane().last_error().empty());
  rig.action = [] { throw std::runtime_error("cuLaunchKernel: ON_PURPOSE"); };
  rig.submit(1);
  const protocol::AckBody failed = rig.result();
  CHECK(failed.op_id == 1 && failed.status == protocol::AckStatus::failed && failed.error == EIO);
  CHECK(rig.lane().last_error() == "cuLaunchKernel: ON_PURPOSE" && rig.lane().stats().failed == 1);
  rig.action = [] {};
  rig.submit(2);
  CHECK(rig.result().status == protocol::AckStatus::done);
}

void a_copy_that_does_not_end_shows_and_is_not_acknowledged() {
  for (const auto stuck_after : {std::chrono::nanoseconds(0), std::chrono::nanoseconds(1h)}) {
    Rig rig(stuck_after);
    std::promise<void> runs;
    std::promise<void> ends;
    rig.action = [&] {
      runs.set_value();
      CHECK(ends.get_future().wait_for(60s) == std::future_status::ready);
    };
    CHECK(!rig.lane().stats().is_stuck);
    rig.submit(1);
    rig.submit(2);
    CHECK(runs.get_future().wait_for(60s) == std::future_status::ready);
    rig.lane().cancel(1);  // too late
    rig.lane().cancel(2);
    CHECK(rig.lane().stats().is_stuck == (stuck_after == 0s) && rig.lane().running());
    const protocol::AckBody queued = rig.result();
    CHECK(queued.op_id == 2 && queued.status == protocol::AckStatus::cancelled);
    CHECK(rig.lane().take_results().empty());
    ends.set_value();
    const protocol::AckBody done = rig.result();
    CHECK(done.op_id == 1 && done.status == protocol::AckStatus::done && !rig.lane().stats().is_stuck);
  }
}

}  // namespace

int main() {
  a_copy_that_fails_is_acknowledged_and_what_the_device_said_is_kept();
  a_copy_that_does_not_end_shows_and_is_not_acknowledged();
  return 0;
}
