#include "cuda/cuda_api.h"

#include <dlfcn.h>

#include <mutex>

namespace flexkv::cuda {
namespace {

// CUDA 12.0: the oldest driver that is asked for. Each function's signature is that of this version.
constexpr int api_version = 12000;
constexpr int batch_version = 12080;  // the first with batches of copies

using GetProcAddress = Result (*)(const char* symbol, void** function, int version, std::uint64_t flags,
                                  int* symbol_status);

// Looks one function up: by version where the driver can, else by the name that has that signature for good.
class Symbols {
 public:
  explicit Symbols(void* library)
      : by_version_(reinterpret_cast<GetProcAddress>(::dlsym(library, "cuGetProcAddress_v2"))) {}

  template <typename Function>
  void find(Function& function, const char* name) {
    find_if_there(function, name, api_version);
    if (function == nullptr && missing_.empty()) missing_ = name;
  }
  template <typename Function>
  void find_if_there(Function& function, const char* name, int version) {
    void* found = nullptr;
    int status = 0;
    if (by_version_ == nullptr || by_version_(name, &found, version, 0, &status) != success) found = nullptr;
    function = reinterpret_cast<Function>(found);
  }

  [[nodiscard]] bool has_versions() const { return by_version_ != nullptr; }
  [[nodiscard]] const std::string& missing() const { return missing_; }

 private:
  GetProcAddress by_version_;
  std::string missing_;
};

bool load(Api& api, std::string& why_not) {
  void* const library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    why_not = "there is no CUDA driver: libcuda.so.1 cannot be loaded";
    return false;
  }
  Symbols symbols(library);
  if (!symbols.has_versions()) {
    why_not = "the CUDA driver is older than 12.0";
    return false;
  }
  symbols.find(api.cuInit, "cuInit");
  symbols.find(api.cuDriverGetVersion, "cuDriverGetVersion");
  symbols.find(api.cuGetErrorName, "cuGetErrorName");
  symbols.find(api.cuDeviceGet, "cuDeviceGet");
  symbols.find(api.cuDeviceGetName, "cuDeviceGetName");
  symbols.find(api.cuDeviceGetAttribute, "cuDeviceGetAttribute");
  symbols.find(api.cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain");
  symbols.find(api.cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease");
  symbols.find(api.cuCtxSetCurrent, "cuCtxSetCurrent");
  symbols.find(api.cuCtxGetStreamPriorityRange, "cuCtxGetStreamPriorityRange");
  symbols.find(api.cuThreadExchangeStreamCaptureMode, "cuThreadExchangeStreamCaptureMode");
  symbols.find(api.cuPointerGetAttribute, "cuPointerGetAttribute");
  symbols.find(api.cuStreamCreateWithPriority, "cuStreamCreateWithPriority");
  symbols.find(api.cuStreamDestroy, "cuStreamDestroy");
  symbols.find(api.cuStreamSynchronize, "cuStreamSynchronize");
  symbols.find(api.cuStreamWaitEvent, "cuStreamWaitEvent");
  symbols.find(api.cuEventCreate, "cuEventCreate");
  symbols.find(api.cuEventDestroy, "cuEventDestroy");
  symbols.find(api.cuEventRecord, "cuEventRecord");
  symbols.find(api.cuEventQuery, "cuEventQuery");
  symbols.find(api.cuEventSynchronize, "cuEventSynchronize");
  symbols.find(api.cuMemAlloc, "cuMemAlloc");
  symbols.find(api.cuMemFree, "cuMemFree");
  symbols.find(api.cuMemHostRegister, "cuMemHostRegister");
  symbols.find(api.cuMemHostUnregister, "cuMemHostUnregister");
  symbols.find(api.cuMemHostGetDevicePointer, "cuMemHostGetDevicePointer");
  symbols.find(api.cuMemHostAlloc, "cuMemHostAlloc");
  symbols.find(api.cuMemFreeHost, "cuMemFreeHost");
  symbols.find(api.cuMemcpyHtoDAsync, "cuMemcpyHtoDAsync");
  symbols.find(api.cuMemcpyDtoHAsync, "cuMemcpyDtoHAsync");
  symbols.find(api.cuMemcpy2DAsync, "cuMemcpy2DAsync");
  symbols.find_if_there(api.cuMemcpyBatchAsync, "cuMemcpyBatchAsync", batch_version);
  symbols.find(api.cuModuleLoadData, "cuModuleLoadData");
  symbols.find(api.cuModuleUnload, "cuModuleUnload");
  symbols.find(api.cuModuleGetFunction, "cuModuleGetFunction");
  symbols.find(api.cuLaunchKernel, "cuLaunchKernel");
  if (!symbols.missing().empty()) {
    why_not = "the CUDA driver has no " + symbols.missing();
    return false;
  }
  const Result result = api.cuInit(0);
  if (result != success) {
    const char* name = nullptr;
    (void)api.cuGetErrorName(result, &name);
    why_not = std::string("the CUDA driver cannot be used: ") + (name == nullptr ? std::to_string(result) : name);
    return false;
  }
  return true;
}

}  // namespace

const Api* driver(std::string& why_not) {
  static Api api = {};
  static std::string reason;
  static bool is_loaded = false;
  static std::once_flag once;
  std::call_once(once, [] { is_loaded = load(api, reason); });
  why_not = reason;
  return is_loaded ? &api : nullptr;
}

void check(const Api& api, Result result, const char* call) {
  if (result == success) return;
  const char* name = nullptr;
  (void)api.cuGetErrorName(result, &name);
  throw Error(result, std::string(call) + ": " + (name == nullptr ? std::to_string(result) : name));
}

}  // namespace flexkv::cuda
