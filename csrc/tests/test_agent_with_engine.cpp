// The real CopyAgents on the real TransferEngine, in one process: bytes, many graphs at once, agents and engines that
// come and go while copies run. What each side does by itself is in the tests of the two.
#include <cstdio>
#include <memory>
#include <random>
#include <set>

#include "tests/check.h"
#include "tests/engine_kit.h"
#include "tests/worker_rig.h"

using namespace flexkv;

namespace {

constexpr std::int64_t num_blocks = WorkerRig::num_blocks;
constexpr std::uint64_t chunk_bytes = WorkerRig::chunk_bytes;
constexpr std::int64_t num_slots = 32;
constexpr std::uint32_t num_ranks = 2;

struct Site {
  TempDir dir;
  std::string path = dir.file("engine.sock");
  WorkerRig workers[num_ranks];
  std::unique_ptr<TransferEngine> engine;
  std::int64_t next_id = 1;

  void start_engine() {
    engine = std::make_unique<TransferEngine>(TransferEngineConfig{path, num_ranks, 1000});
    engine->start();
  }
  void open_pool() {
    CHECK(engine->wait_ranks(patience_s));
    engine->set_pool(std::make_shared<HostPool>(HostPoolConfig{num_slots, {chunk_bytes, chunk_bytes}, 1, false}));
    CHECK(engine->wait_slots(num_slots, patience_s));
  }
  void start_workers() {
    for (std::uint32_t rank = 0; rank < num_ranks; ++rank) workers[rank].start(path, rank, num_ranks);
  }
  // Stores the block, then loads it to another place: one graph.
  std::int64_t submit(std::int64_t block, std::int64_t slot, std::int64_t target) {
    const std::int64_t id = next_id;
    next_id += 3;
    engine->submit(
        {id,
         {{id + 1, OpType::d2h, {block}, {slot}, 0, {}}, {id + 2, OpType::h2d, {slot}, {target}, 0, {id + 1}}},
         patience_s});
    return id;
  }
  // Until all these graphs are released; returns how many were done.
  std::size_t settle(std::set<std::int64_t> graphs) {
    std::size_t done = 0;
    while (!graphs.empty()) {
      CHECK(engine->wait(patience_s));
      for (const Completion& completion : engine->poll(100)) {
        if (completion.kind == CompletionKind::graph_status) done += completion.status == OpStatus::done ? 1 : 0;
        if (completion.kind == CompletionKind::graph_released) CHECK(graphs.erase(completion.graph_id) == 1);
      }
    }
    return done;
  }
};

void blocks_go_to_the_host_and_back_on_every_rank() {
  Site site;
  site.start_workers();  // before there is an engine
  site.start_engine();
  site.open_pool();
  for (int round = 0; round < 20; ++round) {
    std::set<std::int64_t> graphs;
    for (std::int64_t block = 0; block < num_blocks / 2; ++block) {
      for (std::uint32_t rank = 0; rank < num_ranks; ++rank) {
        site.workers[rank].fill(block, static_cast<unsigned char>(round * 16 + block + rank));
      }
      graphs.insert(site.submit(block, (block + round) % num_slots, num_blocks / 2 + block));
    }
    CHECK(site.settle(graphs) == num_blocks / 2);
    for (std::int64_t block = 0; block < num_blocks / 2; ++block) {
      for (std::uint32_t rank = 0; rank < num_ranks; ++rank) {
        CHECK(site.workers[rank].holds(num_blocks / 2 + block, static_cast<unsigned char>(round * 16 + block + rank)));
      }
    }
  }
  CHECK(site.engine->protocol_errors() == 0);
  for (WorkerRig& worker : site.workers) CHECK(worker.agent->stop(patience_s));
  CHECK(site.engine->stop(patience_s));
}

void an_agent_may_go_and_come_again_at_any_moment() {
  Site site;
  site.start_engine();
  site.start_workers();
  site.open_pool();
  std::mt19937 random(5);
  for (int round = 0; round < 20; ++round) {
    std::set<std::int64_t> graphs;
    for (int i = 0; i < 20; ++i) {
      graphs.insert(site.submit(i % 8, i, 8 + i % 8));
      if (i == static_cast<int>(random() % 20)) CHECK(site.workers[round % 2].agent->stop(patience_s));
    }
    CHECK(site.workers[round % 2].agent->stop(patience_s));
    (void)site.settle(graphs);
    site.workers[round % 2].start(site.path, static_cast<std::uint32_t>(round % 2), num_ranks);
    CHECK(site.workers[round % 2].agent->wait_serving(patience_s));
  }
  CHECK(site.engine->num_graphs() == 0 && site.engine->protocol_errors() == 0);
}

void an_engine_may_go_and_come_again_at_any_moment() {
  Site site;
  site.start_workers();
  for (int round = 0; round < 8; ++round) {
    site.start_engine();
    site.open_pool();
    std::set<std::int64_t> graphs;
    for (int i = 0; i < 30; ++i) graphs.insert(site.submit(i % 8, i, 8 + i % 8));
    if (round % 2 == 0) (void)site.settle(graphs);
    CHECK(site.engine->stop(patience_s));
    site.engine.reset();
  }
}

}  // namespace

int main() {
  blocks_go_to_the_host_and_back_on_every_rank();
  an_agent_may_go_and_come_again_at_any_moment();
  an_engine_may_go_and_come_again_at_any_moment();
  std::puts("test_agent_with_engine: ok");
  return 0;
}
