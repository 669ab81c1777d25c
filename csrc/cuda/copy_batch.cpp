#include "cuda/copy_batch.h"

namespace flexkv::cuda {

CopyBatch::CopyBatch(const LaneStreams& streams) : streams_(streams) {
  if (!is_there()) return;
  to_.reserve(most_copies);
  from_.reserve(most_copies);
  sizes_.reserve(most_copies);
}

void CopyBatch::add(std::byte* host, DevicePtr device, std::uint64_t bytes) {
  if (to_.size() == most_copies) flush();
  const auto at_host = static_cast<DevicePtr>(reinterpret_cast<std::uintptr_t>(host));
  to_.push_back(streams_.is_store() ? at_host : device);
  from_.push_back(streams_.is_store() ? device : at_host);
  sizes_.push_back(bytes);
}

// The sources are read in the order of the stream: behind the engine's work that writes them, and before the op ends,
// after which they may be freed.
void CopyBatch::flush() {
  if (to_.empty()) return;
  CopyAttributes attributes;
  attributes.source_access_order = source_access_in_stream_order;
  std::size_t first_with_them = 0;
  std::size_t failed_at = 0;
  const GpuDevice& device = streams_.device();
  const Result result =
      device.api().cuMemcpyBatchAsync(to_.data(), from_.data(), sizes_.data(), to_.size(), &attributes,
                                      &first_with_them, 1, &failed_at, streams_.copies().get());
  clear();
  device.check(result, "cuMemcpyBatchAsync");
}

void CopyBatch::clear() noexcept {
  to_.clear();
  from_.clear();
  sizes_.clear();
}

}  // namespace flexkv::cuda
