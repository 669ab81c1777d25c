// The portable path: plain FIPS 180-4, one compression after the other.
#include <algorithm>
#include <bit>
#include <cstring>

#include "cache/sha256.h"

namespace flexkv::sha256_detail::portable {
namespace {

using State = std::array<std::uint32_t, 8>;
using Part = std::array<std::uint8_t, part_bytes>;

std::uint32_t load_be32(const std::uint8_t* bytes) {
  return std::uint32_t{bytes[0]} << 24 | std::uint32_t{bytes[1]} << 16 | std::uint32_t{bytes[2]} << 8 | bytes[3];
}

void store_be(std::uint64_t value, std::size_t num_bytes, std::uint8_t* out) {
  for (std::size_t i = 0; i < num_bytes; ++i) out[i] = static_cast<std::uint8_t>(value >> (8 * (num_bytes - 1 - i)));
}

void compress(State& state, const std::uint8_t* part) {
  std::array<std::uint32_t, 64> w;
  for (std::size_t t = 0; t < 16; ++t) w[t] = load_be32(part + 4 * t);
  for (std::size_t t = 16; t < 64; ++t) {
    const std::uint32_t s0 = std::rotr(w[t - 15], 7) ^ std::rotr(w[t - 15], 18) ^ (w[t - 15] >> 3);
    const std::uint32_t s1 = std::rotr(w[t - 2], 17) ^ std::rotr(w[t - 2], 19) ^ (w[t - 2] >> 10);
    w[t] = s1 + w[t - 7] + s0 + w[t - 16];
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (std::size_t t = 0; t < 64; ++t) {
    const std::uint32_t big_s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
    const std::uint32_t t1 = h + big_s1 + ((e & f) ^ (~e & g)) + round_constants[t] + w[t];
    const std::uint32_t big_s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    const std::uint32_t t2 = big_s0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g;
    g = f;
    f = e;
    e = d + t1;
    d = c;
    c = b;
    b = a;
    a = t1 + t2;
  }
  const State working = {a, b, c, d, e, f, g, h};
  for (std::size_t i = 0; i < 8; ++i) state[i] += working[i];
}

// Compresses the last bytes of a message of `total_bytes` with its padding. REQUIRES: tail shorter than one part.
void finish(State& state, std::span<const std::uint8_t> tail, std::size_t total_bytes) {
  Part part{};
  std::ranges::copy(tail, part.begin());
  part[tail.size()] = 0x80;
  if (tail.size() >= part_bytes - 8) {  // no room for the length: it goes into a part of its own
    compress(state, part.data());
    part.fill(0);
  }
  store_be(std::uint64_t{total_bytes} * 8, 8, part.data() + part_bytes - 8);
  compress(state, part.data());
}

BlockKey truncate(const State& state) {
  std::array<std::uint8_t, sizeof(BlockKey)> bytes;
  for (std::size_t i = 0; i < 4; ++i) store_be(state[i], 4, bytes.data() + 4 * i);
  return std::bit_cast<BlockKey>(bytes);
}

void store_token(std::int64_t token, std::uint8_t* out) {  // u32, little-endian
  for (std::size_t i = 0; i < 4; ++i) out[i] = static_cast<std::uint8_t>(token >> (8 * i));
}

}  // namespace

std::array<std::uint8_t, 32> sha256(std::span<const std::uint8_t> data) {
  State state = initial_state;
  const std::size_t whole = data.size() - data.size() % part_bytes;
  for (std::size_t at = 0; at < whole; at += part_bytes) compress(state, data.data() + at);
  finish(state, data.subspan(whole), data.size());
  std::array<std::uint8_t, 32> digest;
  for (std::size_t i = 0; i < 8; ++i) store_be(state[i], 4, digest.data() + 4 * i);
  return digest;
}

void hash_token_blocks(std::span<const std::int64_t> tokens, std::size_t tokens_per_block, const BlockKey& parent,
                       std::span<BlockKey> keys) {
  const std::size_t whole_tokens = tokens_per_block - tokens_per_block % part_tokens;
  const std::size_t tail_tokens = tokens_per_block - whole_tokens;
  const std::size_t message_bytes = 4 * tokens_per_block + sizeof(BlockKey);
  BlockKey previous = parent;
  Part part;
  for (std::size_t block = 0; block < keys.size(); ++block) {
    const std::int64_t* token = tokens.data() + block * tokens_per_block;
    State state = initial_state;
    for (std::size_t at = 0; at < whole_tokens; at += part_tokens) {
      for (std::size_t i = 0; i < part_tokens; ++i) store_token(token[at + i], part.data() + 4 * i);
      compress(state, part.data());
    }
    for (std::size_t i = 0; i < tail_tokens; ++i) store_token(token[whole_tokens + i], part.data() + 4 * i);
    std::memcpy(part.data() + 4 * tail_tokens, &previous, sizeof(previous));
    finish(state, std::span(part).first(4 * tail_tokens + sizeof(previous)), message_bytes);
    previous = keys[block] = truncate(state);
  }
}

void mix(std::span<const std::uint8_t* const> hashes, std::size_t width, const BlockKey& root,
         std::span<BlockKey> keys) {
  Part part;
  std::memcpy(part.data(), &root, sizeof(root));
  const auto message = std::span(part).first(sizeof(root) + width);
  for (std::size_t i = 0; i < keys.size(); ++i) {
    std::memcpy(part.data() + sizeof(root), hashes[i], width);
    State state = initial_state;
    finish(state, message, message.size());
    keys[i] = truncate(state);
  }
}

}  // namespace flexkv::sha256_detail::portable
