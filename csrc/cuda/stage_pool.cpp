#include "cuda/stage_pool.h"

#include <algorithm>
#include <string>

namespace flexkv::cuda {
namespace {

constexpr std::uint64_t alignment = 512;
constexpr std::uint64_t least_bytes_for_long_slots = std::uint64_t{8} << 20;

}  // namespace

StagePool::StagePool(const GpuDevice& device, std::uint64_t slot_bytes) : device_(device) {
  const std::uint64_t slot = (slot_bytes + alignment - 1) / alignment * alignment;
  const std::uint64_t least = std::min(2 * slot, least_bytes_for_long_slots);
  std::uint64_t total = total_bytes;
  Result result = error_out_of_memory;
  DevicePtr address = 0;
  for (; total >= least && result == error_out_of_memory; total /= 2) {
    const std::uint64_t usual = total / most_stages / alignment * alignment;
    stage_bytes_ = 2 * slot <= total ? std::max(slot, usual) : usual;
    result = device_.api().cuMemAlloc(&address, total / stage_bytes_ * stage_bytes_);
    if (result == success) break;
  }
  device_.check(result, "cuMemAlloc of the memory through which blocks are copied");
  memory_ = std::make_unique<GpuMemory>(device_, address);
  const std::size_t count = std::min<std::size_t>(most_stages, total / stage_bytes_);
  for (std::size_t i = 0; i < count; ++i) {
    stages_.push_back(std::make_unique<GpuStage>(device_, i, address + i * stage_bytes_));
    free_.push_back(stages_.back().get());
  }
}

std::size_t StagePool::limit(std::size_t side) const {
  const StageUse others = use_[1 - side];
  if (others == StageUse::none) return stages_.size();
  return std::max<std::size_t>(1, others == StageUse::all ? stages_.size() / 2 : stages_.size() - 1);
}

void StagePool::begin(std::size_t side, StageUse use) {
  const std::lock_guard lock(mutex_);
  use_[side] = use;
}

void StagePool::end(std::size_t side) {
  const std::lock_guard lock(mutex_);
  use_[side] = StageUse::none;
}

GpuStage* StagePool::take(std::size_t side, std::chrono::nanoseconds wait_limit) {
  std::unique_lock lock(mutex_);
  if (num_held_[side] >= limit(side)) return nullptr;
  if (free_.empty()) {
    if (num_held_[side] > 0) return nullptr;
    if (!freed_.wait_for(lock, wait_limit, [this] { return !free_.empty(); })) {
      throw Error(error_not_ready, "no memory to copy through came free: copies of the other direction do not end");
    }
  }
  return take_free(side);
}

GpuStage* StagePool::try_take(std::size_t side) {
  const std::lock_guard lock(mutex_);
  return free_.empty() ? nullptr : take_free(side);
}

GpuStage* StagePool::take_free(std::size_t side) {
  GpuStage* const stage = free_.back();
  free_.pop_back();
  ++num_held_[side];
  return stage;
}

bool StagePool::are_shared() const {
  const std::lock_guard lock(mutex_);
  return use_[0] == StageUse::all && use_[1] == StageUse::all;
}

bool StagePool::holds_too_many(std::size_t side) const {
  const std::lock_guard lock(mutex_);
  return num_held_[side] > limit(side);
}

void StagePool::give_back(std::size_t side, GpuStage* stage) {
  const std::lock_guard lock(mutex_);
  free_.push_back(stage);
  --num_held_[side];
  freed_.notify_all();
}

}  // namespace flexkv::cuda
