#include "cuda/gpu_backend.h"

#include <utility>

#include "cuda/gpu_copier.h"
#include "cuda/host_registration.h"
#include "transfer/host_pool.h"

namespace flexkv::cuda {
GpuBackend::GpuBackend(const Api& api, const DeviceLayout& layout)
    : shared_(std::make_shared<GpuShared>(api, device_of(api, layout.planes.front().base), layout,
                                          slot_stride_bytes(layout.slot_bytes()))) {}

std::unique_ptr<BlockCopier> GpuBackend::make_copier(protocol::Direction direction) {
  return std::make_unique<GpuCopier>(shared_, direction);
}

std::unique_ptr<HostRegistration> GpuBackend::use_host(const HostShard& host,
                                                       std::function<void(const HostProgress&)> progress) {
  return std::make_unique<GpuHostRegistration>(shared_, host, std::move(progress));
}

void GpuBackend::record_step(std::uint64_t step, std::uintptr_t stream) {
  shared_->device.enter();
  shared_->steps.record(step, reinterpret_cast<Stream>(stream));
}

}  // namespace flexkv::cuda
