// TransferEngine: runs graphs of transfer ops. It owns the listening socket of the copy agents, one I/O thread that
// sleeps in epoll, and the host pool once all ranks have registered. It decides nothing about the cache.
//
// A graph is submitted in one call: ops with ids unique over the engine's life, each with predecessors, which may
// belong to other graphs that are still held (joined loads). An op starts when all predecessors are done; continuation
// happens in the I/O thread, without Python. An op goes to every rank and is done when every rank has acknowledged it.
//
// Replicas: where each `replicas` ranks, one after the other, hold the same bytes (MLA, tensor parallel), they share
// one segment of the pool. Each loads all blocks of an op from it, and stores its share of them (op_graph.h).
//
// A DISK2H or H2DISK op goes to the disk instead, once one is set; while there is none, or it was stopped, new graphs
// that need it fail at once, and others are as ever. Ranks and the disk do not need each other.
//
// States of an op:    waiting -> running -> done | failed | timed_out | cancelled ;  waiting -> cancelled
// An op that fails, times out or is cancelled cancels its waiting descendants (in other graphs too, which then fail)
// and its graph's waiting siblings; running siblings drain. A graph's *status* is decided by its first op that does not
// end in done, its deadline, or cancel, else when all ops are done; it is *released* when every rank has acknowledged
// every op of it that was sent, or is known to touch nothing any more. Two completions per graph, in this order, each
// exactly once: `status`, then `released`; both may come in one poll. Between them its slots, and the device blocks of
// its ops, must not be reused (quarantine, D16). On a timeout and on cancel, ops that agents have not started are
// cancelled there (CANCEL), so that release follows quickly when the agent lives. A graph may be named in predecessors
// until its `released` has been polled.
//
// Ranks: num_ranks are expected. All must agree on tokens_per_block, and a rank on its geometry of earlier
// registrations and of its replicas, else REFUSED. A second registration of a connected rank is refused. When a rank is
// lost, every undecided graph that needs it fails: a load does, a store if the rank has a share of it. Its ops are
// released at once after BYE or process death, or when an agent in this process has closed its socket; else when the
// process dies or registers the rank again (an agent does so only when its copies have ended). Until then another
// process is refused. While a rank is missing, new graphs that need it fail at once.
//
// A peer that breaks the protocol, floods, or does not read harms nobody: it is disconnected, or its ops wait in this
// process. A forked child may only destroy its copy of the object, which does nothing; calls there fail or answer
// "nothing". Thread safety: all public members, any thread.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "transfer/disk_executor.h"
#include "transfer/host_pool.h"
#include "transfer/transfer_types.h"

namespace flexkv {

struct TransferEngineConfig {
  std::string socket_path;  // its directory is made 0700, the socket 0600; a stale one is replaced, a live one an error
  std::uint32_t num_ranks = 1;     // at most 63
  std::size_t max_graphs = 65536;  // submit throws std::runtime_error beyond
  std::uint32_t replicas = 1;      // divides num_ranks
};

class TransferEngine {
 public:
  explicit TransferEngine(TransferEngineConfig config);  // throws std::invalid_argument
  ~TransferEngine();                                     // stop(destructor_timeout_s)
  static constexpr double destructor_timeout_s = 5.0;
  TransferEngine(const TransferEngine&) = delete;
  TransferEngine& operator=(const TransferEngine&) = delete;
  void start();  // binds and listens; throws std::system_error
  // Cancels what waits, drains what runs, stops the disk, disconnects; idempotent. False when an op is still in an
  // agent's or the disk's hands; pool and disk are then kept for good.
  [[nodiscard]] bool stop(double timeout_s);

  // Ranks that have ever registered, by rank. All are there once size() == num_ranks: then set_pool may be called.
  [[nodiscard]] std::vector<RankInfo> ranks() const;
  [[nodiscard]] bool wait_ranks(double timeout_s) const;  // until all are registered
  // Device blocks that every rank has, as registered last; 0 before all have. Takes no lock.
  [[nodiscard]] std::uint64_t num_device_blocks() const;
  // Gives the pool to the agents (now and to every later one). Once. REQUIRES: shard r / replicas has the slot_bytes of
  // rank r.
  void set_pool(std::shared_ptr<HostPool> pool);
  // Starts the disk with the engine's pool and hands it disk ops from now on. Another one may follow when the former
  // was stopped. Throws what its start throws, std::invalid_argument, or std::runtime_error (the engine does not run,
  // has no pool yet, or a disk that was not stopped); nothing has changed then.
  void set_disk(std::shared_ptr<DiskExecutor> disk);
  // Slots that every rank has mapped and that are prefaulted: these may be handed out. Never shrinks. 0 without a pool.
  [[nodiscard]] std::int64_t slots_available() const;
  [[nodiscard]] bool wait_slots(std::int64_t slots, double timeout_s) const;  // until slots_available() >= slots

  // REQUIRES: graph and op ids are new for this engine. Throws std::invalid_argument (bad ids: unequal lengths, slot or
  // block out of range, id in use, unknown predecessor, a cycle) or std::runtime_error (not started, stopped, no pool,
  // too many graphs); nothing was submitted then.
  void submit(GraphSpec graph);
  // Waiting ops are cancelled unless ops of other graphs wait for them, those that were started run on; the graph's
  // status becomes cancelled unless it was decided. Unknown ids: no-op.
  void cancel(std::int64_t graph_id);
  // No graph comes with an op of this layer ticket: workers that wait for that load, or will, are told. Of graphs that
  // were submitted, whatever becomes of them, they are told without it. Throws std::invalid_argument for 0.
  void lose_load(std::uint64_t layer_ticket);

  [[nodiscard]] std::vector<Completion> poll(std::size_t max);
  [[nodiscard]] bool wait(double timeout_s);            // until poll would return something; false on timeout or stop
  [[nodiscard]] int event_fd() const;                   // readable while completions wait
  [[nodiscard]] std::int64_t num_graphs() const;        // held: not yet released
  [[nodiscard]] std::uint64_t protocol_errors() const;  // peers disconnected or turned away for breaking a rule
  [[nodiscard]] std::string last_protocol_error() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace flexkv
