// Block keys: 128-bit truncated SHA-256, chained, so that an equal key means an equal prefix (docs/adr/0001).
//
//   key[i] = SHA-256( tokens of block i as u32 LE  ||  key[i-1] )[0:16]       key[-1] = root
//
// The tokens come first on purpose: every 64-byte part of a message that holds only tokens is compressed independently
// of the chain (two lanes interleaved), so that only the last compression of a block waits for its parent.
// The root binds fingerprint, namespace, group and block size; flexkv/common/hash_utils.py defines it byte by byte.
//
// Pure functions, thread-safe, no allocation. SHA-NI (and AVX-512 for mix) are used where the CPU has them, chosen at
// run time; the portable path gives the same bytes.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace flexkv {

struct BlockKey {
  std::uint64_t lo = 0;  // bytes 0..7 of the key, as they lie in memory
  std::uint64_t hi = 0;  // bytes 8..15
  friend bool operator==(const BlockKey&, const BlockKey&) = default;
};
static_assert(sizeof(BlockKey) == 16);

// SHA-256 of `data` (FIPS 180-4). For tests and small inputs.
[[nodiscard]] std::array<std::uint8_t, 32> sha256(std::span<const std::uint8_t> data);

// Chained keys of the whole blocks of `tokens`; a partial tail is ignored.
// Returns the index of the first token outside [0, 2^32), with no key written, or tokens.size() when all keys were.
// The partial tail is checked too. Throws std::invalid_argument unless tokens_per_block is a power of two and
// keys.size() == tokens.size() / tokens_per_block.
[[nodiscard]] std::size_t hash_token_blocks(std::span<const std::int64_t> tokens, std::size_t tokens_per_block,
                                            const BlockKey& parent, std::span<BlockKey> keys);

// key = SHA-256( root || engine_hash )[0:16] for engine hashes of `width` bytes each (1..39 bytes: one compression).
// Throws std::invalid_argument on another width, or unless there is one hash for each key.
void mix_engine_hashes(std::span<const std::uint8_t> hashes, std::size_t width, const BlockKey& root,
                       std::span<BlockKey> keys);  // one after the other
void mix_engine_hashes(std::span<const std::uint8_t* const> hashes, std::size_t width, const BlockKey& root,
                       std::span<BlockKey> keys);  // each where it lies

// True when the SHA-NI path is in use.
[[nodiscard]] bool hash_uses_sha_ni();

}  // namespace flexkv
