// HostPieces: the host memory that is registered, and that the GPU reaches by the same addresses as the process:
// kernels and batches of copies may use it.
//
// Thread safety: all members, any thread.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <span>

#include "cuda/gpu_device.h"
#include "transfer/block_copier.h"

namespace flexkv::cuda {

class HostPieces {
 public:
  // Memory that was registered. Left out where the GPU has another address for it.
  void add(const GpuDevice& device, std::byte* begin, std::uint64_t bytes);
  void remove(const std::byte* begin);  // before the memory is let go; no copy may use it any more
  // Whether all of each slot is in one of the pieces.
  [[nodiscard]] bool hold(const HostShard& host, std::span<const std::int64_t> slots) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::uintptr_t, std::uintptr_t> pieces_;  // guarded by mutex_; begin -> end
};

}  // namespace flexkv::cuda
