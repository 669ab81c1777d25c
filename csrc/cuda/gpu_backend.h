// GpuBackend: what a copy agent moves blocks with when its rank's tensors lie on an NVIDIA GPU.
#pragma once
#include <memory>

#include "cuda/gpu_shared.h"
#include "transfer/block_copier.h"

namespace flexkv::cuda {

class GpuBackend final : public CopyBackend {
 public:
  // On the device on which the layout's memory lies. Throws Error, std::invalid_argument.
  GpuBackend(const Api& api, const DeviceLayout& layout);

  [[nodiscard]] std::unique_ptr<BlockCopier> make_copier(protocol::Direction direction) override;
  // Registers the memory with the driver in pieces; see csrc/cuda/host_registration.h.
  [[nodiscard]] std::unique_ptr<HostRegistration> use_host(const HostShard& host,
                                                           std::function<void(const HostProgress&)> progress) override;
  void record_step(std::uint64_t step, std::uintptr_t stream) override;
  // See GpuShared. For tests.
  void set_start_limit(nanoseconds limit) { shared_->start_limit = limit; }

 private:
  std::shared_ptr<GpuShared> shared_;
};

}  // namespace flexkv::cuda
