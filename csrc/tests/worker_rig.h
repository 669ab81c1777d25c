// WorkerRig: a rank's device memory, blocks of one chunk, and its real copy agent.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "transfer/copy_agent.h"

namespace flexkv {

struct WorkerRig {
  static constexpr std::int64_t num_blocks = 16;
  static constexpr std::uint64_t chunk_bytes = 5000;

  std::vector<std::byte> memory = std::vector<std::byte>(num_blocks * chunk_bytes);
  std::unique_ptr<CopyAgent> agent;

  void start(const std::string& path, std::uint32_t rank, std::uint32_t num_ranks) {
    DeviceLayout layout;
    layout.num_blocks = num_blocks;
    layout.planes = {{reinterpret_cast<std::uint64_t>(memory.data()), chunk_bytes, chunk_bytes}};
    agent = std::make_unique<CopyAgent>(AgentConfig{path, rank, num_ranks, 16, "layout", 2}, layout);
    agent->start();
  }
  void fill(std::int64_t block, unsigned char value) { std::memset(block_at(block), value, chunk_bytes); }
  [[nodiscard]] bool holds(std::int64_t block, unsigned char value) {
    const std::byte* begin = block_at(block);
    return std::all_of(begin, begin + chunk_bytes, [value](std::byte byte) { return byte == std::byte{value}; });
  }

 private:
  std::byte* block_at(std::int64_t block) { return memory.data() + static_cast<std::uint64_t>(block) * chunk_bytes; }
};

}  // namespace flexkv
