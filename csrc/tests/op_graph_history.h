// OpGraphHistory: an OpGraphTable led through a random history beside a model that knows only what was sent and
// answered.
#pragma once
#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

#include "tests/check.h"
#include "tests/choices.h"
#include "transfer/op_graph.h"

namespace flexkv {

// The model: per op its graph and predecessors, and from what was taken and answered which pairs are in hand. It checks
// that completions come once and in order, that nothing starts too early or after its graph was decided badly, and that
// everything that can start does.
class OpGraphHistory {
 public:
  OpGraphHistory(Choices choices, std::uint32_t num_ranks)
      : choices_(choices), num_ranks_(num_ranks), up_(num_ranks, true), unsure_(num_ranks) {
    for (std::uint32_t rank = 0; rank < num_ranks_; ++rank) table_.rank_up(rank);
  }

  void run(int num_events) {
    for (int i = 0; i < num_events && !choices_.over(); ++i) {
      event();
      observe();
    }
    finish();
  }

 private:
  struct ModelOp {
    std::int64_t graph = 0;
    bool ranked = false;
    std::vector<std::int64_t> predecessors;
    std::optional<OpStatus> status;
    std::set<std::uint32_t> taken;  // ranks it was sent to
    std::set<std::uint32_t> in_hand;
  };
  struct ModelGraph {
    std::optional<OpStatus> status;
    bool released = false;
    std::vector<std::int64_t> ops;
  };

  std::size_t pick(std::size_t n) { return choices_.below(n); }

  void event() {
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
        change_rank(static_cast<std::uint32_t>(pick(num_ranks_)));
        break;
      case 6:
        forget();
        break;
      case 7:
        answer_twice();
        break;
      default:
        pick(2) == 0 ? take(static_cast<std::uint32_t>(pick(num_ranks_))) : answer();
    }
  }

  void submit() {
    GraphSpec spec;
    spec.graph_id = next_id_++;
    spec.timeout_s = 0.5 + static_cast<double>(pick(60)) * 0.1;
    const std::size_t num_ops = pick(5);
    ModelGraph graph;
    for (std::size_t i = 0; i < num_ops; ++i) {
      OpSpec op = {next_id_++, OpType::virtual_op, {}, {}, 0, {}};
      if (pick(4) != 0) {
        op.type = OpType::h2d;
        op.src = {1, 2};
        op.dst = {3, 4};
      }
      for (std::size_t k = pick(3); k > 0 && !ops_.empty(); --k) {
        op.predecessors.push_back(std::next(ops_.begin(), static_cast<std::ptrdiff_t>(pick(ops_.size())))->first);
      }
      ops_[op.op_id] = {spec.graph_id, op.type == OpType::h2d, op.predecessors, {}, {}, {}};
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
    for (const OpSpec& op : spec.ops) {
      for (const std::int64_t predecessor : op.predecessors) {
        if (ops_.at(predecessor).graph != spec.graph_id) ever_joined_.insert(predecessor);
      }
    }
    table_.submit(spec, now_s_);
  }

  // Makes a graph one that must be refused.
  bool spoil(GraphSpec& spec) {
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

  // What has started runs on when another graph waits for it.
  void cancel(std::int64_t graph_id) {
    std::vector<std::int64_t> spared;
    for (const std::int64_t id : graphs_.at(graph_id).ops) {
      const ModelOp& op = ops_.at(id);
      const auto is_done = [this](std::int64_t predecessor) { return done_.count(predecessor) == 1; };
      const bool started = op.ranked && !op.status && std::ranges::all_of(op.predecessors, is_done);
      if (started && joined(id)) spared.push_back(id);
    }
    table_.cancel(graph_id);
    observe();
    for (const std::int64_t id : spared) CHECK(!ops_.at(id).status);
  }

  // An op of another graph that has not ended names it as predecessor.
  [[nodiscard]] bool joined(std::int64_t op_id) const {
    return std::ranges::any_of(ops_, [&](const auto& entry) {
      const ModelOp& other = entry.second;
      return other.graph != ops_.at(op_id).graph && !other.status &&
             std::ranges::find(other.predecessors, op_id) != other.predecessors.end();
    });
  }

  void change_rank(std::uint32_t rank) {
    if (up_[rank]) {
      const bool certain = pick(2) == 0;
      up_[rank] = false;
      unsure_[rank] = !certain;
      if (certain) drop(rank);
      table_.rank_lost(rank, certain, "lost");
    } else if (unsure_[rank]) {
      unsure_[rank] = false;
      drop(rank);
      table_.rank_dead(rank);
    } else {
      up_[rank] = true;
      table_.rank_up(rank);
    }
  }

  void drop(std::uint32_t rank) {
    for (auto& [id, op] : ops_) op.in_hand.erase(rank);
  }

  void take(std::uint32_t rank) {
    const auto send = table_.take_send(rank);
    if (!send) return;
    ModelOp& op = ops_.at(send->op->op_id);
    CHECK(up_[rank]);
    if (send->recall) {
      CHECK(op.in_hand.count(rank) == 1);
      return;
    }
    CHECK(op.ranked && !op.status && op.taken.insert(rank).second);
    op.in_hand.insert(rank);
    const auto decided = graphs_.at(op.graph).status;
    CHECK(!decided || (decided != OpStatus::timed_out && ever_joined_.count(send->op->op_id) == 1));
    for (const std::int64_t predecessor : op.predecessors) CHECK(done_.count(predecessor) == 1);
  }

  // An answer nobody waits for: the op is not in that rank's hands, or there is none.
  void answer_twice() {
    const auto rank = static_cast<std::uint32_t>(pick(num_ranks_));
    std::int64_t id = next_id_;
    if (!ops_.empty()) id = std::next(ops_.begin(), static_cast<std::ptrdiff_t>(pick(ops_.size())))->first;
    if (ops_.count(id) == 1 && ops_.at(id).in_hand.count(rank) == 1) return;
    CHECK(!table_.acknowledge(rank, {static_cast<std::uint64_t>(id), 1, 1, protocol::AckStatus::done, 0}, ""));
  }

  void answer() {
    for (auto& [id, op] : ops_) {
      if (op.in_hand.empty() || pick(3) == 0) continue;
      const std::uint32_t rank = *op.in_hand.begin();
      if (!up_[rank]) continue;
      op.in_hand.erase(rank);
      const std::size_t luck = pick(12);
      const auto status = luck == 0   ? protocol::AckStatus::failed
                          : luck == 1 ? protocol::AckStatus::cancelled
                                      : protocol::AckStatus::done;
      CHECK(table_.acknowledge(rank, {static_cast<std::uint64_t>(id), 1, 1, status, 0}, "bad"));
      return;
    }
  }

  void forget() {
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

  void observe() {
    table_.check_invariants();
    for (const Completion& completion : table_.take_completions()) {
      ModelGraph& graph = graphs_.at(completion.graph_id);
      CHECK(!graph.released);
      if (completion.kind == CompletionKind::op) {
        ModelOp& op = ops_.at(completion.op_id);
        CHECK(!op.status);
        op.status = completion.status;
        if (completion.status != OpStatus::done) continue;
        done_.insert(completion.op_id);
        CHECK(!op.ranked || op.taken.size() == num_ranks_);
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

  // What can be over is over: a graph with nothing in hand and nothing that could still run has been released.
  void check_progress(const ModelGraph& graph) {
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

  void finish() {
    now_s_ += 1000;
    table_.expire(now_s_);
    observe();
    for (std::uint32_t rank = 0; rank < num_ranks_; ++rank) {
      if (up_[rank]) table_.rank_lost(rank, true, "the end");
      drop(rank);
      table_.rank_dead(rank);
    }
    observe();
    CHECK(table_.num_held() == 0);
    for (const auto& [id, graph] : graphs_) CHECK(graph.released);
  }

  Choices choices_;
  std::uint32_t num_ranks_;
  OpGraphTable table_{num_ranks_};
  std::vector<bool> up_;
  std::vector<bool> unsure_;
  double now_s_ = 0;
  std::int64_t next_id_ = 1;
  std::map<std::int64_t, ModelOp> ops_;
  std::map<std::int64_t, ModelGraph> graphs_;
  std::set<std::int64_t> done_;
  std::set<std::int64_t> ever_joined_;  // named as predecessor by another graph
};

}  // namespace flexkv
