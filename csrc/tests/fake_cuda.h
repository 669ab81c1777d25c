// A CUDA driver in software: device memory is memory of this process, streams are queues that one thread works off, in
// a random order wherever streams leave it open. What a missing wait would allow on a GPU happens here soon.
//
// One at a time. A fault makes the n-th call of a function fail; a held stream does nothing. Kernels are those of
// csrc/cuda/gather.cu and slim.cu, of a GPU of compute capability 9.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cuda/cuda_api.h"
#include "cuda/unit_table.h"
#include "tests/choices.h"

namespace flexkv::cuda {

class FakeCuda {
 public:
  static constexpr Result invalid_value = 1;
  static constexpr Result failure = 700;

  explicit FakeCuda(std::uint64_t seed);
  ~FakeCuda();
  FakeCuda(const FakeCuda&) = delete;
  FakeCuda& operator=(const FakeCuda&) = delete;

  [[nodiscard]] const Api& api() const { return api_; }

  // The n-th call from now on of this function fails, 1 being the next.
  void fail(const std::string& call, std::uint64_t nth, Result result = failure);
  [[nodiscard]] bool has_failed() const;
  // How often the function was called.
  [[nodiscard]] std::uint64_t num_calls(const std::string& call) const;
  // Copies of the copy engine since the last `forget_copies`, as they were issued.
  struct Copied {
    Stream stream = nullptr;
    std::uint64_t bytes = 0;
    bool was_idle = false;  // all before were done
  };
  void forget_copies();
  [[nodiscard]] std::vector<Copied> copies() const;
  // Returns when so many of them are in this stream.
  void await_copies(Stream stream, std::ptrdiff_t count);
  // Whether those that are done were done in that order.
  [[nodiscard]] bool are_copies_in_order() const;
  // Of the last copy of rows.
  [[nodiscard]] std::uint64_t last_device_pitch() const { return last_device_pitch_; }
  // While it is held, work of the stream waits.
  void hold(Stream stream, bool held);
  // Returns when the function has been called so often.
  void await_calls(const std::string& call, std::uint64_t count);
  // What registering memory does before it succeeds: given the address. Any thread may call it.
  void on_register(std::function<void(void*)> action) { on_register_ = std::move(action); }
  // The same of unregistering, before it is done.
  void on_unregister(std::function<void(void*)> action) { on_unregister_ = std::move(action); }
  void set_free_bytes(std::uint64_t bytes) { free_bytes_ = bytes; }
  [[nodiscard]] std::uint64_t largest_allocation() const { return largest_allocation_; }
  // Pieces of memory.
  [[nodiscard]] std::size_t num_registered() const;
  // Returns when there are so many.
  void await_registered(std::size_t count);
  // Device memory [begin, end) is one allocation; an address in none of them is in one that has everything.
  void add_allocation(std::uint64_t begin, std::uint64_t end);
  // The GPU has other addresses for the host's memory than the process.
  void move_host_memory() { moves_host_memory_ = true; }
  // Of compute capability 8. Before the first use.
  void take_slim_kernels_away() { capability_major_ = 8; }
  void set_multiprocessors(int count) { num_multiprocessors_ = count; }  // before the first use
  // How often the kernel of this name was launched, and the groups of the last time.
  struct Launches {
    std::uint64_t count = 0;
    unsigned last_groups = 0;
  };
  [[nodiscard]] Launches launches(const std::string& kernel) const;
  // A driver older than 12.8. Before the first use.
  void take_batches_away() { api_.cuMemcpyBatchAsync = nullptr; }
  // Nothing that was put into a stream, but for this one, and touches memory is still to be done.
  [[nodiscard]] bool is_idle(Stream left_out = nullptr) const;

  // The calling thread's: none, as threads begin, or another GPU's.
  [[nodiscard]] static Context current_context() { return contexts_.empty() ? nullptr : contexts_.back(); }
  [[nodiscard]] static Context primary_context() { return reinterpret_cast<Context>(1); }
  [[nodiscard]] static Context another_context() { return reinterpret_cast<Context>(2); }
  // The default stream of whatever context is current.
  [[nodiscard]] static Stream legacy_stream() { return reinterpret_cast<Stream>(1); }
  // An engine's own stream, and work in it.
  [[nodiscard]] Stream make_stream();
  void add_work(Stream stream, std::function<void()> work);

 private:
  struct EventState {
    std::uint64_t recorded = 0;
    std::uint64_t completed = 0;
  };
  struct Work {
    std::function<void()> run;
    std::shared_ptr<const EventState> waits_for;
    std::uint64_t generation = 0;
    bool touches = false;  // memory
  };
  struct StreamState {
    std::deque<Work> queue;
    bool is_running = false;
    bool is_touching = false;
    bool is_held = false;
  };
  struct Fault {
    std::string call;
    std::uint64_t nth = 0;
    Result result = success;
  };
  struct StageArgument {  // as csrc/cuda/stage_argument.cuh has it
    const Unit* units;
    std::uint64_t memory;
    std::uint64_t slot_stride;
    std::uint32_t units_per_block;
    std::uint32_t num_blocks;
    std::uint32_t has_slots;
    std::uint32_t ids[960];
  };

  static FakeCuda& self() { return *current_; }
  static inline thread_local int capture_mode_ = 0;           // global, as threads begin
  static inline thread_local std::vector<Context> contexts_;  // the last one is current
  static bool breaks_captures(const std::string& call);
  static bool needs_context(const std::string& call);
  static bool is_slim(const std::string& kernel) { return kernel.starts_with("slim_"); }
  static void launch(const std::string& name, const StageArgument& stage);
  // As the driver, refuses what would overlap itself.
  static Result copy_rectangle(const Rectangle& what, Stream stream);

  void fill();
  [[nodiscard]] Result fault_of(const char* call);
  void add_copy(Stream stream, std::uint64_t bytes, std::function<void()> work);
  void push(Stream stream, Work work);
  [[nodiscard]] static bool may_run(const StreamState& state);
  void run();
  // Whether the memory is registered: a kernel that touches other host memory would fault.
  [[nodiscard]] bool reaches(const void* address, std::size_t bytes) const;

  static inline FakeCuda* current_ = nullptr;
  Api api_ = {};
  std::atomic<std::uint64_t> last_device_pitch_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  Choices choices_;
  std::map<Stream, StreamState> streams_;
  std::vector<Copied> copied_;
  std::size_t num_copies_done_ = 0;
  bool are_copies_in_order_ = true;
  std::map<Event, std::shared_ptr<EventState>> events_;  // work in a queue may outlive its event
  std::map<DevicePtr, std::unique_ptr<std::byte[]>> memory_;
  std::map<std::uintptr_t, std::size_t> registered_;  // begin -> bytes
  std::vector<std::pair<std::uint64_t, std::uint64_t>> allocations_;
  bool moves_host_memory_ = false;
  Fault fault_;
  std::map<std::string, std::uint64_t> num_calls_;
  int num_contexts_ = 0;
  std::uintptr_t next_handle_ = 16;
  bool stops_ = false;
  std::uint64_t free_bytes_ = UINT64_MAX;
  std::uint64_t largest_allocation_ = 0;
  std::map<Function, std::string> functions_;
  std::map<std::string, Launches> launches_;  // by kernel
  int capability_major_ = 9;
  int num_multiprocessors_ = 132;
  std::atomic<int> num_modules_ = 0;
  std::function<void(void*)> on_register_;
  std::function<void(void*)> on_unregister_;
  std::thread worker_;
};

}  // namespace flexkv::cuda
