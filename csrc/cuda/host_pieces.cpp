#include "cuda/host_pieces.h"

#include <iterator>

namespace flexkv::cuda {

void HostPieces::add(const GpuDevice& device, std::byte* begin, std::uint64_t bytes) {
  const auto address = reinterpret_cast<std::uintptr_t>(begin);
  DevicePtr on_device = 0;
  const Result result = device.api().cuMemHostGetDevicePointer(&on_device, begin, 0);
  if (result != success || on_device != address) return;
  const std::lock_guard lock(mutex_);
  pieces_[address] = address + bytes;
}

void HostPieces::remove(const std::byte* begin) {
  const std::lock_guard lock(mutex_);
  pieces_.erase(reinterpret_cast<std::uintptr_t>(begin));
}

bool HostPieces::hold(const HostShard& host, std::span<const std::int64_t> slots) const {
  const std::lock_guard lock(mutex_);
  std::uintptr_t begin = 0;  // the piece that held the slot before
  std::uintptr_t end = 0;
  for (const std::int64_t slot : slots) {
    const auto at = reinterpret_cast<std::uintptr_t>(host.base) + static_cast<std::uint64_t>(slot) * host.stride_bytes;
    if (at < begin || at + host.stride_bytes > end) {
      const auto after = pieces_.upper_bound(at);
      if (after == pieces_.begin()) return false;
      begin = std::prev(after)->first;
      end = std::prev(after)->second;
      if (at + host.stride_bytes > end) return false;
    }
  }
  return true;
}

}  // namespace flexkv::cuda
