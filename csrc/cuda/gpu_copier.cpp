#include "cuda/gpu_copier.h"

#include <utility>

namespace flexkv::cuda {
namespace {

// Shorter pieces are faster as stages: a copy of 2 MiB after the other comes to 0.95 of long ones.
constexpr std::uint64_t direct_chunk_bytes = std::uint64_t{16} << 20;

}  // namespace

GpuCopier::GpuCopier(std::shared_ptr<GpuShared> shared, protocol::Direction direction) : shared_(std::move(shared)) {
  shared_->device.enter();
  mechanisms_ = std::make_unique<Mechanisms>(*shared_, direction);
}

GpuCopier::~GpuCopier() {
  (void)shared_->device.try_enter();
  mechanisms_.reset();
}

CopyMechanism& GpuCopier::choose(const CopyOp& op) const {
  const auto& planes = op.map.layout.planes;
  const bool is_direct =
      planes.size() == 1 && planes.front().chunk_bytes >= direct_chunk_bytes && op.part == op.map.whole();
  if (is_direct) return mechanisms_->direct;
  return mechanisms_->staged;
}

std::uint64_t GpuCopier::copy(const HostShard& host, std::span<const std::int64_t> slots,
                              std::span<const std::int64_t> blocks, std::uint64_t after_step) {
  return copy_part(host, slots, blocks, shared_->map.whole(), after_step);
}

std::uint64_t GpuCopier::copy_part(const HostShard& host, std::span<const std::int64_t> slots,
                                   std::span<const std::int64_t> blocks, const SlotPart& part,
                                   std::uint64_t after_step) {
  if (slots.empty()) return 0;
  shared_->device.enter();
  const CopyOp op = {shared_->map, host, slots, blocks, part, after_step};
  CopyMechanism& mechanism = choose(op);
  try {
    mechanism.copy(op);
  } catch (...) {
    mechanisms_->streams.drain();
    mechanism.settle();
    throw;
  }
  return part.bytes * slots.size();
}

}  // namespace flexkv::cuda
