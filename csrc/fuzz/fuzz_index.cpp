// PrefixIndex, its eviction policy and its SlotPool beside a naive model (tests/index_history.h).
#include <span>

#include "fuzz/fuzz_target.h"
#include "tests/index_history.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  flexkv::Choices choices(std::span(data, size));
  const auto capacity = static_cast<std::int64_t>(1 + choices.below(64));
  const bool parents_expire = choices.one_in(2);
  flexkv::IndexHistory history(choices, capacity, parents_expire);
  for (int step = 0; step < 300 && !history.over(); ++step) history.step();
  return 0;
}
