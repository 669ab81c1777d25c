// CopyMechanism: one way of moving blocks between GPU and host memory, for one direction; and what is to be moved.
// Which one moves an op is the choice of CopyChoices (copy_choices.h).
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

  [[nodiscard]] bool is_whole() const { return part == map.whole(); }
  // The same of these blocks only.
  [[nodiscard]] CopyOp blocks_at(std::size_t first, std::size_t count) const {
    return {map, host, slots.subspan(first, count), blocks.subspan(first, count), part, after_step};
  }
};

class CopyMechanism {
 public:
  CopyMechanism() = default;
  virtual ~CopyMechanism() = default;
  CopyMechanism(const CopyMechanism&) = delete;
  CopyMechanism& operator=(const CopyMechanism&) = delete;

  // Whether it can move this. Depends on the layout, the driver and the slots, and costs little.
  [[nodiscard]] virtual bool takes(const CopyOp& op) const = 0;
  // Returns once all bytes are there. Throws Error; then the lane's own stream must be drained, and `settle` called,
  // which drains others. REQUIRES: the thread has entered, and it takes the op, and there is at least one slot.
  virtual void copy(const CopyOp& op) = 0;
  virtual void settle() noexcept {}  // waits for what runs in other streams, and gives back what was held
};

}  // namespace flexkv::cuda
