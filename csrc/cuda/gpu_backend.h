// GpuBackend: what a copy agent moves blocks with when its rank's tensors lie on an NVIDIA GPU.
#pragma once
#include <memory>
#include <string>

#include "cuda/copy_choices.h"
#include "cuda/copy_tuner.h"
#include "cuda/gpu_shared.h"
#include "transfer/block_copier.h"

namespace flexkv::cuda {

class GpuBackend final : public CopyBackend {
 public:
  // On the device on which the layout's memory lies. Throws Error, std::invalid_argument.
  GpuBackend(const Api& api, const DeviceLayout& layout, const TunerLimits& limits = {});

  [[nodiscard]] std::unique_ptr<BlockCopier> make_copier(protocol::Direction direction) override;
  // Registers the memory with the driver in pieces; see csrc/cuda/host_registration.h. Then the mechanisms are
  // measured, once.
  [[nodiscard]] std::unique_ptr<HostRegistration> use_host(const HostShard& host,
                                                           std::function<void(const HostProgress&)> progress) override;
  void record_step(std::uint64_t step, std::uintptr_t stream) override;
  void make_wait(std::uintptr_t stream, CopyMark mark) override;
  // See GpuShared. For tests.
  void set_start_limit(nanoseconds limit) { shared_->start_limit = limit; }

  [[nodiscard]] CopyChoices& choices() { return *choices_; }
  [[nodiscard]] const CopyChoices& choices() const { return *choices_; }
  // What figures are true of.
  [[nodiscard]] const std::string& gpu_name() const { return shared_->device.name(); }
  [[nodiscard]] int driver_version() const { return driver_version_; }  // as CUDA counts: 13000 is 13.0
  [[nodiscard]] std::string layout_class() const { return shared_->map.layout_class(); }

 private:
  const TunerLimits limits_;
  std::shared_ptr<GpuShared> shared_;
  GpuLanes lanes_;
  std::shared_ptr<CopyChoices> choices_;
  int driver_version_ = 0;
};

}  // namespace flexkv::cuda
