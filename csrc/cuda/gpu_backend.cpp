#include "cuda/gpu_backend.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "cuda/copy_tuner.h"
#include "cuda/gpu_copier.h"
#include "cuda/host_runs.h"
#include "transfer/host_pool.h"
#include "transfer/native_thread.h"

namespace flexkv::cuda {
namespace {

// The memory of a shard, registered in order by a thread of its own. Where the driver does not take a piece, copies to
// and from it are slower, but right: it counts as usable all the same.
class GpuHostRegistration final : public HostRegistration {
 public:
  // `then` is done by the thread once all is registered, unless its argument says that it ends.
  GpuHostRegistration(std::shared_ptr<GpuShared> shared, const HostShard& host,
                      std::function<void(std::int64_t)> progress, std::function<void(const std::atomic<bool>&)> then)
      : shared_(std::move(shared)), host_(host), progress_(std::move(progress)), then_(std::move(then)) {
    thread_ = start_native_thread("fkv-register", [this] { run(); });
  }

  ~GpuHostRegistration() override {
    ends_ = true;
    thread_.join();
    for (void* piece : pieces_) shared_->pieces.remove(static_cast<std::byte*>(piece));
    if (shared_->device.try_enter() != success) return;  // the driver is gone, and its registrations with it
    for (void* piece : pieces_) (void)shared_->device.api().cuMemHostUnregister(piece);
  }

  GpuHostRegistration(const GpuHostRegistration&) = delete;
  GpuHostRegistration& operator=(const GpuHostRegistration&) = delete;

 private:
  void run() {
    (void)shared_->device.try_enter();  // if it fails, copies will say what is wrong
    const std::int64_t at_once = slots_per_piece(host_.stride_bytes);
    for (std::int64_t begin = 0; begin < host_.num_slots && !ends_; begin += at_once) {
      const std::int64_t end = std::min(host_.num_slots, begin + at_once);
      std::byte* const piece = host_.base + static_cast<std::uint64_t>(begin) * host_.stride_bytes;
      const std::uint64_t bytes = static_cast<std::uint64_t>(end - begin) * host_.stride_bytes;
      if (shared_->device.api().cuMemHostRegister(piece, bytes, host_register_portable) == success) {
        pieces_.push_back(piece);
        shared_->pieces.add(shared_->device, piece, bytes);
      }
      progress_(end);
    }
    if (!ends_) then_(ends_);
  }

  const std::shared_ptr<GpuShared> shared_;
  const HostShard host_;
  const std::function<void(std::int64_t)> progress_;
  const std::function<void(const std::atomic<bool>&)> then_;
  std::vector<void*> pieces_;  // the thread's, until it has ended
  std::atomic<bool> ends_ = false;
  std::thread thread_;
};

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
                                                       std::function<void(std::int64_t num_slots)> progress) {
  const auto tune_once = [shared = shared_, lanes = lanes_, choices = choices_,
                          limits = limits_](const std::atomic<bool>& ends) {
    if (shared->device.try_enter() == success) tune(*shared, lanes, *choices, ends, limits);
  };
  return std::make_unique<GpuHostRegistration>(shared_, host, std::move(progress), tune_once);
}

void GpuBackend::record_step(std::uint64_t step, std::uintptr_t stream) {
  shared_->device.enter();
  shared_->steps.record(step, reinterpret_cast<Stream>(stream));
}

}  // namespace flexkv::cuda
