// OpGraphTable: graphs and events in any order beside a model (tests/op_graph_history.h): every op and graph completes
// exactly once, and none starts before its predecessors are done.
#include <span>

#include "fuzz/fuzz_target.h"
#include "tests/op_graph_history.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  flexkv::Choices choices(std::span(data, size));
  const auto num_segments = static_cast<std::uint32_t>(1 + choices.below(3));
  const auto replicas = static_cast<std::uint32_t>(1 + choices.below(3));
  flexkv::OpGraphHistory(choices, num_segments * replicas, replicas).run(400);
  return 0;
}
