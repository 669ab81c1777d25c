// TransferEngine with well-behaved fake agents: ops, ranks, timeouts, cancel, predecessors, stop, argument errors.
// Agents that die, lie, stall or flood are in test_transfer_faults.cpp.
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <stdexcept>
#include <system_error>
#include <thread>

#include "tests/check.h"
#include "tests/engine_kit.h"

using namespace flexkv;
using protocol::AckStatus;

namespace {

bool readable(int fd) {
  pollfd entry = {fd, POLLIN, 0};
  return ::poll(&entry, 1, 0) == 1;
}

void ops_reach_the_agent_and_completions_come_back() {
  EngineKit kit;
  kit.start();
  CHECK(kit.engine().ranks().empty() && kit.engine().slots_available() == 0);
  FakeAgent agent(kit.path(), {0, 1, 100, 4096, 16, "layout"});
  kit.give_pool();
  const protocol::PoolBody pool = agent.serve_pool();
  CHECK(pool.num_slots == 10 && pool.stride_bytes == 4096 && pool.generation != 0 && pool.base_address != 0);
  const RankInfo info = kit.engine().ranks().at(0);
  CHECK(info.connected && info.pid == ::getpid() && info.layout_tag == "layout" && info.slot_bytes == 4096);

  CHECK(kit.engine().wait_slots(10, patience_s) && kit.engine().slots_available() == 10);
  CHECK(!kit.engine().wait_slots(11, 0));
  kit.submit(1, {load(10), store(11, {10})});
  const FakeAgent::Op first = agent.expect_op();
  CHECK(first.body.op_id == 10 && first.body.direction == protocol::Direction::load && first.body.after_step == 0);
  CHECK((first.slots == std::vector<std::int64_t>{1, 2} && first.blocks == std::vector<std::int64_t>{3, 4}));
  CHECK(kit.quiet() && !readable(kit.engine().event_fd()) && kit.engine().num_graphs() == 1);
  agent.ack(10);
  const FakeAgent::Op second = agent.expect_op();
  CHECK(second.body.op_id == 11 && second.body.direction == protocol::Direction::store && second.body.after_step == 7);
  CHECK((second.slots == std::vector<std::int64_t>{1, 2} && second.blocks == std::vector<std::int64_t>{3, 4}));
  CHECK(kit.engine().wait(patience_s) && readable(kit.engine().event_fd()));
  const Completion completion = kit.engine().poll(1).at(0);
  CHECK(completion.op_id == 10 && completion.type == OpType::h2d && completion.num_blocks == 2);
  CHECK(completion.bytes == 4096 && completion.seconds > 0.9e-6 && completion.seconds < 1.1e-6);
  CHECK(!readable(kit.engine().event_fd()) && !kit.engine().wait(0));
  agent.ack(11);
  CHECK((kit.next(3) == Texts{"op 11 done", "status 1 done", "released 1 done"}));
  CHECK(kit.engine().num_graphs() == 0 && kit.engine().protocol_errors() == 0);
  agent.bye();
  agent.expect_closed();
}

void acknowledgements_may_come_in_any_order() {
  EngineKit kit;
  kit.start();
  FakeAgent agent = kit.serving_agent();
  kit.submit(1, {load(10), load(11)});
  kit.submit(2, {load(20)});
  for (const std::uint64_t id : {10u, 11u, 20u}) CHECK(agent.expect_op_id() == id);
  for (const std::uint64_t id : {20u, 11u, 10u}) agent.ack(id);
  CHECK((kit.next(7) == Texts{"op 20 done", "status 2 done", "released 2 done", "op 11 done", "op 10 done",
                              "status 1 done", "released 1 done"}));
}

void an_op_goes_to_every_rank() {
  EngineKit kit(2);
  kit.start();
  FakeAgent one(kit.path(), {1, 2, 100, 4096, 16, "b"});
  CHECK(!kit.engine().wait_ranks(0));
  FakeAgent zero(kit.path(), {0, 2, 100, 4096, 16, "a"});
  kit.give_pool();
  const protocol::PoolBody pool_of_zero = zero.serve_pool();
  CHECK(pool_of_zero.base_address != one.serve_pool().base_address);
  CHECK(kit.engine().wait_slots(10, patience_s));
  kit.submit(1, {load(10)});
  CHECK(zero.expect_op_id() == 10 && one.expect_op_id() == 10);
  zero.ack(10);
  one.ack(10, AckStatus::failed, EIO);
  CHECK((kit.next(3) == Texts{"op 10 failed", "status 1 failed", "released 1 failed"}));
  CHECK(kit.last_error().find("rank 1") != std::string::npos);
}

void a_timeout_decides_and_a_late_acknowledgement_releases() {
  EngineKit kit;
  kit.start();
  FakeAgent agent = kit.serving_agent();
  kit.submit(1, {load(10), load(11, {10})}, 0.05);
  CHECK(agent.expect_op_id() == 10);
  CHECK((kit.next(3) == Texts{"op 10 timed_out", "status 1 timed_out", "op 11 cancelled"}));
  CHECK(agent.expect_cancel() == 10 && kit.engine().num_graphs() == 1 && kit.quiet());
  agent.ack(10);
  CHECK(kit.next(1) == Texts{"released 1 timed_out"});
  kit.submit(2, {load(20)});
  CHECK(agent.expect_op_id() == 20);
}

void cancel_reaches_the_agent() {
  EngineKit kit;
  kit.start();
  FakeAgent agent = kit.serving_agent();
  kit.submit(1, {load(10), load(11, {10})});
  CHECK(agent.expect_op_id() == 10);
  kit.engine().cancel(1);
  kit.engine().cancel(99);
  CHECK((kit.next(2) == Texts{"status 1 cancelled", "op 11 cancelled"}));
  CHECK(agent.expect_cancel() == 10);
  agent.ack(10, AckStatus::cancelled);
  CHECK((kit.next(2) == Texts{"op 10 cancelled", "released 1 cancelled"}));
}

void graphs_join_the_loads_of_others() {
  EngineKit kit;
  kit.start();
  FakeAgent agent = kit.serving_agent();
  kit.submit(1, {load(10)});
  kit.submit(2, {load(20, {10})});
  CHECK(agent.expect_op_id() == 10);
  agent.ack(10);
  CHECK(agent.expect_op_id() == 20);
  kit.submit(3, {load(30, {10})});  // graph 1 is released, but nobody has polled that yet
  CHECK(agent.expect_op_id() == 30);
  CHECK((kit.next(3) == Texts{"op 10 done", "status 1 done", "released 1 done"}));
  CHECK_THROWS(kit.submit(4, {load(40, {10})}), std::invalid_argument);
  agent.ack(20, AckStatus::failed);
  agent.ack(30);
  CHECK((kit.next(6) == Texts{"op 20 failed", "status 2 failed", "released 2 failed", "op 30 done", "status 3 done",
                              "released 3 done"}));
  kit.submit(5, {load(50)});
  kit.submit(6, {load(60, {50}), load(61)});
  CHECK(agent.expect_op_id() == 50 && agent.expect_op_id() == 61);
  agent.ack(50, AckStatus::failed);
  CHECK((kit.next(5) ==
         Texts{"op 50 failed", "status 5 failed", "released 5 failed", "op 60 cancelled", "status 6 failed"}));
  agent.ack(61);
  CHECK((kit.next(2) == Texts{"op 61 done", "released 6 failed"}));
}

void stop_drains_what_runs() {
  EngineKit kit;
  kit.start();
  FakeAgent agent = kit.serving_agent();
  kit.submit(1, {load(10), load(11, {10})});
  CHECK(agent.expect_op_id() == 10);
  std::thread other([&] {
    CHECK(agent.expect_cancel() == 10);
    agent.ack(10);
    agent.expect_closed();
    agent.close();
  });
  CHECK(kit.engine().stop(patience_s));
  other.join();
  CHECK((kit.next(4) == Texts{"status 1 cancelled", "op 11 cancelled", "op 10 done", "released 1 cancelled"}));
  CHECK(kit.engine().stop(0) && !kit.engine().wait(patience_s));
  CHECK_THROWS(kit.submit(2, {}), std::runtime_error);
  struct stat info = {};
  CHECK(::lstat(kit.path().c_str(), &info) != 0);  // the socket's file is gone
}

void stop_is_bounded_when_an_agent_keeps_silent() {
  EngineKit kit;
  ChildAgent child(kit.path());
  begin_serving(kit, child);
  kit.submit(1, {load(10)});
  child.take_op();
  CHECK(!kit.engine().stop(0.05));
  CHECK((kit.next(2) == Texts{"status 1 cancelled", "op 10 failed"}) && kit.quiet());
  CHECK(kit.engine().num_graphs() == 1);  // its slots stay in quarantine
}

void bad_graphs_are_refused_and_change_nothing() {
  EngineKit kit;
  CHECK_THROWS(kit.submit(1, {}), std::runtime_error);  // not started
  kit.start();
  CHECK_THROWS(kit.engine().start(), std::runtime_error);
  CHECK_THROWS(kit.submit(1, {load(10)}), std::runtime_error);  // no pool
  CHECK_THROWS(kit.engine().set_pool(std::make_shared<HostPool>(HostPoolConfig{1, {4096}, 1, false})),
               std::runtime_error);
  kit.submit(1, {});
  CHECK((kit.next(2) == Texts{"status 1 done", "released 1 done"}));
  FakeAgent agent(kit.path(), FakeRank{});
  CHECK(kit.engine().wait_ranks(patience_s));
  CHECK_THROWS(kit.engine().set_pool(nullptr), std::invalid_argument);
  CHECK_THROWS(kit.engine().set_pool(std::make_shared<HostPool>(HostPoolConfig{1, {1}, 1, false})),
               std::invalid_argument);
  CHECK_THROWS(kit.engine().set_pool(std::make_shared<HostPool>(HostPoolConfig{1, {4096, 1}, 1, false})),
               std::invalid_argument);
  kit.give_pool();
  CHECK_THROWS(kit.give_pool(), std::runtime_error);
  (void)agent.serve_pool();
  const auto refuse = [&](OpSpec op) { CHECK_THROWS(kit.submit(2, {std::move(op)}), std::invalid_argument); };
  refuse({20, OpType::h2d, {10}, {0}, 0, {}});  // slot
  refuse({20, OpType::h2d, {-1}, {0}, 0, {}});
  refuse({20, OpType::h2d, {0}, {100}, 0, {}});  // block
  refuse({20, OpType::d2h, {0}, {10}, 0, {}});
  refuse({20, OpType::h2d, {0}, {}, 0, {}});
  refuse({20, OpType::h2disk, {0}, {0}, 0, {}});
  CHECK(kit.engine().num_graphs() == 0 && kit.quiet());
  for (std::int64_t graph = 10; graph < 1010; ++graph) kit.submit(graph, {});
  CHECK_THROWS(kit.submit(5000, {}), std::runtime_error);  // the limit counts what is not polled
  CHECK(kit.next(2000).size() == 2000);
  kit.submit(5000, {});
  CHECK_THROWS(TransferEngine({"", 1, 1}), std::invalid_argument);
  CHECK_THROWS(TransferEngine({"x", 0, 1}), std::invalid_argument);
}

void the_socket_is_private_and_not_shared_by_two_engines() {
  EngineKit kit;
  kit.start();
  struct stat info = {};
  CHECK(::lstat(kit.path().c_str(), &info) == 0 && (info.st_mode & 0777) == 0600);
  const std::string directory = kit.path().substr(0, kit.path().rfind('/'));
  CHECK(::lstat(directory.c_str(), &info) == 0 && (info.st_mode & 0777) == 0700);
  TransferEngine second({kit.path(), 1, 10});
  try {
    second.start();
    CHECK(false);
  } catch (const std::system_error& error) {
    CHECK(error.code().value() == EADDRINUSE);
  }
  CHECK(kit.engine().stop(0));
  second.start();
  CHECK(::chmod(directory.c_str(), 0777) == 0);
  TransferEngine third({directory + "/other", 1, 10});
  CHECK_THROWS(third.start(), std::system_error);
  TransferEngine fourth({"/" + std::string(200, 'x'), 1, 10});
  CHECK_THROWS(fourth.start(), std::system_error);
}

void a_stale_socket_is_replaced_and_another_file_is_not() {
  EngineKit kit;
  const pid_t child = ::fork();
  CHECK(child >= 0);
  if (child == 0) {
    const Fd listener = listen_unix(kit.path());
    ::_exit(listener.valid() ? 0 : 1);
  }
  CHECK(::waitpid(child, nullptr, 0) == child);
  kit.start();
  FakeAgent agent(kit.path());
  const std::string file = kit.path() + ".file";
  CHECK(Fd(::open(file.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600)).valid());
  TransferEngine other({file, 1, 10});
  CHECK_THROWS(other.start(), std::system_error);
}

bool exists(const std::string& path) {
  struct stat info = {};
  return ::lstat(path.c_str(), &info) == 0;
}

void abandoned_sockets_of_other_engines_are_removed_and_live_ones_are_not() {
  EngineKit kit;
  const std::string directory = kit.path().substr(0, kit.path().rfind('/'));
  const std::string abandoned = directory + "/1.sock_gpu_register", live = directory + "/2.sock_gpu_register";
  const std::string file = directory + "/3.sock_gpu_register", foreign = directory + "/4.sock";
  CHECK(listen_unix(abandoned).valid() && listen_unix(foreign).valid());  // closed, and left behind
  const Fd listener = listen_unix(live);
  CHECK(Fd(::open(file.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600)).valid());
  kit.start();
  CHECK(!exists(abandoned) && exists(live) && exists(file) && exists(foreign));
}

void a_forked_child_drops_its_copy_without_harm() {
  EngineKit kit;
  kit.start();
  FakeAgent agent = kit.serving_agent();
  const pid_t child = ::fork();
  CHECK(child >= 0);
  if (child == 0) {
    bool inert = kit.engine().poll(1).empty() && !kit.engine().wait(1) && kit.engine().num_graphs() == 0;
    try {
      kit.submit(1, {});
      inert = false;
    } catch (const std::runtime_error&) {
    }
    kit.drop_engine();
    ::_exit(inert ? 0 : 1);
  }
  int status = 0;
  CHECK(::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  kit.submit(1, {load(10)});
  CHECK(agent.expect_op_id() == 10);
}

void an_engine_that_was_never_started_stops() {
  EngineKit kit;
  CHECK(kit.engine().stop(1) && !kit.engine().wait(patience_s) && !kit.engine().wait_ranks(patience_s));
  CHECK_THROWS(kit.start(), std::runtime_error);
}

void many_threads_submit_and_one_agent_serves_them() {
  EngineKit kit;
  kit.start();
  FakeAgent agent = kit.serving_agent();
  constexpr std::int64_t graphs_per_thread = 100;
  std::vector<std::thread> threads;
  for (std::int64_t t = 0; t < 3; ++t) {
    threads.emplace_back([&kit, t] {
      for (std::int64_t i = 0; i < graphs_per_thread; ++i) {
        const std::int64_t id = 1 + (t * graphs_per_thread + i) * 10;
        kit.submit(id, {load(id), store(id + 1, {id}), load(id + 2, {id, id + 1})});
        (void)kit.engine().slots_available();
      }
    });
  }
  std::thread copies([&agent] {
    for (std::int64_t i = 0; i < 3 * 3 * graphs_per_thread; ++i) agent.ack(agent.expect_op_id());
  });
  std::size_t released = 0;
  for (const std::string& text : kit.next(3 * graphs_per_thread * 5))
    released += text.rfind("released", 0) == 0 ? 1 : 0;
  for (std::thread& thread : threads) thread.join();
  copies.join();
  CHECK(released == 3 * graphs_per_thread && kit.engine().num_graphs() == 0);
}

}  // namespace

int main() {
  ops_reach_the_agent_and_completions_come_back();
  acknowledgements_may_come_in_any_order();
  an_op_goes_to_every_rank();
  a_timeout_decides_and_a_late_acknowledgement_releases();
  cancel_reaches_the_agent();
  graphs_join_the_loads_of_others();
  stop_drains_what_runs();
  stop_is_bounded_when_an_agent_keeps_silent();
  bad_graphs_are_refused_and_change_nothing();
  the_socket_is_private_and_not_shared_by_two_engines();
  a_stale_socket_is_replaced_and_another_file_is_not();
  abandoned_sockets_of_other_engines_are_removed_and_live_ones_are_not();
  a_forked_child_drops_its_copy_without_harm();
  an_engine_that_was_never_started_stops();
  many_threads_submit_and_one_agent_serves_them();
  std::puts("test_transfer_engine: ok");
  return 0;
}
