// CopyAgent when the engine is late, lost, restarted, silent or lying, and in a forked child: no byte goes where it
// should not, and the agent lives on.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <utility>

#include "tests/agent_rig.h"
#include "tests/check.h"
#include "tests/fake_engine.h"
#include "transfer/copy_agent.h"
#include "transfer/copy_engine.h"

namespace flexkv {
namespace {

using protocol::AckStatus;
using protocol::Direction;
using protocol::FrameHeader;
using protocol::FrameType;

void a_lost_connection_is_made_again() {
  AgentRig rig;
  FakeEngine engine(rig.path);
  rig.agent->start();
  engine.serve(rig.pool);
  rig.agent->hold(true);
  const Bytes memory_before = rig.memory;
  engine.send_op(1, Direction::store, {5}, {2});
  engine.send_op(3, Direction::load, {7}, {9});
  barrier(engine);
  engine.close_connection();
  (void)engine.accept_agent();
  rig.agent->hold(false);
  const Bytes before = rig.pool_bytes();
  const FakePool next_pool(num_slots, stride_bytes);
  engine.send_pool(next_pool);
  (void)engine.expect(FrameType::mapped);
  engine.send_op(2, Direction::store, {5}, {2});
  engine.expect_ack(2, AckStatus::done);  // ops 1 and 3 were dropped with their connection
  engine.send_op(4, Direction::load, {8}, {10});
  engine.expect_ack(4, AckStatus::done);
  CHECK(rig.pool_bytes() == before);
  for (std::int64_t block = 0; block < num_blocks; ++block) {
    if (block == 10) continue;
    for (std::uint64_t p = 0; p < num_planes; ++p) {
      const std::uint64_t at = (p * num_blocks + static_cast<std::uint64_t>(block)) * chunk_bytes;
      CHECK(std::memcmp(rig.memory.data() + at, memory_before.data() + at, chunk_bytes) == 0);
    }
  }
  CHECK(Bytes(next_pool.slot(5), next_pool.slot(5) + slot_bytes) == rig.block(2));
  CHECK(rig.agent->stats().connections == 2);
}

void a_restarted_engine_is_found_again() {
  AgentRig rig;
  rig.agent->start();
  for (int round = 0; round < 3; ++round) {
    FakeEngine engine(rig.path);
    engine.serve(rig.pool);
    stores_then_loads(rig, engine, 1);
  }
}

void stop_does_not_wait_for_an_engine_that_does_not_read() {
  AgentRig rig;
  FakeEngine engine(rig.path);
  rig.agent->start();
  engine.serve(rig.pool);
  for (std::uint64_t op_id = 0; op_id < 30'000; ++op_id) engine.send_op(op_id, Direction::load, {-1}, {0});
  const auto begin = std::chrono::steady_clock::now();
  CHECK(rig.agent->stop(0.2));
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(10));
}

void a_refused_agent_stays_away() {
  AgentRig rig;
  FakeEngine engine(rig.path);
  rig.agent->start();
  (void)engine.accept_agent();
  const std::string reason = "rank 1 is alive in process 4711";
  engine.send(FrameType::refused, std::as_bytes(std::span(reason.data(), reason.size())));
  engine.expect_closed();
  CHECK(!rig.agent->wait_serving(stop_s));
  CHECK(rig.agent->state() == AgentState::refused);
  CHECK(rig.agent->refusal() == reason);
  CHECK(rig.agent->stop(stop_s));
  CHECK(rig.agent->state() == AgentState::refused);
}

// Each sends something an engine never sends; the agent must hang up, say why, and come back.
void garbage_from_the_engine_is_survived() {
  AgentRig rig;
  FakeEngine engine(rig.path);
  rig.agent->start();
  const auto hangs_up = [&](auto&& misbehave) {
    engine.serve(rig.pool);
    misbehave();
    while (engine.receive().has_value()) continue;
    CHECK(!rig.agent->last_error().empty());
  };
  const auto send_header = [&](std::uint32_t magic, std::uint16_t version, std::uint16_t type, std::uint32_t length) {
    const FrameHeader header = {magic, version, type, length};
    engine.send_raw(bytes_of(header));
  };
  hangs_up([&] { send_header(0xdeadbeef, 1, 5, 24); });
  hangs_up([&] { send_header(protocol::magic, 2, 5, 24); });
  hangs_up([&] { send_header(protocol::magic, 1, 7, 32); });  // an agent's frame
  hangs_up([&] { send_header(protocol::magic, 1, 5, protocol::max_body_bytes + 1); });
  hangs_up([&] { send_header(protocol::magic, 1, 2, 31); });
  hangs_up([&] {
    const protocol::OpBody op = {1, 0, 0, Direction::load, 2};  // says two pairs, has none
    engine.send(FrameType::op, bytes_of(op));
  });
  hangs_up([&] {
    const protocol::OpBody op = {1, 0, 0, static_cast<Direction>(9), 0};
    engine.send(FrameType::op, bytes_of(op));
  });
  hangs_up([&] {
    Bytes noise(300);
    fill_random(noise);
    engine.send_raw(noise);
  });
  hangs_up([&] { engine.send(FrameType::pool, bytes_of(rig.pool.body(false))); });  // no descriptor
  hangs_up([&] { engine.send_pool(rig.pool); });                                    // a second pool
  engine.serve(rig.pool);
  stores_then_loads(rig, engine, 1);
}

void a_pool_that_cannot_be_is_not_mapped() {
  AgentRig rig;
  FakeEngine engine(rig.path);
  rig.agent->start();
  const auto hangs_up = [&](const protocol::PoolBody& body, int fd) {
    (void)engine.accept_agent();
    engine.send_pool(body, fd);
    engine.expect_closed();
    engine.serve(rig.pool);
    engine.close_connection();
  };
  const FakePool unsealed(num_slots, stride_bytes, false);
  hangs_up(unsealed.body(false), unsealed.fd());
  hangs_up(unsealed.body(true), unsealed.fd());
  hangs_up({1, num_slots + 1, stride_bytes, 0}, rig.pool.fd());
  hangs_up({1, 0, stride_bytes, 0}, rig.pool.fd());
  hangs_up({1, 1, slot_bytes - 1, 0}, rig.pool.fd());
  hangs_up({1, 1ull << 60, stride_bytes, 0}, rig.pool.fd());
  hangs_up({1, ~0ull, stride_bytes, 0}, rig.pool.fd());
  engine.serve(rig.pool);
  stores_then_loads(rig, engine, 1);
}

void a_forked_child_leaves_the_agent_alone() {
  AgentRig rig;
  FakeEngine engine(rig.path);
  rig.agent->start();
  engine.serve(rig.pool);
  const pid_t child = ::fork();
  CHECK(child >= 0);
  if (child == 0) {
    rig.agent->record_step(3);
    rig.agent->hold(true);
    CHECK(rig.agent->state() == AgentState::stopped);
    CHECK(rig.agent->stats().connections == 0);
    CHECK(rig.agent->stop(stop_s));
    rig.agent.reset();
    ::_exit(0);
  }
  int status = 0;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  stores_then_loads(rig, engine, 1);
  engine.send_op(3, Direction::load, {0}, {0}, 3);  // the child's step was its own
  engine.send_op(4, Direction::load, {0}, {0});
  engine.expect_ack(4, AckStatus::done);
  rig.agent->record_step(3);
  engine.expect_ack(3, AckStatus::done);
}

// A CPU whose registrations count which of them were let go gently before they ended.
class CountingBackend final : public CopyBackend {
 public:
  explicit CountingBackend(const DeviceLayout& layout) : cpu_(layout, 1) {}

  std::unique_ptr<BlockCopier> make_copier(Direction direction) override { return cpu_.make_copier(direction); }
  std::unique_ptr<HostRegistration> use_host(const HostShard& host,
                                             std::function<void(const HostProgress&)> progress) override {
    (void)cpu_.use_host(host, std::move(progress));
    return std::make_unique<Counted>(*this);
  }
  void record_step(std::uint64_t /*step*/, std::uintptr_t /*stream*/) override {}
  void make_wait(std::uintptr_t /*stream*/, CopyMark /*mark*/) override {}

  // Returns when a registration has ended: whether it was let go gently.
  bool await_end() {
    std::unique_lock lock(mutex_);
    CHECK(changed_.wait_for(lock, std::chrono::seconds(60), [this] { return num_ended_ > 0; }));
    return num_gentle_ > 0;
  }

 private:
  struct Counted final : HostRegistration {
    explicit Counted(CountingBackend& backend_) : backend(backend_) {}
    ~Counted() override { backend.count(backend.num_ended_); }
    void let_go_gently(const std::stop_token& hurry) override {
      if (!hurry.stop_requested()) backend.count(backend.num_gentle_);
    }
    CountingBackend& backend;
  };

  void count(int& what) {
    const std::lock_guard lock(mutex_);
    ++what;
    changed_.notify_all();
  }

  CpuBackend cpu_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int num_ended_ = 0;   // guarded by mutex_
  int num_gentle_ = 0;  // guarded by mutex_
};

// An engine that computes on notices little of it; but a manager in its own process, or whoever stops the agent, waits.
void memory_of_a_manager_that_died_is_let_go_gently() {
  enum class End : std::uint8_t { manager_dies, manager_here_ends, agent_stops };
  for (const End end : {End::manager_dies, End::manager_here_ends, End::agent_stops}) {
    AgentRig rig;
    const auto backend = std::make_shared<CountingBackend>(rig.layout);
    AgentConfig config;
    config.socket_path = rig.path;
    config.tokens_per_block = 16;
    const bool is_elsewhere = end != End::manager_here_ends;
    const pid_t child = is_elsewhere ? ::fork() : -1;
    if (child == 0) {
      ::alarm(60);
      FakeEngine engine(rig.path);
      engine.serve(rig.pool);
      if (end == End::agent_stops) (void)engine.expect(FrameType::bye);
      ::_exit(0);
    }
    rig.agent = std::make_unique<CopyAgent>(config, rig.layout, backend);
    {
      std::optional<FakeEngine> engine;
      if (!is_elsewhere) engine.emplace(rig.path);
      rig.agent->start();
      if (engine) engine->serve(rig.pool);
      if (end == End::agent_stops) {
        CHECK(rig.agent->wait_serving(stop_s));
        CHECK(rig.agent->stop(stop_s));
      }
    }
    CHECK(backend->await_end() == (end == End::manager_dies));
    rig.agent.reset();
    if (is_elsewhere) CHECK(::waitpid(child, nullptr, 0) == child);
  }
}

}  // namespace
}  // namespace flexkv

int main() {
  using namespace flexkv;
  a_lost_connection_is_made_again();
  a_restarted_engine_is_found_again();
  stop_does_not_wait_for_an_engine_that_does_not_read();
  a_refused_agent_stays_away();
  garbage_from_the_engine_is_survived();
  a_pool_that_cannot_be_is_not_mapped();
  a_forked_child_leaves_the_agent_alone();
  memory_of_a_manager_that_died_is_let_go_gently();
  std::puts("test_copy_agent_faults: ok");
  return 0;
}
