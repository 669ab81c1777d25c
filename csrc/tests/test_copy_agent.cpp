// CopyAgent against a fake engine: whatever the engine does, bytes are right, every op is acknowledged once, and the
// agent lives on. Tests wait for frames, never for time.
#include <sys/wait.h>

#include <chrono>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <thread>

#include "tests/check.h"
#include "tests/fake_engine.h"
#include "tests/temp_dir.h"
#include "transfer/copy_agent.h"

namespace {

using flexkv::AgentConfig;
using flexkv::AgentState;
using flexkv::CopyAgent;
using flexkv::DeviceLayout;
using flexkv::FakeEngine;
using flexkv::FakePool;
using flexkv::Plane;
using flexkv::TempDir;
using flexkv::protocol::AckStatus;
using flexkv::protocol::Direction;
using flexkv::protocol::FrameHeader;
using flexkv::protocol::FrameType;
namespace protocol = flexkv::protocol;

using Bytes = std::vector<std::byte>;
using Ids = std::vector<std::int64_t>;

constexpr std::int64_t num_blocks = 32;
constexpr std::int64_t num_slots = 48;
constexpr std::uint64_t chunk_bytes = 1500;
constexpr std::uint64_t num_planes = 4;
constexpr std::uint64_t slot_bytes = num_planes * chunk_bytes;
constexpr std::uint64_t stride_bytes = 8192;
constexpr double stop_s = 20.0;

void fill_random(std::span<std::byte> bytes) {
  static std::mt19937_64 generator{7};
  for (std::byte& b : bytes) b = static_cast<std::byte>(generator());
}

// An agent over its own device memory, and the place where it looks for the engine.
struct Rig {
  TempDir dir;
  std::string path = dir.file("engine.sock");
  Bytes memory = Bytes(num_planes * num_blocks * chunk_bytes);
  DeviceLayout layout;
  FakePool pool{num_slots, stride_bytes};
  std::unique_ptr<CopyAgent> agent;

  Rig() {
    layout.num_blocks = num_blocks;
    for (std::uint64_t p = 0; p < num_planes; ++p) {
      layout.planes.push_back(
          {reinterpret_cast<std::uint64_t>(memory.data()) + p * num_blocks * chunk_bytes, chunk_bytes, chunk_bytes});
    }
    fill_random(memory);
    fill_random(pool.bytes());
    AgentConfig config;
    config.socket_path = path;
    config.rank = 1;
    config.num_ranks = 3;
    config.tokens_per_block = 16;
    config.layout_tag = "test-layout";
    config.copy_threads = 2;
    agent = std::make_unique<CopyAgent>(config, layout);
  }

  [[nodiscard]] Bytes block(std::int64_t block) const {
    Bytes bytes;
    for (std::uint64_t p = 0; p < num_planes; ++p) {
      const auto begin = memory.begin() + static_cast<std::ptrdiff_t>(
                                              (p * num_blocks + static_cast<std::uint64_t>(block)) * chunk_bytes);
      bytes.insert(bytes.end(), begin, begin + static_cast<std::ptrdiff_t>(chunk_bytes));
    }
    return bytes;
  }
  [[nodiscard]] Bytes slot(std::int64_t slot) const { return {pool.slot(slot), pool.slot(slot) + slot_bytes}; }
  [[nodiscard]] Bytes pool_bytes() const { return {pool.bytes().begin(), pool.bytes().end()}; }
};

// A frame whose answer shows that everything sent before it has been read.
void barrier(FakeEngine& engine) {
  engine.send_op(999'999, Direction::load, {num_slots}, {0});
  engine.expect_ack(999'999, AckStatus::failed);
}

void stores_then_loads(Rig& rig, FakeEngine& engine, std::uint64_t first_op_id) {
  const Ids blocks{3, 31, 0, 7, 8, 9};
  const Ids slots{47, 0, 12, 13, 14, 40};
  const Bytes pool_before = rig.pool_bytes();
  Bytes expected_pool = pool_before;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const Bytes block = rig.block(blocks[i]);
    std::memcpy(expected_pool.data() + static_cast<std::uint64_t>(slots[i]) * stride_bytes, block.data(), slot_bytes);
  }
  engine.send_op(first_op_id, Direction::store, slots, blocks);
  CHECK(engine.expect_ack(first_op_id, AckStatus::done).bytes == slots.size() * slot_bytes);
  CHECK(rig.pool_bytes() == expected_pool);

  const Bytes stored = rig.memory;
  fill_random(rig.memory);  // poison: only the loaded blocks may come back
  Bytes poisoned = rig.memory;
  engine.send_op(first_op_id + 1, Direction::load, slots, blocks);
  CHECK(engine.expect_ack(first_op_id + 1, AckStatus::done).bytes == slots.size() * slot_bytes);
  for (const std::int64_t block : blocks) {
    for (std::uint64_t p = 0; p < num_planes; ++p) {
      const std::uint64_t at = (p * num_blocks + static_cast<std::uint64_t>(block)) * chunk_bytes;
      std::memcpy(poisoned.data() + at, stored.data() + at, chunk_bytes);
    }
  }
  CHECK(rig.memory == poisoned);
  CHECK(rig.pool_bytes() == expected_pool);
}

void a_late_engine_is_found_and_served() {
  Rig rig;
  CHECK(rig.agent->state() == AgentState::idle);
  rig.agent->start();
  CHECK(!rig.agent->wait_serving(0.05));
  CHECK(rig.agent->state() == AgentState::connecting);
  FakeEngine engine(rig.path);
  std::string tag;
  const protocol::RegisterBody body = engine.accept_agent(&tag);
  CHECK(body.rank == 1 && body.num_ranks == 3 && body.num_blocks == num_blocks);
  CHECK(body.slot_bytes == slot_bytes && body.tokens_per_block == 16 && tag == "test-layout");
  engine.send_pool(rig.pool);
  (void)engine.expect(FrameType::mapped);
  CHECK(rig.agent->wait_serving(stop_s));
  stores_then_loads(rig, engine, 10);
  const flexkv::AgentStats stats = rig.agent->stats();
  CHECK(stats.loads_done == 1 && stats.stores_done == 1 && stats.connections == 1 && stats.ops_outstanding == 0);
  CHECK(stats.bytes_loaded == 6 * slot_bytes && stats.bytes_stored == 6 * slot_bytes);
  CHECK(rig.agent->stop(stop_s));
  (void)engine.expect(FrameType::bye);
  engine.expect_closed();
  CHECK(rig.agent->state() == AgentState::stopped);
  CHECK(rig.agent->stop(stop_s));
}

void the_engines_mapping_is_shared_in_one_process() {
  Rig rig;
  FakeEngine engine(rig.path);
  rig.agent->start();
  engine.serve(rig.pool, true);
  stores_then_loads(rig, engine, 1);
}

void a_step_ticket_holds_a_store_and_no_other_op() {
  Rig rig;
  FakeEngine engine(rig.path);
  rig.agent->start();
  engine.serve(rig.pool);
  const Bytes untouched = rig.slot(5);
  engine.send_op(1, Direction::store, {5}, {2}, 7);
  engine.send_op(2, Direction::store, {6}, {2});
  engine.expect_ack(2, AckStatus::done);
  rig.agent->record_step(6);
  engine.send_op(3, Direction::store, {7}, {2}, 6);
  engine.expect_ack(3, AckStatus::done);
  CHECK(rig.slot(5) == untouched);
  rig.agent->record_step(9);
  rig.agent->record_step(4);  // never back
  engine.expect_ack(1, AckStatus::done);
  CHECK(rig.slot(5) == rig.block(2));
  engine.send_op(4, Direction::load, {5}, {3}, 9);
  engine.expect_ack(4, AckStatus::done);
  CHECK(rig.block(3) == rig.block(2));
}

void a_cancelled_op_never_starts() {
  Rig rig;
  FakeEngine engine(rig.path);
  rig.agent->start();
  engine.serve(rig.pool);
  rig.agent->hold(true);
  const Bytes before = rig.pool_bytes();
  engine.send_op(1, Direction::store, {5}, {2});
  engine.send_op(2, Direction::store, {6}, {3});
  engine.send_cancel(1);
  engine.expect_ack(1, AckStatus::cancelled);
  engine.send_cancel(1);    // again: no second acknowledgement
  engine.send_cancel(777);  // unknown
  barrier(engine);
  CHECK(rig.agent->stats().ops_outstanding == 1);
  CHECK(rig.pool_bytes() == before);
  rig.agent->hold(false);
  engine.expect_ack(2, AckStatus::done);
  engine.send_cancel(2);  // too late
  barrier(engine);
  CHECK(rig.agent->stats().ops_cancelled == 1);
}

void bad_ids_fail_and_touch_nothing() {
  Rig rig;
  FakeEngine engine(rig.path);
  rig.agent->start();
  (void)engine.accept_agent();
  engine.send_op(1, Direction::load, {0}, {0});  // no pool yet
  engine.expect_ack(1, AckStatus::failed);
  engine.send_pool(rig.pool);
  (void)engine.expect(FrameType::mapped);
  const Bytes pool_before = rig.pool_bytes();
  const Bytes memory_before = rig.memory;
  constexpr std::int64_t lowest = std::numeric_limits<std::int64_t>::min();
  constexpr std::int64_t highest = std::numeric_limits<std::int64_t>::max();
  std::uint64_t op_id = 2;
  for (const Direction direction : {Direction::load, Direction::store}) {
    for (const std::int64_t slot : {std::int64_t{-1}, num_slots, lowest, highest}) {
      engine.send_op(op_id, direction, {1, slot, 2}, {1, 2, 3});
      engine.expect_ack(op_id++, AckStatus::failed);
    }
    for (const std::int64_t block : {std::int64_t{-1}, num_blocks, lowest, highest}) {
      engine.send_op(op_id, direction, {1, 2, 3}, {1, 2, block});
      engine.expect_ack(op_id++, AckStatus::failed);
    }
  }
  CHECK(rig.pool_bytes() == pool_before);
  CHECK(rig.memory == memory_before);
  engine.send_op(op_id, Direction::load, {}, {});  // nothing to do is no error
  engine.expect_ack(op_id, AckStatus::done);
  CHECK(rig.agent->stats().ops_failed == 17);
}

void a_lost_connection_is_made_again() {
  Rig rig;
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
  Rig rig;
  rig.agent->start();
  for (int round = 0; round < 3; ++round) {
    FakeEngine engine(rig.path);
    engine.serve(rig.pool);
    stores_then_loads(rig, engine, 1);
  }
}

void stop_acknowledges_what_is_queued() {
  Rig rig;
  FakeEngine engine(rig.path);
  rig.agent->start();
  engine.serve(rig.pool);
  rig.agent->hold(true);
  const Bytes before = rig.pool_bytes();
  for (std::uint64_t op_id = 1; op_id <= 3; ++op_id) engine.send_op(op_id, Direction::store, {5}, {2}, op_id);
  engine.send_op(4, Direction::load, {5}, {2});
  barrier(engine);
  CHECK(rig.agent->stop(stop_s));
  std::uint64_t acknowledged = 0;
  for (int i = 0; i < 4; ++i) {
    const protocol::AckBody ack = engine.expect_ack();
    CHECK(ack.status == AckStatus::cancelled);
    acknowledged |= 1ull << ack.op_id;
  }
  CHECK(acknowledged == 0b11110);
  (void)engine.expect(FrameType::bye);
  engine.expect_closed();
  CHECK(rig.pool_bytes() == before);
}

void stop_amid_a_stream_of_copies_ends_every_op_once() {
  Rig rig;
  FakeEngine engine(rig.path);
  rig.agent->start();
  engine.serve(rig.pool);
  Ids ids(num_blocks);
  std::iota(ids.begin(), ids.end(), 0);
  constexpr std::uint64_t count = 300;
  constexpr std::uint64_t last = count - 1;  // its ids are bad: acknowledged once all before it have been read
  for (std::uint64_t op_id = 0; op_id < last; ++op_id) engine.send_op(op_id, Direction::store, ids, ids);
  engine.send_op(last, Direction::store, {-1}, {0});
  std::vector<int> acks(count);
  const auto take_ack = [&](const flexkv::Frame& frame) {
    const auto ack = flexkv::read_body<protocol::AckBody>(frame.body);
    CHECK(ack.op_id < count && (ack.status == AckStatus::failed) == (ack.op_id == last));
    ++acks[ack.op_id];
  };
  while (acks[last] == 0) take_ack(engine.expect(FrameType::ack));
  CHECK(rig.agent->stop(stop_s));
  flexkv::Frame frame = *engine.receive();
  for (; frame.type == FrameType::ack; frame = *engine.receive()) take_ack(frame);
  CHECK(frame.type == FrameType::bye);
  for (const int n : acks) CHECK(n == 1);
}

void stop_does_not_wait_for_an_engine_that_does_not_read() {
  Rig rig;
  FakeEngine engine(rig.path);
  rig.agent->start();
  engine.serve(rig.pool);
  for (std::uint64_t op_id = 0; op_id < 30'000; ++op_id) engine.send_op(op_id, Direction::load, {-1}, {0});
  const auto begin = std::chrono::steady_clock::now();
  CHECK(rig.agent->stop(0.2));
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(10));
}

void stop_without_an_engine_returns() {
  Rig never_started;
  CHECK(never_started.agent->stop(stop_s));
  CHECK(never_started.agent->state() == AgentState::stopped);
  CHECK_THROWS(never_started.agent->start(), std::logic_error);
  Rig alone;
  alone.agent->start();
  CHECK_THROWS(alone.agent->start(), std::logic_error);
  CHECK(alone.agent->stop(stop_s));
  CHECK(alone.agent->state() == AgentState::stopped);
}

void a_refused_agent_stays_away() {
  Rig rig;
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
  Rig rig;
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
    engine.send_raw(flexkv::bytes_of(header));
  };
  hangs_up([&] { send_header(0xdeadbeef, 1, 5, 24); });
  hangs_up([&] { send_header(protocol::magic, 2, 5, 24); });
  hangs_up([&] { send_header(protocol::magic, 1, 7, 32); });  // an agent's frame
  hangs_up([&] { send_header(protocol::magic, 1, 5, protocol::max_body_bytes + 1); });
  hangs_up([&] { send_header(protocol::magic, 1, 2, 31); });
  hangs_up([&] {
    const protocol::OpBody op = {1, 0, Direction::load, 2};  // says two pairs, has none
    engine.send(FrameType::op, flexkv::bytes_of(op));
  });
  hangs_up([&] {
    const protocol::OpBody op = {1, 0, static_cast<Direction>(9), 0};
    engine.send(FrameType::op, flexkv::bytes_of(op));
  });
  hangs_up([&] {
    Bytes noise(300);
    fill_random(noise);
    engine.send_raw(noise);
  });
  hangs_up([&] { engine.send(FrameType::pool, flexkv::bytes_of(rig.pool.body(false))); });  // no descriptor
  hangs_up([&] { engine.send_pool(rig.pool); });                                            // a second pool
  engine.serve(rig.pool);
  stores_then_loads(rig, engine, 1);
}

void a_pool_that_cannot_be_is_not_mapped() {
  Rig rig;
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

void many_ops_from_one_engine_all_end_once() {
  Rig rig;
  FakeEngine engine(rig.path);
  rig.agent->start();
  engine.serve(rig.pool);
  constexpr std::uint64_t count = 2000;
  for (std::uint64_t op_id = 0; op_id < count; ++op_id) {
    // Loads read slots 0..7 into blocks 0..7, stores write slots 8..15 from blocks 8..15: no op disturbs another.
    const bool load = op_id % 2 == 0;
    const std::int64_t id = static_cast<std::int64_t>(op_id / 2 % 8) + (load ? 0 : 8);
    engine.send_op(op_id, load ? Direction::load : Direction::store, {id}, {id}, op_id / 100);
    if (op_id % 3 == 0) engine.send_cancel(op_id);
    if (op_id % 100 == 0) rig.agent->record_step(op_id / 100);
  }
  rig.agent->record_step(count);
  std::vector<int> acks(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    const protocol::AckBody ack = engine.expect_ack();
    CHECK(ack.op_id < count);
    CHECK(ack.status == AckStatus::done || (ack.status == AckStatus::cancelled && ack.op_id % 3 == 0));
    ++acks[ack.op_id];
  }
  for (const int n : acks) CHECK(n == 1);
  for (std::int64_t i = 0; i < 16; ++i) CHECK(rig.slot(i) == rig.block(i));
  CHECK(rig.agent->stats().ops_outstanding == 0);
}

void a_forked_child_leaves_the_agent_alone() {
  Rig rig;
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

void bad_configs_are_rejected() {
  Rig rig;
  const auto construct = [&](auto&& change) {
    AgentConfig config = {"/some/engine.sock", 0, 1, 16, "", 1};
    DeviceLayout layout = rig.layout;
    change(config, layout);
    return CopyAgent(config, layout).state();
  };
  CHECK(construct([](AgentConfig&, DeviceLayout&) {}) == AgentState::idle);
  CHECK_THROWS(construct([](AgentConfig& c, DeviceLayout&) { c.socket_path = ""; }), std::invalid_argument);
  CHECK_THROWS(construct([](AgentConfig& c, DeviceLayout&) { c.socket_path = std::string(108, 'x'); }),
               std::invalid_argument);
  CHECK_THROWS(construct([](AgentConfig& c, DeviceLayout&) { c.rank = 1; }), std::invalid_argument);
  CHECK_THROWS(construct([](AgentConfig& c, DeviceLayout&) { c.num_ranks = 0; }), std::invalid_argument);
  CHECK_THROWS(construct([](AgentConfig& c, DeviceLayout&) { c.tokens_per_block = 0; }), std::invalid_argument);
  CHECK_THROWS(construct([](AgentConfig& c, DeviceLayout&) { c.layout_tag = std::string(4097, 'x'); }),
               std::invalid_argument);
  CHECK_THROWS(construct([](AgentConfig& c, DeviceLayout&) { c.copy_threads = 0; }), std::invalid_argument);
  CHECK_THROWS(construct([](AgentConfig&, DeviceLayout& l) { l.planes.clear(); }), std::invalid_argument);
}

}  // namespace

int main() {
  bad_configs_are_rejected();
  a_late_engine_is_found_and_served();
  the_engines_mapping_is_shared_in_one_process();
  a_step_ticket_holds_a_store_and_no_other_op();
  a_cancelled_op_never_starts();
  bad_ids_fail_and_touch_nothing();
  a_lost_connection_is_made_again();
  a_restarted_engine_is_found_again();
  stop_acknowledges_what_is_queued();
  stop_amid_a_stream_of_copies_ends_every_op_once();
  stop_does_not_wait_for_an_engine_that_does_not_read();
  stop_without_an_engine_returns();
  a_refused_agent_stays_away();
  garbage_from_the_engine_is_survived();
  a_pool_that_cannot_be_is_not_mapped();
  many_ops_from_one_engine_all_end_once();
  a_forked_child_leaves_the_agent_alone();
  std::puts("test_copy_agent: ok");
  return 0;
}
