// What the tests of the OpGraphTable share: ops, and a table that checks its invariants and tells its completions as
// text.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tests/check.h"
#include "transfer/op_graph.h"

namespace flexkv {

using protocol::AckStatus;

inline OpSpec load(std::int64_t id, std::vector<std::int64_t> predecessors = {}) {
  return {id, OpType::h2d, {1, 2}, {3, 4}, 0, std::move(predecessors)};
}

inline OpSpec layer_load(std::int64_t id, std::uint64_t layer_ticket) {
  OpSpec op = load(id);
  op.layer_ticket = layer_ticket;
  return op;
}

inline OpSpec nothing(std::int64_t id, std::vector<std::int64_t> predecessors = {}) {
  return {id, OpType::virtual_op, {}, {}, 0, std::move(predecessors)};
}

struct Table : OpGraphTable {
  explicit Table(std::uint32_t num_ranks, bool up = true, std::uint32_t replicas = 1)
      : OpGraphTable(num_ranks, replicas) {
    for (std::uint32_t rank = 0; up && rank < num_ranks; ++rank) executor_up(rank);
  }
  bool ack(std::uint32_t rank, std::uint64_t op_id, AckStatus status = AckStatus::done) {
    const bool known = acknowledge(rank, {op_id, 10, 1000, status, 5}, "no luck");
    check_invariants();
    return known;
  }
  std::vector<std::int64_t> sent(std::uint32_t rank, bool recalls = false) {
    std::vector<std::int64_t> ids;
    for (auto send = take_send(rank); send; send = take_send(rank)) {
      CHECK(send->lost_ticket == 0);
      if (send->recall == recalls) ids.push_back(send->op->op_id);
    }
    check_invariants();
    return ids;
  }
  // The layer tickets that a rank is told will not come; it is sent nothing else.
  std::vector<std::uint64_t> lost(std::uint32_t rank) {
    std::vector<std::uint64_t> tickets;
    for (auto send = take_send(rank); send; send = take_send(rank)) {
      CHECK(send->lost_ticket != 0 && send->op == nullptr && !send->recall);
      tickets.push_back(send->lost_ticket);
    }
    return tickets;
  }
  // The completions as text: "op 3 done", "status 1 failed", "released 1 failed".
  std::vector<std::string> events() {
    static const char* names[] = {"waiting", "running", "done", "failed", "timed_out", "cancelled"};
    std::vector<std::string> texts;
    for (const Completion& c : take_completions()) {
      const std::string status = names[static_cast<int>(c.status)];
      CHECK((c.status == OpStatus::done) == c.error.empty());
      if (c.kind == CompletionKind::op) texts.push_back("op " + std::to_string(c.op_id) + " " + status);
      if (c.kind == CompletionKind::graph_status)
        texts.push_back("status " + std::to_string(c.graph_id) + " " + status);
      if (c.kind == CompletionKind::graph_released)
        texts.push_back("released " + std::to_string(c.graph_id) + " " + status);
    }
    check_invariants();
    return texts;
  }
};

using Texts = std::vector<std::string>;
using Ids = std::vector<std::int64_t>;

}  // namespace flexkv
