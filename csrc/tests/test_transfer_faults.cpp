// TransferEngine against agents that die, stall, lie, flood or send garbage: their ops fail and are released when that
// is safe, the engine serves on.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <random>

#include "tests/check.h"
#include "tests/engine_kit.h"

using namespace flexkv;
using protocol::AckStatus;
using protocol::FrameType;

namespace {

std::vector<std::byte> raw_frame(std::uint32_t magic, std::uint16_t version, std::uint16_t type, std::uint32_t length,
                                 std::size_t body_bytes) {
  const protocol::FrameHeader header = {magic, version, type, length};
  std::vector<std::byte> bytes(sizeof(header) + body_bytes);
  std::memcpy(bytes.data(), &header, sizeof(header));
  return bytes;
}

std::vector<std::byte> raw_frame(FrameType type, std::uint32_t length, std::size_t body_bytes) {
  return raw_frame(protocol::magic, protocol::version, static_cast<std::uint16_t>(type), length, body_bytes);
}

// The engine still does its work: a new agent takes the rank, an op goes there and back.
void expect_alive(EngineKit& kit, FakeAgent& agent, std::int64_t id) {
  kit.submit(id, {load(id)});
  CHECK(agent.expect_op_id() == static_cast<std::uint64_t>(id));
  agent.ack(static_cast<std::uint64_t>(id));
  CHECK(kit.next(3).at(2) == "released " + std::to_string(id) + " done");
}

// The rank of a dead or gone agent is taken by a new one.
FakeAgent replacement(EngineKit& kit) {
  FakeAgent agent(kit.path(), FakeRank{});
  (void)agent.serve_pool();
  return agent;
}

void a_killed_agent_fails_its_ops_and_releases_them() {
  EngineKit kit;
  ChildAgent child(kit.path());
  begin_serving(kit, child);
  kit.submit(1, {load(10), load(11, {10})});
  kit.submit(2, {load(20)}, 0.05);
  child.take_op();
  CHECK((kit.next(2) == Texts{"op 20 timed_out", "status 2 timed_out"}));
  child.kill();
  const auto before = std::chrono::steady_clock::now();
  Texts texts = kit.next(5);
  CHECK(std::chrono::steady_clock::now() - before < std::chrono::seconds(1));
  std::sort(texts.begin(), texts.end());
  CHECK((texts ==
         Texts{"op 10 failed", "op 11 cancelled", "released 1 failed", "released 2 timed_out", "status 1 failed"}));
  CHECK(!kit.engine().ranks().at(0).connected);
  kit.submit(3, {load(30)});  // fails at once: the rank is missing
  CHECK((kit.next(3) == Texts{"status 3 failed", "op 30 cancelled", "released 3 failed"}));
  CHECK(kit.engine().slots_available() == 10);
  FakeAgent next = replacement(kit);
}

void a_stopped_agent_blocks_nobody() {
  EngineKit kit;
  ChildAgent child(kit.path());
  kit.start();
  child.connect();
  kit.give_pool(1000);
  child.take_pool();
  CHECK(kit.engine().wait_slots(1000, patience_s));
  child.stop_process();
  constexpr std::int64_t num_graphs = 900;
  for (std::int64_t i = 0; i < num_graphs; ++i) {
    OpSpec op = {i, OpType::h2d, std::vector<std::int64_t>(2000, i), std::vector<std::int64_t>(2000, 5), 0, {}};
    kit.submit(i, {std::move(op)}, 0.2);  // 29 MB in all, far more than the socket and the writer take
  }
  std::size_t decided = 0;
  while (decided < num_graphs) {
    const std::string text = kit.next(1).at(0);
    decided += text.rfind("status", 0) == 0 && text.find("timed_out") != std::string::npos ? 1 : 0;
  }
  CHECK(kit.engine().num_graphs() < num_graphs / 2);  // what never left this process is released already
  CHECK(kit.engine().num_graphs() > 0);
  child.kill();
  while (kit.engine().num_graphs() > 0) CHECK(kit.engine().wait(patience_s) && !kit.engine().poll(100).empty());
}

void an_agent_that_reads_late_gets_everything() {
  EngineKit kit;
  kit.start();
  FakeAgent agent = kit.serving_agent(1000);
  constexpr std::int64_t num_graphs = 300;
  for (std::int64_t i = 0; i < num_graphs; ++i) {
    kit.submit(i, {{i, OpType::h2d, std::vector<std::int64_t>(3000, i), std::vector<std::int64_t>(3000, 5), 0, {}}});
  }
  for (std::int64_t i = 0; i < num_graphs; ++i) {
    const FakeAgent::Op op = agent.expect_op();
    CHECK(op.body.op_id == static_cast<std::uint64_t>(i) && op.slots == std::vector<std::int64_t>(3000, i));
    agent.ack(op.body.op_id);
  }
  CHECK(kit.next(3 * num_graphs).size() == 3 * num_graphs);
}

void a_lost_connection_of_a_living_process_is_quarantine_until_it_registers_again() {
  EngineKit kit;
  ChildAgent child(kit.path());
  begin_serving(kit, child);
  kit.submit(1, {load(10)});
  child.take_op();
  child.close_socket();
  CHECK((kit.next(2) == Texts{"op 10 failed", "status 1 failed"}));
  FakeAgent intruder(kit.path(), FakeRank{});
  intruder.expect_refused("in hand");
  CHECK(kit.quiet() && kit.engine().num_graphs() == 1);
  child.connect();
  CHECK(kit.next(1) == Texts{"released 1 failed"});
  child.take_pool();
  FakeAgent second(kit.path(), FakeRank{});
  second.expect_refused("lives");
  child.kill();
  FakeAgent third(kit.path(), FakeRank{});  // the death is seen at the registration at the latest
  (void)third.serve_pool();
}

void bye_frees_the_rank_at_once() {
  EngineKit kit;
  kit.start();
  FakeAgent agent = kit.serving_agent();
  kit.submit(1, {load(10)});
  agent.bye();  // without having read the op: it will never touch it
  CHECK((kit.next(3) == Texts{"op 10 failed", "status 1 failed", "released 1 failed"}));
  FakeAgent next = replacement(kit);
}

void an_agent_of_this_process_is_released_when_it_closes() {
  EngineKit kit;
  kit.start();
  FakeAgent agent = kit.serving_agent();
  kit.submit(1, {load(10)});
  CHECK(agent.expect_op_id() == 10);
  agent.ack(77);  // breaks the protocol
  CHECK((kit.next(2) == Texts{"op 10 failed", "status 1 failed"}));
  CHECK(kit.engine().protocol_errors() == 1);
  CHECK(kit.engine().last_protocol_error().find("ACK of op 77") != std::string::npos);
  agent.expect_closed();  // the engine says that it is over, but waits
  CHECK(kit.quiet() && kit.engine().num_graphs() == 1);
  FakeAgent early(kit.path(), FakeRank{});  // another one of this process
  early.expect_refused("in hand");
  agent.close();
  CHECK(kit.next(1) == Texts{"released 1 failed"});
  FakeAgent next = replacement(kit);
}

void registrations_must_agree() {
  EngineKit kit(2);
  kit.start();
  const auto refuse = [&](const FakeRank& rank, const std::string& part) {
    FakeAgent agent(kit.path(), rank);
    agent.expect_refused(part);
  };
  refuse({2, 2, 100, 4096, 16, "a"}, "out of range");
  refuse({0, 1, 100, 4096, 16, "a"}, "expects 1 ranks");
  refuse({0, 2, 0, 4096, 16, "a"}, "num_blocks");
  refuse({0, 2, 100, 0, 16, "a"}, "slot_bytes");
  refuse({0, 2, 100, 4096, 17, "a"}, "power of two");
  refuse({0, 2, 100, 4096, 0, "a"}, "power of two");
  FakeAgent first(kit.path(), {0, 2, 100, 4096, 16, "a"});
  refuse({1, 2, 100, 4096, 32, "b"}, "tokens_per_block");
  refuse({0, 2, 100, 4096, 16, "a"}, "lives");
  first.bye();
  first.expect_closed();
  refuse({0, 2, 100, 8192, 16, "a"}, "slot_bytes is 8192");
  refuse({0, 2, 100, 4096, 16, "other"}, "layout tag");
  CHECK(kit.engine().protocol_errors() == 10);
  CHECK(kit.engine().num_device_blocks() == 0);
  FakeAgent again(kit.path(), {0, 2, 50, 4096, 16, "a"});
  FakeAgent other(kit.path(), {1, 2, 100, 9000, 16, "b"});
  CHECK(kit.engine().wait_ranks(patience_s));
  CHECK(kit.engine().ranks().at(0).num_blocks == 50);
  CHECK(kit.engine().num_device_blocks() == 50);
}

void a_worker_that_starts_anew_gets_no_op_before_it_has_mapped_the_slots() {
  EngineKit kit;
  kit.start();
  FakeAgent agent = kit.serving_agent();
  agent.bye();
  agent.expect_closed();
  FakeAgent next(kit.path(), FakeRank{});
  (void)next.expect(FrameType::pool);
  kit.submit(1, {load(10)});
  CHECK((kit.next(3) == Texts{"op 10 failed", "status 1 failed", "released 1 failed"}));
  CHECK(kit.last_error().find("not mapped") != std::string::npos);
  CHECK(kit.engine().slots_available() == 10);  // never shrinks
}

void frames_that_break_a_rule_disconnect_their_sender_only() {
  EngineKit kit;
  kit.start();
  FakeAgent good = kit.serving_agent();
  const std::array<std::vector<std::byte>, 14> bad = {
      raw_frame(0x12345678, protocol::version, 1, 0, 0),
      raw_frame(protocol::magic, 99, 1, 0, 0),
      raw_frame(protocol::magic, protocol::version, 0, 0, 0),
      raw_frame(protocol::magic, protocol::version, 999, 0, 0),
      raw_frame(FrameType::register_rank, 0xffffffff, 0),
      raw_frame(FrameType::register_rank, 31, 31),
      raw_frame(FrameType::register_rank, 40, 40),  // the tag's length says 0
      raw_frame(FrameType::register_rank, 32 + protocol::max_tag_bytes + 1, 0),
      raw_frame(FrameType::op, 24, 24),
      raw_frame(FrameType::pool, 32, 32),
      raw_frame(FrameType::mapped, 8, 8),  // before REGISTER
      raw_frame(FrameType::bye, 0, 0),
      raw_frame(FrameType::ack, 31, 31),
      raw_frame(FrameType::mapped, 9, 9),
  };
  for (const std::vector<std::byte>& bytes : bad) {
    const std::uint64_t before = kit.engine().protocol_errors();
    FakeAgent hostile(kit.path());
    CHECK(hostile.send_raw(bytes));
    hostile.expect_closed();
    CHECK(kit.engine().protocol_errors() == before + 1);
  }
  FakeAgent half(kit.path());
  CHECK(half.send_raw(std::span(bad[5]).first(5)));
  half.close();
  expect_alive(kit, good, 50);
}

void a_registered_agent_that_lies_is_disconnected() {
  EngineKit kit;
  kit.start();
  FakeAgent agent = kit.serving_agent();
  const auto lie = [&](auto&& tell) {
    tell();
    agent.expect_closed();
    agent = FakeAgent(kit.path());
    agent.register_rank(FakeRank{});
    (void)agent.serve_pool();
  };
  lie([&] { agent.register_rank(FakeRank{}); });
  lie([&] { agent.send_mapped(11); });
  lie([&] { agent.send_mapped(9); });  // fewer than before
  lie([&] { agent.ack(5); });
  lie([&] { agent.ack(1, static_cast<AckStatus>(9)); });
  lie([&] { agent.send(FrameType::cancel, bytes_of(protocol::CancelBody{1})); });
  lie([&] { CHECK(agent.send_raw(raw_frame(FrameType::ack, 8, 8))); });
  CHECK(kit.engine().protocol_errors() == 7);
  CHECK(kit.engine().wait_slots(10, patience_s));
}

void descriptors_from_agents_are_not_taken() {
  EngineKit kit;
  kit.start();
  FakeAgent hostile(kit.path());
  const Fd file(::memfd_create("hostile", MFD_CLOEXEC));
  FrameWriter writer;
  writer.push(FrameType::bye, {}, {}, {}, file.get());
  CHECK(writer.flush(hostile.socket_fd()) == IoStatus::ok);
  hostile.expect_closed();
  CHECK(kit.engine().last_protocol_error().find("descriptors") != std::string::npos);
}

void random_bytes_harm_nobody() {
  EngineKit kit;
  kit.start();
  FakeAgent good = kit.serving_agent();
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    FakeAgent hostile(kit.path());
    std::vector<std::byte> bytes(random() % 300);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    if (round % 2 == 0) {  // a good header in front
      const auto header =
          raw_frame(static_cast<FrameType>(random() % 10), static_cast<std::uint32_t>(random() % 64), 0);
      bytes.insert(bytes.begin(), header.begin(), header.end());
    }
    if (!bytes.empty()) (void)hostile.send_raw(bytes);
    if (round % 3 == 0) continue;  // and away
    hostile.close();
  }
  expect_alive(kit, good, 50);
}

void idle_connections_do_not_pile_up() {
  EngineKit kit;
  kit.start();
  FakeAgent oldest(kit.path());
  std::vector<FakeAgent> crowd;
  for (int i = 0; i < 64; ++i) crowd.emplace_back(kit.path());
  oldest.expect_closed();
  FakeAgent good(kit.path(), FakeRank{});
  CHECK(kit.engine().wait_ranks(patience_s));
}

void without_descriptors_the_listener_pauses_and_goes_on() {
  EngineKit kit;
  kit.start();
  rlimit limit = {};
  CHECK(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  const rlimit few = {64, limit.rlim_max};
  CHECK(::setrlimit(RLIMIT_NOFILE, &few) == 0);
  std::vector<Fd> fillers;
  for (Fd filler(::dup(0)); filler.valid(); filler = Fd(::dup(0))) fillers.push_back(std::move(filler));
  CHECK(errno == EMFILE);
  fillers.pop_back();
  FakeAgent agent(kit.path(), FakeRank{});  // the last descriptor is its own: the engine has none to accept it
  CHECK(!kit.engine().wait_ranks(0.02));
  CHECK(kit.engine().last_protocol_error().find("accept") != std::string::npos);
  CHECK(kit.engine().protocol_errors() < 5);  // no spinning
  fillers.clear();
  CHECK(kit.engine().wait_ranks(patience_s));
  CHECK(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

void a_flood_of_small_frames_does_not_starve_others() {
  EngineKit kit(2);
  kit.start();
  FakeAgent noisy(kit.path(), {0, 2, 100, 4096, 16, "a"});
  FakeAgent good(kit.path(), {1, 2, 100, 4096, 16, "b"});
  kit.give_pool();
  (void)noisy.serve_pool();
  (void)good.serve_pool();
  CHECK(kit.engine().wait_slots(10, patience_s));
  kit.submit(1, {load(10)});
  FrameWriter writer;
  for (int i = 0; i < 100000; ++i) writer.push(FrameType::mapped, bytes_of(protocol::MappedBody{10}));
  IoStatus status = writer.flush(noisy.socket_fd());
  CHECK(good.expect_op_id() == 10 && noisy.expect_op_id() == 10);
  good.ack(10);
  while (status == IoStatus::would_block) {
    pollfd entry = {noisy.socket_fd(), POLLOUT, 0};
    CHECK(::poll(&entry, 1, 20'000) == 1);
    status = writer.flush(noisy.socket_fd());
  }
  noisy.ack(10);
  CHECK((kit.next(3) == Texts{"op 10 done", "status 1 done", "released 1 done"}));
}

}  // namespace

int main() {
  a_killed_agent_fails_its_ops_and_releases_them();
  a_stopped_agent_blocks_nobody();
  a_lost_connection_of_a_living_process_is_quarantine_until_it_registers_again();
  an_agent_that_reads_late_gets_everything();
  bye_frees_the_rank_at_once();
  an_agent_of_this_process_is_released_when_it_closes();
  registrations_must_agree();
  a_worker_that_starts_anew_gets_no_op_before_it_has_mapped_the_slots();
  frames_that_break_a_rule_disconnect_their_sender_only();
  a_registered_agent_that_lies_is_disconnected();
  descriptors_from_agents_are_not_taken();
  random_bytes_harm_nobody();
  idle_connections_do_not_pile_up();
  without_descriptors_the_listener_pauses_and_goes_on();
  a_flood_of_small_frames_does_not_starve_others();
  std::puts("test_transfer_faults: ok");
  return 0;
}
