// DeviceLayout and CopyEngine: any layout that validates is copied as a reference does it one byte at a time, in both
// directions, and no other byte changes.
#include <cstddef>
#include <cstring>
#include <numeric>
#include <span>
#include <stdexcept>
#include <vector>

#include "fuzz/fuzz_target.h"
#include "tests/check.h"
#include "tests/choices.h"
#include "transfer/copy_engine.h"
#include "transfer/device_layout.h"

namespace flexkv {
namespace {

using Bytes = std::vector<std::byte>;
using Ids = std::vector<std::int64_t>;

// Numbers that wrap, too: validate may refuse them, but only by its exception.
void validate_anything(Choices& choices) {
  DeviceLayout layout;
  layout.num_blocks = choices.below(~std::uint64_t{0});
  for (std::uint64_t p = choices.below(3); p > 0; --p) {
    layout.planes.push_back({choices.below(~std::uint64_t{0}), choices.below(1u << 20), choices.below(1u << 20)});
  }
  try {
    layout.validate();
  } catch (const std::invalid_argument&) {
    return;
  }
  for (const Plane& plane : layout.planes) {
    CHECK(plane.base != 0 && plane.chunk_bytes > 0);
    std::uint64_t end = 0;
    CHECK(!__builtin_mul_overflow(layout.num_blocks - 1, plane.block_stride_bytes, &end));
    CHECK(!__builtin_add_overflow(end, plane.base, &end) && !__builtin_add_overflow(end, plane.chunk_bytes, &end));
  }
}

// Planes side by side or interleaved in one allocation, all inside `memory`.
DeviceLayout make_layout(Choices& choices, Bytes& memory) {
  DeviceLayout layout;
  layout.num_blocks = 1 + choices.below(12);
  const std::uint64_t num_planes = 1 + choices.below(4);
  const bool interleaved = choices.one_in(2);
  const std::uint64_t shift = choices.below(64);
  std::uint64_t at = shift;
  std::vector<std::uint64_t> chunks;
  for (std::uint64_t p = 0; p < num_planes; ++p) chunks.push_back(1 + choices.below(choices.one_in(4) ? 9000 : 700));
  const std::uint64_t gap = choices.below(3) * choices.below(40);
  const std::uint64_t all = std::accumulate(chunks.begin(), chunks.end(), std::uint64_t{0}) + gap;
  for (const std::uint64_t chunk : chunks) {
    layout.planes.push_back({at, interleaved ? all : chunk + gap, chunk});
    at += interleaved ? chunk : (chunk + gap) * layout.num_blocks;
  }
  memory.resize(shift + all * layout.num_blocks + gap * num_planes * layout.num_blocks);
  for (Plane& plane : layout.planes) plane.base += reinterpret_cast<std::uint64_t>(memory.data());
  layout.validate();
  return layout;
}

Ids distinct_ids(Choices& choices, std::int64_t range, std::size_t count) {
  Ids ids(static_cast<std::size_t>(range));
  std::iota(ids.begin(), ids.end(), 0);
  if (choices.one_in(2)) choices.shuffle(ids);  // else one long run
  ids.resize(count);
  return ids;
}

void fill(Bytes& bytes, std::uint64_t seed) {
  for (std::byte& each : bytes) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    each = static_cast<std::byte>(seed >> 56);
  }
}

void copy_and_compare(Choices& choices, CopyEngine& engine) {
  Bytes memory;
  const DeviceLayout layout = make_layout(choices, memory);
  const auto num_slots = static_cast<std::int64_t>(1 + choices.below(12));
  const std::uint64_t stride = layout.slot_bytes() + choices.below(2) * choices.below(100);
  Bytes host(static_cast<std::uint64_t>(num_slots) * stride);
  fill(memory, 1);
  fill(host, 2);
  const std::size_t count = choices.below(std::min<std::uint64_t>(layout.num_blocks, host.size() / stride) + 1);
  const Ids slots = distinct_ids(choices, num_slots, count);
  const Ids blocks = distinct_ids(choices, static_cast<std::int64_t>(layout.num_blocks), count);
  const bool load = choices.one_in(2);

  Bytes expected_memory = memory;
  Bytes expected_host = host;
  for (std::size_t i = 0; i < count; ++i) {
    std::uint64_t in_host = static_cast<std::uint64_t>(slots[i]) * stride;
    for (const Plane& plane : layout.planes) {
      const std::uint64_t in_memory = plane.base - reinterpret_cast<std::uint64_t>(memory.data()) +
                                      static_cast<std::uint64_t>(blocks[i]) * plane.block_stride_bytes;
      for (std::uint64_t byte = 0; byte < plane.chunk_bytes; ++byte, ++in_host) {
        if (load) expected_memory.at(in_memory + byte) = host.at(in_host);
        if (!load) expected_host.at(in_host) = memory.at(in_memory + byte);
      }
    }
  }
  const auto direction = load ? protocol::Direction::load : protocol::Direction::store;
  const std::uint64_t moved = engine.copy(layout, {host.data(), stride, num_slots}, direction, slots, blocks);
  CHECK(moved == count * layout.slot_bytes());
  CHECK(memory == expected_memory);
  CHECK(host == expected_host);
}

}  // namespace
}  // namespace flexkv

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static flexkv::CopyEngine engines[] = {flexkv::CopyEngine(1), flexkv::CopyEngine(3)};
  flexkv::Choices choices(std::span(data, size));
  flexkv::validate_anything(choices);
  for (int i = 0; i < 4 && !choices.over(); ++i) flexkv::copy_and_compare(choices, engines[choices.below(2)]);
  return 0;
}
