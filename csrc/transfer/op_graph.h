// OpGraphTable: the state machine behind the TransferEngine: graphs of ops, their dependencies, and what each executor
// still has in hand. Pure: no I/O, no threads, no clock but the one passed in. The engine feeds it events and carries
// out what it queues.
//
// Executors: ranks 0 .. num_ranks-1, then the disk. An H2D or D2H op goes to every rank, a DISK2H or H2DISK op to the
// disk, a VIRTUAL op to nobody. All have the same life: missing at first, up, lost, up again.
//
// Replicas: each `replicas` ranks, one after the other, are a group that holds the same bytes in one segment. Each rank
// of it loads all blocks of an H2D op. The blocks of a D2H op are shared out in its group, each to one rank; a rank for
// which none are left is not sent the op, and does not matter to it.
//
//   op:    waiting -> running -> done | failed | timed_out | cancelled ;   waiting -> cancelled
//          running -> cancelled: an executor acknowledged it as never started, or it was not yet sent to all of its
//          executors
//   graph: undecided -> done | failed | timed_out | cancelled              (completion graph_status)
//          decided, no op open, no executor has an op of it in hand        (completion graph_released)
//
// Rules. A graph is decided by its first op that does not end in done (failed), by its deadline (timed_out), by cancel
// (cancelled), or when all ops are done. An op that does not end in done cancels its waiting successors, in other
// graphs too, which fails those graphs.
// An op is *wanted* while its graph is undecided or an op waits for it. So what a joined graph depends on, waiting or
// running, outlives the cancel or failure of its own graph, with all that it waits for itself, until the last joiner is
// gone. An op that is not wanted any more is cancelled when it waits or is not yet sent to all of its executors; what
// executors have in hand drains, and is *recalled* (CANCEL goes to them, so that release comes soon) when its graph was
// cancelled. At its graph's deadline an op times out or is cancelled, wanted or not; what executors have is recalled.
// A rank that has not been sent an op with a layer ticket when it ends badly is told that it will not come: its worker
// waits for it.
// When an executor is lost, ops that wait and need it are cancelled, wanted or not: they were meant for this one, and
// another may come.
//
// Invariants: every op and graph gets each of its completions exactly once, graph_released after all others of its
// graph; an (op, executor) pair is in one of: not sent, queued for sending, in hand; graph_released implies that no
// pair of the graph is queued or in hand; every waiting op is wanted, and its executors are up. Thread safety: none;
// the TransferEngine's mutex guards it.
#pragma once
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "transfer/disk_executor.h"
#include "transfer/protocol.h"
#include "transfer/transfer_types.h"

namespace flexkv {

inline constexpr std::uint32_t max_ranks = 63;  // and the disk: a bit each
inline constexpr std::size_t max_ops_per_graph = 65536;

[[nodiscard]] constexpr std::uint64_t bit_of(std::uint32_t executor) { return std::uint64_t{1} << executor; }
[[nodiscard]] bool needs_ranks(OpType type);  // h2d and d2h
[[nodiscard]] bool needs_disk(OpType type);   // disk2h and h2disk
[[nodiscard]] const char* op_type_name(OpType type);
[[nodiscard]] const char* op_status_name(OpStatus status);

// A stretch of an op's blocks, by position in src and dst.
struct Share {
  std::size_t begin = 0;
  std::size_t end = 0;
};

// What a rank moves of an op. A group of replicas stores stretches that differ by one block at most, so that runs stay
// long and every rank's link carries the same; who gets the longer ones changes from op to op.
[[nodiscard]] Share share_of(const OpSpec& op, std::uint32_t rank, std::uint32_t replicas);

class OpGraphTable {
 public:
  struct Send {
    bool recall = false;            // CANCEL, else OP, or LOST
    const OpSpec* op = nullptr;     // valid until the next call of any other member
    Share share;                    // of an OP: what this executor moves
    std::uint64_t lost_ticket = 0;  // of a LOST, which has no op
  };

  // 1..max_ranks, a multiple of `replicas`; all executors are missing. Throws std::invalid_argument.
  explicit OpGraphTable(std::uint32_t num_ranks, std::uint32_t replicas = 1);

  [[nodiscard]] std::uint32_t disk() const { return static_cast<std::uint32_t>(executors_.size() - 1); }

  // Throws std::invalid_argument on ids in use, an unknown predecessor, a cycle, vectors of unequal length, a chain
  // that does not fit or a bad timeout; nothing has changed then. While an executor is missing a graph that needs it
  // fails here.
  void submit(GraphSpec spec, double now_s);
  void cancel(std::int64_t graph_id);
  void cancel_all();
  void expire(double now_s);
  [[nodiscard]] std::optional<double> next_deadline_s() const;

  // Word for every rank that is up: no op with this layer ticket comes. Of ops that end before a rank has them, the
  // table sends it by itself; a rank that comes up is told of the last one.
  void lose_load(std::uint64_t layer_ticket);

  void executor_up(std::uint32_t executor);
  // Fails every undecided graph that needs it, and cancels what waits and needs it. certain: it can touch nothing any
  // more, its ops are out of its hands.
  void executor_lost(std::uint32_t executor, bool certain, const std::string& reason);
  void executor_dead(std::uint32_t executor);  // lost before without certainty, now known to touch nothing

  // The next thing to send to an executor; an OP is in its hands from here on.
  [[nodiscard]] std::optional<Send> take_send(std::uint32_t executor);
  // False when the rank does not have this op in hand: the peer broke the protocol. `error` is text for a failed op.
  [[nodiscard]] bool acknowledge(std::uint32_t rank, const protocol::AckBody& ack, const std::string& error);
  // False when the disk does not have this op in hand.
  [[nodiscard]] bool acknowledge(DiskAck ack);

  [[nodiscard]] std::deque<Completion> take_completions() { return std::exchange(completions_, {}); }
  // Called when graph_released has been handed to the user: until then its ops may be named as predecessors.
  void forget(std::int64_t graph_id);

  [[nodiscard]] std::size_t num_known() const { return graphs_.size(); }
  [[nodiscard]] std::int64_t num_held() const { return num_held_; }
  [[nodiscard]] bool holds_ops_of(std::uint32_t executor) const { return executors_[executor].in_hand > 0; }
  void check_invariants() const;  // throws std::logic_error

 private:
  struct Graph {
    std::int64_t id = 0;
    double timeout_s = 0;
    double deadline_s = 0;
    OpStatus status = OpStatus::running;  // running: undecided
    std::string error;
    std::vector<std::int64_t> op_ids;
    std::int64_t open_ops = 0;       // waiting or running
    std::int64_t pairs_in_hand = 0;  // (op, executor)
    bool recalls = false;            // cancelled or timed out, whatever its status
    bool released = false;
  };
  struct Op {
    OpSpec spec;
    Graph* graph = nullptr;
    OpStatus status = OpStatus::waiting;
    std::size_t unmet = 0;  // predecessors not done
    std::vector<std::int64_t> successors;
    std::size_t num_waiting = 0;  // successors that wait
    std::uint64_t queued = 0;     // bit per executor
    std::uint64_t in_hand = 0;    // bit per executor
    bool recalled = false;
    std::uint64_t bytes = 0;
    std::uint64_t slowest_ns = 0;
    DiskAck disk;  // of a disk op: what its blocks came to
  };
  struct Executor {
    bool up = false;
    std::string why_down;
    std::int64_t in_hand = 0;
    std::deque<std::pair<std::int64_t, bool>> sends;  // op id, recall; entries whose bit is gone are skipped
    std::deque<std::uint64_t> lost_tickets;           // the newest that are to be told; they go first
  };
  struct Cancel {
    std::int64_t op_id = 0;
    std::string reason;
  };

  void check_structure(const GraphSpec& spec) const;
  void link(Op& op);
  void run_steps();
  void start(Op& op);
  void finish(Op& op, OpStatus status, const std::string& error);
  void close(Op& op, OpStatus status, const std::string& error);
  void decide(Graph& graph, OpStatus status, const std::string& error);
  void abandon_unwanted(Graph& graph);
  void abandon(Op& op);
  void withdraw(const Op& op);
  void settle(Graph& graph);
  void push(CompletionKind kind, const Graph& graph);
  void recall(Op& op);
  void lose_load(std::uint64_t layer_ticket, std::uint64_t executors);
  void drop_pair(Op& op, std::uint32_t executor);
  [[nodiscard]] Op* find_in_hand(std::int64_t op_id, std::uint32_t executor);
  void take_ack(Op& op, std::uint32_t executor, OpStatus status, const std::string& error);
  void cancel_graph(Graph& graph, const std::string& reason);
  void expire_graph(Graph& graph);
  [[nodiscard]] std::uint64_t executors_of(const OpSpec& op) const;  // those that have blocks of it to move
  [[nodiscard]] std::string name_of_executor(std::uint32_t executor) const;
  [[nodiscard]] static bool is_wanted(const Op& op);
  [[nodiscard]] static bool is_open(const Op& op);
  [[nodiscard]] std::size_t count_waiting(const Op& op) const;
  [[nodiscard]] std::string missing_executor(std::uint64_t needed) const;  // empty: all of them are up
  [[nodiscard]] std::string describe_open(const Graph& graph) const;

  const std::uint32_t replicas_;
  std::vector<Executor> executors_;
  std::map<std::int64_t, Graph> graphs_;      // by id; node addresses are stable
  std::unordered_map<std::int64_t, Op> ops_;  // of known graphs
  std::set<std::pair<double, std::int64_t>> deadlines_;
  std::deque<Cancel> cancels_;       // work in place of recursion, as is starts_; both are empty between calls
  std::deque<std::int64_t> starts_;  // op ids
  std::deque<Completion> completions_;
  std::int64_t num_held_ = 0;
  std::deque<std::uint64_t> lost_tickets_;  // the newest
};

}  // namespace flexkv
