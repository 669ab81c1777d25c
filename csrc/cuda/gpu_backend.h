// GpuBackend: what a copy agent moves blocks with when its rank's tensors lie on an NVIDIA GPU.
#pragma once
#include <memory>

#include "cuda/gpu_copier.h"
#include "transfer/block_copier.h"

namespace flexkv::cuda {

class GpuBackend final : public CopyBackend {
 public:
  // On the device on which the layout's memory lies. Throws Error, std::invalid_argument.
  GpuBackend(const Api& api, const DeviceLayout& layout);

  [[nodiscard]] std::unique_ptr<BlockCopier> make_copier(protocol::Direction direction) override;
  // Registers the memory with the driver, a piece after the other.
  [[nodiscard]] std::unique_ptr<HostRegistration> use_host(
      const HostShard& host, std::function<void(std::int64_t num_slots)> progress) override;
  void record_step(std::uint64_t step, std::uintptr_t stream) override;
  void make_wait(std::uintptr_t stream, CopyMark mark) override;

 private:
  std::shared_ptr<GpuShared> shared_;
};

}  // namespace flexkv::cuda
