// StagedCopies: blocks move through stages: a kernel gathers a batch of blocks into a stage, and the copy engine takes
// it to the host in as few pieces as the slots are in runs; or the other way round.
//
//   store:  gather -> filled -> copies to the host -> done
//   load:   copies from the host -> filled -> scatter -> done
//
// A small kernel must wait until a large one of the engine's leaves the GPU some room. Kernels of several stages wait
// on streams of their own: all of them get in at the same moment, so that the stages, not one stage, bound what is
// moved in between. Of parts of slots a stage holds the parts only, one behind the other.
//
// A stage is used again when the host has seen its bytes leave it. To have the device wait for that instead was
// measured (H100): a queue that waits for another one makes each batch 20 us longer, a store's kernel that waits so
// gets its turn late beside a large product (0.85 of the link for 0.90), and loads slow that product more.
#pragma once
#include <cstddef>
#include <deque>

#include "cuda/copy_mechanism.h"
#include "cuda/gpu_shared.h"
#include "cuda/lane_streams.h"

namespace flexkv::cuda {

class StagedCopies final : public CopyMechanism {
 public:
  StagedCopies(GpuShared& shared, const LaneStreams& streams);

  [[nodiscard]] bool takes(const CopyOp& /*op*/) const override { return true; }
  void copy(const CopyOp& op) override;
  void settle() noexcept override;

  // The same in steps: begin, any number of issues, finish. What is issued runs on when `issue` returns; kernels that
  // touch blocks go to the lane's kernel streams in turns. Throws Error.
  void begin();
  void issue(const CopyOp& op);
  void finish();  // returns once all that was issued is there

 private:
  // A batch of an op, and how far apart its blocks are in a stage.
  struct Batch {
    std::span<const std::int64_t> slots;
    std::span<const std::int64_t> blocks;
    std::uint64_t pitch_bytes = 0;
    [[nodiscard]] std::uint64_t bytes() const { return blocks.size() * pitch_bytes; }
  };
  // A stage that is held, and how many of the bytes issued have passed once it is done.
  struct InFlight {
    GpuStage* stage = nullptr;
    std::uint64_t passed_bytes = 0;
  };

  void pass(const CopyOp& op, const Batch& batch);
  void wait_for_step(std::uint64_t step) const;
  void launch(const CopyOp& op, const Batch& batch, const GpuStage& stage, Stream stream) const;
  void move_runs(const CopyOp& op, const Batch& batch, DevicePtr memory, Stream stream) const;
  [[nodiscard]] GpuStage& next_stage();
  void finish_oldest();

  GpuShared& shared_;
  const LaneStreams& streams_;
  const std::size_t side_;
  std::deque<InFlight> in_flight_;  // the oldest first
  std::size_t num_passed_ = 0;      // batches
  std::uint64_t issued_bytes_ = 0;  // since `begin`
  StagePace pace_;
};

}  // namespace flexkv::cuda
