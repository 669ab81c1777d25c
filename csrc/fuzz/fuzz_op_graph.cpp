// OpGraphTable: graphs and events in any order beside a model (tests/op_graph_history.h): every op and graph completes
// exactly once, and none starts before its predecessors are done.
#include <span>

#include "fuzz/fuzz_target.h"
#include "tests/op_graph_history.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  flexkv::Choices choices(std::span(data, size));
  const auto shape = static_cast<std::uint32_t>(choices.below(192));  // in one byte
  const std::uint32_t num_segments = 1 + shape % 3;
  const std::uint32_t replicas = 1 + shape / 64;
  flexkv::OpGraphHistory(choices, num_segments * replicas, replicas).run(400);
  return 0;
}
