// BitTree: a set of small integers with an ordered search, as a bitmap under summary levels (64 children per bit).
//
//   level 0   1 bit per member
//   level 1   1 bit per word of level 0: set when the word is not 0
//   ...       until one word is left
//
// insert, erase, contains: O(1) amortised (a summary bit changes only with the first or last bit of its word);
// find_from: O(levels) = O(log64 size). Thread safety: none.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace flexkv {

class BitTree {
 public:
  static constexpr std::size_t npos = ~std::size_t{0};

  explicit BitTree(std::size_t size) {
    std::size_t words = size;
    do {
      words = (words + 63) / 64;
      levels_.emplace_back(words, 0);
    } while (words > 1);
  }

  [[nodiscard]] bool contains(std::size_t i) const { return (levels_[0][i / 64] >> (i % 64) & 1) != 0; }

  void insert(std::size_t i) {
    for (auto& level : levels_) {
      std::uint64_t& word = level[i / 64];
      const bool was_empty = word == 0;
      word |= std::uint64_t{1} << (i % 64);
      if (!was_empty) return;
      i /= 64;
    }
  }

  void erase(std::size_t i) {
    for (auto& level : levels_) {
      std::uint64_t& word = level[i / 64];
      word &= ~(std::uint64_t{1} << (i % 64));
      if (word != 0) return;
      i /= 64;
    }
  }

  // Smallest member >= i; npos when there is none.
  [[nodiscard]] std::size_t find_from(std::size_t i) const {
    for (std::size_t up = 0; up < levels_.size(); ++up) {
      if (i / 64 >= levels_[up].size()) return npos;
      const std::uint64_t rest = levels_[up][i / 64] >> (i % 64) << (i % 64);
      if (rest != 0) return descend(up, i / 64 * 64 + static_cast<std::size_t>(std::countr_zero(rest)));
      i = i / 64 + 1;
    }
    return npos;
  }

  // Throws nothing, changes nothing: true when every summary bit says what is below it.
  [[nodiscard]] bool consistent() const {
    for (std::size_t up = 0; up + 1 < levels_.size(); ++up) {
      for (std::size_t word = 0; word < levels_[up].size(); ++word) {
        const bool summary = (levels_[up + 1][word / 64] >> (word % 64) & 1) != 0;
        if (summary != (levels_[up][word] != 0)) return false;
      }
    }
    return true;
  }

 private:
  [[nodiscard]] std::size_t descend(std::size_t level, std::size_t i) const {
    for (; level > 0; --level) i = i * 64 + static_cast<std::size_t>(std::countr_zero(levels_[level - 1][i]));
    return i;
  }

  std::vector<std::vector<std::uint64_t>> levels_;
};

}  // namespace flexkv
