// crc64: the specification's numbers, a bit-by-bit model, and all implementations of this CPU against each other.
#include <array>
#include <cstdio>
#include <cstring>
#include <random>
#include <string_view>
#include <vector>

#include "storage/crc64.h"
#include "storage/crc64_paths.h"
#include "tests/check.h"

using namespace flexkv;

namespace {

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

std::vector<std::byte> random_bytes(std::size_t size, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

// As the specification draws it: one bit after the other, most significant coefficient first, then reflected.
std::uint64_t model(std::span<const std::byte> data) {
  constexpr std::uint64_t polynomial = 0xad93d23594c93659;
  const auto reflect = [](std::uint64_t value) {
    std::uint64_t reflected = 0;
    for (int i = 0; i < 64; ++i) reflected |= (value >> i & 1) << (63 - i);
    return reflected;
  };
  std::uint64_t value = ~std::uint64_t{0};
  for (const std::byte byte : data) {
    for (int bit = 0; bit < 8; ++bit) {
      const std::uint64_t in = std::to_integer<std::uint64_t>(byte) >> bit & 1;
      const bool subtract = (value >> 63 ^ in) != 0;
      value = value << 1 ^ (subtract ? polynomial : 0);
    }
  }
  return ~reflect(value);
}

void the_check_values_are_those_of_the_specification() {
  CHECK(crc64(bytes_of("123456789")) == 0xae8b14860a799888);
  CHECK(crc64({}) == 0);
  std::vector<std::byte> page(4096);
  CHECK(crc64(page) == 0x6482d367eb22b64e);
  page.assign(4096, std::byte{0xff});
  CHECK(crc64(page) == 0xc0ddba7302eca3ac);
}

void every_implementation_agrees_with_the_model() {
  const std::vector<std::byte> data = random_bytes(5000, 1);
  std::mt19937_64 random(2);
  std::vector<std::size_t> sizes = {0, 1, 7, 8, 15, 16, 17, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1023, 1024};
  for (int i = 0; i < 300; ++i) sizes.push_back(random() % 4900);
  for (const std::size_t size : sizes) {
    const auto piece = std::span(data).subspan(random() % 64, size);
    const std::uint64_t expected = model(piece);
    CHECK(crc64(piece) == expected);
    for (const auto& implementation : crc64_detail::implementations()) {
      if (implementation.is_available) CHECK(~implementation.update(~std::uint64_t{0}, piece) == expected);
    }
  }
}

void pieces_go_on_where_others_stopped_in_any_implementation() {
  const std::vector<std::byte> data = random_bytes(1 << 20, 3);
  std::mt19937_64 random(4);
  for (int round = 0; round < 300; ++round) {
    const std::size_t offset = random() % 4096;
    const std::size_t size = random() % (round % 10 == 0 ? data.size() - offset : 9000);
    const auto whole = std::span(data).subspan(offset, size);
    const std::uint64_t expected = ~crc64_detail::update_portable(~std::uint64_t{0}, whole);
    const std::size_t split = size == 0 ? 0 : random() % size;
    CHECK(crc64(whole.subspan(split), crc64(whole.first(split))) == expected);
    for (const auto& first : crc64_detail::implementations()) {
      for (const auto& second : crc64_detail::implementations()) {
        if (!first.is_available || !second.is_available) continue;
        const std::uint64_t state = first.update(~std::uint64_t{0}, whole.first(split));
        CHECK(~second.update(state, whole.subspan(split)) == expected);
      }
    }
  }
}

void a_flipped_bit_changes_it() {
  std::vector<std::byte> data = random_bytes(3000, 5);
  const std::uint64_t before = crc64(data);
  for (std::size_t bit = 0; bit < data.size() * 8; bit += 7) {
    data[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
    CHECK(crc64(data) != before);
    data[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
  }
  CHECK(crc64(data) == before);
}

void the_fastest_available_implementation_is_taken() {
  for (const auto& implementation : crc64_detail::implementations()) {
    std::printf("  %s: %s\n", implementation.name, implementation.is_available ? "tested" : "not on this CPU");
  }
  for (const auto& implementation : crc64_detail::implementations()) {
    if (!implementation.is_available) continue;
    CHECK(std::string_view(crc64_implementation()) == implementation.name);
    return;
  }
  CHECK(false);
}

}  // namespace

int main() {
  the_check_values_are_those_of_the_specification();
  every_implementation_agrees_with_the_model();
  pieces_go_on_where_others_stopped_in_any_implementation();
  a_flipped_bit_changes_it();
  the_fastest_available_implementation_is_taken();
  std::puts("test_crc64: ok");
}
