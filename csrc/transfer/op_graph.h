// OpGraphTable: the state machine behind the TransferEngine: graphs of ops, their dependencies, and what each rank
// still has in hand. Pure: no I/O, no threads, no clock but the one passed in. The engine feeds it events and carries
// out what it queues.
//
//   op:    waiting -> running -> done | failed | timed_out | cancelled ;   waiting -> cancelled
//          running -> cancelled: a rank acknowledged it as never started, or it was not yet sent to every rank
//   graph: undecided -> done | failed | timed_out | cancelled              (completion graph_status)
//          decided, no op open, no rank has an op of it in hand            (completion graph_released)
//
// Rules. A graph is decided by its first op that does not end in done (failed), by its deadline (timed_out), by cancel
// (cancelled), or when all ops are done. Deciding a graph other than done cancels its waiting ops and those running
// ones that are not yet sent to every rank; what ranks have in hand drains. An op that does not end in done cancels its
// waiting successors, in other graphs too, which fails those graphs. A cancelled graph's and every timed-out op is
// *recalled*: CANCEL goes to the ranks that have it, so that release comes soon. A running op on which a waiting op of
// another graph depends is spared, by `cancel` and by the failure of its graph, sent or not: it runs on until it ends
// or its graph's deadline passes, and then times out.
//
// Invariants: every op and graph gets each of its completions exactly once, graph_released after all others of its
// graph; an (op, rank) pair is in one of: not sent, queued for sending, in hand; graph_released implies that no pair of
// the graph is queued or in hand. Thread safety: none; the TransferEngine's mutex guards it.
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

#include "transfer/protocol.h"
#include "transfer/transfer_types.h"

namespace flexkv {

inline constexpr std::uint32_t max_ranks = 64;
inline constexpr std::size_t max_ops_per_graph = 65536;

[[nodiscard]] constexpr std::uint64_t bit_of(std::uint32_t rank) { return std::uint64_t{1} << rank; }
[[nodiscard]] bool needs_ranks(OpType type);  // h2d and d2h
[[nodiscard]] const char* op_type_name(OpType type);
[[nodiscard]] const char* op_status_name(OpStatus status);

class OpGraphTable {
 public:
  struct Send {
    bool recall = false;         // CANCEL, else OP
    const OpSpec* op = nullptr;  // valid until the next call of any other member
  };

  explicit OpGraphTable(std::uint32_t num_ranks);  // 1..max_ranks, all missing

  // Throws std::invalid_argument on ids in use, an unknown predecessor, a cycle, vectors of unequal length or a bad
  // timeout; nothing has changed then. While a rank is missing a graph that needs it fails here.
  void submit(GraphSpec spec, double now_s);
  void cancel(std::int64_t graph_id);
  void cancel_all();
  void expire(double now_s);
  [[nodiscard]] std::optional<double> next_deadline_s() const;

  void rank_up(std::uint32_t rank);
  // Fails every undecided graph that needs ranks. certain: the rank can touch nothing any more, its ops are out of its
  // hands.
  void rank_lost(std::uint32_t rank, bool certain, const std::string& reason);
  void rank_dead(std::uint32_t rank);  // a rank lost before without certainty is now known to touch nothing

  // The next thing to send to a rank; an OP is in its hands from here on.
  [[nodiscard]] std::optional<Send> take_send(std::uint32_t rank);
  // False when the rank does not have this op in hand: the peer broke the protocol. `error` is text for a failed op.
  [[nodiscard]] bool acknowledge(std::uint32_t rank, const protocol::AckBody& ack, const std::string& error);

  [[nodiscard]] std::deque<Completion> take_completions() { return std::exchange(completions_, {}); }
  // Called when graph_released has been handed to the user: until then its ops may be named as predecessors.
  void forget(std::int64_t graph_id);

  [[nodiscard]] std::size_t num_known() const { return graphs_.size(); }
  [[nodiscard]] std::int64_t num_held() const { return num_held_; }
  [[nodiscard]] bool holds_ops_of(std::uint32_t rank) const { return ranks_[rank].in_hand > 0; }
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
    std::int64_t pairs_in_hand = 0;  // (op, rank)
    bool released = false;
  };
  struct Op {
    OpSpec spec;
    Graph* graph = nullptr;
    OpStatus status = OpStatus::waiting;
    std::size_t unmet = 0;  // predecessors not done
    std::vector<std::int64_t> successors;
    std::uint64_t queued = 0;   // bit per rank
    std::uint64_t in_hand = 0;  // bit per rank
    bool recalled = false;
    std::uint64_t bytes = 0;
    std::uint64_t slowest_ns = 0;
  };
  struct Rank {
    bool up = false;
    std::int64_t in_hand = 0;
    std::deque<std::pair<std::int64_t, bool>> sends;  // op id, recall; entries whose bit is gone are skipped
  };
  struct Step {
    std::int64_t op_id = 0;
    std::string cancel_reason;  // empty: start it
  };

  void check_structure(const GraphSpec& spec) const;
  void link(Op& op);
  void run_steps();
  void start(Op& op);
  void finish(Op& op, OpStatus status, const std::string& error);
  void close(Op& op, OpStatus status, const std::string& error);
  void decide(Graph& graph, OpStatus status, const std::string& error);
  void drop_unsent(Graph& graph);
  void settle(Graph& graph);
  void push(CompletionKind kind, const Graph& graph);
  void recall(Op& op);
  void drop_pair(Op& op, std::uint32_t rank);
  void cancel_graph(Graph& graph, const std::string& reason);
  void expire_graph(Graph& graph);
  [[nodiscard]] bool others_wait_for(const Op& op) const;
  [[nodiscard]] static bool is_open(const Op& op);
  [[nodiscard]] std::string missing_rank() const;  // empty: all are up
  [[nodiscard]] std::string describe_open(const Graph& graph) const;

  std::vector<Rank> ranks_;
  std::map<std::int64_t, Graph> graphs_;      // by id; node addresses are stable
  std::unordered_map<std::int64_t, Op> ops_;  // of known graphs
  std::set<std::pair<double, std::int64_t>> deadlines_;
  std::deque<Step> steps_;  // work in place of recursion; empty between calls
  std::deque<Completion> completions_;
  std::int64_t num_held_ = 0;
};

}  // namespace flexkv
