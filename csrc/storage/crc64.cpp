// The choice among the implementations, and the portable one: eight table look-ups for eight bytes.
#include "storage/crc64.h"

#include <algorithm>
#include <bit>

#include "storage/crc64_paths.h"

namespace flexkv {
namespace crc64_detail {
namespace {

static_assert(std::endian::native == std::endian::little, "words of data are read as they lie in memory");

using Table = std::array<std::uint64_t, 256>;

// tables[n][b]: what byte b adds to the state when n more bytes follow it.
constexpr std::array<Table, 8> make_tables() {
  std::array<Table, 8> tables{};
  for (std::size_t byte = 0; byte < 256; ++byte) {
    std::uint64_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = times_x(value);
    tables[0][byte] = value;
  }
  for (std::size_t n = 1; n < 8; ++n) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const std::uint64_t before = tables[n - 1][byte];
      tables[n][byte] = (before >> 8) ^ tables[0][before & 0xff];
    }
  }
  return tables;
}
constexpr std::array<Table, 8> tables = make_tables();

const Implementation& fastest() {
  static const Implementation& chosen = *std::ranges::find_if(implementations(), &Implementation::is_available);
  return chosen;
}

}  // namespace

std::uint64_t update_portable(std::uint64_t state, std::span<const std::byte> data) {
  while (data.size() >= 8) {
    const std::uint64_t word = state ^ load_word(data.data());
    state = 0;
    for (unsigned i = 0; i < 8; ++i) state ^= tables[7 - i][word >> (8 * i) & 0xff];
    data = data.subspan(8);
  }
  for (const std::byte byte : data) state = (state >> 8) ^ tables[0][(state ^ std::to_integer<unsigned>(byte)) & 0xff];
  return state;
}

const std::array<Implementation, 4>& implementations() {
  static const std::array<Implementation, 4> all = [] {
    const ClmulSupport has = clmul_support();
    return std::array<Implementation, 4>{{{"vpclmulqdq-512", update_vpclmul_512, has.vpclmul_512},
                                          {"vpclmulqdq-256", update_vpclmul_256, has.vpclmul_256},
                                          {"pclmulqdq", update_pclmul, has.pclmul},
                                          {"portable", update_portable, true}}};
  }();
  return all;
}

}  // namespace crc64_detail

std::uint64_t crc64(std::span<const std::byte> data, std::uint64_t previous) {
  return ~crc64_detail::fastest().update(~previous, data);
}

const char* crc64_implementation() { return crc64_detail::fastest().name; }

}  // namespace flexkv
