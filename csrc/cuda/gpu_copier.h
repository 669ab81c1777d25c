// GpuCopier: one direction of a GPU agent. It chooses the mechanism that moves an op's blocks.
//
// Blocks of one long piece go directly (direct_copies.h), all others through stages (staged_copies.h).
// Thread safety: one thread at a time.
#pragma once
#include <cstdint>
#include <memory>
#include <span>

#include "cuda/direct_copies.h"
#include "cuda/gpu_shared.h"
#include "cuda/lane_streams.h"
#include "cuda/staged_copies.h"
#include "transfer/block_copier.h"

namespace flexkv::cuda {

class GpuCopier final : public BlockCopier {
 public:
  GpuCopier(std::shared_ptr<GpuShared> shared, protocol::Direction direction);  // throws Error
  ~GpuCopier() override;
  GpuCopier(const GpuCopier&) = delete;
  GpuCopier& operator=(const GpuCopier&) = delete;

  std::uint64_t copy(const HostShard& host, std::span<const std::int64_t> slots, std::span<const std::int64_t> blocks,
                     std::uint64_t after_step) override;
  // As `copy`, of each block only this part.
  std::uint64_t copy_part(const HostShard& host, std::span<const std::int64_t> slots,
                          std::span<const std::int64_t> blocks, const SlotPart& part, std::uint64_t after_step);
  [[nodiscard]] const BlockMap& map() const { return shared_->map; }

 private:
  // What streams, stages and events are made of is to be given back by a thread that has entered.
  struct Mechanisms {
    Mechanisms(GpuShared& shared, protocol::Direction direction)
        : streams(shared.device, direction), staged(shared, streams), direct(shared, streams) {}
    const LaneStreams streams;
    StagedCopies staged;
    DirectCopies direct;
  };

  [[nodiscard]] CopyMechanism& choose(const CopyOp& op) const;

  const std::shared_ptr<GpuShared> shared_;
  std::unique_ptr<Mechanisms> mechanisms_;
};

}  // namespace flexkv::cuda
