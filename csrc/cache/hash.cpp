// Block keys: checks the arguments and picks the implementation (sha256.h).
#include "cache/hash.h"

#include <algorithm>
#include <array>
#include <bit>
#include <stdexcept>
#include <string>

#include "cache/sha256.h"

namespace flexkv {
namespace {

std::size_t first_out_of_range(std::span<const std::int64_t> tokens) {
  constexpr std::size_t stride_tokens = 512;
  for (std::size_t at = 0; at < tokens.size(); at += stride_tokens) {
    const auto part = tokens.subspan(at, std::min(stride_tokens, tokens.size() - at));
    std::uint64_t high_bits = 0;
    for (const std::int64_t token : part) high_bits |= static_cast<std::uint64_t>(token) >> 32;
    if (high_bits == 0) continue;
    const auto bad = std::ranges::find_if(part, [](std::int64_t token) { return token >> 32 != 0; });
    return at + static_cast<std::size_t>(bad - part.begin());
  }
  return tokens.size();
}

}  // namespace

std::array<std::uint8_t, 32> sha256(std::span<const std::uint8_t> data) {
  return sha256_detail::portable::sha256(data);
}

std::size_t hash_token_blocks(std::span<const std::int64_t> tokens, std::size_t tokens_per_block,
                              const BlockKey& parent, std::span<BlockKey> keys) {
  if (!std::has_single_bit(tokens_per_block)) {
    throw std::invalid_argument("tokens_per_block must be a power of two, got " + std::to_string(tokens_per_block));
  }
  if (keys.size() != tokens.size() / tokens_per_block) {
    throw std::invalid_argument("keys must have one entry for each whole block of tokens");
  }
  const std::size_t bad = first_out_of_range(tokens);
  if (bad != tokens.size()) return bad;
  if (sha256_detail::sha_ni::available()) {
    sha256_detail::sha_ni::hash_token_blocks(tokens, tokens_per_block, parent, keys);
  } else {
    sha256_detail::portable::hash_token_blocks(tokens, tokens_per_block, parent, keys);
  }
  return tokens.size();
}

void mix_engine_hashes(std::span<const std::uint8_t* const> hashes, std::size_t width, const BlockKey& root,
                       std::span<BlockKey> keys) {
  if (width == 0 || width > sha256_detail::max_mix_width) {
    throw std::invalid_argument("hashes must be 1 to 39 bytes wide, got " + std::to_string(width));
  }
  if (hashes.size() != keys.size()) throw std::invalid_argument("keys must have one entry for each engine hash");
  if (width == sha256_detail::mix_batch_width && sha256_detail::avx512::available()) {
    const std::size_t batched = keys.size() - keys.size() % sha256_detail::mix_batch;
    sha256_detail::avx512::mix(hashes.first(batched), root, keys.first(batched));
    hashes = hashes.subspan(batched);
    keys = keys.subspan(batched);
  }
  if (sha256_detail::sha_ni::available()) {
    sha256_detail::sha_ni::mix(hashes, width, root, keys);
  } else {
    sha256_detail::portable::mix(hashes, width, root, keys);
  }
}

void mix_engine_hashes(std::span<const std::uint8_t> hashes, std::size_t width, const BlockKey& root,
                       std::span<BlockKey> keys) {
  if (hashes.size() != keys.size() * width) throw std::invalid_argument("hashes must hold one hash for each key");
  std::array<const std::uint8_t*, 256> rows;
  for (std::size_t at = 0; at < keys.size(); at += rows.size()) {
    const std::size_t count = std::min(rows.size(), keys.size() - at);
    for (std::size_t i = 0; i < count; ++i) rows[i] = hashes.data() + (at + i) * width;
    mix_engine_hashes(std::span<const std::uint8_t* const>(rows).first(count), width, root, keys.subspan(at, count));
  }
}

bool hash_uses_sha_ni() { return sha256_detail::sha_ni::available(); }

}  // namespace flexkv
