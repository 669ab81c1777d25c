#include "cuda/step_events.h"

namespace flexkv::cuda {

StepEvents::StepEvents(const GpuDevice& device) {
  for (Entry& entry : entries_) entry.event = std::make_unique<GpuEvent>(device);
}

void StepEvents::record(std::uint64_t step, Stream stream) {
  const std::lock_guard lock(mutex_);
  Entry& entry = entries_[next_];
  entry.event->record(stream);
  entry.step = step;
  next_ = (next_ + 1) % num_kept;
}

// The lock keeps an event from being recorded anew between the choice and the wait.
void StepEvents::make_wait(const GpuStream& stream, std::uint64_t step) const {
  if (step == 0) return;
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < num_kept; ++i) {  // from the oldest
    const Entry& entry = entries_[(next_ + i) % num_kept];
    if (entry.step < step) continue;
    stream.wait_for(entry.event->get());
    return;
  }
}

bool StepEvents::is_engine_busy() const {
  const std::lock_guard lock(mutex_);
  const Entry& last = entries_[(next_ + num_kept - 1) % num_kept];
  return last.step != 0 && !last.event->is_done();
}

}  // namespace flexkv::cuda
