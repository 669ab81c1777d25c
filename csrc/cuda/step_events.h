// StepEvents: when, on the device, the engine's steps are done: events on the engine's own stream (D17).
//
// The host says that a step is recorded while its kernels may still run; whoever copies has its streams wait for the
// event. Thread safety: all members, any thread.
#pragma once
#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>

#include "cuda/gpu_device.h"

namespace flexkv::cuda {

class StepEvents {
 public:
  static constexpr std::size_t num_kept = 64;

  explicit StepEvents(const GpuDevice& device);  // throws Error. REQUIRES: the thread has entered

  // What `stream` holds now belongs to steps up to `step`. A step that is not beyond the last one is ignored, as the
  // lanes do, which let its ops run already: it would push out events that are still waited for. Throws Error.
  void record(std::uint64_t step, Stream stream);
  // Has `stream` wait for the earliest one recorded that is not before `step`; for none where none is known. 0: for
  // nothing. Throws Error.
  void make_wait(const GpuStream& stream, std::uint64_t step) const;
  // The same on the host: throws Error after `limit`, too.
  void wait(std::uint64_t step, std::chrono::nanoseconds limit) const;

  // Whether nothing would wait for it. Throws Error.
  [[nodiscard]] bool is_done(std::uint64_t step) const;
  // Whether the engine still works on what was recorded last. Throws Error.
  [[nodiscard]] bool is_engine_busy() const;
  // Whether it does, or did a moment ago: then it is about to put the next step into its stream. Throws Error.
  [[nodiscard]] bool has_worked_lately() const;

 private:
  struct Entry {
    std::uint64_t step = 0;
    std::unique_ptr<GpuEvent> event;
  };
  // REQUIRES: mutex_ held. The event to wait for; nullptr: none.
  [[nodiscard]] const GpuEvent* event_of(std::uint64_t step) const;

  [[nodiscard]] bool is_busy() const;  // REQUIRES: mutex_ held

  mutable std::mutex mutex_;
  std::array<Entry, num_kept> entries_;  // guarded by mutex_
  std::size_t next_ = 0;                 // guarded by mutex_; the oldest entry
  std::uint64_t last_step_ = 0;          // guarded by mutex_
  // When the engine was last known to work; guarded by mutex_.
  mutable std::chrono::steady_clock::time_point last_work_{};
};

}  // namespace flexkv::cuda
