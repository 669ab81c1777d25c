// The values that go into a TransferEngine (graphs of ops) and come out of it (completions).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "cache/hash.h"

namespace flexkv {

enum class OpType : std::uint8_t { h2d, d2h, disk2h, h2disk, remote2h, h2remote, virtual_op };
enum class OpStatus : std::uint8_t { waiting, running, done, failed, timed_out, cancelled };
enum class CompletionKind : std::uint8_t { op, graph_status, graph_released };

inline constexpr std::uint8_t num_groups = 32;
inline constexpr std::uint8_t num_chain_priorities = 8;

// Which blocks a disk op moves: stretches of chains, one behind the other. Block i has keys[i] and parents[i]; the
// parent of a chain's first block is all zero. What else a record says is of the op as a whole.
struct ChainSpec {
  std::vector<BlockKey> keys;            // one per block
  std::vector<BlockKey> parents;         // h2disk: one per block; disk2h: empty
  std::uint32_t expiry_s = 0xffffffffu;  // h2disk: seconds since 1970; the maximum means never
  std::uint16_t tenant = 0;
  std::uint8_t group = 0;     // below num_groups
  std::uint8_t priority = 0;  // below num_chain_priorities
};

struct OpSpec {
  std::int64_t op_id = 0;
  OpType type = OpType::virtual_op;
  std::vector<std::int64_t> src;  // h2d, h2disk: host slots;  d2h: device blocks;  disk2h: disk slots
  std::vector<std::int64_t> dst;  // h2d: device blocks;  d2h, disk2h: host slots;  h2disk: disk slots
  std::uint64_t after_step = 0;
  std::vector<std::int64_t> predecessors;  // op ids, of this graph or of a held one
  ChainSpec chain{};                       // disk2h, h2disk
  std::uint64_t layer_ticket = 0;          // h2d: a load by layers; 0: not by layers
};

struct GraphSpec {
  std::int64_t graph_id = 0;
  std::vector<OpSpec> ops;  // may be empty: completes at once
  double timeout_s = 20.0;
};

struct Completion {
  CompletionKind kind = CompletionKind::op;
  OpType type = OpType::virtual_op;  // kind op
  std::uint32_t num_blocks = 0;      // kind op: it was to move, whether it did or not
  std::int64_t graph_id = 0;
  std::int64_t op_id = -1;           // kind op
  OpStatus status = OpStatus::done;  // op: its own; else its graph's: done | failed | timed_out | cancelled
  std::uint64_t bytes = 0;           // op: over all ranks
  double seconds = 0;                // op: slowest rank's copy time
  std::string error;                 // what and where, empty when done
  // A disk op that the disk has acknowledged: positions in src and dst of the blocks that were not moved well,
  // ascending, and why. One that timed out, or was cancelled before it was sent, names none: no block of it counts as
  // moved.
  std::vector<std::uint32_t> failed_blocks;
  std::uint32_t num_bad_checksums = 0;
  int io_errno = 0;
  double queued_seconds = 0;  // disk op: how long its first block waited; `seconds` counts from then
};

struct RankInfo {
  std::uint32_t rank = 0;
  std::int64_t pid = 0;
  std::uint64_t num_blocks = 0;
  std::uint64_t slot_bytes = 0;
  std::uint32_t tokens_per_block = 0;
  std::string layout_tag;
  bool connected = false;
  std::int64_t slots_mapped = 0;
};

}  // namespace flexkv
