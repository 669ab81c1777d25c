#include "cuda/block_map.h"

#include <utility>

#include "cuda/gpu_wait.h"

namespace flexkv::cuda {
namespace {

constexpr nanoseconds upload_limit = std::chrono::seconds(30);

DevicePtr room_for(const GpuDevice& device, std::size_t bytes) {
  DevicePtr address = 0;
  device.check(device.api().cuMemAlloc(&address, bytes), "cuMemAlloc of the layout's table");
  return address;
}

void upload(const GpuDevice& device, const std::vector<Unit>& units, DevicePtr to) {
  const GpuStream stream(device, device.low_priority());
  const std::size_t bytes = units.size() * sizeof(Unit);
  device.check(device.api().cuMemcpyHtoDAsync(to, units.data(), bytes, stream.get()), "cuMemcpyHtoDAsync");
  if (!wait_until([&stream] { return stream.has_ended(); }, Looks::close, upload_limit)) {
    throw Error(error_not_ready, "the device does not take the layout's table");
  }
}

}  // namespace

BlockMap::BlockMap(const GpuDevice& device, DeviceLayout layout_in)
    : layout(std::move(layout_in)),
      table(unit_table(layout)),
      slot_bytes(layout.slot_bytes()),
      device_table(device, room_for(device, table.units.size() * sizeof(Unit))) {
  upload(device, table.units, device_table.address());
}

SlotPart BlockMap::part(std::uint32_t first_unit, std::uint32_t num_units) const {
  const Unit& first = table.units.at(first_unit);
  const Unit& last = table.units.at(first_unit + num_units - 1);
  return {first_unit, num_units, first.offset, std::uint64_t{last.offset} + last.bytes - first.offset};
}

}  // namespace flexkv::cuda
