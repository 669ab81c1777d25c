#include "cuda/block_map.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <numeric>
#include <utility>

#include "cuda/gpu_wait.h"

namespace flexkv::cuda {
namespace {

constexpr std::size_t most_name_chars = 64;
constexpr std::uint64_t page_bytes = 2u << 20;  // of the GPU
constexpr nanoseconds upload_limit = std::chrono::seconds(30);

void upload(const GpuDevice& device, const std::vector<Unit>& units, DevicePtr to) {
  const GpuStream stream(device);
  const std::size_t bytes = units.size() * sizeof(Unit);
  device.check(device.api().cuMemcpyHtoDAsync(to, units.data(), bytes, stream.get()), "cuMemcpyHtoDAsync");
  if (!wait_until([&stream] { return stream.has_ended(); }, Looks::close, upload_limit)) {
    throw Error(error_not_ready, "the device does not take the layout's table");
  }
}

struct Range {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;

  [[nodiscard]] bool holds(const Range& other) const { return begin <= other.begin && other.end <= end; }
};

// Empty when the driver does not know.
Range allocation_of(const Api& api, std::uint64_t address) {
  DevicePtr begin = 0;
  std::size_t bytes = 0;
  if (api.cuPointerGetAttribute(&begin, pointer_attribute_range_start, address) != success) return {};
  if (api.cuPointerGetAttribute(&bytes, pointer_attribute_range_bytes, address) != success) return {};
  return {begin, begin + bytes};
}

Range extent_of(const Plane& plane, std::uint64_t num_blocks) {
  return {plane.base, plane.base + (num_blocks - 1) * plane.block_stride_bytes + plane.chunk_bytes};
}

bool are_within_allocations(const Api& api, const DeviceLayout& layout) {
  Range allocation;
  return std::ranges::all_of(layout.planes, [&](const Plane& plane) {
    const Range extent = extent_of(plane, layout.num_blocks);
    if (!allocation.holds(extent)) allocation = allocation_of(api, plane.base);
    return allocation.holds(extent);
  });
}

std::uint64_t plane_pitch(const Api& api, const DeviceLayout& layout) {
  const auto& planes = layout.planes;
  if (planes.size() < 2 || planes[1].base <= planes[0].base) return 0;
  const std::uint64_t pitch = planes[1].base - planes[0].base;
  if (pitch < planes[0].chunk_bytes || pitch > most_pitch_bytes) return 0;
  for (std::size_t i = 1; i < planes.size(); ++i) {
    const bool is_next = planes[i].base == planes[i - 1].base + pitch &&
                         planes[i].chunk_bytes == planes[0].chunk_bytes &&
                         planes[i].block_stride_bytes == planes[0].block_stride_bytes;
    if (!is_next) return 0;
  }
  const Range all = {planes.front().base, extent_of(planes.back(), layout.num_blocks).end};
  return allocation_of(api, all.begin).holds(all) ? pitch : 0;
}

// FNV-1a, in hexadecimal.
std::string digest(const std::string& text) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  std::array<char, 17> hex{};
  (void)std::snprintf(hex.data(), hex.size(), "%016llx", static_cast<unsigned long long>(hash));
  return hex.data();
}

// Empty when the blocks of each plane touch.
std::string strides_of(const DeviceLayout& layout) {
  std::string strides;
  for (const Plane& plane : layout.planes) {
    const bool is_dense = plane.block_stride_bytes == plane.chunk_bytes;
    const std::string stride = is_dense ? "-s0" : "-s" + std::to_string(plane.block_stride_bytes);
    if (!strides.ends_with(stride)) strides += stride;
  }
  if (strides == "-s0") return "";
  return strides.size() <= most_name_chars / 2 ? strides : "-s..." + digest(strides);
}

}  // namespace

BlockMap::BlockMap(const GpuDevice& device, DeviceLayout layout_in, const BlockMap* like)
    : layout(std::move(layout_in)),
      table(unit_table(layout)),
      word_bytes(like == nullptr ? table.word_bytes : std::min(like->word_bytes, table.word_bytes)),
      slot_bytes(layout.slot_bytes()),
      chunks_are_within_allocations((like == nullptr || like->chunks_are_within_allocations) &&
                                    are_within_allocations(device.api(), layout)),
      plane_pitch_bytes(like != nullptr && like->plane_pitch_bytes == 0 ? 0 : plane_pitch(device.api(), layout)),
      device_table(device, table.units.size() * sizeof(Unit), "the layout's table") {
  upload(device, table.units, device_table.address());
}

SlotPart BlockMap::part(std::uint32_t first_unit, std::uint32_t num_units) const {
  const Unit& first = table.units.at(first_unit);
  const Unit& last = table.units.at(first_unit + num_units - 1);
  return {first_unit, num_units, first.offset, std::uint64_t{last.offset} + last.bytes - first.offset};
}

std::vector<SlotPart> BlockMap::pieces(const SlotPart& part, std::uint64_t most_bytes) const {
  std::vector<SlotPart> pieces;
  const std::uint32_t end = part.first_unit + part.num_units;
  for (std::uint32_t first = part.first_unit; first < end;) {
    const std::uint64_t limit = table.units[first].offset + most_bytes;
    std::uint32_t next = first + 1;
    while (next < end && std::uint64_t{table.units[next].offset} + table.units[next].bytes <= limit) ++next;
    pieces.push_back(this->part(first, next - first));
    first = next;
  }
  return pieces;
}

std::string BlockMap::layout_class() const {
  std::string name;
  for (std::size_t begin = 0; begin < layout.planes.size();) {
    const std::uint64_t chunk = layout.planes[begin].chunk_bytes;
    std::size_t end = begin;
    while (end < layout.planes.size() && layout.planes[end].chunk_bytes == chunk) ++end;
    name += (name.empty() ? "" : "+") + std::to_string(end - begin) + "x" + std::to_string(chunk);
    begin = end;
  }
  if (name.size() > most_name_chars) name = name.substr(0, most_name_chars) + "...-" + digest(name);
  name += "-w" + std::to_string(word_bytes);
  if (plane_pitch_bytes != 0) name += "-regular" + std::to_string(std::gcd(plane_pitch_bytes, page_bytes));
  name += strides_of(layout);
  if (!chunks_are_within_allocations) name += "-split";
  return name;
}

}  // namespace flexkv::cuda
