// What OpGraphTable asks of a graph before it takes it, what it says about one, and what must always hold.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <unordered_map>
#include <unordered_set>

#include "transfer/op_graph.h"
#include "transfer/timeout.h"

namespace flexkv {

namespace {

std::string seconds_text(double seconds) {
  std::array<char, 32> text = {};
  (void)std::snprintf(text.data(), text.size(), "%g s", seconds);
  return text.data();
}

[[noreturn]] void reject(const OpSpec& op, const std::string& reason) {
  throw std::invalid_argument("op " + std::to_string(op.op_id) + ": " + reason);
}

void check_count(const OpSpec& op, std::size_t count, std::size_t expected, const char* what) {
  if (count == expected) return;
  reject(op, std::string(op_type_name(op.type)) + " of " + std::to_string(op.src.size()) + " blocks has " +
                 std::to_string(count) + " " + what + ", must have " + std::to_string(expected));
}

void check_chain(const OpSpec& op) {
  const bool to_disk = op.type == OpType::h2disk;
  check_count(op, op.chain.keys.size(), needs_disk(op.type) ? op.src.size() : 0, "keys");
  check_count(op, op.chain.parents.size(), to_disk ? op.src.size() : 0, "parents");
  if (op.chain.group >= num_groups) {
    reject(op, "its group is " + std::to_string(op.chain.group) + ", must be below " + std::to_string(num_groups));
  }
  if (op.chain.priority >= num_chain_priorities) {
    reject(op, "its priority is " + std::to_string(op.chain.priority) + ", must be below " +
                   std::to_string(num_chain_priorities));
  }
}

void check_op(const OpSpec& op) {
  if (op.op_id < 0) reject(op, "its id is negative");
  if (op.src.size() != op.dst.size()) {
    reject(op, "src has " + std::to_string(op.src.size()) + " ids and dst has " + std::to_string(op.dst.size()));
  }
  if (op.src.size() > protocol::max_op_blocks) {
    reject(op, std::to_string(op.src.size()) + " blocks are more than " + std::to_string(protocol::max_op_blocks));
  }
  if (op.type != OpType::virtual_op && !needs_ranks(op.type) && !needs_disk(op.type)) {
    reject(op, std::string("no route for ") + op_type_name(op.type) + " in this engine");
  }
  if (op.layer_ticket != 0 && op.type != OpType::h2d) {
    reject(op, std::string("it has a layer ticket, and is ") + op_type_name(op.type) + ", not H2D");
  }
  check_chain(op);
}

// Kahn's algorithm over the graph's own ops; held ops of other graphs cannot depend on a new one.
void check_acyclic(const GraphSpec& spec, const std::unordered_map<std::int64_t, std::size_t>& index_of) {
  std::vector<std::size_t> unmet(spec.ops.size(), 0);
  std::vector<std::vector<std::size_t>> successors(spec.ops.size());
  for (std::size_t i = 0; i < spec.ops.size(); ++i) {
    for (const std::int64_t predecessor_id : spec.ops[i].predecessors) {
      const auto own = index_of.find(predecessor_id);
      if (own == index_of.end()) continue;
      ++unmet[i];
      successors[own->second].push_back(i);
    }
  }
  std::vector<std::size_t> ready;
  for (std::size_t i = 0; i < unmet.size(); ++i) {
    if (unmet[i] == 0) ready.push_back(i);
  }
  std::size_t num_sorted = 0;
  while (!ready.empty()) {
    const std::size_t i = ready.back();
    ready.pop_back();
    ++num_sorted;
    for (const std::size_t successor : successors[i]) {
      if (--unmet[successor] == 0) ready.push_back(successor);
    }
  }
  if (num_sorted != spec.ops.size()) {
    throw std::invalid_argument("graph " + std::to_string(spec.graph_id) + " has a cycle");
  }
}

void expect_that(bool holds, const char* what) {
  if (!holds) throw std::logic_error(std::string("OpGraphTable: ") + what);
}

}  // namespace

bool needs_ranks(OpType type) { return type == OpType::h2d || type == OpType::d2h; }

bool needs_disk(OpType type) { return type == OpType::disk2h || type == OpType::h2disk; }

const char* op_type_name(OpType type) {
  switch (type) {
    case OpType::h2d:
      return "H2D";
    case OpType::d2h:
      return "D2H";
    case OpType::disk2h:
      return "DISK2H";
    case OpType::h2disk:
      return "H2DISK";
    case OpType::remote2h:
      return "REMOTE2H";
    case OpType::h2remote:
      return "H2REMOTE";
    case OpType::virtual_op:
      return "VIRTUAL";
  }
  return "unknown";
}

const char* op_status_name(OpStatus status) {
  switch (status) {
    case OpStatus::waiting:
      return "waits";
    case OpStatus::running:
      return "runs";
    case OpStatus::done:
      return "is done";
    case OpStatus::failed:
      return "failed";
    case OpStatus::timed_out:
      return "timed out";
    case OpStatus::cancelled:
      return "was cancelled";
  }
  return "unknown";
}

bool OpGraphTable::is_open(const Op& op) { return op.status == OpStatus::waiting || op.status == OpStatus::running; }

void OpGraphTable::check_structure(const GraphSpec& spec) const {
  const std::string name = "graph " + std::to_string(spec.graph_id);
  if (graphs_.contains(spec.graph_id)) throw std::invalid_argument(name + " is held already");
  if (!(spec.timeout_s > 0 && spec.timeout_s <= max_timeout_s)) {  // NOLINT(readability-simplify-boolean-expr): a NaN
    throw std::invalid_argument("timeout_s is " + std::to_string(spec.timeout_s) + ", must be positive and at most " +
                                seconds_text(max_timeout_s));
  }
  if (spec.ops.size() > max_ops_per_graph) {
    throw std::invalid_argument(name + " has " + std::to_string(spec.ops.size()) + " ops, more than " +
                                std::to_string(max_ops_per_graph));
  }
  std::unordered_map<std::int64_t, std::size_t> index_of;
  for (std::size_t i = 0; i < spec.ops.size(); ++i) {
    const OpSpec& op = spec.ops[i];
    check_op(op);
    if (!index_of.emplace(op.op_id, i).second || ops_.contains(op.op_id)) reject(op, "its id is in use");
  }
  for (const OpSpec& op : spec.ops) {
    for (const std::int64_t predecessor_id : op.predecessors) {
      if (!index_of.contains(predecessor_id) && !ops_.contains(predecessor_id)) {
        reject(op, "its predecessor " + std::to_string(predecessor_id) + " is not known");
      }
    }
  }
  check_acyclic(spec, index_of);
}

std::string OpGraphTable::name_of_executor(std::uint32_t executor) const {
  return executor == disk() ? "disk" : "rank " + std::to_string(executor);
}

std::string OpGraphTable::missing_executor(std::uint64_t needed) const {
  for (std::uint32_t executor = 0; executor < executors_.size(); ++executor) {
    if ((needed & bit_of(executor)) != 0 && !executors_[executor].up) return executors_[executor].why_down;
  }
  return "";
}

std::string OpGraphTable::describe_open(const Graph& graph) const {
  std::string text = "not finished within " + seconds_text(graph.timeout_s);
  for (const std::int64_t op_id : graph.op_ids) {
    const Op& op = ops_.at(op_id);
    if (op.status != OpStatus::running) continue;
    text += std::string(": ") + op_type_name(op.spec.type) + " op " + std::to_string(op_id) + " waits for ";
    if (needs_disk(op.spec.type)) return text + "the disk";
    text += "ranks";
    for (std::uint32_t rank = 0; rank < disk(); ++rank) {
      if (((op.in_hand | op.queued) & bit_of(rank)) != 0) text += " " + std::to_string(rank);
    }
    return text;
  }
  return text + ": no op of it runs";
}

std::size_t OpGraphTable::count_waiting(const Op& op) const {
  return static_cast<std::size_t>(std::ranges::count_if(op.successors, [&](std::int64_t successor_id) {
    const auto found = ops_.find(successor_id);
    return found != ops_.end() && found->second.status == OpStatus::waiting;
  }));
}

void OpGraphTable::check_invariants() const {
  expect_that(cancels_.empty() && starts_.empty(), "work is left over");
  std::int64_t held = 0;
  std::size_t num_ops = 0;
  std::vector<std::int64_t> in_hand(executors_.size(), 0);
  for (const auto& [id, graph] : graphs_) {
    std::int64_t open_ops = 0;
    std::int64_t pairs = 0;
    num_ops += graph.op_ids.size();
    held += graph.released ? 0 : 1;
    for (const std::int64_t op_id : graph.op_ids) {
      const Op& op = ops_.at(op_id);
      expect_that(op.graph == &graph, "an op names another graph");
      expect_that((op.queued & op.in_hand) == 0, "a pair is both queued and in hand");
      expect_that(op.queued == 0 || op.status == OpStatus::running, "an op that does not run is queued");
      expect_that(op.status != OpStatus::waiting || op.unmet > 0, "a waiting op waits for nothing");
      expect_that(op.status != OpStatus::waiting || is_wanted(op), "an op waits that nobody wants");
      expect_that(op.status != OpStatus::waiting || missing_executor(executors_of(op.spec)).empty(),
                  "an op waits that nobody could run");
      expect_that(!is_open(op) || op.num_waiting == count_waiting(op),
                  "an op's count of those that wait for it is wrong");
      expect_that(op.status != OpStatus::running || (op.queued | op.in_hand) != 0, "a running op runs nowhere");
      open_ops += is_open(op) ? 1 : 0;
      expect_that(((op.queued | op.in_hand) & ~executors_of(op.spec)) == 0, "an op runs where it does not belong");
      for (std::uint32_t executor = 0; executor < executors_.size(); ++executor) {
        const bool here = (op.in_hand & bit_of(executor)) != 0;
        pairs += here ? 1 : 0;
        in_hand[executor] += here ? 1 : 0;
      }
    }
    expect_that(open_ops == graph.open_ops && pairs == graph.pairs_in_hand, "a graph's counts are wrong");
    const bool over = graph.status != OpStatus::running && open_ops == 0 && pairs == 0;
    expect_that(over == graph.released, "a graph is released too early or too late");
  }
  expect_that(held == num_held_ && num_ops == ops_.size(), "the table's counts are wrong");
  for (std::size_t executor = 0; executor < executors_.size(); ++executor) {
    expect_that(in_hand[executor] == executors_[executor].in_hand, "an executor's count is wrong");
  }
}

}  // namespace flexkv
