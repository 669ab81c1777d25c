// CopyEngine: moves blocks between a DeviceLayout in this process's memory and host slots with plain CPU threads.
// It is the memcpy backend of the copy agent (a CUDA backend takes its place on a GPU).
//
// Copies of 256 bytes and more use non-temporal stores: neither side is read again soon, and the caches belong to the
// engine. A call's bytes are cut into equal units which the threads take in turn, so that a late or disturbed thread
// holds up nobody; runs of adjacent slots and blocks are merged where both sides are contiguous. The calling thread
// takes part; helper threads sleep in the kernel between calls. In a forked child there are no helpers: the caller
// copies alone. Thread safety: one call at a time per CopyEngine (each direction of an agent owns one).
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "transfer/block_copier.h"
#include "transfer/device_layout.h"
#include "transfer/protocol.h"

namespace flexkv {

class CopyEngine {
 public:
  // The caller counts as one of the threads. Throws std::invalid_argument unless 1 <= num_threads <= max_threads.
  explicit CopyEngine(int num_threads);
  ~CopyEngine();
  CopyEngine(const CopyEngine&) = delete;
  CopyEngine& operator=(const CopyEngine&) = delete;

  static constexpr int max_threads = 64;

  // REQUIRES: slots.size() == blocks.size(), ids in range (the agent checks), and no destination named twice: it would
  // get a mixture. Returns the bytes moved.
  std::uint64_t copy(const DeviceLayout& layout, const HostShard& host, protocol::Direction direction,
                     std::span<const std::int64_t> slots, std::span<const std::int64_t> blocks);

 private:
  class Helpers;
  std::unique_ptr<Helpers> helpers_;
};

// Device memory that is host memory: a CopyEngine for each direction. Steps are done when they are recorded.
class CpuBackend final : public CopyBackend {
 public:
  // Throws std::invalid_argument as CopyEngine does.
  CpuBackend(DeviceLayout layout, int copy_threads);

  [[nodiscard]] std::unique_ptr<BlockCopier> make_copier(protocol::Direction direction) override;
  [[nodiscard]] std::unique_ptr<HostRegistration> use_host(const HostShard& host,
                                                           std::function<void(const HostProgress&)> progress) override;
  void record_step(std::uint64_t /*step*/, std::uintptr_t /*stream*/) override {}
  void make_wait(std::uintptr_t /*stream*/, CopyMark /*mark*/) override {}  // what was issued is done

 private:
  const DeviceLayout layout_;
  const int copy_threads_;
};

// Non-temporal copy of one range; any alignment. Ends with a store fence.
void copy_nontemporal(std::byte* dst, const std::byte* src, std::size_t bytes);

}  // namespace flexkv
