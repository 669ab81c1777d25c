#include "transfer/op_graph.h"

#include <algorithm>
#include <bit>
#include <stdexcept>
#include <unordered_set>

namespace flexkv {

namespace {

std::string name_of(const OpSpec& op) { return std::string(op_type_name(op.type)) + " op " + std::to_string(op.op_id); }

template <typename Visit>
void for_each_rank(std::uint64_t mask, Visit visit) {
  for (; mask != 0; mask &= mask - 1) visit(static_cast<std::uint32_t>(std::countr_zero(mask)));
}

}  // namespace

OpGraphTable::OpGraphTable(std::uint32_t num_ranks) : ranks_(num_ranks) {
  if (num_ranks < 1 || num_ranks > max_ranks) {
    throw std::invalid_argument("num_ranks is " + std::to_string(num_ranks) + ", must be 1 to " +
                                std::to_string(max_ranks));
  }
}

void OpGraphTable::submit(GraphSpec spec, double now_s) {
  check_structure(spec);
  Graph& graph = graphs_[spec.graph_id];
  graph.id = spec.graph_id;
  graph.timeout_s = spec.timeout_s;
  graph.deadline_s = now_s + spec.timeout_s;
  graph.open_ops = static_cast<std::int64_t>(spec.ops.size());
  ++num_held_;
  deadlines_.emplace(graph.deadline_s, graph.id);
  bool ranks_needed = false;
  for (OpSpec& op_spec : spec.ops) {
    ranks_needed = ranks_needed || needs_ranks(op_spec.type);
    graph.op_ids.push_back(op_spec.op_id);
    Op& op = ops_[op_spec.op_id];
    op.graph = &graph;
    op.spec = std::move(op_spec);
  }
  for (const std::int64_t op_id : graph.op_ids) link(ops_.at(op_id));
  const std::string missing = ranks_needed ? missing_rank() : "";
  if (!missing.empty()) {
    steps_.clear();
    decide(graph, OpStatus::failed, missing);
  }
  settle(graph);
  run_steps();
}

// Counts what the op waits for; queues the step that starts or cancels it when that is known already.
void OpGraphTable::link(Op& op) {
  std::string cancel_reason;
  const std::unordered_set<std::int64_t> predecessors(op.spec.predecessors.begin(), op.spec.predecessors.end());
  for (const std::int64_t predecessor_id : predecessors) {
    Op& predecessor = ops_.at(predecessor_id);
    if (is_open(predecessor)) {
      ++op.unmet;
      predecessor.successors.push_back(op.spec.op_id);
    } else if (predecessor.status != OpStatus::done) {
      cancel_reason = name_of(predecessor.spec) + ", on which it depends, " + op_status_name(predecessor.status);
    }
  }
  if (!cancel_reason.empty()) {
    steps_.push_front({op.spec.op_id, cancel_reason});  // first: then nothing of the graph starts
  } else if (op.unmet == 0) {
    steps_.push_back({op.spec.op_id, ""});
  }
}

void OpGraphTable::run_steps() {
  while (!steps_.empty()) {
    const Step step = std::move(steps_.front());
    steps_.pop_front();
    const auto found = ops_.find(step.op_id);
    if (found == ops_.end() || found->second.status != OpStatus::waiting) continue;
    Op& op = found->second;
    if (!step.cancel_reason.empty()) {
      finish(op, OpStatus::cancelled, step.cancel_reason);
    } else if (op.graph->status == OpStatus::running) {  // else the step that cancels it is further back
      start(op);
    }
  }
}

void OpGraphTable::start(Op& op) {
  op.status = OpStatus::running;
  if (!needs_ranks(op.spec.type) || op.spec.src.empty()) {
    finish(op, OpStatus::done, "");
    return;
  }
  for (std::uint32_t rank = 0; rank < ranks_.size(); ++rank) {
    op.queued |= bit_of(rank);
    ranks_[rank].sends.emplace_back(op.spec.op_id, false);
  }
}

// finish, decide and settle call each other, but a graph is decided once: the depth is bounded.
// NOLINTBEGIN(misc-no-recursion)
void OpGraphTable::finish(Op& op, OpStatus status, const std::string& error) {
  close(op, status, error);
  if (status != OpStatus::done && op.graph->status == OpStatus::running) {
    decide(*op.graph, OpStatus::failed, name_of(op.spec) + ": " + error);
  }
  settle(*op.graph);
}

// An op ends, and tells its successors; what that means for its graph is the caller's to say.
void OpGraphTable::close(Op& op, OpStatus status, const std::string& error) {
  op.status = status;
  op.queued = 0;
  --op.graph->open_ops;
  completions_.push_back({CompletionKind::op, op.spec.type, static_cast<std::uint32_t>(op.spec.src.size()),
                          op.graph->id, op.spec.op_id, status, op.bytes, static_cast<double>(op.slowest_ns) * 1e-9,
                          error});
  // A cancelled op hands its own reason on: along a chain the message names the first cause and does not grow.
  const std::string reason = status == OpStatus::cancelled
                                 ? error
                                 : name_of(op.spec) + ", on which it depends, " + op_status_name(status) + ": " + error;
  const std::vector<std::int64_t> successors = std::exchange(op.successors, {});
  for (const std::int64_t successor_id : successors) {
    const auto found = ops_.find(successor_id);
    if (found == ops_.end() || found->second.status != OpStatus::waiting) continue;
    if (status != OpStatus::done) {
      steps_.push_back({successor_id, reason});
    } else if (--found->second.unmet == 0) {
      steps_.push_back({successor_id, ""});
    }
  }
  if (status != OpStatus::done) recall(op);  // what other ranks do for it is of no use any more
}

void OpGraphTable::decide(Graph& graph, OpStatus status, const std::string& error) {
  graph.status = status;
  graph.error = error;
  push(CompletionKind::graph_status, graph);
  if (status == OpStatus::done) return;
  for (const std::int64_t op_id : graph.op_ids) {
    const Op& op = ops_.at(op_id);
    if (op.status == OpStatus::waiting) steps_.push_back({op_id, "its graph " + std::string(op_status_name(status))});
  }
  drop_unsent(graph);
}

// What is not yet sent to every rank goes no further: what was sent drains.
void OpGraphTable::drop_unsent(Graph& graph) {
  for (const std::int64_t op_id : graph.op_ids) {
    Op& op = ops_.at(op_id);
    if (op.status == OpStatus::running && op.queued != 0 && !others_wait_for(op)) {
      finish(op, OpStatus::cancelled, "its graph " + std::string(op_status_name(graph.status)));
    }
  }
}

void OpGraphTable::settle(Graph& graph) {
  if (graph.released || graph.open_ops != 0) return;
  if (graph.status == OpStatus::running) decide(graph, OpStatus::done, "");
  if (graph.pairs_in_hand != 0) return;
  graph.released = true;
  --num_held_;
  deadlines_.erase({graph.deadline_s, graph.id});
  push(CompletionKind::graph_released, graph);
}
// NOLINTEND(misc-no-recursion)

void OpGraphTable::push(CompletionKind kind, const Graph& graph) {
  completions_.push_back({kind, OpType::virtual_op, 0, graph.id, -1, graph.status, 0, 0, graph.error});
}

void OpGraphTable::recall(Op& op) {
  if (std::exchange(op.recalled, true)) return;
  for_each_rank(op.in_hand, [&](std::uint32_t rank) {
    if (ranks_[rank].up) ranks_[rank].sends.emplace_back(op.spec.op_id, true);
  });
}

bool OpGraphTable::others_wait_for(const Op& op) const {
  return std::ranges::any_of(op.successors, [&](std::int64_t successor_id) {
    const auto found = ops_.find(successor_id);
    return found != ops_.end() && found->second.graph != op.graph && found->second.status == OpStatus::waiting;
  });
}

void OpGraphTable::cancel_graph(Graph& graph, const std::string& reason) {
  if (graph.released) return;
  if (graph.status == OpStatus::running) {
    decide(graph, OpStatus::cancelled, reason);
  } else {
    drop_unsent(graph);
  }
  for (const std::int64_t op_id : graph.op_ids) {
    Op& op = ops_.at(op_id);
    if (op.status == OpStatus::running && !others_wait_for(op)) recall(op);
  }
  run_steps();
}

void OpGraphTable::cancel(std::int64_t graph_id) {
  const auto found = graphs_.find(graph_id);
  if (found != graphs_.end()) cancel_graph(found->second, "cancelled");
}

void OpGraphTable::cancel_all() {
  const std::string reason = "the transfer engine stops";
  for (auto& [id, graph] : graphs_) cancel_graph(graph, reason);
  for (auto& [id, graph] : graphs_) cancel_graph(graph, reason);  // nothing waits now: what was spared goes, too
}

void OpGraphTable::expire(double now_s) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now_s) {
    Graph& graph = graphs_.at(deadlines_.begin()->second);
    deadlines_.erase(deadlines_.begin());
    expire_graph(graph);
    run_steps();
  }
}

void OpGraphTable::expire_graph(Graph& graph) {
  const std::string error = describe_open(graph);
  for (const std::int64_t op_id : graph.op_ids) {
    Op& op = ops_.at(op_id);
    if (op.status == OpStatus::running) {
      close(op, OpStatus::timed_out, error);
    } else if (op.status != OpStatus::waiting) {
      recall(op);
    }
  }
  if (graph.status == OpStatus::running) decide(graph, OpStatus::timed_out, error);
  settle(graph);
}

std::optional<double> OpGraphTable::next_deadline_s() const {
  if (deadlines_.empty()) return std::nullopt;
  return deadlines_.begin()->first;
}

void OpGraphTable::rank_up(std::uint32_t rank) { ranks_.at(rank).up = true; }

void OpGraphTable::rank_lost(std::uint32_t rank, bool certain, const std::string& reason) {
  ranks_.at(rank).up = false;
  ranks_[rank].sends.clear();
  for (auto& [id, graph] : graphs_) {
    if (graph.released) continue;
    bool needed = false;
    for (const std::int64_t op_id : graph.op_ids) {
      Op& op = ops_.at(op_id);
      if (!is_open(op) || !needs_ranks(op.spec.type)) continue;
      needed = true;
      const bool runs_there = ((op.in_hand | op.queued) & bit_of(rank)) != 0;
      if (op.status == OpStatus::running && runs_there) finish(op, OpStatus::failed, reason);
    }
    if (needed && graph.status == OpStatus::running) decide(graph, OpStatus::failed, reason);
  }
  run_steps();
  if (certain) rank_dead(rank);
}

void OpGraphTable::rank_dead(std::uint32_t rank) {
  if (ranks_.at(rank).in_hand == 0) return;
  for (auto& [id, graph] : graphs_) {
    if (graph.pairs_in_hand == 0) continue;
    for (const std::int64_t op_id : graph.op_ids) {
      Op& op = ops_.at(op_id);
      if ((op.in_hand & bit_of(rank)) != 0) drop_pair(op, rank);
    }
    settle(graph);
  }
}

void OpGraphTable::drop_pair(Op& op, std::uint32_t rank) {
  op.in_hand &= ~bit_of(rank);
  --op.graph->pairs_in_hand;
  --ranks_[rank].in_hand;
}

std::optional<OpGraphTable::Send> OpGraphTable::take_send(std::uint32_t rank) {
  Rank& state = ranks_.at(rank);
  while (state.up && !state.sends.empty()) {
    const auto [op_id, is_recall] = state.sends.front();
    state.sends.pop_front();
    const auto found = ops_.find(op_id);
    if (found == ops_.end()) continue;
    Op& op = found->second;
    if (is_recall && (op.in_hand & bit_of(rank)) != 0) return Send{true, &op.spec};
    if (!is_recall && (op.queued & bit_of(rank)) != 0) {
      op.queued &= ~bit_of(rank);
      op.in_hand |= bit_of(rank);
      ++op.graph->pairs_in_hand;
      ++state.in_hand;
      return Send{false, &op.spec};
    }
  }
  return std::nullopt;
}

bool OpGraphTable::acknowledge(std::uint32_t rank, const protocol::AckBody& ack, const std::string& error) {
  const auto found = ops_.find(static_cast<std::int64_t>(ack.op_id));
  if (found == ops_.end() || (found->second.in_hand & bit_of(rank)) == 0) return false;
  Op& op = found->second;
  drop_pair(op, rank);
  if (!is_open(op)) {  // it timed out, failed on another rank, ...: only the release was waiting for this
    settle(*op.graph);
    return true;
  }
  op.bytes += ack.bytes;
  op.slowest_ns = std::max(op.slowest_ns, ack.duration_ns);
  if (ack.status == protocol::AckStatus::failed) {
    finish(op, OpStatus::failed, "rank " + std::to_string(rank) + ": " + error);
  } else if (ack.status == protocol::AckStatus::cancelled) {
    finish(op, OpStatus::cancelled, "rank " + std::to_string(rank) + " did not start it");
  } else if (op.in_hand == 0 && op.queued == 0) {
    finish(op, OpStatus::done, "");
  }
  run_steps();
  return true;
}

void OpGraphTable::forget(std::int64_t graph_id) {
  const auto found = graphs_.find(graph_id);
  if (found == graphs_.end() || !found->second.released) return;
  for (const std::int64_t op_id : found->second.op_ids) ops_.erase(op_id);
  graphs_.erase(found);
}

}  // namespace flexkv
