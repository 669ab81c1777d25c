// What the tests of the TransferEngine share: an engine with a pool, graphs in one line, completions as text, and a
// copy agent in a child process that does one thing per command.
#pragma once
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <cstdint>
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
  explicit EngineKit(std::uint32_t num_ranks = 1, std::uint32_t replicas = 1);

  [[nodiscard]] const std::string& path() const { return path_; }
  TransferEngine& engine() { return *engine_; }
  void drop_engine() { engine_.reset(); }
  void start() { engine_->start(); }

  // Call after all ranks have registered.
  void give_pool(std::int64_t num_slots = 10);

  // An agent of this process that has mapped the pool.
  FakeAgent serving_agent(std::int64_t num_slots = 10);

  void submit(std::int64_t graph_id, std::vector<OpSpec> ops, double timeout_s = patience_s) {
    engine_->submit({graph_id, std::move(ops), timeout_s});
  }

  // The next `count` completions: "op 3 done", "status 1 failed", "released 1 failed".
  Texts next(std::size_t count);
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
  explicit ChildAgent(const std::string& path, const FakeRank& rank = {});
  ~ChildAgent();
  ChildAgent(const ChildAgent&) = delete;
  ChildAgent& operator=(const ChildAgent&) = delete;

  void connect() { command('c'); }
  void take_pool() { command('p'); }
  void take_op() { command('o'); }
  void acknowledge() { command('a'); }  // the op taken last
  void close_socket() { command('x'); }
  void stop_process();
  void continue_process() { CHECK(::kill(pid_, SIGCONT) == 0); }
  void kill();

 private:
  void command(char what);

  void serve(const std::string& path, const FakeRank& rank);

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
