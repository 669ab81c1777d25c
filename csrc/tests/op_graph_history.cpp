#include "tests/op_graph_history.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

#include "tests/check.h"
#include "tests/choices.h"
#include "transfer/op_graph.h"

namespace flexkv {

OpGraphHistory::OpGraphHistory(Choices choices, std::uint32_t num_ranks, std::uint32_t replicas)
    : choices_(choices),
      num_ranks_(num_ranks),
      replicas_(replicas),
      up_(num_ranks + 1, true),
      unsure_(num_ranks + 1),
      told_again_(num_ranks + 1) {
  for (std::uint32_t executor = 0; executor <= num_ranks_; ++executor) table_.executor_up(executor);
}

void OpGraphHistory::run(int num_events) {
  for (int i = 0; i < num_events && !choices_.over(); ++i) {
    event();
    observe();
  }
  finish();
}

void OpGraphHistory::event() {
  now_s_ += 0.1;
  switch (pick(13)) {
    case 0:
    case 1:
    case 2:
      submit();
      break;
    case 3:
      if (!graphs_.empty())
        cancel(std::next(graphs_.begin(), static_cast<std::ptrdiff_t>(pick(graphs_.size())))->first);
      break;
    case 4:
      table_.expire(now_s_);
      break;
    case 5:
      change_executor(any_executor());
      break;
    case 6:
      forget();
      break;
    case 7:
      answer_twice();
      break;
    default:
      pick(2) == 0 ? take(any_executor()) : answer();
  }
}

void OpGraphHistory::submit() {
  GraphSpec spec;
  spec.graph_id = next_id_++;
  spec.timeout_s = 0.5 + static_cast<double>(pick(60)) * 0.1;
  const std::size_t num_ops = pick(5);
  ModelGraph graph;
  for (std::size_t i = 0; i < num_ops; ++i) {
    OpSpec op = {next_id_++, OpType::virtual_op, {}, {}, 0, {}};
    if (pick(4) != 0) give_route(op);
    for (std::size_t k = pick(3); k > 0 && !ops_.empty(); --k) {
      op.predecessors.push_back(std::next(ops_.begin(), static_cast<std::ptrdiff_t>(pick(ops_.size())))->first);
    }
    ops_[op.op_id] = {spec.graph_id, movers_of(op), op.predecessors, {}, {}, {}, op.layer_ticket, {}};
    graph.ops.push_back(op.op_id);
    spec.ops.push_back(op);
  }
  if (pick(8) == 0 && spoil(spec)) {
    CHECK_THROWS(table_.submit(spec, now_s_), std::invalid_argument);
    for (const std::int64_t id : graph.ops) ops_.erase(id);
    return;
  }
  choices_.shuffle(spec.ops);  // predecessors may stand behind
  graphs_[spec.graph_id] = graph;
  table_.submit(spec, now_s_);
}

void OpGraphHistory::give_route(OpSpec& op) {
  op.src = {1, 2};
  op.dst = {3, 4};
  const std::size_t route = pick(96);  // in one byte
  if (route % 3 == 0) {
    op.type = pick(2) == 0 ? OpType::disk2h : OpType::h2disk;
    op.chain.keys.resize(2);
    op.chain.parents.resize(op.type == OpType::h2disk ? 2 : 0);
    return;
  }
  op.type = route % 2 == 0 ? OpType::h2d : OpType::d2h;
  op.src.resize(1 + route / 6 % 5, 7);
  op.dst.resize(op.src.size(), 8);
  if (op.type == OpType::h2d && op.src.size() % 2 == 0) op.layer_ticket = static_cast<std::uint64_t>(op.op_id);
}

std::set<std::uint32_t> OpGraphHistory::movers_of(const OpSpec& op) const {
  if (op.type == OpType::virtual_op) return {};
  if (op.type == OpType::disk2h || op.type == OpType::h2disk) return {num_ranks_};
  std::set<std::uint32_t> movers;
  for (std::uint32_t rank = 0; rank < num_ranks_; ++rank) movers.insert(rank);
  if (op.type != OpType::d2h) return movers;
  for (std::uint32_t first = 0; first < num_ranks_; first += replicas_) {
    std::vector<int> times(op.src.size());
    for (std::uint32_t rank = first; rank < first + replicas_; ++rank) {
      const Share share = share_of(op, rank, replicas_);
      for (std::size_t at = share.begin; at < share.end; ++at) ++times.at(at);
      if (share.begin == share.end) movers.erase(rank);
    }
    CHECK(std::ranges::all_of(times, [](int count) { return count == 1; }));
  }
  return movers;
}

bool OpGraphHistory::spoil(GraphSpec& spec) {
  if (spec.ops.empty()) return false;
  OpSpec& first = spec.ops.front();
  switch (pick(5)) {
    case 0:
      spec.ops.push_back(first);
      break;
    case 1:
      first.predecessors.push_back(next_id_ + 1);
      break;
    case 2:
      spec.ops.back().predecessors.push_back(first.op_id);
      first.predecessors.push_back(spec.ops.back().op_id);  // a cycle
      break;
    case 3:
      first.src.push_back(1);
      break;
    default:
      spec.timeout_s = -1;
  }
  return true;
}

void OpGraphHistory::cancel(std::int64_t graph_id) {
  const auto open = [this](std::int64_t id) { return !ops_.at(id).status; };
  std::vector<std::int64_t> spared;
  std::vector<std::int64_t> waiting;
  for (const std::int64_t id : graphs_.at(graph_id).ops) {
    if (!open(id)) continue;
    if (wanted_by_others(id, graph_id)) {
      spared.push_back(id);
    } else if (!runs(ops_.at(id))) {
      waiting.push_back(id);
    }
  }
  table_.cancel(graph_id);
  observe();
  CHECK(std::ranges::all_of(spared, open) && std::ranges::none_of(waiting, open));
}

bool OpGraphHistory::wanted_by_others(std::int64_t op_id, std::int64_t graph_id) const {
  return std::ranges::any_of(ops_, [&](const auto& entry) {
    const auto& [id, other] = entry;
    if (other.status || std::ranges::find(other.predecessors, op_id) == other.predecessors.end()) return false;
    const bool undecided = other.graph != graph_id && !graphs_.at(other.graph).status;
    return undecided || wanted_by_others(id, graph_id);
  });
}

void OpGraphHistory::change_executor(std::uint32_t executor) {
  if (up_[executor]) {
    const bool certain = pick(2) == 0;
    up_[executor] = false;
    unsure_[executor] = !certain;
    if (certain) drop(executor);
    for (auto& [id, op] : ops_) op.to_be_told.erase(executor);
    table_.executor_lost(executor, certain, "lost");
    observe();
    for (const auto& [id, op] : ops_)
      CHECK(op.status || !op.executors.contains(executor) || op.taken.contains(executor));
  } else if (unsure_[executor]) {
    unsure_[executor] = false;
    drop(executor);
    table_.executor_dead(executor);
  } else {
    up_[executor] = true;
    told_again_[executor] = lost_tickets_;
    table_.executor_up(executor);
  }
}

void OpGraphHistory::take(std::uint32_t executor) {
  const auto send = table_.take_send(executor);
  if (!send) {
    for (const auto& [id, op] : ops_) CHECK(!op.to_be_told.contains(executor));
    return;
  }
  if (send->lost_ticket != 0) return be_told(executor, send->lost_ticket);
  const std::int64_t id = send->op->op_id;
  ModelOp& op = ops_.at(id);
  CHECK(up_[executor] && op.executors.contains(executor));
  if (send->recall) {
    CHECK(op.in_hand.count(executor) == 1);
    return;
  }
  CHECK(!op.status && op.taken.insert(executor).second);
  const Share share = send->share;
  CHECK(share.begin < share.end && share.end <= send->op->src.size());
  CHECK(send->op->type == OpType::d2h || share.end - share.begin == send->op->src.size());
  op.in_hand.insert(executor);
  const auto decided = graphs_.at(op.graph).status;
  CHECK(!decided || (decided != OpStatus::timed_out && wanted_by_others(id, op.graph)));
  for (const std::int64_t predecessor : op.predecessors) CHECK(done_.count(predecessor) == 1);
}

void OpGraphHistory::be_told(std::uint32_t executor, std::uint64_t layer_ticket) {
  CHECK(up_[executor] && executor != table_.disk());
  const auto found = ops_.find(static_cast<std::int64_t>(layer_ticket));
  if (found == ops_.end()) return;  // released and forgotten
  ModelOp& op = found->second;
  CHECK(op.layer_ticket == layer_ticket && op.status && op.status != OpStatus::done);
  const bool is_due = op.to_be_told.erase(executor) == 1;
  CHECK(is_due || told_again_[executor].contains(layer_ticket));
}

void OpGraphHistory::answer_twice() {
  const std::uint32_t executor = any_executor();
  std::int64_t id = next_id_;
  if (!ops_.empty()) id = std::next(ops_.begin(), static_cast<std::ptrdiff_t>(pick(ops_.size())))->first;
  if (ops_.count(id) == 1 && ops_.at(id).in_hand.count(executor) == 1) return;
  CHECK(!acknowledge(executor, id, protocol::AckStatus::done));
}

bool OpGraphHistory::acknowledge(std::uint32_t executor, std::int64_t id, protocol::AckStatus status) {
  if (executor != table_.disk()) {
    return table_.acknowledge(executor, {static_cast<std::uint64_t>(id), 1, 1, status, 0}, "bad");
  }
  DiskAck ack;
  ack.op_id = id;
  if (status != protocol::AckStatus::done) ack.failed = {0};
  ack.cancelled = status == protocol::AckStatus::cancelled;
  return table_.acknowledge(std::move(ack));
}

void OpGraphHistory::answer() {
  for (auto& [id, op] : ops_) {
    if (op.in_hand.empty() || pick(3) == 0) continue;
    const std::uint32_t executor = *op.in_hand.begin();
    if (!up_[executor]) continue;
    op.in_hand.erase(executor);
    const std::size_t luck = pick(12);
    const auto status = luck == 0   ? protocol::AckStatus::failed
                        : luck == 1 ? protocol::AckStatus::cancelled
                                    : protocol::AckStatus::done;
    CHECK(acknowledge(executor, id, status));
    return;
  }
}

void OpGraphHistory::forget() {
  for (auto graph = graphs_.begin(); graph != graphs_.end(); ++graph) {
    if (!graph->second.released) {
      table_.forget(graph->first);  // no-op
      continue;
    }
    for (const std::int64_t id : graph->second.ops) ops_.erase(id);
    table_.forget(graph->first);
    graphs_.erase(graph);
    return;
  }
}

void OpGraphHistory::observe() {
  table_.check_invariants();
  for (const Completion& completion : table_.take_completions()) {
    ModelGraph& graph = graphs_.at(completion.graph_id);
    CHECK(!graph.released);
    if (completion.kind == CompletionKind::op) {
      ModelOp& op = ops_.at(completion.op_id);
      CHECK(!op.status);
      op.status = completion.status;
      if (completion.status != OpStatus::done) note_lost(op);
      if (completion.status != OpStatus::done) continue;
      done_.insert(completion.op_id);
      CHECK(op.taken == op.executors);
      for (const std::int64_t predecessor : op.predecessors) CHECK(done_.count(predecessor) == 1);
    } else if (completion.kind == CompletionKind::graph_status) {
      CHECK(!graph.status);
      graph.status = completion.status;
      for (const std::int64_t id : graph.ops) {
        CHECK(completion.status != OpStatus::done || ops_.at(id).status == OpStatus::done);
      }
    } else {
      CHECK(graph.status == completion.status);
      graph.released = true;
      for (const std::int64_t id : graph.ops) CHECK(ops_.at(id).status && ops_.at(id).in_hand.empty());
    }
  }
  for (const auto& [id, graph] : graphs_) check_progress(graph);
}

void OpGraphHistory::note_lost(ModelOp& op) {
  if (op.layer_ticket == 0) return;
  lost_tickets_.insert(op.layer_ticket);
  for (const std::uint32_t rank : op.executors) {
    if (up_[rank] && !op.taken.contains(rank)) op.to_be_told.insert(rank);
  }
}

void OpGraphHistory::check_progress(const ModelGraph& graph) {
  bool in_hand = false;
  bool open = false;
  for (const std::int64_t id : graph.ops) {
    in_hand = in_hand || !ops_.at(id).in_hand.empty();
    open = open || !ops_.at(id).status;
    const bool bad = ops_.at(id).status && ops_.at(id).status != OpStatus::done;
    CHECK(!bad || graph.status);
  }
  CHECK((!in_hand && !open) == graph.released);
}

void OpGraphHistory::finish() {
  now_s_ += 1000;
  table_.expire(now_s_);
  observe();
  for (std::uint32_t executor = 0; executor <= num_ranks_; ++executor) {
    if (up_[executor]) table_.executor_lost(executor, true, "the end");
    drop(executor);
    table_.executor_dead(executor);
  }
  observe();
  CHECK(table_.num_held() == 0);
  for (const auto& [id, graph] : graphs_) CHECK(graph.released);
}

}  // namespace flexkv
