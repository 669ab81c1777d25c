// LaneStreams: the stream of one direction, for whichever mechanism copies, and the copies of the copy engine in it.
//
// With more than a few streams in all, the driver has them share queues, and copies become several times slower: no
// mechanism has streams of its own, and only stages have others (csrc/cuda/stage_pool.h). All of a direction's copies
// go one behind the other: in two streams they took 1 to 2 % longer (H100). Thread safety: one thread at a time.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "cuda/gpu_device.h"
#include "cuda/step_events.h"
#include "transfer/protocol.h"

namespace flexkv::cuda {

class LaneStreams {
 public:
  // Throws Error. REQUIRES: the thread has entered, as for the destructor.
  LaneStreams(const GpuDevice& device, protocol::Direction direction);

  [[nodiscard]] const GpuDevice& device() const { return device_; }
  [[nodiscard]] protocol::Direction direction() const { return direction_; }
  [[nodiscard]] bool is_store() const { return direction_ == protocol::Direction::store; }
  [[nodiscard]] const GpuStream& copies() const { return copies_; }

  // Copies between the two, this direction's way. Throws Error.
  void move(std::byte* host, DevicePtr device, std::uint64_t bytes, Stream stream) const;

  // Rows of equal length, each a pitch behind the one before.
  struct Rows {
    std::uint64_t bytes = 0;  // of a row
    std::uint64_t count = 0;
    std::uint64_t host_pitch = 0;
    std::uint64_t device_pitch = 0;
  };
  // As `move`, row by row, as one copy where the driver can. Throws Error.
  void move_rows(std::byte* host, DevicePtr device, const Rows& rows, Stream stream) const;

  // After an error: waits until nothing of the lane runs on.
  void drain() const noexcept { copies_.drain(); }

 private:
  const GpuDevice& device_;
  const protocol::Direction direction_;
  const GpuStream copies_;
};

}  // namespace flexkv::cuda
