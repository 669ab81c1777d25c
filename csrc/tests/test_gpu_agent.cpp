// A copy agent over a CUDA driver in software: what it tells of a device that hangs, and of memory that is refused.
#include <chrono>
#include <thread>

#include "cuda/gpu_backend.h"
#include "tests/agent_rig.h"
#include "tests/check.h"
#include "tests/fake_cuda.h"

using namespace flexkv;
using cuda::FakeCuda;

namespace {

// An agent whose copies are stuck as soon as they run.
class GpuAgent {
 public:
  explicit GpuAgent(FakeCuda& cuda) : cuda_(cuda) {
    AgentConfig config;
    config.socket_path = rig_.path;
    config.tokens_per_block = 16;
    config.stuck_after_s = 0;
    backend_ = std::make_shared<cuda::GpuBackend>(cuda.api(), rig_.layout);
    rig_.agent = std::make_unique<CopyAgent>(config, rig_.layout, backend_);
    rig_.agent->start();
    engine_.serve(rig_.pool, true);
    stream_ = cuda.make_stream();
  }
  ~GpuAgent() {
    rig_.agent.reset();
    backend_.reset();
    CHECK(cuda_.api().cuStreamDestroy(stream_) == cuda::success);
  }
  GpuAgent(const GpuAgent&) = delete;
  GpuAgent& operator=(const GpuAgent&) = delete;

  // The engine's step is computed only when the stream is let go.
  void record_held_step(std::uint64_t step) {
    cuda_.hold(stream_, true);
    cuda_.add_work(stream_, [] {});
    agent().record_step(step, reinterpret_cast<std::uintptr_t>(stream_));
  }
  void let_go() { cuda_.hold(stream_, false); }
  void await_stuck(bool AgentStats::* which) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!(agent().stats().*which)) {
      CHECK(std::chrono::steady_clock::now() < deadline);
      std::this_thread::yield();
    }
  }
  CopyAgent& agent() { return *rig_.agent; }
  FakeEngine& engine() { return engine_; }

 private:
  FakeCuda& cuda_;
  AgentRig rig_;
  std::shared_ptr<CopyBackend> backend_;
  FakeEngine engine_{rig_.path};
  cuda::Stream stream_ = nullptr;
};

void a_copy_that_hangs_on_the_device_shows_and_ends_only_with_it() {
  FakeCuda cuda(3);
  GpuAgent gpu(cuda);
  CHECK(!gpu.agent().stats().is_load_stuck && !gpu.agent().stats().is_store_stuck);
  gpu.record_held_step(1);
  gpu.engine().send_op(5, protocol::Direction::load, {0, 1}, {2, 3}, 1);
  gpu.await_stuck(&AgentStats::is_load_stuck);
  CHECK(!gpu.agent().stats().is_store_stuck && gpu.agent().stats().ops_outstanding == 1);
  gpu.engine().send_op(6, protocol::Direction::store, {4}, {5}, 0);  // the other lane serves on
  gpu.engine().expect_ack(6, protocol::AckStatus::done);
  gpu.engine().send_cancel(5);
  CHECK(!gpu.agent().stop(0.01) && gpu.agent().stats().is_load_stuck);
  gpu.let_go();
  gpu.engine().expect_ack(5, protocol::AckStatus::done);
  CHECK(gpu.agent().stop(stop_s) && !gpu.agent().stats().is_load_stuck);
}

void a_store_that_waits_for_its_step_shows_too() {
  FakeCuda cuda(4);
  GpuAgent gpu(cuda);
  gpu.record_held_step(1);
  gpu.engine().send_op(5, protocol::Direction::store, {0, 1}, {2, 3}, 1);
  gpu.await_stuck(&AgentStats::is_store_stuck);
  gpu.let_go();
  gpu.engine().expect_ack(5, protocol::AckStatus::done);
}

void host_memory_that_is_refused_is_counted_and_the_agent_serves() {
  constexpr std::uint64_t pool_bytes = num_slots * stride_bytes;
  for (const bool fails : {false, true}) {
    FakeCuda cuda(5);
    if (fails) cuda.fail("cuMemHostRegister", 1);
    GpuAgent gpu(cuda);
    const AgentStats stats = gpu.agent().stats();
    CHECK(stats.is_registration_complete && stats.registered_bytes == (fails ? 0 : pool_bytes));
    CHECK(stats.unregistered_bytes == (fails ? pool_bytes : 0));
    CHECK(stats.registration_error == (fails ? "cuMemHostRegister: A_FAULT" : ""));
    gpu.engine().send_op(1, protocol::Direction::load, {0}, {1});
    gpu.engine().expect_ack(1, protocol::AckStatus::done);
    CHECK(gpu.agent().stop(stop_s));
    CHECK(gpu.agent().stats().registered_bytes == 0 && cuda.num_registered() == 0);
  }
}

}  // namespace

int main() {
  a_copy_that_hangs_on_the_device_shows_and_ends_only_with_it();
  a_store_that_waits_for_its_step_shows_too();
  host_memory_that_is_refused_is_counted_and_the_agent_serves();
  std::puts("test_gpu_agent: ok");
  return 0;
}
