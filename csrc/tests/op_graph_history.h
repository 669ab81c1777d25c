// OpGraphHistory: an OpGraphTable led through a random history beside a model that knows only what was sent and
// answered.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "tests/choices.h"
#include "transfer/op_graph.h"

namespace flexkv {

// The model: per op its graph and predecessors, and from what was taken and answered which pairs are in hand. It checks
// that completions come once and in order, that nothing starts too early or after its graph was decided badly, and that
// everything that can start does.
class OpGraphHistory {
 public:
  OpGraphHistory(Choices choices, std::uint32_t num_ranks, std::uint32_t replicas = 1);
  void run(int num_events);

 private:
  struct ModelOp {
    std::int64_t graph = 0;
    std::set<std::uint32_t> executors;  // it is sent to, and is nothing without
    std::vector<std::int64_t> predecessors;
    std::optional<OpStatus> status;
    std::set<std::uint32_t> taken;  // executors it was sent to
    std::set<std::uint32_t> in_hand;
    std::uint64_t layer_ticket = 0;
    std::set<std::uint32_t> to_be_told;  // that the load does not come
  };
  struct ModelGraph {
    std::optional<OpStatus> status;
    bool released = false;
    std::vector<std::int64_t> ops;
  };

  std::size_t pick(std::size_t n) { return choices_.below(n); }
  std::uint32_t any_executor() { return static_cast<std::uint32_t>(pick(num_ranks_ + 1)); }

  void event();
  void submit();

  // Makes the op one that ranks or the disk execute.
  void give_route(OpSpec& op);

  // Each block of a store has one mover in each group of replicas.
  [[nodiscard]] std::set<std::uint32_t> movers_of(const OpSpec& op) const;

  // Makes a graph one that must be refused.
  bool spoil(GraphSpec& spec);

  // What other graphs wait for, waiting or running, outlives the cancel. What nobody waits for is not started.
  void cancel(std::int64_t graph_id);

  // An open op of an undecided graph but this one needs it, over however many others.
  [[nodiscard]] bool wanted_by_others(std::int64_t op_id, std::int64_t graph_id) const;

  void change_executor(std::uint32_t executor);

  // What it waits for is done.
  [[nodiscard]] bool runs(const ModelOp& op) const {
    return std::ranges::all_of(op.predecessors, [this](auto before) { return done_.contains(before); });
  }

  void drop(std::uint32_t executor) {
    for (auto& [id, op] : ops_) op.in_hand.erase(executor);
  }

  void take(std::uint32_t executor);

  // The load does not come: its op has ended badly, and was not sent. The last one is told again to who comes up.
  void be_told(std::uint32_t executor, std::uint64_t layer_ticket);

  // An answer nobody waits for: the op is not in that rank's hands, or there is none.
  void answer_twice();

  bool acknowledge(std::uint32_t executor, std::int64_t id, protocol::AckStatus status);
  void answer();
  void forget();
  void observe();
  void note_lost(ModelOp& op);

  // What can be over is over: a graph with nothing in hand and nothing that could still run has been released.
  void check_progress(const ModelGraph& graph);

  void finish();

  Choices choices_;
  std::uint32_t num_ranks_;
  std::uint32_t replicas_;
  OpGraphTable table_{num_ranks_, replicas_};
  std::vector<bool> up_;
  std::vector<bool> unsure_;
  std::vector<std::set<std::uint64_t>> told_again_;  // the layer tickets that were lost when it came up
  std::set<std::uint64_t> lost_tickets_;
  double now_s_ = 0;
  std::int64_t next_id_ = 1;
  std::map<std::int64_t, ModelOp> ops_;
  std::map<std::int64_t, ModelGraph> graphs_;
  std::set<std::int64_t> done_;
};

}  // namespace flexkv
