#include "cuda/lane_streams.h"

#include <algorithm>

namespace flexkv::cuda {

LaneStreams::LaneStreams(const GpuDevice& device, protocol::Direction direction)
    : device_(device), direction_(direction), own_(device), turn_ends_(device) {}

void LaneStreams::go_on_in(const GpuStream& stream) {
  if (&stream == current_) return;
  turn_ends_.record(current_->get());
  stream.wait_for(turn_ends_.get());
  current_ = &stream;
}

void LaneStreams::move(std::byte* host, DevicePtr device, std::uint64_t bytes, Stream stream) const {
  if (is_store()) {
    device_.check(device_.api().cuMemcpyDtoHAsync(host, device, bytes, stream), "cuMemcpyDtoHAsync");
  } else {
    device_.check(device_.api().cuMemcpyHtoDAsync(device, host, bytes, stream), "cuMemcpyHtoDAsync");
  }
}

void LaneStreams::move_rows(std::byte* host, DevicePtr device, const Rows& rows, Stream stream) const {
  const bool is_long = std::max(rows.host_pitch, rows.device_pitch) > most_pitch_bytes;
  if (rows.count == 1 || is_long) {
    for (std::uint64_t row = 0; row < rows.count; ++row) {
      move(host + row * rows.host_pitch, device + row * rows.device_pitch, rows.bytes, stream);
    }
    return;
  }
  Rectangle rectangle = {};
  rectangle.row_bytes = rows.bytes;
  rectangle.num_rows = rows.count;
  Rectangle::Side& device_side = is_store() ? rectangle.from : rectangle.to;
  Rectangle::Side& host_side = is_store() ? rectangle.to : rectangle.from;
  device_side.type = memory_type_device;
  device_side.device = device;
  device_side.pitch_bytes = rows.device_pitch;
  host_side.type = memory_type_host;
  host_side.host = host;
  host_side.pitch_bytes = rows.host_pitch;
  device_.check(device_.api().cuMemcpy2DAsync(&rectangle, stream), "cuMemcpy2DAsync");
}

}  // namespace flexkv::cuda
