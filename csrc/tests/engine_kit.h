// What the tests of the TransferEngine share: an engine with a pool, graphs in one line, completions as text, and a
// copy agent in a child process that does one thing per command.
#pragma once
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/check.h"
#include "tests/fake_agent.h"
#include "tests/op_graph_kit.h"
#include "tests/temp_dir.h"
#include "transfer/transfer_engine.h"

namespace flexkv {

inline constexpr double patience_s = 20;

inline OpSpec store(std::int64_t id, std::vector<std::int64_t> predecessors = {}) {
  return {id, OpType::d2h, {3, 4}, {1, 2}, 7, std::move(predecessors)};
}

class EngineKit {
 public:
  explicit EngineKit(std::uint32_t num_ranks = 1, std::uint32_t replicas = 1)
      : num_segments_(num_ranks / replicas), path_(dir_.file("sockets/engine.sock")) {
    engine_ = std::make_unique<TransferEngine>(TransferEngineConfig{path_, num_ranks, 1000, replicas});
  }

  [[nodiscard]] const std::string& path() const { return path_; }
  TransferEngine& engine() { return *engine_; }
  void drop_engine() { engine_.reset(); }
  void start() { engine_->start(); }

  // Call after all ranks have registered.
  void give_pool(std::int64_t num_slots = 10) {
    CHECK(engine_->wait_ranks(patience_s));
    auto pool = std::make_shared<HostPool>(
        HostPoolConfig{num_slots, std::vector<std::uint64_t>(num_segments_, 4096), 1, false});
    CHECK(pool->wait_prefaulted(num_slots, patience_s));
    engine_->set_pool(std::move(pool));
  }

  // An agent of this process that has mapped the pool.
  FakeAgent serving_agent(std::int64_t num_slots = 10) {
    FakeAgent agent(path_, FakeRank{});
    give_pool(num_slots);
    (void)agent.serve_pool();
    CHECK(engine_->wait_slots(num_slots, patience_s));
    return agent;
  }

  void submit(std::int64_t graph_id, std::vector<OpSpec> ops, double timeout_s = patience_s) {
    engine_->submit({graph_id, std::move(ops), timeout_s});
  }

  // The next `count` completions: "op 3 done", "status 1 failed", "released 1 failed".
  Texts next(std::size_t count) {
    static const char* names[] = {"waiting", "running", "done", "failed", "timed_out", "cancelled"};
    Texts texts;
    while (texts.size() < count) {
      CHECK(engine_->wait(patience_s));
      for (const Completion& c : engine_->poll(count - texts.size())) {
        CHECK((c.status == OpStatus::done) == c.error.empty());
        if (!c.error.empty()) last_error_ = c.error;
        std::string text = "op " + std::to_string(c.op_id);
        if (c.kind == CompletionKind::graph_status) text = "status " + std::to_string(c.graph_id);
        if (c.kind == CompletionKind::graph_released) text = "released " + std::to_string(c.graph_id);
        texts.push_back(text + " " + names[static_cast<int>(c.status)]);
      }
    }
    return texts;
  }
  [[nodiscard]] bool quiet() { return engine_->poll(1).empty(); }
  [[nodiscard]] const std::string& last_error() const { return last_error_; }

 private:
  TempDir dir_;
  std::uint32_t num_segments_;
  std::string path_;
  std::unique_ptr<TransferEngine> engine_;
  std::string last_error_;
};

// An agent in a process of its own. Made before any thread is started. Each call returns when the child has done it.
class ChildAgent {
 public:
  explicit ChildAgent(const std::string& path, const FakeRank& rank = {}) {
    CHECK(::pipe2(commands_, O_CLOEXEC) == 0 && ::pipe2(replies_, O_CLOEXEC) == 0);
    pid_ = ::fork();
    CHECK(pid_ >= 0);
    if (pid_ != 0) return;
    ::alarm(60);
    ::close(commands_[1]);
    serve(path, rank);
    ::_exit(0);
  }
  ~ChildAgent() {
    if (pid_ > 0) kill();
    for (const int fd : {commands_[0], commands_[1], replies_[0], replies_[1]}) ::close(fd);
  }
  ChildAgent(const ChildAgent&) = delete;
  ChildAgent& operator=(const ChildAgent&) = delete;

  void connect() { command('c'); }
  void take_pool() { command('p'); }
  void take_op() { command('o'); }
  void acknowledge() { command('a'); }  // the op taken last
  void close_socket() { command('x'); }
  void stop_process() {
    CHECK(::kill(pid_, SIGSTOP) == 0);
    int status = 0;
    CHECK(::waitpid(pid_, &status, WUNTRACED) == pid_ && WIFSTOPPED(status));
  }
  void continue_process() { CHECK(::kill(pid_, SIGCONT) == 0); }
  void kill() {
    (void)::kill(pid_, SIGKILL);
    (void)::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  void command(char what) {
    char reply = 0;
    CHECK(::write(commands_[1], &what, 1) == 1);
    CHECK(::read(replies_[0], &reply, 1) == 1 && reply == what);
  }

  void serve(const std::string& path, const FakeRank& rank) {
    std::unique_ptr<FakeAgent> agent;
    std::uint64_t op_id = 0;
    char what = 0;
    while (::read(commands_[0], &what, 1) == 1) {
      if (what == 'c') agent = std::make_unique<FakeAgent>(path, rank);
      if (what == 'p') (void)agent->serve_pool();
      if (what == 'o') op_id = agent->expect_op_id();
      if (what == 'a') agent->ack(op_id);
      if (what == 'x') agent->close();
      if (::write(replies_[1], &what, 1) != 1) return;
    }
  }

  int commands_[2] = {-1, -1};
  int replies_[2] = {-1, -1};
  pid_t pid_ = 0;
};

// The child serves all slots of the kit's pool.
inline void begin_serving(EngineKit& kit, ChildAgent& child) {
  kit.start();
  child.connect();
  kit.give_pool();
  child.take_pool();
  CHECK(kit.engine().wait_slots(10, patience_s));
}

}  // namespace flexkv
