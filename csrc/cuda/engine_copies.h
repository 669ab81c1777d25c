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

#include "cuda/copy_mechanism.h"
#include "cuda/gpu_shared.h"
#include "cuda/lane_streams.h"

namespace flexkv::cuda {

// All of them copy whole slots only, in both copy streams of the lane by turns.
class EngineCopies : public CopyMechanism {
 public:
  EngineCopies(const GpuShared& shared, const LaneStreams& streams);  // throws Error

  void copy(const CopyOp& op) final;

 protected:
  // Puts all copies of the op into the streams. Throws Error.
  virtual void issue(const CopyOp& op) = 0;
  [[nodiscard]] Stream next_stream();
  [[nodiscard]] const LaneStreams& streams() const { return streams_; }

 private:
  const GpuShared& shared_;
  const LaneStreams& streams_;
  std::vector<std::unique_ptr<GpuEvent>> done_;  // one for each of the copy streams
  std::size_t num_issued_ = 0;
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
  BatchedCopies(const GpuShared& shared, const LaneStreams& streams);
  [[nodiscard]] bool takes(const CopyOp& op) const override;

 private:
  void issue(const CopyOp& op) override;
  void add(DevicePtr host, DevicePtr device, std::uint64_t bytes);
  void flush();

  const GpuShared& shared_;
  // Of the batch that is being filled; as many in each.
  std::vector<DevicePtr> to_;
  std::vector<DevicePtr> from_;
  std::vector<std::size_t> sizes_;
};

}  // namespace flexkv::cuda
