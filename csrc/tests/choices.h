// Choices: where a random history takes its decisions from: a generator with a seed, or the bytes of a fuzzer's input.
#pragma once
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <utility>
#include <vector>

namespace flexkv {

class Choices {
 public:
  explicit Choices(std::uint64_t seed) : random_(seed), random_only_(true) {}
  // The bytes outlive the object.
  explicit Choices(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}

  // 0 .. bound-1; 0 when the bytes are used up. REQUIRES: bound > 0.
  std::uint64_t below(std::uint64_t bound) {
    if (random_only_) return random_() % bound;
    std::uint64_t value = 0;
    for (std::uint64_t reach = 1; reach < bound; reach <<= 8) {
      value = value << 8 | next_byte();
      if (reach > (std::uint64_t{1} << 55)) break;
    }
    return value % bound;
  }
  bool one_in(std::uint64_t n) { return below(n) == 0; }

  // Only a history made of bytes ends by itself.
  [[nodiscard]] bool over() const { return !random_only_ && at_ == bytes_.size(); }

  template <typename T>
  void shuffle(std::vector<T>& values) {
    for (std::size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[below(i)]);
  }

 private:
  std::uint8_t next_byte() { return at_ < bytes_.size() ? bytes_[at_++] : std::uint8_t{0}; }

  std::mt19937_64 random_;
  bool random_only_ = false;
  std::span<const std::uint8_t> bytes_;
  std::size_t at_ = 0;
};

}  // namespace flexkv
