#include "cuda/layout_sample.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>
#include <vector>

namespace flexkv::cuda {
namespace {

// Of distances, the best first.
constexpr std::array<std::uint64_t, 4> alignments = {2u << 20, 64u << 10, 4u << 10, 512};
constexpr std::uint64_t enough_blocks = 8;  // are worth more than a better alignment
constexpr std::uint64_t least_blocks = 4;   // are worth more than true distances

// Planes whose chunks of a block lie within one stride of blocks.
struct Row {
  std::vector<std::size_t> planes;
  std::uint64_t base = 0;
  std::uint64_t stride = 0;
  std::uint64_t span = 0;  // of one block

  [[nodiscard]] std::uint64_t extent(std::uint64_t num_blocks) const { return (num_blocks - 1) * stride + span; }
};

// By address.
std::vector<Row> rows_of(const DeviceLayout& layout) {
  std::vector<std::size_t> order(layout.planes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&layout](std::size_t p) { return std::pair(layout.planes[p].base, p); });
  std::vector<Row> rows;
  for (const std::size_t p : order) {
    const Plane& plane = layout.planes[p];
    const bool goes_on = !rows.empty() && rows.back().stride == plane.block_stride_bytes &&
                         plane.base + plane.chunk_bytes <= rows.back().base + rows.back().stride;
    if (!goes_on) rows.push_back({{}, plane.base, plane.block_stride_bytes, 0});
    rows.back().planes.push_back(p);
    rows.back().span = std::max(rows.back().span, plane.base + plane.chunk_bytes - rows.back().base);
  }
  return rows;
}

// Blocks that fit with so much room beside each row but the last; 0: not one.
std::uint64_t most_that_fit(const std::vector<Row>& rows, std::uint64_t bytes, std::uint64_t room,
                            std::uint64_t most_blocks) {
  std::uint64_t fixed = room * (rows.size() - 1);
  std::uint64_t strides = 0;
  for (const Row& row : rows) {
    fixed += row.span;
    strides += row.stride;
  }
  if (fixed > bytes) return 0;
  return strides == 0 ? most_blocks : std::min(most_blocks, 1 + (bytes - fixed) / strides);
}

// The largest distance up to `most` that is the real one modulo the alignment; or that one.
std::uint64_t distance_like(std::uint64_t real, std::uint64_t least, std::uint64_t most, std::uint64_t alignment) {
  if (least <= real && real <= most) return real;
  return most - (most % alignment + alignment - real % alignment) % alignment;
}

LayoutSample placed(const DeviceLayout& layout, const std::vector<Row>& rows, const std::vector<std::uint64_t>& starts,
                    std::uint64_t num_blocks) {
  LayoutSample sample;
  sample.layout.num_blocks = num_blocks;
  sample.layout.planes = layout.planes;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (const std::size_t p : rows[r].planes) sample.layout.planes[p].base += starts[r] - rows[r].base;
    sample.bytes = std::max(sample.bytes, starts[r] + rows[r].extent(num_blocks));
  }
  return sample;
}

// All of it as it is, when so many blocks fit.
LayoutSample as_it_is(const DeviceLayout& layout, const std::vector<Row>& rows, std::uint64_t skew,
                      std::uint64_t num_blocks) {
  std::vector<std::uint64_t> starts;
  starts.reserve(rows.size());
  for (const Row& row : rows) starts.push_back(skew + row.base - rows.front().base);
  return placed(layout, rows, starts, num_blocks);
}

LayoutSample drawn_together(const DeviceLayout& layout, const std::vector<Row>& rows, std::uint64_t skew,
                            std::uint64_t bytes, std::uint64_t num_blocks, std::uint64_t alignment) {
  std::uint64_t extents = 0;
  for (const Row& row : rows) extents += row.extent(num_blocks);
  const std::uint64_t room = rows.size() == 1 ? 0 : (bytes - extents) / (rows.size() - 1);
  std::vector<std::uint64_t> starts = {skew};
  for (std::size_t r = 1; r < rows.size(); ++r) {
    const std::uint64_t least = rows[r - 1].extent(num_blocks);
    starts.push_back(starts.back() + distance_like(rows[r].base - rows[r - 1].base, least, least + room, alignment));
  }
  return placed(layout, rows, starts, num_blocks);
}

LayoutSample close_together(const DeviceLayout& layout, std::uint64_t num_blocks) {
  LayoutSample sample;
  sample.layout.num_blocks = num_blocks;
  for (const Plane& plane : layout.planes) {
    sample.layout.planes.push_back({sample.bytes, plane.chunk_bytes, plane.chunk_bytes});
    sample.bytes += plane.chunk_bytes * num_blocks;
  }
  return sample;
}

}  // namespace

LayoutSample sample_of(const DeviceLayout& layout, std::uint64_t most_bytes, std::uint64_t most_blocks) {
  const std::uint64_t most_close = std::min(most_blocks, most_bytes / layout.slot_bytes());
  if (most_close == 0) return {};
  const std::vector<Row> rows = rows_of(layout);
  const std::uint64_t skew = rows.front().base % alignments.back();
  if (skew >= most_bytes) return close_together(layout, most_close);
  const std::uint64_t bytes = most_bytes - skew;
  const std::uint64_t num_true = std::min(most_blocks, layout.num_blocks);
  LayoutSample whole = as_it_is(layout, rows, skew, num_true);
  if (whole.bytes <= most_bytes) return whole;
  for (const std::uint64_t alignment : alignments) {
    const std::uint64_t num_blocks = most_that_fit(rows, bytes, alignment, num_true);
    const bool is_last = alignment == alignments.back();
    const std::uint64_t wanted = std::min({is_last ? least_blocks : enough_blocks, most_close, num_true});
    if (num_blocks >= wanted) return drawn_together(layout, rows, skew, bytes, num_blocks, alignment);
  }
  return close_together(layout, most_close);
}

DeviceLayout moved_by(DeviceLayout layout, std::uint64_t offset) {
  for (Plane& plane : layout.planes) plane.base += offset;
  return layout;
}

}  // namespace flexkv::cuda
