// Bits in an array of words: bit i is bit i % 64 of word i / 64.
#pragma once
#include <cstddef>
#include <cstdint>

namespace flexkv {

template <typename Words>
[[nodiscard]] bool test_bit(const Words& words, std::size_t i) {
  return (words[i / 64] >> (i % 64) & 1) != 0;
}

template <typename Words>
void set_bit(Words& words, std::size_t i) {
  words[i / 64] |= std::uint64_t{1} << (i % 64);
}

template <typename Words>
void clear_bit(Words& words, std::size_t i) {
  words[i / 64] &= ~(std::uint64_t{1} << (i % 64));
}

}  // namespace flexkv
