#include "cuda/gpu_backend.h"

#include <utility>

#include "cuda/copy_tuner.h"
#include "cuda/gpu_copier.h"
#include "cuda/host_registration.h"
#include "cuda/part_events.h"
#include "transfer/host_pool.h"

namespace flexkv::cuda {
namespace {

// Blocks of one long piece need no kernel. Shorter pieces are faster as stages: a copy of 2 MiB after the other comes
// to 0.95 of long ones.
MechanismKind usual_mechanism(const BlockMap& map) {
  constexpr std::uint64_t long_bytes = std::uint64_t{16} << 20;
  const bool is_long = map.layout.planes.size() == 1 && map.slot_bytes >= long_bytes;
  return is_long ? MechanismKind::direct : MechanismKind::staged;
}

}  // namespace

GpuBackend::GpuBackend(const Api& api, const DeviceLayout& layout, const TunerLimits& limits)
    : limits_(limits),
      shared_(std::make_shared<GpuShared>(api, device_of(api, layout.planes.front().base), layout,
                                          slot_stride_bytes(layout.slot_bytes()))),
      lanes_({std::make_shared<GpuLane>(shared_, protocol::Direction::load),
              std::make_shared<GpuLane>(shared_, protocol::Direction::store)}),
      choices_(std::make_shared<CopyChoices>(usual_mechanism(shared_->map))) {
  cuda::check(api, api.cuDriverGetVersion(&driver_version_), "cuDriverGetVersion");
}

std::unique_ptr<BlockCopier> GpuBackend::make_copier(protocol::Direction direction) {
  return std::make_unique<GpuCopier>(shared_, lanes_[direction == protocol::Direction::load ? 0 : 1], choices_);
}

std::unique_ptr<HostRegistration> GpuBackend::use_host(const HostShard& host,
                                                       std::function<void(const HostProgress&)> progress) {
  const auto tune_once = [shared = shared_, lanes = lanes_, choices = choices_,
                          limits = limits_](const std::stop_token& ends) {
    if (shared->device.try_enter() == success) tune(*shared, lanes, *choices, ends, limits);
  };
  return std::make_unique<GpuHostRegistration>(shared_, host, std::move(progress), tune_once);
}

void GpuBackend::record_step(std::uint64_t step, std::uintptr_t stream) {
  Visit visit(shared_->device, Visit::For::events);
  visit.begin();
  shared_->steps.record(step, reinterpret_cast<Stream>(stream));
}

void GpuBackend::make_wait(std::uintptr_t stream, CopyMark mark) {
  Visit visit(shared_->device, Visit::For::events);
  visit.begin();
  for (const auto& event : PartEvents::of(mark).events) {
    shared_->device.check(shared_->device.api().cuStreamWaitEvent(reinterpret_cast<Stream>(stream), event->get(), 0),
                          "cuStreamWaitEvent of the engine's stream");
  }
}

}  // namespace flexkv::cuda
