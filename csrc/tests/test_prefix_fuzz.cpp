// Random histories of a PrefixIndex and its SlotPool (index_history.h).
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "tests/index_history.h"

using namespace flexkv;

// Arguments: first seed, number of seeds, steps of each (all optional).
int main(int argc, char** argv) {
  const auto argument = [&](int i, std::uint64_t otherwise) {
    return argc > i ? std::strtoull(argv[i], nullptr, 10) : otherwise;
  };
  const std::uint64_t first = argument(1, 1), seeds = argument(2, 12), steps = argument(3, 2000);
  for (std::uint64_t seed = first; seed < first + seeds; ++seed) {
    std::fprintf(stderr, "seed %llu\n", static_cast<unsigned long long>(seed));
    IndexHistory history(Choices(seed), seed % 3 == 0 ? 24 : 60, seed % 2 == 0);
    for (std::uint64_t step = 0; step < steps; ++step) history.step();
  }
}
