// SlotPool beside a plain vector of states (tests/slot_pool_history.h).
#include <span>

#include "fuzz/fuzz_target.h"
#include "tests/slot_pool_history.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  flexkv::Choices choices(std::span(data, size));
  flexkv::SlotPoolHistory history(choices, static_cast<std::int64_t>(1 + choices.below(700)));
  for (int step = 0; step < 200 && !choices.over(); ++step) history.step();
  return 0;
}
