#include "cuda/step_events.h"

#include <string>

#include "cuda/gpu_wait.h"

namespace flexkv::cuda {
namespace {

constexpr std::chrono::milliseconds between_steps{100};  // an engine that works takes less

}  // namespace

StepEvents::StepEvents(const GpuDevice& device) {
  for (Entry& entry : entries_) entry.event = std::make_unique<GpuEvent>(device);
}

void StepEvents::record(std::uint64_t step, Stream stream) {
  const std::lock_guard lock(mutex_);
  if (step <= last_step_) return;
  Entry& entry = entries_[next_];
  entry.event->record(stream);
  entry.step = last_step_ = step;
  last_work_ = std::chrono::steady_clock::now();
  next_ = (next_ + 1) % num_kept;
}

const GpuEvent* StepEvents::event_of(std::uint64_t step) const {
  if (step == 0) return nullptr;
  for (std::size_t i = 0; i < num_kept; ++i) {  // from the oldest
    const Entry& entry = entries_[(next_ + i) % num_kept];
    if (entry.step >= step) return entry.event.get();
  }
  return nullptr;
}

// The lock keeps an event from being recorded anew between the choice and the wait.
void StepEvents::make_wait(const GpuStream& stream, std::uint64_t step) const {
  const std::lock_guard lock(mutex_);
  const GpuEvent* const event = event_of(step);
  if (event != nullptr) stream.wait_for(event->get());
}

void StepEvents::wait(std::uint64_t step, std::chrono::nanoseconds limit) const {
  if (wait_until([this, step] { return is_done(step); }, Looks::leisurely, limit)) return;
  throw Error(error_not_ready, "step " + std::to_string(step) + " of the engine does not end on the device");
}

// The event is chosen at every look: it may be recorded anew meanwhile.
bool StepEvents::is_done(std::uint64_t step) const {
  const std::lock_guard lock(mutex_);
  const GpuEvent* const event = event_of(step);
  return event == nullptr || event->is_done();
}

bool StepEvents::is_busy() const {
  const Entry& last = entries_[(next_ + num_kept - 1) % num_kept];
  return last.step != 0 && !last.event->is_done();
}

bool StepEvents::is_engine_busy() const {
  const std::lock_guard lock(mutex_);
  return is_busy();
}

bool StepEvents::has_worked_lately() const {
  const std::lock_guard lock(mutex_);
  if (last_step_ == 0) return false;
  const auto now = std::chrono::steady_clock::now();
  if (is_busy()) last_work_ = now;
  return now - last_work_ < between_steps;
}

}  // namespace flexkv::cuda
