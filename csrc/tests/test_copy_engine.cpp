// CopyEngine and DeviceLayout: every byte that should move has moved, none other has changed.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#include "tests/check.h"
#include "transfer/copy_engine.h"
#include "transfer/device_layout.h"
#include "transfer/stream_copy.h"

namespace {

using flexkv::CopyEngine;
using flexkv::DeviceLayout;
using flexkv::HostShard;
using flexkv::Plane;
using flexkv::protocol::Direction;

using Bytes = std::vector<std::byte>;
using Ids = std::vector<std::int64_t>;

std::mt19937_64& rng() {
  static std::mt19937_64 generator{20240607};
  return generator;
}

Bytes random_bytes(std::size_t size) {
  Bytes bytes(size + sizeof(std::uint64_t));
  for (std::size_t at = 0; at < size; at += sizeof(std::uint64_t)) {
    const std::uint64_t word = rng()();
    std::memcpy(bytes.data() + at, &word, sizeof(word));
  }
  bytes.resize(size);
  return bytes;
}

bool same(const Bytes& a, const Bytes& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0;
}

Ids random_ids(std::int64_t range, std::size_t count) {
  Ids ids(static_cast<std::size_t>(range));
  std::iota(ids.begin(), ids.end(), 0);
  std::shuffle(ids.begin(), ids.end(), rng());
  ids.resize(count);
  return ids;
}

std::uint64_t address(Bytes& bytes) { return reinterpret_cast<std::uint64_t>(bytes.data()); }

// Device memory with a layout over it, as an engine has it.
struct Device {
  Bytes memory;
  DeviceLayout layout;
};

// `planes` tensors of [block, chunk], each in its own place.
Device separate_planes(std::uint64_t num_blocks, std::uint64_t planes, std::uint64_t chunk, std::uint64_t gap) {
  Device device;
  device.memory = random_bytes(planes * num_blocks * (chunk + gap) + 1);
  device.layout.num_blocks = num_blocks;
  for (std::uint64_t p = 0; p < planes; ++p) {
    device.layout.planes.push_back({address(device.memory) + 1 + p * num_blocks * (chunk + gap), chunk + gap, chunk});
  }
  return device;
}

// One allocation [block, plane, chunk]: planes interleave.
Device interleaved_planes(std::uint64_t num_blocks, std::uint64_t planes, std::uint64_t chunk) {
  Device device;
  device.memory = random_bytes(planes * num_blocks * chunk);
  device.layout.num_blocks = num_blocks;
  for (std::uint64_t p = 0; p < planes; ++p) {
    device.layout.planes.push_back({address(device.memory) + p * chunk, planes * chunk, chunk});
  }
  return device;
}

// The same copy, one byte range at a time, on `host` and `device` themselves.
void reference_copy(const DeviceLayout& layout, std::byte* host, std::uint64_t stride, Direction direction,
                    const Ids& slots, const Ids& blocks) {
  for (std::size_t i = 0; i < slots.size(); ++i) {
    std::byte* at = host + static_cast<std::uint64_t>(slots[i]) * stride;
    for (const Plane& plane : layout.planes) {
      auto* chunk =
          reinterpret_cast<std::byte*>(plane.base + static_cast<std::uint64_t>(blocks[i]) * plane.block_stride_bytes);
      if (direction == Direction::load) {
        std::memcpy(chunk, at, plane.chunk_bytes);
      } else {
        std::memcpy(at, chunk, plane.chunk_bytes);
      }
      at += plane.chunk_bytes;
    }
  }
}

void check_both_directions(CopyEngine& engine, Device& device, std::uint64_t stride, std::int64_t num_slots,
                           const Ids& slots, const Ids& blocks) {
  for (const Direction direction : {Direction::store, Direction::load}) {
    Bytes host = random_bytes(static_cast<std::size_t>(num_slots) * stride);
    const Bytes host_before = host;
    const Bytes device_before = device.memory;
    reference_copy(device.layout, host.data(), stride, direction, slots, blocks);
    const Bytes host_expected = host;
    const Bytes device_expected = device.memory;
    host = host_before;
    std::copy(device_before.begin(), device_before.end(), device.memory.begin());

    const HostShard shard{host.data(), stride, num_slots};
    const std::uint64_t moved = engine.copy(device.layout, shard, direction, slots, blocks);
    CHECK(moved == slots.size() * device.layout.slot_bytes());
    CHECK(same(host, host_expected));
    CHECK(same(device.memory, device_expected));
  }
}

void moves_scattered_blocks_of_every_shape() {
  for (const int threads : {1, 3}) {
    CopyEngine engine(threads);
    for (const std::uint64_t chunk : {1u, 63u, 256u, 1000u, 9999u}) {
      const std::uint64_t num_blocks = chunk < 300 ? 100 : 23;
      const Ids slots = random_ids(31, 20);
      const Ids blocks = random_ids(static_cast<std::int64_t>(num_blocks), 20);
      Device mha = separate_planes(num_blocks, 8, chunk, 0);      // [2, B, ...] for 4 layers
      Device padded = separate_planes(num_blocks, 3, chunk, 17);  // strides longer than chunks
      Device gqa = interleaved_planes(num_blocks, 6, chunk);      // [B, 2, ...] of one allocation
      Device mla = separate_planes(num_blocks, 1, chunk, 0);      // one plane
      for (Device* device : {&mha, &padded, &gqa, &mla}) {
        device->layout.validate();
        const std::uint64_t slot_bytes = device->layout.slot_bytes();
        check_both_directions(engine, *device, slot_bytes, 31, slots, blocks);
        check_both_directions(engine, *device, slot_bytes + 29, 31, slots, blocks);
      }
    }
  }
}

void merges_runs_without_changing_bytes() {
  CopyEngine engine(2);
  Device device = separate_planes(64, 1, 70'001, 0);
  const Ids slots{3, 4, 5, 6, 10, 11, 30, 31, 32, 33, 34, 35, 0, 63, 62};
  const Ids blocks{0, 1, 2, 3, 4, 20, 50, 51, 52, 54, 55, 56, 63, 7, 6};
  check_both_directions(engine, device, 70'001, 64, slots, blocks);
  check_both_directions(engine, device, 73'728, 64, slots, blocks);
}

void shares_large_calls_among_threads() {
  CopyEngine engine(3);
  Device device = separate_planes(30, 4, 100'003, 5);
  for (int round = 0; round < 3; ++round) {
    check_both_directions(engine, device, device.layout.slot_bytes(), 30, random_ids(30, 25), random_ids(30, 25));
  }
}

void moves_nothing_for_no_ids() {
  CopyEngine engine(2);
  Device device = separate_planes(2, 1, 64, 0);
  check_both_directions(engine, device, 64, 2, {}, {});
}

void streams_copy_any_alignment() {
  for (const std::size_t size : {0u, 1u, 255u, 256u, 300u, 511u, 512u, 1023u, 5000u}) {
    for (std::size_t shift = 0; shift < 66; shift += 5) {
      const Bytes src = random_bytes(2 * size + 128);
      const std::size_t other_size = (size * 3 + shift) % (size + 1);  // two pieces need not be of one length
      const std::size_t other_at = size + shift + 64;
      Bytes expected = random_bytes(2 * size + 256);
      Bytes one = expected;
      Bytes two = expected;
      std::memcpy(expected.data() + shift, src.data() + (shift * 3) % 128, size);
      flexkv::stream_copy({one.data() + shift, src.data() + (shift * 3) % 128, size, src.data()});
      flexkv::stream_fence();
      CHECK(one == expected);
      std::memcpy(expected.data() + other_at, src.data() + size, other_size);
      const flexkv::StreamPiece first{two.data() + shift, src.data() + (shift * 3) % 128, size, src.data()};
      const flexkv::StreamPiece second{two.data() + other_at, src.data() + size, other_size, src.data()};
      flexkv::stream_copy_two(shift % 2 == 0 ? first : second, shift % 2 == 0 ? second : first);
      flexkv::stream_fence();
      CHECK(two == expected);
    }
  }
  const Bytes src = random_bytes(777);
  Bytes dst(777);
  flexkv::copy_nontemporal(dst.data(), src.data(), 777);
  CHECK(dst == src);
}

void rejects_bad_thread_counts() {
  CHECK_THROWS(CopyEngine(0), std::invalid_argument);
  CHECK_THROWS(CopyEngine(-3), std::invalid_argument);
  CHECK_THROWS(CopyEngine(CopyEngine::max_threads + 1), std::invalid_argument);
}

void rejects_layouts_that_cannot_be() {
  const auto validate = [](std::uint64_t num_blocks, std::vector<Plane> planes) {
    DeviceLayout{num_blocks, std::move(planes)}.validate();
  };
  validate(1, {{4096, 0, 64}});
  validate(8, {{4096, 64, 64}});
  CHECK_THROWS(validate(0, {{4096, 64, 64}}), std::invalid_argument);
  CHECK_THROWS(validate(8, {}), std::invalid_argument);
  CHECK_THROWS(validate(8, {{0, 64, 64}}), std::invalid_argument);
  CHECK_THROWS(validate(8, {{4096, 64, 0}}), std::invalid_argument);
  CHECK_THROWS(validate(8, {{4096, 63, 64}}), std::invalid_argument);
  CHECK_THROWS(validate(8, {{~0ull - 100, 64, 64}}), std::invalid_argument);
  CHECK_THROWS(validate(~0ull, {{4096, 64, 64}}), std::invalid_argument);
  CHECK_THROWS(validate(1ull << 62, {{4096, 64, 64}}), std::invalid_argument);
}

void a_forked_child_copies_alone_and_leaves() {
  CopyEngine engine(3);
  Device device = separate_planes(16, 2, 300'000, 0);
  const pid_t child = ::fork();
  CHECK(child >= 0);
  if (child == 0) {
    check_both_directions(engine, device, 600'000, 16, random_ids(16, 16), random_ids(16, 16));
    engine.~CopyEngine();
    ::_exit(0);
  }
  int status = 0;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

}  // namespace

int main() {
  streams_copy_any_alignment();
  moves_scattered_blocks_of_every_shape();
  merges_runs_without_changing_bytes();
  shares_large_calls_among_threads();
  moves_nothing_for_no_ids();
  rejects_bad_thread_counts();
  rejects_layouts_that_cannot_be();
  a_forked_child_copies_alone_and_leaves();
  std::puts("test_copy_engine: ok");
  return 0;
}
