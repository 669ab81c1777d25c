// GpuCopier: what moves a direction's ops on a GPU. It only chooses the mechanism.
//
// Thread safety: one thread at a time.
#pragma once
#include <cstdint>
#include <memory>
#include <span>

#include "cuda/copy_choices.h"
#include "cuda/gpu_lane.h"
#include "cuda/gpu_shared.h"
#include "transfer/block_copier.h"

namespace flexkv::cuda {

class GpuCopier final : public BlockCopier {
 public:
  GpuCopier(std::shared_ptr<GpuShared> shared, std::shared_ptr<GpuLane> lane,
            std::shared_ptr<const CopyChoices> choices);

  std::uint64_t copy(const HostShard& host, std::span<const std::int64_t> slots, std::span<const std::int64_t> blocks,
                     std::uint64_t after_step) override;
  std::uint64_t copy_in_parts(const HostShard& host, std::span<const std::int64_t> slots,
                              std::span<const std::int64_t> blocks, std::uint64_t after_step, PartSink& sink) override;
  // As `copy`, of each block only this part, through stages.
  std::uint64_t copy_part(const HostShard& host, std::span<const std::int64_t> slots,
                          std::span<const std::int64_t> blocks, const SlotPart& part, std::uint64_t after_step);
  // What `copy` of these would use now. REQUIRES: there is at least one slot.
  [[nodiscard]] MechanismKind mechanism_for(const HostShard& host, std::span<const std::int64_t> slots) const;
  [[nodiscard]] const BlockMap& map() const { return shared_->map; }

 private:
  [[nodiscard]] MechanismKind choose(const CopyOp& op) const;
  [[nodiscard]] bool waits_for_its_step(const CopyOp& op) const;
  std::uint64_t run(MechanismKind kind, const CopyOp& op);

  const std::shared_ptr<GpuShared> shared_;
  const std::shared_ptr<GpuLane> lane_;
  const std::shared_ptr<const CopyChoices> choices_;
};

}  // namespace flexkv::cuda
