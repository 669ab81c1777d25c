// LaneStreams: the stream of one direction, for whichever mechanism copies, and the copies of the copy engine in it.
//
// All of a direction's copies go one behind the other; two at the same time took 1 to 2 % longer (H100). But the copy
// engine serves one stream of the process for as long as anything is left in it that can run, whatever its priority:
// behind copies that kept coming, one of the inference engine's, 64 KiB to the GPU, waited for 61 s. So long ops take
// turns (csrc/cuda/copy_turns.h): the stream runs empty, or what comes next goes in another one, behind what was
// issued.
//
// With more than a few streams in all, the driver has them share queues, and copies become several times slower: no
// mechanism has streams of its own, and only stages have others (csrc/cuda/stage_pool.h). With one more for each
// direction stores took 8 % longer. Thread safety: one thread at a time.
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
  [[nodiscard]] std::size_t side() const { return is_store() ? 1 : 0; }  // of the stages
  [[nodiscard]] const GpuStream& own() const { return own_; }
  [[nodiscard]] const GpuStream& copies() const { return *current_; }  // for what comes next

  void begin_op() { current_ = &own_; }  // REQUIRES: nothing of the lane runs
  // What comes next goes in this stream, behind all that was issued. Throws Error. REQUIRES: it is there for as long as
  // the op runs; when that fails, whoever called this drains it.
  void go_on_in(const GpuStream& stream);

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

  // After an error: waits until nothing of the lane's own stream runs on; of others see `go_on_in`.
  void drain() const noexcept { own_.drain(); }

 private:
  const GpuDevice& device_;
  const protocol::Direction direction_;
  const GpuStream own_;
  const GpuEvent turn_ends_;
  const GpuStream* current_ = &own_;
};

}  // namespace flexkv::cuda
