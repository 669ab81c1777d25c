#include "cuda/layer_parts.h"

#include <algorithm>

#include "cuda/host_runs.h"

namespace flexkv::cuda {
namespace {

// Measured with rows of a slot as 2-D copies (H100, 2 MiB slots): 256 KiB in runs of 16 slots come to 0.96 of one long
// copy, of 4 to 0.87; 512 KiB one by one to 0.77, in runs of 4 to 0.93.
constexpr std::uint64_t part_bytes_in_runs = std::uint64_t{256} << 10;
constexpr std::uint64_t part_bytes_apart = std::uint64_t{512} << 10;
constexpr std::size_t blocks_of_a_run = 8;
constexpr std::uint64_t least_bytes_of_all = std::uint64_t{8} << 20;  // of a part, over all blocks: 0.15 ms of the link

std::uint64_t least_part_bytes(std::span<const std::int64_t> slots, std::int64_t slots_per_piece) {
  std::size_t num_runs = 0;
  for (std::size_t i = 0; i < slots.size(); ++num_runs) i = end_of_run(slots, i, slots_per_piece);
  const bool has_runs = slots.size() >= num_runs * blocks_of_a_run;
  return std::max(has_runs ? part_bytes_in_runs : part_bytes_apart, least_bytes_of_all / slots.size());
}

}  // namespace

std::vector<SlotPart> layer_parts(const BlockMap& map, std::span<const std::int64_t> slots,
                                  std::int64_t slots_per_piece) {
  const std::vector<Unit>& units = map.table.units;
  std::vector<SlotPart> parts;
  std::size_t first = 0;
  for (const std::uint64_t end : part_ends(map.layout, least_part_bytes(slots, slots_per_piece))) {
    // The first unit that begins at the end or beyond it: the one before may reach over it.
    const auto after = std::ranges::lower_bound(units, end, {}, &Unit::offset);
    const auto next = static_cast<std::size_t>(after - units.begin());
    if (next == first) continue;  // the unit before held this end as well
    parts.push_back(map.part(static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(next - first)));
    first = next;
  }
  return parts;
}

}  // namespace flexkv::cuda
