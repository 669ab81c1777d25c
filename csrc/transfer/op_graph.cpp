#include "transfer/op_graph.h"

#include <algorithm>
#include <bit>
#include <stdexcept>
#include <unordered_set>

#include "transfer/layer_gate.h"

namespace flexkv {

namespace {

std::string name_of(const OpSpec& op) { return std::string(op_type_name(op.type)) + " op " + std::to_string(op.op_id); }

template <typename Visit>
void for_each_executor(std::uint64_t mask, Visit visit) {
  for (; mask != 0; mask &= mask - 1) visit(static_cast<std::uint32_t>(std::countr_zero(mask)));
}

// No worker expects more loads than this at a time.
void keep_newest(std::deque<std::uint64_t>& tickets, std::uint64_t ticket) {
  tickets.push_back(ticket);
  if (tickets.size() > LayerGate::max_loads) tickets.pop_front();
}

}  // namespace

Share share_of(const OpSpec& op, std::uint32_t rank, std::uint32_t replicas) {
  const std::size_t num_blocks = op.src.size();
  if (op.type != OpType::d2h) return {0, num_blocks};
  const std::uint64_t mixed = static_cast<std::uint64_t>(op.op_id) * 0x9e3779b97f4a7c15u >> 32;  // ids may go in steps
  const std::size_t turn = (rank + mixed) % replicas;
  return {num_blocks * turn / replicas, num_blocks * (turn + 1) / replicas};
}

OpGraphTable::OpGraphTable(std::uint32_t num_ranks, std::uint32_t replicas) : replicas_(replicas) {
  if (num_ranks < 1 || num_ranks > max_ranks) {
    throw std::invalid_argument("num_ranks is " + std::to_string(num_ranks) + ", must be 1 to " +
                                std::to_string(max_ranks));
  }
  if (replicas < 1 || num_ranks % replicas != 0) {
    throw std::invalid_argument("replicas is " + std::to_string(replicas) + ", must divide num_ranks, " +
                                std::to_string(num_ranks));
  }
  executors_.resize(num_ranks + 1);
  for (std::uint32_t rank = 0; rank < num_ranks; ++rank) {
    executors_[rank].why_down = name_of_executor(rank) + " is not connected";
  }
  executors_.back().why_down = "no disk store is set";
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
  std::uint64_t needed = 0;
  for (OpSpec& op_spec : spec.ops) {
    needed |= executors_of(op_spec);
    graph.op_ids.push_back(op_spec.op_id);
    Op& op = ops_[op_spec.op_id];
    op.graph = &graph;
    op.spec = std::move(op_spec);
  }
  for (const std::int64_t op_id : graph.op_ids) link(ops_.at(op_id));
  const std::string missing = missing_executor(needed);
  if (!missing.empty()) {
    cancels_.clear();
    starts_.clear();
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
      ++predecessor.num_waiting;
      predecessor.successors.push_back(op.spec.op_id);
    } else if (predecessor.status != OpStatus::done) {
      cancel_reason = name_of(predecessor.spec) + ", on which it depends, " + op_status_name(predecessor.status);
    }
  }
  if (!cancel_reason.empty()) {
    cancels_.push_back({op.spec.op_id, cancel_reason});
  } else if (op.unmet == 0) {
    starts_.push_back(op.spec.op_id);
  }
}

// Cancels go first: an op that could start may be wanted by nobody but one that is to be cancelled.
void OpGraphTable::run_steps() {
  while (!cancels_.empty() || !starts_.empty()) {
    if (!cancels_.empty()) {
      const Cancel cancel = std::move(cancels_.front());
      cancels_.pop_front();
      const auto found = ops_.find(cancel.op_id);
      if (found == ops_.end() || found->second.status != OpStatus::waiting) continue;
      finish(found->second, OpStatus::cancelled, cancel.reason);
      continue;
    }
    const auto found = ops_.find(starts_.front());
    starts_.pop_front();
    if (found == ops_.end() || found->second.status != OpStatus::waiting) continue;
    if (is_wanted(found->second)) start(found->second);
  }
}

void OpGraphTable::start(Op& op) {
  op.status = OpStatus::running;
  if (op.spec.type == OpType::virtual_op || op.spec.src.empty()) {
    finish(op, OpStatus::done, "");
    return;
  }
  op.queued = executors_of(op.spec);
  for_each_executor(op.queued,
                    [&](std::uint32_t executor) { executors_[executor].sends.emplace_back(op.spec.op_id, false); });
}

// finish, decide, settle, withdraw and abandon call each other, but a graph is decided once, and only an op that runs
// is finished by abandon, on which no withdraw follows: the depth is bounded. NOLINTBEGIN(misc-no-recursion)
void OpGraphTable::finish(Op& op, OpStatus status, const std::string& error) {
  close(op, status, error);
  if (status != OpStatus::done && op.graph->status == OpStatus::running) {
    decide(*op.graph, OpStatus::failed, name_of(op.spec) + ": " + error);
  }
  settle(*op.graph);
}

// An op ends, and tells its successors; what that means for its graph is the caller's to say.
void OpGraphTable::close(Op& op, OpStatus status, const std::string& error) {
  const bool waited = op.status == OpStatus::waiting;
  const std::uint64_t unsent = waited ? executors_of(op.spec) : op.queued;
  if (status != OpStatus::done && op.spec.layer_ticket != 0) lose_load(op.spec.layer_ticket, unsent);
  op.status = status;
  op.queued = 0;
  --op.graph->open_ops;
  completions_.push_back({CompletionKind::op, op.spec.type, static_cast<std::uint32_t>(op.spec.src.size()),
                          op.graph->id, op.spec.op_id, status, op.bytes, static_cast<double>(op.slowest_ns) * 1e-9,
                          error, std::move(op.disk.failed), op.disk.num_bad_checksums, op.disk.io_errno,
                          static_cast<double>(op.disk.queued_ns) * 1e-9});
  // A cancelled op hands its own reason on: along a chain the message names the first cause and does not grow.
  const std::string reason = status == OpStatus::cancelled
                                 ? error
                                 : name_of(op.spec) + ", on which it depends, " + op_status_name(status) + ": " + error;
  const std::vector<std::int64_t> successors = std::exchange(op.successors, {});
  for (const std::int64_t successor_id : successors) {
    const auto found = ops_.find(successor_id);
    if (found == ops_.end() || found->second.status != OpStatus::waiting) continue;
    if (status != OpStatus::done) {
      cancels_.push_back({successor_id, reason});
    } else if (--found->second.unmet == 0) {
      starts_.push_back(successor_id);
    }
  }
  if (status != OpStatus::done) recall(op);  // what other executors do for it is of no use any more
  if (waited) withdraw(op);
}

void OpGraphTable::decide(Graph& graph, OpStatus status, const std::string& error) {
  graph.status = status;
  graph.error = error;
  push(CompletionKind::graph_status, graph);
  if (status != OpStatus::done) abandon_unwanted(graph);
}

void OpGraphTable::abandon_unwanted(Graph& graph) {
  for (const std::int64_t op_id : graph.op_ids) {
    Op& op = ops_.at(op_id);
    if (is_open(op) && !is_wanted(op)) abandon(op);
  }
}

// Nobody wants the op any more: what is not yet with all of its executors goes no further, what is drains.
void OpGraphTable::abandon(Op& op) {
  const std::string reason = "its graph " + std::string(op_status_name(op.graph->status));
  if (op.status == OpStatus::waiting) {
    cancels_.push_back({op.spec.op_id, reason});
  } else if (op.queued != 0) {
    finish(op, OpStatus::cancelled, reason);
  } else if (op.graph->recalls) {
    recall(op);
  }
}

// An op that waited is over: those it waited for may be wanted no longer.
void OpGraphTable::withdraw(const Op& op) {
  const std::unordered_set<std::int64_t> predecessors(op.spec.predecessors.begin(), op.spec.predecessors.end());
  for (const std::int64_t predecessor_id : predecessors) {
    const auto found = ops_.find(predecessor_id);
    if (found == ops_.end() || !is_open(found->second)) continue;
    --found->second.num_waiting;
    if (!is_wanted(found->second)) abandon(found->second);
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
  Completion completion;
  completion.kind = kind;
  completion.graph_id = graph.id;
  completion.status = graph.status;
  completion.error = graph.error;
  completions_.push_back(std::move(completion));
}

void OpGraphTable::recall(Op& op) {
  if (std::exchange(op.recalled, true)) return;
  for_each_executor(op.in_hand, [&](std::uint32_t executor) {
    if (executors_[executor].up) executors_[executor].sends.emplace_back(op.spec.op_id, true);
  });
}

void OpGraphTable::lose_load(std::uint64_t layer_ticket) { lose_load(layer_ticket, bit_of(disk()) - 1); }

void OpGraphTable::lose_load(std::uint64_t layer_ticket, std::uint64_t executors) {
  if (std::ranges::find(lost_tickets_, layer_ticket) == lost_tickets_.end()) keep_newest(lost_tickets_, layer_ticket);
  for_each_executor(executors, [&](std::uint32_t executor) {
    if (executors_[executor].up) keep_newest(executors_[executor].lost_tickets, layer_ticket);
  });
}

bool OpGraphTable::is_wanted(const Op& op) { return op.graph->status == OpStatus::running || op.num_waiting > 0; }

void OpGraphTable::cancel_graph(Graph& graph, const std::string& reason) {
  if (graph.released) return;
  graph.recalls = true;
  if (graph.status == OpStatus::running) {
    decide(graph, OpStatus::cancelled, reason);
  } else {
    abandon_unwanted(graph);
  }
  run_steps();
}

void OpGraphTable::cancel(std::int64_t graph_id) {
  const auto found = graphs_.find(graph_id);
  if (found != graphs_.end()) cancel_graph(found->second, "cancelled");
}

void OpGraphTable::cancel_all() {
  const std::string reason = "the transfer engine stops";
  for (auto& [id, graph] : graphs_) cancel_graph(graph, reason);  // with the last of them nothing is wanted any more
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
  graph.recalls = true;
  for (const std::int64_t op_id : graph.op_ids) {
    Op& op = ops_.at(op_id);
    if (op.status == OpStatus::running) {
      close(op, OpStatus::timed_out, error);
    } else if (op.status != OpStatus::waiting) {
      recall(op);
    }
  }
  if (graph.status == OpStatus::running) decide(graph, OpStatus::timed_out, error);
  for (const std::int64_t op_id : graph.op_ids) {  // wanted or not
    if (ops_.at(op_id).status == OpStatus::waiting) cancels_.push_back({op_id, "its graph timed out"});
  }
  settle(graph);
}

std::optional<double> OpGraphTable::next_deadline_s() const {
  if (deadlines_.empty()) return std::nullopt;
  return deadlines_.begin()->first;
}

std::uint64_t OpGraphTable::executors_of(const OpSpec& op) const {
  if (needs_disk(op.type)) return bit_of(disk());
  std::uint64_t ranks = 0;
  for (std::uint32_t rank = 0; rank < disk() && needs_ranks(op.type); ++rank) {
    const Share share = share_of(op, rank, replicas_);
    if (share.begin != share.end) ranks |= bit_of(rank);
  }
  return ranks;
}

// It may have missed the word of loads that its worker is about to wait for.
void OpGraphTable::executor_up(std::uint32_t executor) {
  executors_.at(executor).up = true;
  if (executor != disk()) executors_[executor].lost_tickets = lost_tickets_;
}

void OpGraphTable::executor_lost(std::uint32_t executor, bool certain, const std::string& reason) {
  executors_.at(executor).up = false;
  executors_[executor].sends.clear();
  executors_[executor].lost_tickets.clear();
  if (executor == disk()) executors_[executor].why_down = reason;
  const auto needs_it = [&](const Op& op) { return (executors_of(op.spec) & bit_of(executor)) != 0; };
  for (auto& [id, graph] : graphs_) {
    if (graph.released) continue;
    bool needed = false;
    for (const std::int64_t op_id : graph.op_ids) {
      Op& op = ops_.at(op_id);
      if (!is_open(op) || !needs_it(op)) continue;
      needed = true;
      const bool runs_there = ((op.in_hand | op.queued) & bit_of(executor)) != 0;
      if (op.status == OpStatus::running && runs_there) finish(op, OpStatus::failed, reason);
    }
    if (needed && graph.status == OpStatus::running) decide(graph, OpStatus::failed, reason);
    for (const std::int64_t op_id : graph.op_ids) {
      const Op& op = ops_.at(op_id);
      if (op.status == OpStatus::waiting && needs_it(op)) cancels_.push_back({op_id, reason});
    }
  }
  run_steps();
  if (certain) executor_dead(executor);
}

void OpGraphTable::executor_dead(std::uint32_t executor) {
  if (executors_.at(executor).in_hand == 0) return;
  for (auto& [id, graph] : graphs_) {
    if (graph.pairs_in_hand == 0) continue;
    for (const std::int64_t op_id : graph.op_ids) {
      Op& op = ops_.at(op_id);
      if ((op.in_hand & bit_of(executor)) != 0) drop_pair(op, executor);
    }
    settle(graph);
  }
}

void OpGraphTable::drop_pair(Op& op, std::uint32_t executor) {
  op.in_hand &= ~bit_of(executor);
  --op.graph->pairs_in_hand;
  --executors_[executor].in_hand;
}

std::optional<OpGraphTable::Send> OpGraphTable::take_send(std::uint32_t executor) {
  Executor& state = executors_.at(executor);
  if (state.up && !state.lost_tickets.empty()) {
    const std::uint64_t lost_ticket = state.lost_tickets.front();
    state.lost_tickets.pop_front();
    return Send{false, nullptr, {}, lost_ticket};
  }
  while (state.up && !state.sends.empty()) {
    const auto [op_id, is_recall] = state.sends.front();
    state.sends.pop_front();
    const auto found = ops_.find(op_id);
    if (found == ops_.end()) continue;
    Op& op = found->second;
    if (is_recall && (op.in_hand & bit_of(executor)) != 0) return Send{true, &op.spec, {}, 0};
    if (!is_recall && (op.queued & bit_of(executor)) != 0) {
      op.queued &= ~bit_of(executor);
      op.in_hand |= bit_of(executor);
      ++op.graph->pairs_in_hand;
      ++state.in_hand;
      return Send{false, &op.spec, share_of(op.spec, executor, replicas_), 0};
    }
  }
  return std::nullopt;
}

OpGraphTable::Op* OpGraphTable::find_in_hand(std::int64_t op_id, std::uint32_t executor) {
  const auto found = ops_.find(op_id);
  return found != ops_.end() && (found->second.in_hand & bit_of(executor)) != 0 ? &found->second : nullptr;
}

bool OpGraphTable::acknowledge(std::uint32_t rank, const protocol::AckBody& ack, const std::string& error) {
  Op* const op = find_in_hand(static_cast<std::int64_t>(ack.op_id), rank);
  if (op == nullptr) return false;
  op->bytes += ack.bytes;
  op->slowest_ns = std::max(op->slowest_ns, ack.duration_ns);
  const std::string name = name_of_executor(rank);
  if (ack.status == protocol::AckStatus::failed) {
    take_ack(*op, rank, OpStatus::failed, name + ": " + error);
  } else if (ack.status == protocol::AckStatus::cancelled) {
    take_ack(*op, rank, OpStatus::cancelled, name + " did not start it");
  } else {
    take_ack(*op, rank, OpStatus::done, "");
  }
  return true;
}

bool OpGraphTable::acknowledge(DiskAck ack) {
  Op* const op = find_in_hand(ack.op_id, disk());
  if (op == nullptr) return false;
  op->bytes = ack.bytes;
  op->slowest_ns = ack.duration_ns;
  OpStatus status = OpStatus::done;
  std::string error;
  if (!ack.failed.empty() || !ack.error.empty() || ack.cancelled) {
    const bool moved_badly = !ack.cancelled || ack.num_bad_checksums > 0 || ack.io_errno != 0;
    status = moved_badly ? OpStatus::failed : OpStatus::cancelled;
    error = name_of_executor(disk()) + ": " + (ack.error.empty() ? "it was not moved as a whole" : ack.error);
  }
  op->disk = std::move(ack);
  take_ack(*op, disk(), status, error);
  return true;
}

// An executor lets go of the op; done: as far as it is concerned.
void OpGraphTable::take_ack(Op& op, std::uint32_t executor, OpStatus status, const std::string& error) {
  drop_pair(op, executor);
  if (!is_open(op)) {  // it timed out, failed on another rank, ...: only the release was waiting for this
    settle(*op.graph);
    return;
  }
  if (status != OpStatus::done) {
    finish(op, status, error);
  } else if (op.in_hand == 0 && op.queued == 0) {
    finish(op, OpStatus::done, "");
  }
  run_steps();
}

void OpGraphTable::forget(std::int64_t graph_id) {
  const auto found = graphs_.find(graph_id);
  if (found == graphs_.end() || !found->second.released) return;
  for (const std::int64_t op_id : found->second.op_ids) ops_.erase(op_id);
  graphs_.erase(found);
}

}  // namespace flexkv
