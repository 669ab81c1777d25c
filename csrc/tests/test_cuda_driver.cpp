// Loading the CUDA driver: one that is too old, incomplete or without a GPU is named, and what to do about it.
#include <cstring>
#include <functional>
#include <string>

#include "cuda/cuda_api.h"
#include "tests/check.h"

using namespace flexkv::cuda;

namespace {

// A driver's library. Its functions are static, as those of a library are.
struct Library {
  int version = 12040;
  bool has_versions = true;
  std::string missing;
  Result init = success;

  std::function<void*(const char*)> symbols() {
    current = this;
    return [this](const char* name) -> void* {
      if (std::strcmp(name, "cuDriverGetVersion") == 0) return reinterpret_cast<void*>(&get_version);
      if (std::strcmp(name, "cuGetProcAddress_v2") != 0 || !has_versions) return nullptr;
      return reinterpret_cast<void*>(&get_proc_address);
    };
  }

  static Result get_version(int* version) {
    *version = current->version;
    return success;
  }
  static Result call_init(unsigned /*flags*/) { return current->init; }
  static Result call_error_name(Result error, const char** name) {
    *name = error == error_no_device ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR_OTHER";
    return success;
  }
  static Result anything() { return success; }
  static Result get_proc_address(const char* symbol, void** function, int version, std::uint64_t /*flags*/,
                                 int* /*status*/) {
    const std::string name = symbol;
    CHECK(version == (name == "cuMemcpyBatchAsync" ? 12080 : 12000));
    if (name == current->missing) return 500;
    *function = name == "cuInit"           ? reinterpret_cast<void*>(&call_init)
                : name == "cuGetErrorName" ? reinterpret_cast<void*>(&call_error_name)
                                           : reinterpret_cast<void*>(&anything);
    return success;
  }
  static inline Library* current = nullptr;
};

std::string why_not(Library library) {
  Api api = {};
  std::string why;
  const bool is_loaded = load_driver(api, library.symbols(), why);
  CHECK(is_loaded == why.empty());
  CHECK(!is_loaded || (api.cuLaunchKernel != nullptr && api.cuEventQuery != nullptr));
  return why;
}

void a_driver_that_cannot_be_used_is_named() {
  CHECK(why_not({}).empty());
  CHECK(why_not({12000, true, "", success}).empty());
  CHECK(why_not({12000, true, "cuMemcpyBatchAsync", success}).empty());  // newer than what is needed
  CHECK(why_not({11080, true, "", success}) ==
        "the CUDA driver is for CUDA 11.8; update it to one for CUDA 12.0 or later");
  CHECK(why_not({11040, false, "", success}) ==
        "the CUDA driver is for CUDA 11.4; update it to one for CUDA 12.0 or later");
  CHECK(why_not({0, false, "", success}) == "the CUDA driver has no versions; update it to one for CUDA 12.0 or later");
  CHECK(why_not({12040, true, "cuStreamQuery", success}) ==
        "the CUDA driver has no cuStreamQuery; install a complete one for CUDA 12.0 or later");
  CHECK(why_not({12040, true, "", error_no_device}) ==
        "the CUDA driver finds no GPU; look at nvidia-smi and CUDA_VISIBLE_DEVICES (cuInit: CUDA_ERROR_NO_DEVICE)");
  CHECK(why_not({12040, true, "", 999}) ==
        "the CUDA driver cannot be used; look at nvidia-smi (cuInit: CUDA_ERROR_OTHER)");
}

}  // namespace

int main() {
  a_driver_that_cannot_be_used_is_named();
  std::puts("test_cuda_driver: ok");
  return 0;
}
