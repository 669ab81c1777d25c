// Private to cache/hash: the implementations behind the block keys, and what they share. All give the same bytes.
// Written from FIPS 180-4; the SHA-NI one also from Intel's description of the instructions.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "cache/hash.h"

namespace flexkv::sha256_detail {

inline constexpr std::size_t part_bytes = 64;     // one compression takes this much of the message
inline constexpr std::size_t part_tokens = 16;    // as u32
inline constexpr std::size_t max_mix_width = 39;  // root, hash, 0x80 and the length fill one part

inline constexpr std::array<std::uint32_t, 8> initial_state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                                               0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

alignas(64) inline constexpr std::array<std::uint32_t, 64> round_constants = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

// REQUIRES for both `hash_token_blocks`: tokens in [0, 2^32); tokens_per_block a power of two;
// tokens.size() >= keys.size() * tokens_per_block.
// REQUIRES for both `mix`: 1 <= width <= max_mix_width; hashes.size() == keys.size().
namespace portable {
[[nodiscard]] std::array<std::uint8_t, 32> sha256(std::span<const std::uint8_t> data);
void hash_token_blocks(std::span<const std::int64_t> tokens, std::size_t tokens_per_block, const BlockKey& parent,
                       std::span<BlockKey> keys);
void mix(std::span<const std::uint8_t* const> hashes, std::size_t width, const BlockKey& root,
         std::span<BlockKey> keys);
}  // namespace portable

namespace sha_ni {
[[nodiscard]] bool available();  // compiled in, and this CPU has it
// REQUIRES: available().
void hash_token_blocks(std::span<const std::int64_t> tokens, std::size_t tokens_per_block, const BlockKey& parent,
                       std::span<BlockKey> keys);
void mix(std::span<const std::uint8_t* const> hashes, std::size_t width, const BlockKey& root,
         std::span<BlockKey> keys);
}  // namespace sha_ni

inline constexpr std::size_t mix_batch = 16;
inline constexpr std::size_t mix_batch_width = 32;
namespace avx512 {
[[nodiscard]] bool available();
// Of hashes of mix_batch_width bytes. REQUIRES: available(); hashes.size() == keys.size(), a multiple of mix_batch.
void mix(std::span<const std::uint8_t* const> hashes, const BlockKey& root, std::span<BlockKey> keys);
}  // namespace avx512

}  // namespace flexkv::sha256_detail
