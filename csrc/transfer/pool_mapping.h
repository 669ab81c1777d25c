// PoolMapping: one rank's shard of the engine's host pool, as a copy agent uses it.
//
// In another process than the engine's it maps the memfd that came with POOL, shared and not inherited by forked
// children. In the engine's own process it is a view of the engine's mapping (D1: one process, one mapping), which the
// engine keeps until every op sent to the agent has been acknowledged; but not where ranks share the segment: a device
// driver takes an address once, and each rank registers the pages under one of its own. Thread safety: immutable.
#pragma once
#include <cstddef>
#include <cstdint>

#include "transfer/copy_engine.h"
#include "transfer/protocol.h"

namespace flexkv {

class PoolMapping {
 public:
  // Maps `memfd` (not kept), or takes pool.base_address when `engine_is_this_process` and there is one.
  // Throws std::invalid_argument when the announcement cannot be true for slots of `slot_bytes` (a stride too short, a
  // file too small, a file that could still shrink and so fault us), std::system_error when it cannot be mapped.
  PoolMapping(const protocol::PoolBody& pool, int memfd, std::uint64_t slot_bytes, bool engine_is_this_process);
  ~PoolMapping();
  PoolMapping(const PoolMapping&) = delete;
  PoolMapping& operator=(const PoolMapping&) = delete;

  [[nodiscard]] const HostShard& shard() const { return shard_; }

 private:
  HostShard shard_;
  void* mapped_ = nullptr;
  std::size_t mapped_bytes_ = 0;
};

}  // namespace flexkv
