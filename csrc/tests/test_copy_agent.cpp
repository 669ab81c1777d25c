// CopyAgent against a fake engine: bytes are right, every op is acknowledged once, tickets and cancels hold, and stop
// leaves nothing behind. Tests wait for frames, never for time.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>

#include "tests/agent_rig.h"
#include "tests/check.h"
#include "tests/fake_engine.h"
#include "transfer/copy_agent.h"
#include "transfer/timeout.h"

namespace flexkv {
namespace {

using protocol::AckStatus;
using protocol::Direction;
using protocol::FrameType;

void a_late_engine_is_found_and_served() {
  AgentRig rig;
  CHECK(rig.agent->state() == AgentState::idle);
  rig.agent->start();
  CHECK(!rig.agent->wait_serving(0.05));
  CHECK(rig.agent->state() == AgentState::connecting);
  CHECK(rig.agent->last_error().find(rig.path) != std::string::npos);
  FakeEngine engine(rig.path);
  std::string tag;
  const protocol::RegisterBody body = engine.accept_agent(&tag);
  CHECK(body.rank == 1 && body.num_ranks == 3 && body.num_blocks == num_blocks);
  CHECK(body.slot_bytes == slot_bytes && body.tokens_per_block == 16 && tag == "test-layout");
  engine.send_pool(rig.pool);
  (void)engine.expect(FrameType::mapped);
  CHECK(rig.agent->wait_serving(stop_s));
  stores_then_loads(rig, engine, 10);
  const AgentStats stats = rig.agent->stats();
  CHECK(stats.loads_done == 1 && stats.stores_done == 1 && stats.connections == 1 && stats.ops_outstanding == 0);
  CHECK(stats.bytes_loaded == 6 * slot_bytes && stats.bytes_stored == 6 * slot_bytes);
  CHECK(rig.agent->stop(stop_s));
  (void)engine.expect(FrameType::bye);
  engine.expect_closed();
  CHECK(rig.agent->state() == AgentState::stopped);
  CHECK(rig.agent->stop(stop_s));
}

void the_engines_mapping_is_shared_in_one_process() {
  AgentRig rig;
  FakeEngine engine(rig.path);
  rig.agent->start();
  engine.serve(rig.pool, true);
  stores_then_loads(rig, engine, 1);
}

void a_step_ticket_holds_a_store_and_no_other_op() {
  AgentRig rig;
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
  AgentRig rig;
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
  AgentRig rig;
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

void stop_acknowledges_what_is_queued() {
  AgentRig rig;
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
  AgentRig rig;
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
  const auto take_ack = [&](const Frame& frame) {
    const auto ack = read_body<protocol::AckBody>(frame.body);
    CHECK(ack.op_id < count && (ack.status == AckStatus::failed) == (ack.op_id == last));
    ++acks[ack.op_id];
  };
  while (acks[last] == 0) take_ack(engine.expect(FrameType::ack));
  CHECK(rig.agent->stop(stop_s));
  Frame frame = *engine.receive();
  for (; frame.type == FrameType::ack; frame = *engine.receive()) take_ack(frame);
  CHECK(frame.type == FrameType::bye);
  for (const int n : acks) CHECK(n == 1);
}

void stop_without_an_engine_returns() {
  AgentRig never_started;
  CHECK(never_started.agent->stop(stop_s));
  CHECK(never_started.agent->state() == AgentState::stopped);
  CHECK_THROWS(never_started.agent->start(), std::logic_error);
  AgentRig alone;
  alone.agent->start();
  CHECK_THROWS(alone.agent->start(), std::logic_error);
  CHECK(alone.agent->stop(stop_s));
  CHECK(alone.agent->state() == AgentState::stopped);
}

void a_senseless_timeout_is_no_time_or_a_long_one() {
  constexpr double infinite = std::numeric_limits<double>::infinity();
  constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
  static_assert(bounded_timeout(2.5).count() == 2.5 && bounded_timeout(-0.0).count() == 0);
  static_assert(bounded_timeout(infinite).count() == max_timeout_s);
  AgentRig rig;
  for (const double timeout_s : {not_a_number, -1.0, -infinite}) CHECK(!rig.agent->wait_serving(timeout_s));
  FakeEngine engine(rig.path);
  rig.agent->start();
  engine.serve(rig.pool);
  for (const double timeout_s : {1e300, infinite}) CHECK(rig.agent->wait_serving(timeout_s));
  for (const double timeout_s : {not_a_number, -1.0}) (void)rig.agent->stop(timeout_s);
  CHECK(rig.agent->stop(infinite));
  for (const double timeout_s : {not_a_number, infinite}) CHECK(!rig.agent->wait_serving(timeout_s));
}

void many_ops_from_one_engine_all_end_once() {
  AgentRig rig;
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

void bad_configs_are_rejected() {
  AgentRig rig;
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

void run_all() {
  bad_configs_are_rejected();
  a_late_engine_is_found_and_served();
  the_engines_mapping_is_shared_in_one_process();
  a_step_ticket_holds_a_store_and_no_other_op();
  a_cancelled_op_never_starts();
  bad_ids_fail_and_touch_nothing();
  stop_acknowledges_what_is_queued();
  stop_amid_a_stream_of_copies_ends_every_op_once();
  stop_without_an_engine_returns();
  a_senseless_timeout_is_no_time_or_a_long_one();
  many_ops_from_one_engine_all_end_once();
}

}  // namespace
}  // namespace flexkv

int main() {
  flexkv::run_all();
  std::puts("test_copy_agent: ok");
  return 0;
}
