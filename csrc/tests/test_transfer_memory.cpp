// TransferEngine when its I/O thread gets no memory: graphs are cancelled, nothing new is taken, what agents hold is
// still released by them, and the process lives. The seam is this program's own operator new, which fails in the
// thread of the given name while it is armed.
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <stdexcept>

#include "tests/check.h"
#include "tests/engine_kit.h"

namespace {

std::atomic<int> failures_left = 0;

bool must_fail() {
  if (failures_left.load() <= 0) return false;
  char name[16] = {};
  if (::pthread_getname_np(::pthread_self(), name, sizeof(name)) != 0 || std::strcmp(name, "fkv-transfer") != 0) {
    return false;
  }
  return failures_left.fetch_sub(1) > 0;
}

void* allocate(std::size_t bytes) {
  void* memory = must_fail() ? nullptr : std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

// Not inlined: GCC would take free for a mismatch of its own operator new.
[[gnu::noinline]] void* operator new(std::size_t bytes) { return allocate(bytes); }
[[gnu::noinline]] void* operator new[](std::size_t bytes) { return allocate(bytes); }
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

using namespace flexkv;

namespace {

// Wakes the I/O thread with something it needs memory for, until it has failed.
void let_it_fail(EngineKit& kit, int num_failures) {
  failures_left = num_failures;
  FakeAgent visitor(kit.path());
  while (failures_left > 0) {
    visitor = FakeAgent(kit.path());
    kit.engine().cancel(12345);
  }
  failures_left = 0;
}

// The completions up to this one.
Texts until(EngineKit& kit, const std::string& last) {
  Texts texts = kit.next(1);
  while (texts.back() != last) texts.push_back(kit.next(1).at(0));
  return texts;
}

void refuses_graphs(EngineKit& kit) {
  bool refused = false;
  try {
    kit.submit(99, {load(99)});
  } catch (const std::runtime_error& error) {
    refused = std::string(error.what()).find("does not run") != std::string::npos;
  }
  CHECK(refused);
}

void after_an_error_nothing_new_is_taken_and_what_agents_hold_is_released_by_them() {
  EngineKit kit;
  kit.start();
  FakeAgent agent = kit.serving_agent();
  kit.submit(1, {load(10), load(11, {10})});
  CHECK(agent.expect_op_id() == 10);
  let_it_fail(kit, 1);
  Texts texts = until(kit, "status 1 cancelled");
  CHECK(kit.engine().last_protocol_error().find("I/O thread met an error") != std::string::npos);
  CHECK(kit.engine().num_graphs() == 1);  // the agent still has op 10
  refuses_graphs(kit);
  CHECK(agent.expect_cancel() == 10);
  agent.ack(10);
  for (std::string& text : until(kit, "released 1 cancelled")) texts.push_back(std::move(text));
  std::sort(texts.begin(), texts.end());
  CHECK((texts == Texts{"op 10 done", "op 11 cancelled", "released 1 cancelled", "status 1 cancelled"}));
  CHECK(kit.engine().num_graphs() == 0);
  agent.close();
  CHECK(kit.engine().stop(patience_s));
}

void a_failure_to_note_the_failure_ends_no_process() {
  EngineKit kit;
  kit.start();
  FakeAgent agent = kit.serving_agent();
  kit.submit(1, {load(10)});
  CHECK(agent.expect_op_id() == 10);
  let_it_fail(kit, 3);
  CHECK(kit.engine().wait(patience_s));
  refuses_graphs(kit);
}

void a_thread_that_gives_up_says_so() {
  EngineKit kit;
  ChildAgent child(kit.path());
  begin_serving(kit, child);
  kit.submit(1, {load(1)});
  child.take_op();
  failures_left = 1'000'000;
  FakeAgent visitor(kit.path());
  bool refused = false;
  for (std::int64_t id = 2; !refused; ++id) {
    try {
      kit.submit(id, {load(id)});
    } catch (const std::runtime_error&) {
      refused = true;
    }
  }
  failures_left = 0;
  CHECK(!kit.engine().stop(1.0));  // what was sent is in the agent's hands, and nobody listens
}

}  // namespace

int main() {
  after_an_error_nothing_new_is_taken_and_what_agents_hold_is_released_by_them();
  a_failure_to_note_the_failure_ends_no_process();
  a_thread_that_gives_up_says_so();
  std::puts("test_transfer_memory: ok");
  return 0;
}
