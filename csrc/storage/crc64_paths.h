// Private to crc64: its implementations, and what they share. All give the same numbers.
//
// Source: the polynomial is that of the NVM Express command set specification; folding by carry-less multiplication is
// the method of V. Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction" (Intel,
// 2009), in its reflected form. The constants are computed here, not copied.
//
// How numbers stand for polynomials over GF(2), reflected: bit i of a 64-bit word is the coefficient of x^(63-i); of 16
// bytes, read little-endian, that of x^(127-i). A `state` is the register between two pieces: the CRC without the final
// inversion.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace flexkv::crc64_detail {

inline constexpr std::uint64_t polynomial = 0x9a6c9329ac4bc9b5;  // 0xad93d23594c93659 reflected; x^64 is left out

// x * value mod P.
constexpr std::uint64_t times_x(std::uint64_t value) { return (value >> 1) ^ ((value & 1) != 0 ? polynomial : 0); }

// x^exponent mod P.
constexpr std::uint64_t power_of_x(unsigned exponent) {
  std::uint64_t value = std::uint64_t{1} << 63;
  for (unsigned i = 0; i < exponent; ++i) value = times_x(value);
  return value;
}

// Folding: what moves 16 bytes, a = low * x^64 + high, over the next `distance_bits`:
//   a * x^distance = low * x^(distance + 64) + high * x^distance   (mod P)
// A product of two reflected words comes out one bit lower, as if multiplied by x: hence the exponents are one less.
struct FoldBy {
  std::uint64_t low;
  std::uint64_t high;
};
constexpr FoldBy fold_by(unsigned distance_bits) {
  return {power_of_x(distance_bits + 63), power_of_x(distance_bits - 1)};
}

inline std::uint64_t load_word(const std::byte* from) {
  std::uint64_t word = 0;
  std::memcpy(&word, from, sizeof(word));  // little-endian, as all hosts we build for
  return word;
}

// Each takes a state and gives the next one.
using Update = std::uint64_t (*)(std::uint64_t state, std::span<const std::byte> data);
[[nodiscard]] std::uint64_t update_portable(std::uint64_t state, std::span<const std::byte> data);
// REQUIRES of these: the CPU has it, see `implementations`.
[[nodiscard]] std::uint64_t update_pclmul(std::uint64_t state, std::span<const std::byte> data);
[[nodiscard]] std::uint64_t update_vpclmul_256(std::uint64_t state, std::span<const std::byte> data);
[[nodiscard]] std::uint64_t update_vpclmul_512(std::uint64_t state, std::span<const std::byte> data);

struct Implementation {
  const char* name;
  Update update;
  bool is_available;  // compiled in, and this CPU has it
};
// Fastest first; the last one, "portable", is always available.
[[nodiscard]] const std::array<Implementation, 4>& implementations();

struct ClmulSupport {
  bool pclmul = false;
  bool vpclmul_256 = false;
  bool vpclmul_512 = false;
};
[[nodiscard]] ClmulSupport clmul_support();

}  // namespace flexkv::crc64_detail
