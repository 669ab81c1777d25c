// AgentRig: a copy agent over its own device memory and a fake engine's pool, and what its tests do with them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "tests/check.h"
#include "tests/fake_engine.h"
#include "tests/temp_dir.h"
#include "transfer/copy_agent.h"

namespace flexkv {

using Bytes = std::vector<std::byte>;
using Ids = std::vector<std::int64_t>;

inline constexpr std::int64_t num_blocks = 32;
inline constexpr std::int64_t num_slots = 48;
inline constexpr std::uint64_t chunk_bytes = 1500;
inline constexpr std::uint64_t num_planes = 4;
inline constexpr std::uint64_t slot_bytes = num_planes * chunk_bytes;
inline constexpr std::uint64_t stride_bytes = 8192;
inline constexpr double stop_s = 20.0;

inline void fill_random(std::span<std::byte> bytes) {
  static std::mt19937_64 generator{7};
  for (std::byte& b : bytes) b = static_cast<std::byte>(generator());
}

// An agent over its own device memory, and the place where it looks for the engine.
struct AgentRig {
  TempDir dir;
  std::string path = dir.file("engine.sock");
  Bytes memory = Bytes(num_planes * num_blocks * chunk_bytes);
  DeviceLayout layout;
  FakePool pool{num_slots, stride_bytes};
  std::unique_ptr<CopyAgent> agent;

  AgentRig();

  [[nodiscard]] Bytes block(std::int64_t block) const;
  [[nodiscard]] Bytes slot(std::int64_t slot) const { return {pool.slot(slot), pool.slot(slot) + slot_bytes}; }
  [[nodiscard]] Bytes pool_bytes() const { return {pool.bytes().begin(), pool.bytes().end()}; }
};

// A frame whose answer shows that everything sent before it has been read.
inline void barrier(FakeEngine& engine) {
  engine.send_op(999'999, protocol::Direction::load, {num_slots}, {0});
  engine.expect_ack(999'999, protocol::AckStatus::failed);
}

inline void stores_then_loads(AgentRig& rig, FakeEngine& engine, std::uint64_t first_op_id) {
  const Ids blocks{3, 31, 0, 7, 8, 9};
  const Ids slots{47, 0, 12, 13, 14, 40};
  const Bytes pool_before = rig.pool_bytes();
  Bytes expected_pool = pool_before;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const Bytes block = rig.block(blocks[i]);
    std::memcpy(expected_pool.data() + static_cast<std::uint64_t>(slots[i]) * stride_bytes, block.data(), slot_bytes);
  }
  engine.send_op(first_op_id, protocol::Direction::store, slots, blocks);
  CHECK(engine.expect_ack(first_op_id, protocol::AckStatus::done).bytes == slots.size() * slot_bytes);
  CHECK(rig.pool_bytes() == expected_pool);

  const Bytes stored = rig.memory;
  fill_random(rig.memory);  // poison: only the loaded blocks may come back
  Bytes poisoned = rig.memory;
  engine.send_op(first_op_id + 1, protocol::Direction::load, slots, blocks);
  CHECK(engine.expect_ack(first_op_id + 1, protocol::AckStatus::done).bytes == slots.size() * slot_bytes);
  for (const std::int64_t block : blocks) {
    for (std::uint64_t p = 0; p < num_planes; ++p) {
      const std::uint64_t at = (p * num_blocks + static_cast<std::uint64_t>(block)) * chunk_bytes;
      std::memcpy(poisoned.data() + at, stored.data() + at, chunk_bytes);
    }
  }
  CHECK(rig.memory == poisoned);
  CHECK(rig.pool_bytes() == expected_pool);
}

}  // namespace flexkv
