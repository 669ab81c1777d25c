// GpuDevice: one GPU as the agent uses it: the worker's primary context, and the copy kernels loaded into it.
//
// Thread safety: immutable; `enter` makes the calling thread ready for calls of the driver.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "cuda/cuda_api.h"

namespace flexkv::cuda {

class GpuDevice {
 public:
  GpuDevice(const Api& api, int ordinal);  // throws Error
  ~GpuDevice();
  GpuDevice(const GpuDevice&) = delete;
  GpuDevice& operator=(const GpuDevice&) = delete;

  [[nodiscard]] const Api& api() const { return api_; }
  [[nodiscard]] int ordinal() const { return ordinal_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] Context context() const { return context_; }

  // For threads of ours; others need a Visit. The context is the thread's from here on; and what it does disturbs no
  // capture of a graph that another thread of the process makes. Throws Error.
  void enter() const { check(try_enter(), "cuCtxSetCurrent"); }
  [[nodiscard]] Result try_enter() const noexcept;
  void check(Result result, const char* call) const { cuda::check(api_, result, call); }
  // REQUIRES: word_bytes is 16, 4 or 1.
  [[nodiscard]] Function kernel(bool is_gather, unsigned word_bytes) const;
  // One that runs beside the engine's kernels, for words of 16 bytes, in groups of one thread; nullptr where the GPU
  // has none.
  [[nodiscard]] Function slim_kernel(bool is_gather) const { return is_gather ? slim_gather_ : slim_scatter_; }
  [[nodiscard]] unsigned num_multiprocessors() const { return num_multiprocessors_; }
  [[nodiscard]] int lowest_priority() const { return lowest_priority_; }

 private:
  static constexpr std::array<unsigned, 3> word_sizes = {16, 4, 1};

  [[nodiscard]] int attribute(int which) const;
  [[nodiscard]] Function loaded(Module module, const std::string& name) const;
  void load_kernels();
  void unload_kernels() noexcept;

  const Api& api_;
  const int ordinal_;
  Device device_ = 0;
  Context context_ = nullptr;
  Module module_ = nullptr;
  Module slim_module_ = nullptr;
  std::string name_;
  std::array<Function, 3> gathers_{};
  std::array<Function, 3> scatters_{};
  Function slim_gather_ = nullptr;
  Function slim_scatter_ = nullptr;
  unsigned num_multiprocessors_ = 0;
  int lowest_priority_ = 0;
};

// A thread that need not be ours, the engine's above all, calls the driver. From begin to end the device's context is
// the thread's, and what it does disturbs no capture of a graph that another thread makes; then the thread has again
// what it had: it may work with another GPU. Thread safety: begun and ended by one thread, each time.
class Visit {
 public:
  // What is called meanwhile: anything; or only what disturbs no capture in any mode, such as events of streams.
  enum class For : std::uint8_t { any_calls, events };

  Visit(const Api& api, Context context, For what = For::any_calls) : api_(api), context_(context), for_(what) {}
  explicit Visit(const GpuDevice& device, For what = For::any_calls) : Visit(device.api(), device.context(), what) {}
  ~Visit() { end(); }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;
  void begin() { check(api_, try_begin(), "cuCtxPushCurrent, cuThreadExchangeStreamCaptureMode"); }  // throws Error
  // Unless it succeeds, nothing has changed. REQUIRES: it has not begun, or ended since.
  Result try_begin() noexcept;
  void end() noexcept;

 private:
  const Api& api_;
  const Context context_;
  const For for_;
  int mode_before_ = capture_mode_relaxed;
  bool is_on_ = false;
};

// The device on which the memory lies. Throws Error.
[[nodiscard]] int device_of(const Api& api, DevicePtr address);

// Memory, streams and events, given back with their owner. REQUIRES: the thread that makes and destroys them has
// entered, or visits.
class GpuMemory {
 public:
  GpuMemory(const GpuDevice& device, DevicePtr address) : device_(device), address_(address) {}
  // Takes so much; throws Error, which names what it is for.
  GpuMemory(const GpuDevice& device, std::uint64_t bytes, const char* purpose);
  ~GpuMemory() { (void)device_.api().cuMemFree(address_); }
  GpuMemory(const GpuMemory&) = delete;
  GpuMemory& operator=(const GpuMemory&) = delete;
  [[nodiscard]] DevicePtr address() const { return address_; }

 private:
  const GpuDevice& device_;
  const DevicePtr address_;
};

// Of the lowest priority, which is that of an engine's streams; docs/adr/0009-slim-kernels.md has figures.
class GpuStream {
 public:
  explicit GpuStream(const GpuDevice& device);
  ~GpuStream() { (void)device_.api().cuStreamDestroy(stream_); }
  GpuStream(const GpuStream&) = delete;
  GpuStream& operator=(const GpuStream&) = delete;
  [[nodiscard]] Stream get() const { return stream_; }
  void wait_for(Event event) const {
    device_.check(device_.api().cuStreamWaitEvent(stream_, event, 0), "cuStreamWaitEvent");
  }
  // Nothing of it is still to be done: also when the device has failed, and does nothing any more.
  [[nodiscard]] bool has_ended() const noexcept { return device_.api().cuStreamQuery(stream_) != error_not_ready; }
  // Waits for that. Without a bound: what still runs may write to memory that would be used again (D16).
  void drain() const noexcept;

 private:
  const GpuDevice& device_;
  Stream stream_ = nullptr;
};

class GpuEvent {
 public:
  explicit GpuEvent(const GpuDevice& device);
  ~GpuEvent() { (void)device_.api().cuEventDestroy(event_); }
  GpuEvent(const GpuEvent&) = delete;
  GpuEvent& operator=(const GpuEvent&) = delete;
  [[nodiscard]] Event get() const { return event_; }
  void record(Stream stream) const { device_.check(device_.api().cuEventRecord(event_, stream), "cuEventRecord"); }
  // What it was recorded behind is done. Throws Error when the device has failed.
  [[nodiscard]] bool is_done() const;
  // Waits until it is done, as csrc/cuda/gpu_wait.h says. Throws Error when the device has failed.
  void wait() const;

 private:
  const GpuDevice& device_;
  Event event_ = nullptr;
};

}  // namespace flexkv::cuda
