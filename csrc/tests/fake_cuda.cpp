#include "tests/fake_cuda.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <iterator>
#include <memory>
#include <mutex>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/check.h"

namespace flexkv::cuda {

FakeCuda::FakeCuda(std::uint64_t seed) : choices_(seed) {
  CHECK(current_ == nullptr);
  current_ = this;
  fill();
  streams_[legacy_stream()];
  worker_ = std::thread([this] { run(); });
}

FakeCuda::~FakeCuda() {
  {
    const std::lock_guard lock(mutex_);
    stops_ = true;
  }
  changed_.notify_all();
  worker_.join();
  streams_.erase(legacy_stream());
  CHECK(streams_.empty() && events_.empty() && memory_.empty() && registered_.empty() && num_contexts_ == 0 &&
        num_modules_ == 0);
  current_ = nullptr;
}

void FakeCuda::fail(const std::string& call, std::uint64_t nth, Result result) {
  const std::lock_guard lock(mutex_);
  fault_ = {call, nth, result};
}

bool FakeCuda::has_failed() const {
  const std::lock_guard lock(mutex_);
  return fault_.nth == 0;
}

std::uint64_t FakeCuda::num_calls(const std::string& call) const {
  const std::lock_guard lock(mutex_);
  const auto found = num_calls_.find(call);
  return found == num_calls_.end() ? 0 : found->second;
}

void FakeCuda::forget_copies() {
  const std::lock_guard lock(mutex_);
  copied_.clear();
  num_copies_done_ = 0;
  are_copies_in_order_ = true;
}

std::vector<FakeCuda::Copied> FakeCuda::copies() const {
  const std::lock_guard lock(mutex_);
  return copied_;
}

void FakeCuda::await_copies(Stream stream, std::ptrdiff_t count) {
  std::unique_lock lock(mutex_);
  CHECK(changed_.wait_for(lock, std::chrono::seconds(60),
                          [&] { return std::ranges::count(copied_, stream, &Copied::stream) >= count; }));
}

bool FakeCuda::are_copies_in_order() const {
  const std::lock_guard lock(mutex_);
  return are_copies_in_order_;
}

void FakeCuda::hold(Stream stream, bool held) {
  const std::lock_guard lock(mutex_);
  streams_.at(stream).is_held = held;
  changed_.notify_all();
}

void FakeCuda::await_calls(const std::string& call, std::uint64_t count) {
  std::unique_lock lock(mutex_);
  CHECK(changed_.wait_for(lock, std::chrono::seconds(60), [&] { return num_calls_[call] >= count; }));
}

std::size_t FakeCuda::num_registered() const {
  const std::lock_guard lock(mutex_);
  return registered_.size();
}

void FakeCuda::await_registered(std::size_t count) {
  std::unique_lock lock(mutex_);
  CHECK(changed_.wait_for(lock, std::chrono::seconds(60), [&] { return registered_.size() == count; }));
}

void FakeCuda::add_allocation(std::uint64_t begin, std::uint64_t end) {
  const std::lock_guard lock(mutex_);
  allocations_.emplace(allocations_.begin(), begin, end);  // what was there before is gone
}

FakeCuda::Launches FakeCuda::launches(const std::string& kernel) const {
  const std::lock_guard lock(mutex_);
  const auto found = launches_.find(kernel);
  return found == launches_.end() ? Launches{} : found->second;
}

bool FakeCuda::is_idle(Stream left_out) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [stream, state] : streams_) {
    if (stream == left_out) continue;
    if (state.is_touching || std::ranges::any_of(state.queue, &Work::touches)) return false;
  }
  return true;
}

Stream FakeCuda::make_stream() {
  const std::lock_guard lock(mutex_);
  const auto stream = reinterpret_cast<Stream>(next_handle_++);
  streams_[stream];
  return stream;
}

void FakeCuda::add_work(Stream stream, std::function<void()> work) { push(stream, {std::move(work), {}, 0, true}); }

bool FakeCuda::breaks_captures(const std::string& call) {
  static const std::set<std::string> calls = {"cuMemAlloc",          "cuMemFree",    "cuMemHostRegister",
                                              "cuMemHostUnregister", "cuEventQuery", "cuStreamQuery"};
  return calls.contains(call);
}

// As the driver does: not for queries and waits, nor to put an event into a stream that says which context it is of.
bool FakeCuda::needs_context(const std::string& call) {
  static const std::set<std::string> calls = {"cuMemAlloc",
                                              "cuMemFree",
                                              "cuMemHostRegister",
                                              "cuMemHostUnregister",
                                              "cuMemHostGetDevicePointer",
                                              "cuMemcpyHtoDAsync",
                                              "cuMemcpyDtoHAsync",
                                              "cuMemcpy2DAsync",
                                              "cuMemcpyBatchAsync",
                                              "cuModuleLoadData",
                                              "cuFuncGetAttribute",
                                              "cuModuleGetFunction",
                                              "cuModuleUnload",
                                              "cuLaunchKernel",
                                              "cuEventCreate",
                                              "cuStreamCreateWithPriority"};
  return calls.contains(call);
}

void FakeCuda::add_copy(Stream stream, std::uint64_t bytes, std::function<void()> work) {
  std::size_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    number = copied_.size();
    copied_.push_back({stream, bytes, number == num_copies_done_});
  }
  add_work(stream, [this, number, work = std::move(work)] {
    work();
    const std::lock_guard lock(mutex_);
    are_copies_in_order_ = are_copies_in_order_ && number == num_copies_done_;
    ++num_copies_done_;
  });
}

Result FakeCuda::fault_of(const char* call) {
  // A thread in any other mode would break the capture of a graph that the engine makes meanwhile.
  CHECK(!breaks_captures(call) || capture_mode_ == capture_mode_relaxed);
  CHECK(!needs_context(call) || current_context() == primary_context());
  const std::lock_guard lock(mutex_);
  ++num_calls_[call];
  changed_.notify_all();
  if (fault_.nth == 0 || fault_.call != call || --fault_.nth > 0) return success;
  return fault_.result;
}

void FakeCuda::push(Stream stream, Work work) {
  const std::lock_guard lock(mutex_);
  streams_.at(stream).queue.push_back(std::move(work));
  changed_.notify_all();
}

bool FakeCuda::may_run(const StreamState& state) {
  if (state.queue.empty() || state.is_running || state.is_held) return false;
  const Work& head = state.queue.front();
  return head.waits_for == nullptr || head.waits_for->completed >= head.generation;
}

void FakeCuda::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    std::vector<Stream> ready;
    for (const auto& [stream, state] : streams_) {
      if (may_run(state)) ready.push_back(stream);
    }
    if (ready.empty()) {
      if (stops_) return;
      changed_.wait(lock);
      continue;
    }
    StreamState& state = streams_.at(ready[choices_.below(ready.size())]);
    const Work work = std::move(state.queue.front());
    state.queue.pop_front();
    state.is_running = true;
    state.is_touching = work.touches;
    lock.unlock();
    if (work.run) work.run();
    lock.lock();
    state.is_running = false;
    state.is_touching = false;
    changed_.notify_all();
  }
}

void FakeCuda::launch(const std::string& name, const StageArgument& stage) {
  const bool is_gather = name.find("gather") != std::string::npos;
  const std::uint64_t word = is_slim(name) ? 16 : std::stoul(name.substr(name.find('_') + 1));
  for (std::uint32_t block = 0; block < stage.num_blocks; ++block) {
    for (std::uint32_t i = 0; i < stage.units_per_block; ++i) {
      const Unit& unit = stage.units[i];
      CHECK(unit.bytes % word == 0 && unit.base % word == 0 && unit.stride % word == 0 && unit.offset % word == 0);
      auto* const device = reinterpret_cast<void*>(unit.base + stage.ids[block] * unit.stride);
      const std::uint64_t slot = stage.has_slots != 0 ? stage.ids[480 + block] : block;
      auto* const staged = reinterpret_cast<void*>(stage.memory + slot * stage.slot_stride + unit.offset);
      if (is_slim(name)) CHECK(stage.has_slots == 0 && reinterpret_cast<std::uintptr_t>(staged) % word == 0);
      if (stage.has_slots != 0) CHECK(self().reaches(staged, unit.bytes));
      std::memcpy(is_gather ? staged : device, is_gather ? device : staged, unit.bytes);
    }
  }
}

bool FakeCuda::reaches(const void* address, std::size_t bytes) const {
  const std::lock_guard lock(mutex_);
  const auto begin = reinterpret_cast<std::uintptr_t>(address);
  const auto after = registered_.upper_bound(begin);
  if (after == registered_.begin()) return false;
  const auto piece = std::prev(after);
  return begin + bytes <= piece->first + piece->second;
}

Result FakeCuda::copy_rectangle(const Rectangle& what, Stream stream) {
  if (what.row_bytes > what.from.pitch_bytes || what.row_bytes > what.to.pitch_bytes) return invalid_value;
  if (std::max(what.from.pitch_bytes, what.to.pitch_bytes) > 0x7fffffff) return invalid_value;
  self().last_device_pitch_ = (what.from.type == memory_type_device ? what.from : what.to).pitch_bytes;
  const auto address = [](const Rectangle::Side& side) {
    CHECK(side.x_bytes == 0 && side.y == 0 && side.array == nullptr);
    CHECK(side.type == memory_type_host || side.type == memory_type_device);
    return side.type == memory_type_host ? reinterpret_cast<std::uintptr_t>(side.host) : side.device;
  };
  self().add_copy(stream, what.row_bytes * what.num_rows, [what, from = address(what.from), to = address(what.to)] {
    for (std::size_t row = 0; row < what.num_rows; ++row) {
      std::memcpy(reinterpret_cast<void*>(to + row * what.to.pitch_bytes),
                  reinterpret_cast<const void*>(from + row * what.from.pitch_bytes), what.row_bytes);
    }
  });
  return success;
}

void FakeCuda::fill() {
  api_.cuInit = [](unsigned) { return success; };
  api_.cuDriverGetVersion = [](int* version) {
    *version = 12000;
    return success;
  };
  api_.cuGetErrorName = [](Result, const char** name) {
    *name = "A_FAULT";
    return success;
  };
  api_.cuDeviceGet = [](Device* device, int ordinal) {
    *device = ordinal;
    return self().fault_of("cuDeviceGet");
  };
  api_.cuDeviceGetName = [](char* name, int length, Device) {
    std::strncpy(name, "a GPU in software", static_cast<std::size_t>(length));
    return success;
  };
  api_.cuDeviceGetAttribute = [](int* value, int attribute, Device) {
    CHECK(attribute == device_attribute_capability_major || attribute == device_attribute_multiprocessors);
    *value = attribute == device_attribute_multiprocessors ? self().num_multiprocessors_ : self().capability_major_;
    return self().fault_of("cuDeviceGetAttribute");
  };
  api_.cuDevicePrimaryCtxRetain = [](Context* context, Device) {
    *context = primary_context();
    if (const Result fault = self().fault_of("cuDevicePrimaryCtxRetain"); fault != success) return fault;
    ++self().num_contexts_;
    return success;
  };
  api_.cuDevicePrimaryCtxRelease = [](Device) {
    --self().num_contexts_;
    return success;
  };
  api_.cuCtxSetCurrent = [](Context context) {
    if (const Result fault = self().fault_of("cuCtxSetCurrent"); fault != success) return fault;
    if (!contexts_.empty()) contexts_.pop_back();
    contexts_.push_back(context);
    return success;
  };
  api_.cuCtxPushCurrent = [](Context context) {
    if (const Result fault = self().fault_of("cuCtxPushCurrent"); fault != success) return fault;
    contexts_.push_back(context);
    return success;
  };
  api_.cuCtxPopCurrent = [](Context* context) {
    CHECK(!contexts_.empty());
    *context = contexts_.back();
    contexts_.pop_back();
    return success;
  };
  api_.cuCtxGetStreamPriorityRange = [](int* least, int* greatest) {
    *least = 0;
    *greatest = -5;
    return success;
  };
  api_.cuThreadExchangeStreamCaptureMode = [](int* mode) {
    if (const Result fault = self().fault_of("cuThreadExchangeStreamCaptureMode"); fault != success) return fault;
    std::swap(*mode, capture_mode_);
    return success;
  };
  api_.cuPointerGetAttribute = [](void* value, int attribute, DevicePtr pointer) {
    if (attribute == pointer_attribute_device_ordinal) {
      *static_cast<int*>(value) = 0;
      return success;
    }
    const std::lock_guard lock(self().mutex_);
    const auto found = std::ranges::find_if(
        self().allocations_, [pointer](const auto& range) { return range.first <= pointer && pointer < range.second; });
    const bool is_known = found != self().allocations_.end();
    const std::uint64_t begin = is_known ? found->first : 0;
    const std::uint64_t end = is_known ? found->second : UINT64_MAX;
    *static_cast<std::uint64_t*>(value) = attribute == pointer_attribute_range_start ? begin : end - begin;
    return success;
  };
  api_.cuStreamCreateWithPriority = [](Stream* stream, unsigned flags, int priority) {
    CHECK(flags == stream_non_blocking && priority == 0);  // the lowest
    if (const Result fault = self().fault_of("cuStreamCreateWithPriority"); fault != success) return fault;
    *stream = self().make_stream();
    return success;
  };
  api_.cuStreamQuery = [](Stream stream) {
    if (const Result fault = self().fault_of("cuStreamQuery"); fault != success) return fault;
    const std::lock_guard lock(self().mutex_);
    const StreamState& state = self().streams_.at(stream);
    return state.queue.empty() && !state.is_running ? success : error_not_ready;
  };
  api_.cuStreamDestroy = [](Stream stream) {
    std::unique_lock lock(self().mutex_);
    const StreamState& state = self().streams_.at(stream);
    self().changed_.wait(lock, [&] { return state.queue.empty() && !state.is_running; });
    self().streams_.erase(stream);
    return success;
  };
  api_.cuStreamWaitEvent = [](Stream stream, Event event, unsigned) {
    CHECK(stream != legacy_stream() || current_context() == primary_context());
    if (const Result fault = self().fault_of("cuStreamWaitEvent"); fault != success) return fault;
    std::shared_ptr<EventState> state;
    std::uint64_t generation = 0;
    {
      const std::lock_guard lock(self().mutex_);
      state = self().events_.at(event);
      generation = state->recorded;
    }
    self().push(stream, {{}, state, generation});
    return success;
  };
  api_.cuEventCreate = [](Event* event, unsigned) {
    if (const Result fault = self().fault_of("cuEventCreate"); fault != success) return fault;
    const std::lock_guard lock(self().mutex_);
    *event = reinterpret_cast<Event>(self().next_handle_++);
    self().events_[*event] = std::make_shared<EventState>();
    return success;
  };
  api_.cuEventDestroy = [](Event event) {
    const std::lock_guard lock(self().mutex_);
    self().events_.erase(event);
    return success;
  };
  api_.cuEventRecord = [](Event event, Stream stream) {
    CHECK(stream != legacy_stream() || current_context() == primary_context());
    if (const Result fault = self().fault_of("cuEventRecord"); fault != success) return fault;
    std::shared_ptr<EventState> state;
    std::uint64_t generation = 0;
    {
      const std::lock_guard lock(self().mutex_);
      state = self().events_.at(event);
      generation = ++state->recorded;
    }
    self().push(stream, {[state, generation] {
                           const std::lock_guard lock(self().mutex_);
                           state->completed = generation;
                         },
                         {},
                         0});
    return success;
  };
  api_.cuEventQuery = [](Event event) {
    if (const Result fault = self().fault_of("cuEventQuery"); fault != success) return fault;
    const std::lock_guard lock(self().mutex_);
    const EventState& state = *self().events_.at(event);
    return state.completed >= state.recorded ? success : error_not_ready;
  };
  api_.cuMemAlloc = [](DevicePtr* address, std::size_t bytes) {
    if (const Result fault = self().fault_of("cuMemAlloc"); fault != success) return fault;
    const std::lock_guard lock(self().mutex_);
    if (bytes > self().free_bytes_) return error_out_of_memory;
    self().largest_allocation_ = std::max<std::uint64_t>(self().largest_allocation_, bytes);
    auto memory = std::make_unique_for_overwrite<std::byte[]>(bytes);
    *address = reinterpret_cast<DevicePtr>(memory.get());
    self().memory_[*address] = std::move(memory);
    return success;
  };
  api_.cuMemFree = [](DevicePtr address) {
    (void)self().fault_of("cuMemFree");
    const std::lock_guard lock(self().mutex_);
    CHECK(self().memory_.erase(address) == 1);
    return success;
  };
  api_.cuMemHostRegister = [](void* address, std::size_t bytes, unsigned) {
    if (self().on_register_) self().on_register_(address);
    if (const Result fault = self().fault_of("cuMemHostRegister"); fault != success) return fault;
    const std::lock_guard lock(self().mutex_);
    CHECK(self().registered_.emplace(reinterpret_cast<std::uintptr_t>(address), bytes).second);
    return success;
  };
  api_.cuMemHostUnregister = [](void* address) {
    if (self().on_unregister_) self().on_unregister_(address);
    if (const Result fault = self().fault_of("cuMemHostUnregister"); fault != success) return fault;
    const std::lock_guard lock(self().mutex_);
    CHECK(self().registered_.erase(reinterpret_cast<std::uintptr_t>(address)) == 1);
    self().changed_.notify_all();
    return success;
  };
  api_.cuMemHostGetDevicePointer = [](DevicePtr* address, void* host, unsigned) {
    if (const Result fault = self().fault_of("cuMemHostGetDevicePointer"); fault != success) return fault;
    CHECK(self().reaches(host, 1));
    *address = reinterpret_cast<DevicePtr>(host) + (self().moves_host_memory_ ? 4096 : 0);
    return success;
  };
  api_.cuMemcpyBatchAsync = [](DevicePtr* to, DevicePtr* from, std::size_t* bytes, std::size_t count,
                               CopyAttributes* attributes, std::size_t* first_with_them, std::size_t num_attributes,
                               std::size_t*, Stream stream) {
    if (const Result fault = self().fault_of("cuMemcpyBatchAsync"); fault != success) return fault;
    CHECK(count > 0 && num_attributes == 1 && *first_with_them == 0);
    CHECK(attributes->source_access_order == source_access_in_stream_order && attributes->flags == 0);
    const std::vector<DevicePtr> targets(to, to + count);
    const std::vector<DevicePtr> sources(from, from + count);
    const std::vector<std::size_t> sizes(bytes, bytes + count);
    for (std::size_t i = 0; i < count; ++i) {  // other memory of the host would be refused
      const DevicePtr host = self().reaches(reinterpret_cast<const void*>(to[i]), 1) ? to[i] : from[i];
      if (!self().reaches(reinterpret_cast<const void*>(host), bytes[i])) return invalid_value;
    }
    self().add_copy(stream, std::accumulate(sizes.begin(), sizes.end(), std::uint64_t{0}), [targets, sources, sizes] {
      for (std::size_t i = 0; i < sizes.size(); ++i) {
        std::memcpy(reinterpret_cast<void*>(targets[i]), reinterpret_cast<const void*>(sources[i]), sizes[i]);
      }
    });
    return success;
  };
  api_.cuMemcpyHtoDAsync = [](DevicePtr to, const void* from, std::size_t bytes, Stream stream) {
    if (const Result fault = self().fault_of("cuMemcpyHtoDAsync"); fault != success) return fault;
    self().add_copy(stream, bytes, [=] { std::memcpy(reinterpret_cast<void*>(to), from, bytes); });
    return success;
  };
  api_.cuMemcpyDtoHAsync = [](void* to, DevicePtr from, std::size_t bytes, Stream stream) {
    if (const Result fault = self().fault_of("cuMemcpyDtoHAsync"); fault != success) return fault;
    self().add_copy(stream, bytes, [=] { std::memcpy(to, reinterpret_cast<const void*>(from), bytes); });
    return success;
  };
  api_.cuMemcpy2DAsync = [](const Rectangle* what, Stream stream) {
    if (const Result fault = self().fault_of("cuMemcpy2DAsync"); fault != success) return fault;
    return copy_rectangle(*what, stream);
  };
  api_.cuModuleLoadData = [](Module* module, const void* image) {
    if (const Result fault = self().fault_of("cuModuleLoadData"); fault != success) return fault;
    const bool is_old = std::strstr(static_cast<const char*>(image), ".target sm_75") != nullptr;
    CHECK(is_old ||
          (std::strstr(static_cast<const char*>(image), ".target sm_90") != nullptr && self().capability_major_ >= 9));
    *module = reinterpret_cast<Module>(1);
    ++self().num_modules_;
    return success;
  };
  api_.cuModuleUnload = [](Module) {
    if (const Result fault = self().fault_of("cuModuleUnload"); fault != success) return fault;
    --self().num_modules_;
    return success;
  };
  api_.cuModuleGetFunction = [](Function* function, Module, const char* name) {
    if (const Result fault = self().fault_of("cuModuleGetFunction"); fault != success) return fault;
    const std::lock_guard lock(self().mutex_);
    *function = reinterpret_cast<Function>(self().next_handle_++);
    self().functions_[*function] = name;
    return success;
  };
  api_.cuFuncGetAttribute = [](int* value, int attribute, Function function) {
    CHECK(attribute == function_attribute_registers);
    *value = 32;
    const Result fault = self().fault_of("cuFuncGetAttribute");
    const std::lock_guard lock(self().mutex_);
    CHECK(self().functions_.contains(function));
    return fault;
  };
  api_.cuLaunchKernel = [](Function function, unsigned groups, unsigned, unsigned, unsigned threads, unsigned, unsigned,
                           unsigned, Stream stream, void** arguments, void**) {
    if (const Result fault = self().fault_of("cuLaunchKernel"); fault != success) return fault;
    const auto stage = std::make_shared<StageArgument>();
    std::memcpy(stage.get(), arguments[0], sizeof(*stage));
    const std::string name = self().functions_.at(function);
    CHECK(groups > 0 && threads == (is_slim(name) ? 1 : 1024));
    {
      const std::lock_guard lock(self().mutex_);
      Launches& launches = self().launches_[name];
      ++launches.count;
      launches.last_groups = groups;
    }
    self().add_work(stream, [stage, name] { launch(name, *stage); });
    return success;
  };
}

}  // namespace flexkv::cuda
