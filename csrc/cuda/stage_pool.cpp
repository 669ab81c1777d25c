#include "cuda/stage_pool.h"

#include <algorithm>
#include <string>

namespace flexkv::cuda {
namespace {

constexpr std::uint64_t alignment = 512;

}  // namespace

StagePool::StagePool(const GpuDevice& device, std::uint64_t slot_bytes) : device_(device) {
  const std::uint64_t slot = (slot_bytes + alignment - 1) / alignment * alignment;
  std::uint64_t total = std::max(total_bytes, 2 * slot);
  Result result = error_out_of_memory;
  DevicePtr address = 0;
  for (; total >= 2 * slot && result == error_out_of_memory; total /= 2) {
    stage_bytes_ = std::max(slot, total / most_stages / alignment * alignment);
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
  return is_copying_[1 - side] ? std::max<std::size_t>(1, stages_.size() / 2) : stages_.size();
}

void StagePool::begin(std::size_t side) {
  const std::lock_guard lock(mutex_);
  is_copying_[side] = true;
}

void StagePool::end(std::size_t side) {
  const std::lock_guard lock(mutex_);
  is_copying_[side] = false;
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
  GpuStage* const stage = free_.back();
  free_.pop_back();
  ++num_held_[side];
  return stage;
}

bool StagePool::are_shared() const {
  const std::lock_guard lock(mutex_);
  return is_copying_[0] && is_copying_[1];
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
