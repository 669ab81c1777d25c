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

// Looks one function up, by the version whose signature is meant.
class Symbols {
 public:
  explicit Symbols(GetProcAddress by_version) : by_version_(by_version) {}

  template <typename Function>
  void find(Function& function, const char* name) {
    find_if_there(function, name, api_version);
    if (function == nullptr && missing_.empty()) missing_ = name;
  }
  template <typename Function>
  void find_if_there(Function& function, const char* name, int version) {
    void* found = nullptr;
    int status = 0;
    if (by_version_(name, &found, version, 0, &status) != success) found = nullptr;
    function = reinterpret_cast<Function>(found);
  }

  [[nodiscard]] const std::string& missing() const { return missing_; }

 private:
  GetProcAddress by_version_;
  std::string missing_;
};

void find_all(Symbols& symbols, Api& api) {
  symbols.find(api.cuInit, "cuInit");
  symbols.find(api.cuDriverGetVersion, "cuDriverGetVersion");
  symbols.find(api.cuGetErrorName, "cuGetErrorName");
  symbols.find(api.cuDeviceGet, "cuDeviceGet");
  symbols.find(api.cuDeviceGetName, "cuDeviceGetName");
  symbols.find(api.cuDeviceGetAttribute, "cuDeviceGetAttribute");
  symbols.find(api.cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain");
  symbols.find(api.cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease");
  symbols.find(api.cuCtxSetCurrent, "cuCtxSetCurrent");
  symbols.find(api.cuCtxPushCurrent, "cuCtxPushCurrent");
  symbols.find(api.cuCtxPopCurrent, "cuCtxPopCurrent");
  symbols.find(api.cuCtxGetStreamPriorityRange, "cuCtxGetStreamPriorityRange");
  symbols.find(api.cuThreadExchangeStreamCaptureMode, "cuThreadExchangeStreamCaptureMode");
  symbols.find(api.cuPointerGetAttribute, "cuPointerGetAttribute");
  symbols.find(api.cuStreamCreateWithPriority, "cuStreamCreateWithPriority");
  symbols.find(api.cuStreamDestroy, "cuStreamDestroy");
  symbols.find(api.cuStreamQuery, "cuStreamQuery");
  symbols.find(api.cuStreamWaitEvent, "cuStreamWaitEvent");
  symbols.find(api.cuEventCreate, "cuEventCreate");
  symbols.find(api.cuEventDestroy, "cuEventDestroy");
  symbols.find(api.cuEventRecord, "cuEventRecord");
  symbols.find(api.cuEventQuery, "cuEventQuery");
  symbols.find(api.cuMemAlloc, "cuMemAlloc");
  symbols.find(api.cuMemFree, "cuMemFree");
  symbols.find(api.cuMemHostRegister, "cuMemHostRegister");
  symbols.find(api.cuMemHostUnregister, "cuMemHostUnregister");
  symbols.find(api.cuMemHostGetDevicePointer, "cuMemHostGetDevicePointer");
  symbols.find(api.cuMemcpyHtoDAsync, "cuMemcpyHtoDAsync");
  symbols.find(api.cuMemcpyDtoHAsync, "cuMemcpyDtoHAsync");
  symbols.find(api.cuMemcpy2DAsync, "cuMemcpy2DAsync");
  symbols.find_if_there(api.cuMemcpyBatchAsync, "cuMemcpyBatchAsync", batch_version);
  symbols.find(api.cuModuleLoadData, "cuModuleLoadData");
  symbols.find(api.cuModuleUnload, "cuModuleUnload");
  symbols.find(api.cuModuleGetFunction, "cuModuleGetFunction");
  symbols.find(api.cuFuncGetAttribute, "cuFuncGetAttribute");
  symbols.find(api.cuLaunchKernel, "cuLaunchKernel");
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string too_old(int version) {
  const std::string found = version > 0 ? "is for CUDA " + version_text(version) : "has no versions";
  return "the CUDA driver " + found + "; update it to one for CUDA " + version_text(api_version) + " or later";
}

bool initialize(const Api& api, std::string& why_not) {
  const Result result = api.cuInit(0);
  if (result == success) return true;
  why_not = result == error_no_device ? "the CUDA driver finds no GPU; look at nvidia-smi and CUDA_VISIBLE_DEVICES"
                                      : "the CUDA driver cannot be used; look at nvidia-smi";
  why_not += " (" + error_text(api, result, "cuInit") + ")";
  return false;
}

}  // namespace

bool load_driver(Api& api, const std::function<void*(const char* symbol)>& library, std::string& why_not) {
  int version = 0;
  const auto get_version = reinterpret_cast<Result (*)(int*)>(library("cuDriverGetVersion"));
  if (get_version != nullptr && get_version(&version) != success) version = 0;
  const auto by_version = reinterpret_cast<GetProcAddress>(library("cuGetProcAddress_v2"));
  if (by_version == nullptr || (version > 0 && version < api_version)) {
    why_not = too_old(version);
    return false;
  }
  Symbols symbols(by_version);
  find_all(symbols, api);
  if (!symbols.missing().empty()) {
    why_not = "the CUDA driver has no " + symbols.missing() + "; install a complete one for CUDA " +
              version_text(api_version) + " or later";
    return false;
  }
  return initialize(api, why_not);
}

const Api* driver(std::string& why_not) {
  static Api api = {};
  static std::string reason;
  static bool is_loaded = false;
  static std::once_flag once;
  std::call_once(once, [] {
    void* const library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      reason = "there is no CUDA driver: libcuda.so.1 cannot be loaded; install NVIDIA's for CUDA " +
               version_text(api_version) + " or later, or let the container see it";
      return;
    }
    is_loaded = load_driver(api, [library](const char* symbol) { return ::dlsym(library, symbol); }, reason);
  });
  why_not = reason;
  return is_loaded ? &api : nullptr;
}

std::string error_text(const Api& api, Result result, const char* call) {
  const char* name = nullptr;
  (void)api.cuGetErrorName(result, &name);
  return std::string(call) + ": " + (name == nullptr ? std::to_string(result) : name);
}

void check(const Api& api, Result result, const char* call) {
  if (result != success) throw Error(result, error_text(api, result, call));
}

}  // namespace flexkv::cuda
