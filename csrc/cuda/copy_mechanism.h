// CopyMechanism: one way of moving blocks between GPU and host memory, for one direction; and what is to be moved.
//
// Thread safety: one thread at a time.
#pragma once
#include <cstdint>
#include <span>

#include "cuda/block_map.h"
#include "transfer/block_copier.h"

namespace flexkv::cuda {

struct CopyOp {
  const BlockMap& map;
  const HostShard& host;
  std::span<const std::int64_t> slots;
  std::span<const std::int64_t> blocks;  // as many
  SlotPart part;                         // what is copied of each
  std::uint64_t after_step = 0;          // whatever touches the map's blocks comes behind that step's work
};

class CopyMechanism {
 public:
  CopyMechanism() = default;
  virtual ~CopyMechanism() = default;
  CopyMechanism(const CopyMechanism&) = delete;
  CopyMechanism& operator=(const CopyMechanism&) = delete;

  // Returns once all bytes are there. Throws Error; then the lane's streams must be drained, and `settle` called.
  // REQUIRES: the thread has entered, and there is at least one slot.
  virtual void copy(const CopyOp& op) = 0;
  virtual void settle() noexcept {}  // gives back what an op that failed still held
};

}  // namespace flexkv::cuda
