// LayoutSample: a few blocks lie to each other as the layout's do, as far as the memory allows.
#include <algorithm>
#include <cstdio>
#include <utility>
#include <vector>

#include "cuda/layout_sample.h"
#include "tests/check.h"
#include "tests/choices.h"

using namespace flexkv;
using namespace flexkv::cuda;

namespace {

constexpr std::uint64_t kib = 1024;
constexpr std::uint64_t mib = 1024 * kib;
constexpr std::uint64_t address = (std::uint64_t{7} << 40) + 3 * mib + 256;

DeviceLayout rows_apart(std::uint64_t num_planes, std::uint64_t chunk, std::uint64_t stride, std::uint64_t pitch,
                        std::uint64_t num_blocks) {
  DeviceLayout layout;
  layout.num_blocks = num_blocks;
  for (std::uint64_t p = 0; p < num_planes; ++p) layout.planes.push_back({address + p * pitch, stride, chunk});
  return layout;
}

// How far each plane is behind the one before.
std::vector<std::uint64_t> distances(const DeviceLayout& layout) {
  std::vector<std::uint64_t> found;
  for (std::size_t p = 1; p < layout.planes.size(); ++p) {
    found.push_back(layout.planes[p].base - layout.planes[p - 1].base);
  }
  return found;
}

bool are_all(const std::vector<std::uint64_t>& values, std::uint64_t value) {
  return std::ranges::all_of(values, [value](std::uint64_t it) { return it == value; });
}

void what_fits_is_as_it_is() {
  const DeviceLayout layout = rows_apart(4, 2 * kib, 3 * kib, mib, 300);
  const LayoutSample sample = sample_of(layout, 4 * mib, 64);
  CHECK(sample.layout.num_blocks == 64 && are_all(distances(sample.layout), mib));
  for (const Plane& plane : sample.layout.planes) {
    CHECK(plane.chunk_bytes == 2 * kib && plane.block_stride_bytes == 3 * kib);
  }
  CHECK(sample.layout.planes[0].base == 256);  // as far behind a multiple of 512
  CHECK(sample_of(layout, 64 * mib, 1000).layout.num_blocks == 300);
}

// Llama-3-8B in one tensor: 64 planes of 32 KiB, 10,000 blocks.
void planes_too_far_apart_are_drawn_together_alike() {
  const std::uint64_t pitch = 10'001 * 32 * kib;
  const LayoutSample sample = sample_of(rows_apart(64, 32 * kib, 32 * kib, pitch, 10'001), 32 * mib, 16);
  const std::uint64_t distance = distances(sample.layout).front();
  CHECK(are_all(distances(sample.layout), distance));
  CHECK(distance % (64 * kib) == pitch % (64 * kib) && distance >= 448 * kib);  // of the 512 that there are for each
  CHECK(sample.layout.num_blocks == 14 && sample.bytes <= 32 * mib);
  const LayoutSample roomy = sample_of(rows_apart(4, 4 * kib, 4 * kib, pitch, 10'001), 32 * mib, 64);
  CHECK(distances(roomy.layout).front() % (2 * mib) == pitch % (2 * mib) && distances(roomy.layout).front() > 8 * mib);
}

void chunks_of_one_row_stay_where_they_are_to_each_other() {
  DeviceLayout layout = rows_apart(6, kib, 16 * kib, 5 * kib / 2, 5000);  // within a block
  const std::vector<std::uint64_t> within = distances(layout);
  for (std::size_t p = 3; p < 6; ++p) layout.planes[p].base += 3000 * mib - 3 * 5 * kib / 2;  // another tensor
  const LayoutSample sample = sample_of(layout, 2 * mib, 64);
  const std::vector<std::uint64_t> found = distances(sample.layout);
  CHECK(found[0] == within[0] && found[1] == within[1] && found[3] == within[3] && found[4] == within[4]);
  CHECK(sample.layout.planes[0].block_stride_bytes == 16 * kib);
  CHECK(found[2] > 512 * kib && found[2] < 2 * mib && sample.bytes <= 2 * mib);
}

void where_hardly_a_block_fits_so_chunks_lie_close_together() {
  const LayoutSample sample = sample_of(rows_apart(4, 64 * kib, mib, 500 * mib, 400), 2 * mib, 64);
  CHECK(sample.layout.num_blocks == 8 && sample.bytes == 2 * mib);
  CHECK(sample.layout.planes[1].block_stride_bytes == 64 * kib);
  const LayoutSample one = sample_of(rows_apart(1, mib, mib, 0, 400), mib, 64);
  CHECK(one.layout.num_blocks == 1 && one.bytes <= mib);
  CHECK(sample_of(rows_apart(1, mib, mib, 0, 400), mib - 1, 64).bytes == 0);
}

void whatever_the_layout_it_stays_within_its_memory_and_nothing_overlaps() {
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    Choices choices(seed);
    DeviceLayout layout;
    layout.num_blocks = 1 + choices.below(300);
    std::uint64_t base = address + choices.below(600);
    for (std::uint64_t p = 1 + choices.below(12); p > 0; --p) {
      const std::uint64_t chunk = 1 + choices.below(3000);
      const std::uint64_t stride = chunk + (choices.one_in(2) ? 0 : choices.below(3000));
      layout.planes.push_back({base, stride, chunk});
      base += layout.num_blocks * stride + (choices.one_in(2) ? 0 : choices.below(mib));
    }
    if (choices.one_in(2)) std::ranges::reverse(layout.planes);
    const std::uint64_t most_bytes = layout.slot_bytes() + choices.below(choices.one_in(2) ? 8 * kib : 2 * mib);
    const LayoutSample sample = sample_of(layout, most_bytes, 64);
    CHECK(sample.layout.num_blocks >= 1 && sample.layout.num_blocks <= 64 && sample.bytes <= most_bytes);
    std::vector<std::pair<std::uint64_t, std::uint64_t>> chunks;
    for (std::size_t p = 0; p < layout.planes.size(); ++p) {
      const Plane& plane = sample.layout.planes[p];
      CHECK(plane.chunk_bytes == layout.planes[p].chunk_bytes);
      for (std::uint64_t b = 0; b < sample.layout.num_blocks; ++b) {
        const std::uint64_t begin = plane.base + b * plane.block_stride_bytes;
        chunks.emplace_back(begin, begin + plane.chunk_bytes);
      }
    }
    std::ranges::sort(chunks);
    for (std::size_t i = 1; i < chunks.size(); ++i) CHECK(chunks[i - 1].second <= chunks[i].first);
    CHECK(chunks.back().second <= sample.bytes);
    const DeviceLayout moved = moved_by(sample.layout, 1 << 20);
    CHECK(moved.planes[0].base == sample.layout.planes[0].base + (1 << 20) &&
          distances(moved) == distances(sample.layout));
  }
}

}  // namespace

int main() {
  what_fits_is_as_it_is();
  planes_too_far_apart_are_drawn_together_alike();
  chunks_of_one_row_stay_where_they_are_to_each_other();
  where_hardly_a_block_fits_so_chunks_lie_close_together();
  whatever_the_layout_it_stays_within_its_memory_and_nothing_overlaps();
  std::puts("test_layout_sample: ok");
  return 0;
}
