// Runs a fuzz target without libFuzzer: the inputs of a folder, then random mutations of them, for a few seconds.
//
//   replay_TARGET FOLDER [SECONDS [SEED]]      replay_TARGET FILE
//
// The seed is printed. The input that is being run lies in ./replay_TARGET.input and is removed at a good end.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

#include "fuzz/fuzz_target.h"
#include "tests/check.h"

namespace {

using Input = std::vector<std::uint8_t>;
namespace fs = std::filesystem;

constexpr std::size_t max_input_bytes = 600;

std::vector<Input> read_inputs(const fs::path& place) {
  std::vector<fs::path> files;
  if (fs::is_directory(place)) {
    for (const fs::directory_entry& entry : fs::directory_iterator(place)) files.push_back(entry.path());
  } else {
    files.push_back(place);
  }
  std::ranges::sort(files);
  std::vector<Input> inputs;
  for (const fs::path& file : files) {
    std::ifstream stream(file, std::ios::binary);
    CHECK(stream.good());
    inputs.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
  }
  CHECK(!inputs.empty());
  return inputs;
}

// One to eight changes: a byte, a bit, a piece cut out, doubled, or taken from another input; or all bytes new.
Input mutated(const std::vector<Input>& inputs, std::mt19937_64& random) {
  const auto below = [&random](std::size_t bound) { return static_cast<std::size_t>(random() % bound); };
  Input input = inputs[below(inputs.size())];
  if (below(8) == 0) {
    input.resize(1 + below(max_input_bytes));
    std::ranges::generate(input, [&random] { return static_cast<std::uint8_t>(random()); });
  }
  for (std::size_t changes = 1 + below(8); changes > 0; --changes) {
    if (input.empty()) input.push_back(0);
    const auto at = input.begin() + static_cast<std::ptrdiff_t>(below(input.size()));
    const auto end = at + static_cast<std::ptrdiff_t>(
                              below(std::min<std::size_t>(32, static_cast<std::size_t>(input.end() - at)) + 1));
    const Input piece(at, end);
    const Input& other = inputs[below(inputs.size())];
    switch (below(5)) {
      case 0:
        *at = static_cast<std::uint8_t>(random());
        break;
      case 1:
        *at = static_cast<std::uint8_t>(*at ^ 1u << below(8));
        break;
      case 2:
        input.erase(at, end);
        break;
      case 3:
        input.insert(at, piece.begin(), piece.end());
        break;
      default:
        input.insert(at, other.begin(), other.begin() + static_cast<std::ptrdiff_t>(below(other.size() + 1)));
    }
  }
  input.resize(std::min(input.size(), max_input_bytes));
  return input;
}

void run(const Input& input, const std::string& kept) {
  std::ofstream(kept, std::ios::binary).write(reinterpret_cast<const char*>(input.data()), std::ssize(input));
  (void)LLVMFuzzerTestOneInput(input.data(), input.size());
}

}  // namespace

int main(int argc, char** argv) {
  CHECK(argc >= 2);
  const double seconds = argc > 2 ? std::strtod(argv[2], nullptr) : 0;
  const std::uint64_t seed = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : std::random_device()();
  const std::string kept = fs::path(argv[0]).filename().string() + ".input";
  const std::vector<Input> inputs = read_inputs(argv[1]);
  std::printf("%zu inputs, then mutations of seed %llu; one that fails is in %s\n", inputs.size(),
              static_cast<unsigned long long>(seed), fs::absolute(kept).c_str());
  std::fflush(stdout);
  for (const Input& input : inputs) run(input, kept);
  std::mt19937_64 random(seed);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  std::size_t num_mutations = 0;
  for (; std::chrono::steady_clock::now() < end; ++num_mutations) run(mutated(inputs, random), kept);
  fs::remove(kept);
  std::printf("%zu mutations ran\n", num_mutations);
  return 0;
}
