// PartEvents: when, on the device, a part of a load by layers is there: an event for each stage through which it may
// pass. Its address is the part's CopyMark. Thread safety: recorded by the copier's thread before the mark is told to
// others.
#pragma once
#include <memory>
#include <vector>

#include "cuda/gpu_device.h"
#include "transfer/block_copier.h"

namespace flexkv::cuda {

struct PartEvents {
  // REQUIRES: the thread has entered, as for the destructor. Throws Error.
  PartEvents(const GpuDevice& device, std::size_t num_streams) {
    for (std::size_t i = 0; i < num_streams; ++i) events.push_back(std::make_unique<GpuEvent>(device));
  }

  [[nodiscard]] CopyMark mark() const { return reinterpret_cast<CopyMark>(this); }
  [[nodiscard]] static const PartEvents& of(CopyMark mark) { return *reinterpret_cast<const PartEvents*>(mark); }

  std::vector<std::unique_ptr<GpuEvent>> events;
};

}  // namespace flexkv::cuda
