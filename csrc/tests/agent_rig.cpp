#include "tests/agent_rig.h"

#include <cstddef>
#include <cstdint>
#include <memory>

#include "tests/fake_engine.h"
#include "transfer/copy_agent.h"

namespace flexkv {

AgentRig::AgentRig() {
  layout.num_blocks = num_blocks;
  for (std::uint64_t p = 0; p < num_planes; ++p) {
    layout.planes.push_back(
        {reinterpret_cast<std::uint64_t>(memory.data()) + p * num_blocks * chunk_bytes, chunk_bytes, chunk_bytes});
  }
  fill_random(memory);
  fill_random(pool.bytes());
  AgentConfig config;
  config.socket_path = path;
  config.rank = 1;
  config.num_ranks = 3;
  config.tokens_per_block = 16;
  config.layout_tag = "test-layout";
  config.copy_threads = 2;
  agent = std::make_unique<CopyAgent>(config, layout);
}

Bytes AgentRig::block(std::int64_t block) const {
  Bytes bytes;
  for (std::uint64_t p = 0; p < num_planes; ++p) {
    const auto begin = memory.begin() +
                       static_cast<std::ptrdiff_t>((p * num_blocks + static_cast<std::uint64_t>(block)) * chunk_bytes);
    bytes.insert(bytes.end(), begin, begin + static_cast<std::ptrdiff_t>(chunk_bytes));
  }
  return bytes;
}

}  // namespace flexkv
