// TransferEngine: runs graphs of transfer ops. It owns the listening socket of the copy agents, one I/O thread that sleeps
// in epoll, and the host pool once all ranks have registered. It decides nothing about the cache.
//
// A graph is submitted in one call: ops with ids unique over the engine's life, each with predecessors, which may belong to
// other graphs that are still held (joined loads). An op starts when all predecessors are done; continuation happens in the I/O
// thread, without Python. An op goes to every rank and is done when every rank has acknowledged it.
//
// States of an op:    waiting -> running -> done | failed | timed_out ;  waiting -> cancelled
// An op that fails, times out or is cancelled cancels its waiting descendants (in other graphs too) and its graph's waiting
// siblings; running siblings drain. A graph's *status* is known when no op of it can change it any more or its deadline has
// passed; it is *released* when every rank has acknowledged every op of it that was sent, or is known to be dead (pidfd). Two
// completions per graph, in this order, each exactly once: `status`, then `released`; both may come in one poll.
// Between them its slots must not be reused (quarantine, D16). On a timeout ops that agents have not started are cancelled
// there (CANCEL), so that release follows quickly when the agent lives.
//
// Ranks: num_ranks are expected. A second registration of a live rank is refused; after the first one's process has died or said BYE it
// is accepted. All ranks must agree on tokens_per_block and geometry of earlier registrations of that rank, else REFUSED.
// When a rank is lost its running ops fail; released at once after BYE or process death, else when the process dies.
// While a rank is missing, new graphs that need it fail at once.
// Thread safety: all public members, any thread.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "transfer/host_pool.h"
#include "transfer/protocol.h"

namespace flexkv {

enum class OpType : std::uint8_t { h2d, d2h, disk2h, h2disk, remote2h, h2remote, virtual_op };
enum class OpStatus : std::uint8_t { waiting, running, done, failed, timed_out, cancelled };
enum class CompletionKind : std::uint8_t { op, graph_status, graph_released };

struct OpSpec {
  std::int64_t op_id = 0;
  OpType type = OpType::virtual_op;
  std::vector<std::int64_t> src;  // h2d: host slots;  d2h: device blocks
  std::vector<std::int64_t> dst;  // h2d: device blocks;  d2h: host slots
  std::uint64_t after_step = 0;
  std::vector<std::int64_t> predecessors;  // op ids, of this graph or of a held one
};

struct GraphSpec {
  std::int64_t graph_id = 0;
  std::vector<OpSpec> ops;   // may be empty: completes at once
  double timeout_s = 20.0;
};

struct Completion {
  CompletionKind kind = CompletionKind::op;
  std::int64_t graph_id = 0;
  std::int64_t op_id = -1;             // kind op
  OpStatus status = OpStatus::done;    // op: its own; graph_status and graph_released: done | failed | timed_out | cancelled
  std::uint64_t bytes = 0;             // op: over all ranks
  double seconds = 0;                  // op: slowest rank's copy time
  std::string error;                   // what and where, empty when done
};

struct RankInfo {
  std::uint32_t rank = 0;
  std::int64_t pid = 0;
  std::uint64_t num_blocks = 0;
  std::uint64_t slot_bytes = 0;
  std::uint32_t tokens_per_block = 0;
  std::string layout_tag;
  bool connected = false;
  std::int64_t slots_mapped = 0;
};

struct TransferEngineConfig {
  std::string socket_path;    // its directory is made 0700, the socket 0600; a stale socket is replaced, a live one is an error
  std::uint32_t num_ranks = 1;
  std::size_t max_graphs = 65536;  // submit throws std::runtime_error beyond
};

class TransferEngine {
 public:
  explicit TransferEngine(TransferEngineConfig config);  // throws std::invalid_argument
  ~TransferEngine();                                     // stop(5 s)
  void start();                                          // binds and listens; throws std::system_error
  [[nodiscard]] bool stop(double timeout_s);             // cancels what waits, drains what runs; idempotent

  // Ranks that have ever registered, by rank. All are there once size() == num_ranks: then set_pool may be called.
  [[nodiscard]] std::vector<RankInfo> ranks() const;
  [[nodiscard]] bool wait_ranks(double timeout_s) const;  // until all are registered
  // Gives the pool to the agents (now and to every later one). Once. REQUIRES: shard r has the slot_bytes of rank r.
  void set_pool(std::shared_ptr<HostPool> pool);
  // Slots every connected rank has mapped and that are prefaulted: these may be handed out. 0 without a pool.
  [[nodiscard]] std::int64_t slots_available() const;

  // Throws std::invalid_argument (bad ids: unequal lengths, slot or block out of range, duplicate op id, unknown predecessor,
  // a cycle) or std::runtime_error (not started, too many graphs); nothing was submitted then.
  void submit(GraphSpec graph);
  // Waiting ops are cancelled, running ones run on; the graph's status becomes cancelled unless it was decided. Unknown ids: no-op.
  void cancel(std::int64_t graph_id);

  [[nodiscard]] std::vector<Completion> poll(std::size_t max);
  [[nodiscard]] bool wait(double timeout_s);     // until poll would return something; false on timeout or stop
  [[nodiscard]] int event_fd() const;            // readable while completions wait
  [[nodiscard]] std::int64_t num_graphs() const; // held: not yet released
};

}  // namespace flexkv
