#include "cuda/gpu_backend.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "cuda/part_events.h"
#include "transfer/host_pool.h"
#include "transfer/native_thread.h"

namespace flexkv::cuda {
namespace {

// The memory of a shard, registered in order by a thread of its own. Where the driver does not take a piece, copies to
// and from it are slower, but right: it counts as usable all the same.
class GpuHostRegistration final : public HostRegistration {
 public:
  GpuHostRegistration(std::shared_ptr<GpuShared> shared, const HostShard& host,
                      std::function<void(std::int64_t)> progress)
      : shared_(std::move(shared)), host_(host), progress_(std::move(progress)) {
    thread_ = start_native_thread("fkv-register", [this] { run(); });
  }

  ~GpuHostRegistration() override {
    ends_ = true;
    thread_.join();
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
      }
      progress_(end);
    }
  }

  const std::shared_ptr<GpuShared> shared_;
  const HostShard host_;
  const std::function<void(std::int64_t)> progress_;
  std::vector<void*> pieces_;  // the thread's, until it has ended
  std::atomic<bool> ends_ = false;
  std::thread thread_;
};

}  // namespace

GpuBackend::GpuBackend(const Api& api, const DeviceLayout& layout)
    : shared_(std::make_shared<GpuShared>(api, device_of(api, layout.planes.front().base), layout,
                                          slot_stride_bytes(layout.slot_bytes()))) {}

std::unique_ptr<BlockCopier> GpuBackend::make_copier(protocol::Direction direction) {
  return std::make_unique<GpuCopier>(shared_, direction);
}

std::unique_ptr<HostRegistration> GpuBackend::use_host(const HostShard& host,
                                                       std::function<void(std::int64_t num_slots)> progress) {
  return std::make_unique<GpuHostRegistration>(shared_, host, std::move(progress));
}

void GpuBackend::record_step(std::uint64_t step, std::uintptr_t stream) {
  shared_->device.enter();
  shared_->steps.record(step, reinterpret_cast<Stream>(stream));
}

void GpuBackend::make_wait(std::uintptr_t stream, CopyMark mark) {
  shared_->device.enter();
  for (const auto& event : PartEvents::of(mark).events) {
    shared_->device.check(shared_->device.api().cuStreamWaitEvent(reinterpret_cast<Stream>(stream), event->get(), 0),
                          "cuStreamWaitEvent of the engine's stream");
  }
}

}  // namespace flexkv::cuda
