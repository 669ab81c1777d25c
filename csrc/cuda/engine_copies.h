// EngineCopies: the copy engine moves blocks between GPU and host memory as they are, without a kernel or a stage. By
// the layout, one of three ways:
//
//   direct   blocks of one piece: a copy for each, adjacent ones together
//   strided  chunks at a regular stride: a copy of as many rows for each block
//   batched  any chunks: one call of the driver for many of them, where it has that (12.8 and newer); of memory that is
//            registered, as others are refused
#pragma once
#include <memory>
#include <vector>

#include "cuda/copy_batch.h"
#include "cuda/copy_mechanism.h"
#include "cuda/copy_turns.h"
#include "cuda/fixed_queue.h"
#include "cuda/gpu_shared.h"
#include "cuda/lane_streams.h"

namespace flexkv::cuda {

// All of them copy whole slots only, in segments of an op one behind the other: the host knows from the ends of the
// first ones when to look for that of the last, and no queue of the driver runs full. One turn is in the lane's stream,
// the next in a stage's, and so on; where no stage is to be had the host waits at the end of every other one until
// nothing is left.
class EngineCopies : public CopyMechanism {
 public:
  static constexpr std::uint64_t bytes_of_segment = std::uint64_t{32} << 20;

  EngineCopies(GpuShared& shared, LaneStreams& streams);  // throws Error

  void copy(const CopyOp& op) final;
  void settle() noexcept final;

 protected:
  // Puts all copies of the segment into the stream. Throws Error.
  virtual void issue(const CopyOp& segment) = 0;
  [[nodiscard]] Stream stream() const { return streams_.copies().get(); }
  [[nodiscard]] const LaneStreams& streams() const { return streams_; }

 private:
  GpuShared& shared_;
  LaneStreams& streams_;
  CopyTurns turns_;
  GpuStage* elsewhere_ = nullptr;  // in whose stream every other turn is
  bool is_second_ = false;         // of two turns in the lane's stream
  static constexpr std::size_t most_in_flight = 3;
  struct Segment {
    const GpuEvent* end = nullptr;
    std::uint64_t passed_bytes = 0;  // of the op with its end
  };
  void begin_turn();
  void finish_oldest();
  void finish_all();
  [[nodiscard]] bool has_place_elsewhere();
  void end();

  std::vector<std::unique_ptr<GpuEvent>> ends_;  // of segments, by turns
  FixedQueue<Segment, most_in_flight> in_flight_;
  StagePace pace_;
  std::uint64_t step_ = 0;  // that the op comes behind, until it is seen to be done
};

class DirectCopies final : public EngineCopies {
 public:
  using EngineCopies::EngineCopies;
  [[nodiscard]] bool takes(const CopyOp& op) const override;

 private:
  void issue(const CopyOp& op) override;
};

class StridedCopies final : public EngineCopies {
 public:
  using EngineCopies::EngineCopies;
  [[nodiscard]] bool takes(const CopyOp& op) const override;

 private:
  void issue(const CopyOp& op) override;
};

class BatchedCopies final : public EngineCopies {
 public:
  BatchedCopies(GpuShared& shared, LaneStreams& streams);
  [[nodiscard]] bool takes(const CopyOp& op) const override;

 private:
  void issue(const CopyOp& op) override;

  const GpuShared& shared_;
  CopyBatch batch_;
};

}  // namespace flexkv::cuda
