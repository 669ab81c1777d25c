#include "cuda/gpu_device.h"

#include <sys/prctl.h>

#include <algorithm>
#include <array>
#include <string>

#include "cuda/gpu_wait.h"
#include "cuda/kernels_ptx.h"

namespace flexkv::cuda {
namespace {

constexpr int first_major_with_slim_kernels = 9;
constexpr unsigned long timer_slack_ns = 1000;  // the default, 50 us, is the time of a whole block

DevicePtr allocated(const GpuDevice& device, std::uint64_t bytes, const char* purpose) {
  DevicePtr address = 0;
  device.check(device.api().cuMemAlloc(&address, bytes), ("cuMemAlloc for " + std::string(purpose)).c_str());
  return address;
}

}  // namespace

GpuDevice::GpuDevice(const Api& api, int ordinal) : api_(api), ordinal_(ordinal) {
  check(api_.cuDeviceGet(&device_, ordinal), "cuDeviceGet");
  std::array<char, 128> name{};
  check(api_.cuDeviceGetName(name.data(), static_cast<int>(name.size()), device_), "cuDeviceGetName");
  name_ = name.data();
  check(api_.cuDevicePrimaryCtxRetain(&context_, device_), "cuDevicePrimaryCtxRetain");
  Visit visit(api_, context_);
  try {
    visit.begin();
    int highest_priority = 0;
    check(api_.cuCtxGetStreamPriorityRange(&lowest_priority_, &highest_priority), "cuCtxGetStreamPriorityRange");
    load_kernels();
  } catch (...) {
    unload_kernels();
    visit.end();
    (void)api_.cuDevicePrimaryCtxRelease(device_);
    throw;
  }
}

GpuDevice::~GpuDevice() {
  {
    Visit visit(*this);
    (void)visit.try_begin();
    unload_kernels();
  }
  (void)api_.cuDevicePrimaryCtxRelease(device_);
}

int GpuDevice::attribute(int which) const {
  int value = 0;
  check(api_.cuDeviceGetAttribute(&value, which, device_), "cuDeviceGetAttribute");
  return value;
}

// A driver that loads lazily may load a kernel with its first launch, which then may wait for all that runs. To say
// what it takes, it has to load it now.
Function GpuDevice::loaded(Module module, const std::string& name) const {
  Function function = nullptr;
  check(api_.cuModuleGetFunction(&function, module, name.c_str()), "cuModuleGetFunction");
  int registers = 0;
  check(api_.cuFuncGetAttribute(&registers, function_attribute_registers, function), "cuFuncGetAttribute");
  return function;
}

void GpuDevice::load_kernels() {
  num_multiprocessors_ = static_cast<unsigned>(attribute(device_attribute_multiprocessors));
  check(api_.cuModuleLoadData(&module_, kernels_ptx), "cuModuleLoadData");
  for (std::size_t i = 0; i < word_sizes.size(); ++i) {
    const std::string suffix = "_" + std::to_string(word_sizes[i]);
    gathers_[i] = loaded(module_, "gather" + suffix);
    scatters_[i] = loaded(module_, "scatter" + suffix);
  }
  if (attribute(device_attribute_capability_major) < first_major_with_slim_kernels) return;
  check(api_.cuModuleLoadData(&slim_module_, slim_kernels_ptx), "cuModuleLoadData");
  slim_gather_ = loaded(slim_module_, "slim_gather");
  slim_scatter_ = loaded(slim_module_, "slim_scatter");
}

void GpuDevice::unload_kernels() noexcept {
  for (Module module : {module_, slim_module_}) {
    if (module != nullptr) (void)api_.cuModuleUnload(module);
  }
}

Result GpuDevice::try_enter() const noexcept {
  thread_local bool is_relaxed = false;
  Result result = api_.cuCtxSetCurrent(context_);
  if (result != success || is_relaxed) return result;
  int mode = capture_mode_relaxed;
  result = api_.cuThreadExchangeStreamCaptureMode(&mode);
  (void)::prctl(PR_SET_TIMERSLACK, timer_slack_ns, 0, 0, 0);
  is_relaxed = result == success;
  return result;
}

Result Visit::try_begin() noexcept {
  Result result = api_.cuCtxPushCurrent(context_);
  is_on_ = result == success;
  if (!is_on_ || for_ == For::events) return result;
  mode_before_ = capture_mode_relaxed;
  result = api_.cuThreadExchangeStreamCaptureMode(&mode_before_);
  is_on_ = result == success;
  Context pushed = nullptr;
  if (!is_on_) (void)api_.cuCtxPopCurrent(&pushed);
  return result;
}

void Visit::end() noexcept {
  if (!is_on_) return;
  is_on_ = false;
  if (for_ == For::any_calls) (void)api_.cuThreadExchangeStreamCaptureMode(&mode_before_);
  Context pushed = nullptr;
  (void)api_.cuCtxPopCurrent(&pushed);
}

Function GpuDevice::kernel(bool is_gather, unsigned word_bytes) const {
  const auto at = static_cast<std::size_t>(std::ranges::find(word_sizes, word_bytes) - word_sizes.begin());
  return (is_gather ? gathers_ : scatters_).at(at);
}

int device_of(const Api& api, DevicePtr address) {
  int ordinal = 0;
  check(api, api.cuPointerGetAttribute(&ordinal, pointer_attribute_device_ordinal, address), "cuPointerGetAttribute");
  return ordinal;
}

GpuMemory::GpuMemory(const GpuDevice& device, std::uint64_t bytes, const char* purpose)
    : GpuMemory(device, allocated(device, bytes, purpose)) {}

GpuStream::GpuStream(const GpuDevice& device) : device_(device) {
  device_.check(device_.api().cuStreamCreateWithPriority(&stream_, stream_non_blocking, device_.lowest_priority()),
                "cuStreamCreateWithPriority");
}

void GpuStream::drain() const noexcept {
  (void)wait_until([this] { return has_ended(); }, Looks::leisurely, no_limit);
}

GpuEvent::GpuEvent(const GpuDevice& device) : device_(device) {
  device_.check(device_.api().cuEventCreate(&event_, event_disable_timing), "cuEventCreate");
}

bool GpuEvent::is_done() const {
  const Result result = device_.api().cuEventQuery(event_);
  if (result == error_not_ready) return false;
  device_.check(result, "cuEventQuery");
  return true;
}

void GpuEvent::wait() const {
  (void)wait_until([this] { return is_done(); }, Looks::close, no_limit);
}

}  // namespace flexkv::cuda
