#include "tests/engine_kit.h"

#include <fcntl.h>
#include <sys/wait.h>
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
#include "transfer/transfer_engine.h"

namespace flexkv {

EngineKit::EngineKit(std::uint32_t num_ranks, std::uint32_t replicas)
    : num_segments_(num_ranks / replicas), path_(dir_.file("sockets/engine.sock")) {
  engine_ = std::make_unique<TransferEngine>(TransferEngineConfig{path_, num_ranks, 1000, replicas});
}

void EngineKit::give_pool(std::int64_t num_slots) {
  CHECK(engine_->wait_ranks(patience_s));
  auto pool =
      std::make_shared<HostPool>(HostPoolConfig{num_slots, std::vector<std::uint64_t>(num_segments_, 4096), 1, false});
  CHECK(pool->wait_prefaulted(num_slots, patience_s));
  engine_->set_pool(std::move(pool));
}

FakeAgent EngineKit::serving_agent(std::int64_t num_slots) {
  FakeAgent agent(path_, FakeRank{});
  give_pool(num_slots);
  (void)agent.serve_pool();
  CHECK(engine_->wait_slots(num_slots, patience_s));
  return agent;
}

Texts EngineKit::next(std::size_t count) {
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

ChildAgent::ChildAgent(const std::string& path, const FakeRank& rank) {
  CHECK(::pipe2(commands_, O_CLOEXEC) == 0 && ::pipe2(replies_, O_CLOEXEC) == 0);
  pid_ = ::fork();
  CHECK(pid_ >= 0);
  if (pid_ != 0) return;
  ::alarm(60);
  ::close(commands_[1]);
  serve(path, rank);
  ::_exit(0);
}

ChildAgent::~ChildAgent() {
  if (pid_ > 0) kill();
  for (const int fd : {commands_[0], commands_[1], replies_[0], replies_[1]}) ::close(fd);
}

void ChildAgent::stop_process() {
  CHECK(::kill(pid_, SIGSTOP) == 0);
  int status = 0;
  CHECK(::waitpid(pid_, &status, WUNTRACED) == pid_ && WIFSTOPPED(status));
}

void ChildAgent::kill() {
  (void)::kill(pid_, SIGKILL);
  (void)::waitpid(pid_, nullptr, 0);
  pid_ = 0;
}

void ChildAgent::command(char what) {
  char reply = 0;
  CHECK(::write(commands_[1], &what, 1) == 1);
  CHECK(::read(replies_[0], &reply, 1) == 1 && reply == what);
}

void ChildAgent::serve(const std::string& path, const FakeRank& rank) {
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

}  // namespace flexkv
