// GpuCopier: one direction of a GPU agent. It moves blocks through stages: a kernel gathers a batch of blocks into a
// stage, and the copy engine takes it to the host in as few pieces as the slots are in runs; or the other way round.
//
//   store:  gather -> filled -> copies to the host -> done        load:  copies from the host -> filled -> scatter ->
//   done
//
// A small kernel must wait until a large one of the engine's leaves the GPU some room. Kernels of several stages wait
// on streams of their own: all of them get in at the same moment, so that the stages, not one stage, bound what is
// moved in between. Blocks of one long piece need no kernel and go directly. Thread safety: one thread at a time.
#pragma once
#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "cuda/gpu_device.h"
#include "cuda/stage_pool.h"
#include "cuda/step_events.h"
#include "cuda/unit_table.h"
#include "transfer/block_copier.h"

namespace flexkv::cuda {

// Host memory is registered with the driver in pieces of so many slots; no copy may reach over from one to the next.
[[nodiscard]] std::int64_t slots_per_piece(std::uint64_t stride_bytes);

// What both directions share; made once per registration.
struct GpuShared {
  // Throws Error, std::invalid_argument.
  GpuShared(const Api& api, int ordinal, DeviceLayout layout_in, std::uint64_t slot_stride_bytes);
  ~GpuShared() { (void)device.try_enter(); }  // its parts are given back here
  GpuShared(const GpuShared&) = delete;
  GpuShared& operator=(const GpuShared&) = delete;

  const GpuDevice device;
  const DeviceLayout layout;
  const UnitTable table;
  const bool is_direct;  // no kernel is needed
  const GpuMemory device_table;
  StepEvents steps;
  StagePool stages;
};

class GpuCopier final : public BlockCopier {
 public:
  GpuCopier(std::shared_ptr<GpuShared> shared, protocol::Direction direction);  // throws Error
  ~GpuCopier() override;
  GpuCopier(const GpuCopier&) = delete;
  GpuCopier& operator=(const GpuCopier&) = delete;

  std::uint64_t copy(const HostShard& host, std::span<const std::int64_t> slots, std::span<const std::int64_t> blocks,
                     std::uint64_t after_step) override;

 private:
  static constexpr std::size_t num_kernel_streams = 4;
  static constexpr std::size_t num_copy_streams = 2;

  // A batch of an op.
  struct Batch {
    std::span<const std::int64_t> slots;
    std::span<const std::int64_t> blocks;
  };

  void copy_staged(const HostShard& host, std::span<const std::int64_t> slots, std::span<const std::int64_t> blocks);
  void copy_direct(const HostShard& host, std::span<const std::int64_t> slots, std::span<const std::int64_t> blocks);
  void pass(const HostShard& host, const Batch& batch, GpuStage& stage);
  void launch(const HostShard& host, const Batch& batch, const GpuStage& stage, Stream stream) const;
  void move_runs(const HostShard& host, const Batch& batch, DevicePtr memory, Stream stream) const;
  void move(std::byte* host, DevicePtr device, std::uint64_t bytes, Stream stream) const;
  [[nodiscard]] GpuStage& next_stage();
  void finish_oldest();
  void settle() noexcept;  // after an error: nothing of the op runs on

  const std::shared_ptr<GpuShared> shared_;
  const GpuDevice& device_;
  const protocol::Direction direction_;
  const std::size_t side_;
  std::vector<std::unique_ptr<GpuStream>> kernel_streams_;
  std::vector<std::unique_ptr<GpuStream>> copy_streams_;
  std::vector<std::unique_ptr<GpuEvent>> direct_done_;  // one for each of the copy streams
  std::deque<GpuStage*> in_flight_;                     // the oldest first
  std::size_t num_passed_ = 0;                          // batches
};

}  // namespace flexkv::cuda
