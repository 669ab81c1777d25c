// What is used of the CUDA driver, as a table of functions: loaded from libcuda.so.1 where there is one, so that
// neither building nor installing needs CUDA; or filled in by a test.
//
// The declarations follow the driver API's documentation; names of members are those of its functions. Versioned
// symbols are asked for by the version whose signature stands here. Thread safety: immutable once made.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>

namespace flexkv::cuda {

using Result = int;  // CUresult
using Device = int;  // CUdevice
using DevicePtr = std::uint64_t;
using Context = struct ContextTag*;
using Stream = struct StreamTag*;
using Event = struct EventTag*;
using Module = struct ModuleTag*;
using Function = struct FunctionTag*;

inline constexpr Result success = 0;
inline constexpr Result error_out_of_memory = 2;
inline constexpr Result error_no_device = 100;
inline constexpr Result error_not_ready = 600;
inline constexpr Result error_host_memory_already_registered = 712;

inline constexpr unsigned stream_non_blocking = 1;
inline constexpr unsigned event_disable_timing = 2;
inline constexpr unsigned host_portable_and_mapped = 3;  // of memory that is registered or allocated
inline constexpr int pointer_attribute_device_ordinal = 9;
inline constexpr int pointer_attribute_range_start = 11;
inline constexpr int pointer_attribute_range_bytes = 12;
inline constexpr int device_attribute_multiprocessors = 16;
inline constexpr int device_attribute_capability_major = 75;
inline constexpr int function_attribute_registers = 4;
inline constexpr int capture_mode_relaxed = 2;
inline constexpr int memory_type_host = 1;
inline constexpr int memory_type_device = 2;

// Rows of equal length, each a pitch behind the one before, on either side: CUDA_MEMCPY2D of version 3.2 on.
struct Rectangle {
  struct Side {
    std::size_t x_bytes = 0;
    std::size_t y = 0;
    int type = 0;  // memory_type_host or memory_type_device
    const void* host = nullptr;
    DevicePtr device = 0;
    void* array = nullptr;
    std::size_t pitch_bytes = 0;
  };
  Side from;
  Side to;
  std::size_t row_bytes = 0;
  std::size_t num_rows = 0;
};
static_assert(sizeof(Rectangle) == 128);
inline constexpr std::uint64_t most_pitch_bytes = 0x7fffffff;  // of a Rectangle; the driver refuses longer ones

inline constexpr int source_access_in_stream_order = 1;

// CUmemcpyAttributes; the hints are for managed memory only.
struct CopyAttributes {
  struct Location {
    int type = 0;
    int id = 0;
  };
  int source_access_order = 0;
  Location from;
  Location to;
  unsigned flags = 0;
};
static_assert(sizeof(CopyAttributes) == 24);

struct Api {
  Result (*cuInit)(unsigned flags);
  Result (*cuDriverGetVersion)(int* version);
  Result (*cuGetErrorName)(Result error, const char** name);
  Result (*cuDeviceGet)(Device* device, int ordinal);
  Result (*cuDeviceGetName)(char* name, int length, Device device);
  Result (*cuDeviceGetAttribute)(int* value, int attribute, Device device);
  Result (*cuDevicePrimaryCtxRetain)(Context* context, Device device);
  Result (*cuDevicePrimaryCtxRelease)(Device device);
  Result (*cuCtxSetCurrent)(Context context);
  Result (*cuCtxPushCurrent)(Context context);
  Result (*cuCtxPopCurrent)(Context* context);
  Result (*cuCtxGetStreamPriorityRange)(int* least, int* greatest);
  Result (*cuThreadExchangeStreamCaptureMode)(int* mode);
  Result (*cuPointerGetAttribute)(void* value, int attribute, DevicePtr pointer);
  Result (*cuStreamCreateWithPriority)(Stream* stream, unsigned flags, int priority);
  Result (*cuStreamDestroy)(Stream stream);
  Result (*cuStreamQuery)(Stream stream);
  Result (*cuStreamWaitEvent)(Stream stream, Event event, unsigned flags);
  Result (*cuEventCreate)(Event* event, unsigned flags);
  Result (*cuEventDestroy)(Event event);
  Result (*cuEventRecord)(Event event, Stream stream);
  Result (*cuEventQuery)(Event event);
  Result (*cuMemAlloc)(DevicePtr* address, std::size_t bytes);
  Result (*cuMemFree)(DevicePtr address);
  Result (*cuMemHostRegister)(void* address, std::size_t bytes, unsigned flags);
  Result (*cuMemHostUnregister)(void* address);
  Result (*cuMemHostGetDevicePointer)(DevicePtr* address, void* host, unsigned flags);
  Result (*cuMemcpyHtoDAsync)(DevicePtr to, const void* from, std::size_t bytes, Stream stream);
  Result (*cuMemcpyDtoHAsync)(void* to, DevicePtr from, std::size_t bytes, Stream stream);
  Result (*cuMemcpy2DAsync)(const Rectangle* rectangle, Stream stream);
  // As of 12.8; later ones take one argument less. nullptr where the driver is older.
  Result (*cuMemcpyBatchAsync)(DevicePtr* to, DevicePtr* from, std::size_t* bytes, std::size_t count,
                               CopyAttributes* attributes, std::size_t* first_with_them, std::size_t num_attributes,
                               std::size_t* failed_at, Stream stream);
  Result (*cuModuleLoadData)(Module* module, const void* image);
  Result (*cuModuleUnload)(Module module);
  Result (*cuModuleGetFunction)(Function* function, Module module, const char* name);
  Result (*cuFuncGetAttribute)(int* value, int attribute, Function function);
  Result (*cuLaunchKernel)(Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                           unsigned block_y, unsigned block_z, unsigned shared_bytes, Stream stream, void** arguments,
                           void** extra);
};

// A call of the driver failed. `code` is its CUresult.
class Error : public std::runtime_error {
 public:
  Error(Result code, const std::string& what) : std::runtime_error(what), code_(code) {}
  [[nodiscard]] Result code() const { return code_; }

 private:
  Result code_;
};

// The driver of this machine, loaded and initialized once for the process; nullptr when it cannot be had, and why, and
// what to do about it.
[[nodiscard]] const Api* driver(std::string& why_not);
// The same, from what a library has under a name (nullptr: nothing), for tests. False: it cannot be used.
[[nodiscard]] bool load_driver(Api& api, const std::function<void*(const char* symbol)>& library, std::string& why_not);

// What a call that failed says: its name, and the driver's name of the error.
[[nodiscard]] std::string error_text(const Api& api, Result result, const char* call);

// Throws Error with the call's name and the driver's name of the error.
void check(const Api& api, Result result, const char* call);

}  // namespace flexkv::cuda
