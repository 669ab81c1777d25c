// CopyBatch: many copies of the copy engine in one call of the driver, which leaves no gap between them: pieces of 2
// MiB one by one reach 0.93 of the link, in a batch 0.99 (H100).
//
// Thread safety: one thread at a time.
#pragma once
#include <cstddef>
#include <vector>

#include "cuda/lane_streams.h"

namespace flexkv::cuda {

class CopyBatch {
 public:
  // Of one call: one for thousands takes the driver milliseconds, in which the engine's calls may wait.
  static constexpr std::size_t most_copies = 256;

  explicit CopyBatch(const LaneStreams& streams);

  // Whether the driver has them (12.8 and newer).
  [[nodiscard]] bool is_there() const { return streams_.device().api().cuMemcpyBatchAsync != nullptr; }
  [[nodiscard]] bool empty() const { return sizes_.empty(); }
  // A copy between the two, the lane's way. It is issued with the next `flush`, at the latest; in no order with others
  // of the batch. Throws Error. REQUIRES: they are there; each side lies in one allocation, the host's in one piece
  // that is registered.
  void add(std::byte* host, DevicePtr device, std::uint64_t bytes);
  // The last one added goes on with these. REQUIRES: it is there.
  void extend(std::uint64_t bytes) { sizes_.back() += bytes; }
  // Issues what was added, into the stream in which the lane copies now. Throws Error. To be called before that
  // changes.
  void flush();
  void clear() noexcept;  // what was added will not be issued

 private:
  const LaneStreams& streams_;
  // Of what was added, as many in each.
  std::vector<DevicePtr> to_;
  std::vector<DevicePtr> from_;
  std::vector<std::size_t> sizes_;
};

}  // namespace flexkv::cuda
