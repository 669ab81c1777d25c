// The SHA-NI path. SHA256RNDS2 has a latency of two issue slots, so one chain of rounds leaves half of the unit idle:
// wherever two compressions do not depend on each other they run in two lanes, interleaved round by round.
//
//   blocks of 16 tokens and more, parts 0..p-1 of tokens, part p = parent key and padding:
//     parts 0..p-2 of blocks j and j+1      two lanes
//     part p-1 of block j                   } two lanes: only part p waits for the chain,
//     part p   of block j-1                 } and the next block's tokens fill the other lane
//
// Word order: a 128-bit register of message holds words t..t+3, word t lowest. The state is kept as the instructions
// want it, {A,B,E,F} and {C,D,G,H}, first letter highest.
#include "cache/sha256.h"

#ifdef __x86_64__
#include <cpuid.h>
#include <immintrin.h>

#include <bit>
#include <cstring>

#define FLEXKV_SHA_NI __attribute__((target("sha,sse4.1,ssse3")))
#define FLEXKV_SHA_NI_INLINE __attribute__((target("sha,sse4.1,ssse3"), always_inline)) inline

namespace flexkv::sha256_detail::sha_ni {
namespace {

struct Lane {
  __m128i abef, cdgh;
};

struct Message {
  __m128i words[4];
};

FLEXKV_SHA_NI_INLINE Lane initial_lane() {
  const auto& h = initial_state;
  const auto set = [](std::uint32_t w3, std::uint32_t w2, std::uint32_t w1, std::uint32_t w0) {
    return std::bit_cast<__m128i>(std::array<std::uint32_t, 4>{w0, w1, w2, w3});
  };
  return {set(h[0], h[1], h[4], h[5]), set(h[2], h[3], h[6], h[7])};
}

FLEXKV_SHA_NI_INLINE __m128i load(const void* address) { return _mm_loadu_si128(static_cast<const __m128i*>(address)); }

FLEXKV_SHA_NI_INLINE __m128i swap_bytes(__m128i words) {  // of each 32-bit word
  return _mm_shuffle_epi8(words, _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203));
}

// Four tokens as message words: the low halves, byte-swapped, since the message holds them little-endian.
FLEXKV_SHA_NI_INLINE __m128i load_tokens(const std::int64_t* tokens) {
  const __m128 low = _mm_castsi128_ps(load(tokens));
  const __m128 high = _mm_castsi128_ps(load(tokens + 2));
  return swap_bytes(_mm_castps_si128(_mm_shuffle_ps(low, high, 0x88)));
}

FLEXKV_SHA_NI_INLINE Message load_token_part(const std::int64_t* tokens) {
  return {{load_tokens(tokens), load_tokens(tokens + 4), load_tokens(tokens + 8), load_tokens(tokens + 12)}};
}

// The last part of a block of 16 tokens and more: parent key (as message words), 0x80, length.
FLEXKV_SHA_NI_INLINE Message parent_part(__m128i parent, std::size_t message_bytes) {
  return {{parent, _mm_set_epi32(0, 0, 0, static_cast<int>(0x80000000u)), _mm_setzero_si128(),
           _mm_set_epi32(static_cast<int>(message_bytes * 8), 0, 0, 0)}};
}

// Rounds 4*step .. 4*step+3.
FLEXKV_SHA_NI_INLINE void four_rounds(Lane& lane, const Message& message, std::size_t step) {
  __m128i keyed = _mm_add_epi32(message.words[step % 4], load(round_constants.data() + 4 * step));
  lane.cdgh = _mm_sha256rnds2_epu32(lane.cdgh, lane.abef, keyed);
  keyed = _mm_shuffle_epi32(keyed, 0x0e);
  lane.abef = _mm_sha256rnds2_epu32(lane.abef, lane.cdgh, keyed);
}

// Replaces the words that `step` used by those that step+4 will use.
FLEXKV_SHA_NI_INLINE void schedule(Message& message, std::size_t step) {
  if (step >= 12) return;
  __m128i* const w = message.words;
  const std::size_t at = step % 4;
  const __m128i latest = w[(at + 3) % 4];
  const __m128i seven_back = _mm_alignr_epi8(latest, w[(at + 2) % 4], 4);
  w[at] = _mm_add_epi32(_mm_sha256msg1_epu32(w[at], w[(at + 1) % 4]), seven_back);
  w[at] = _mm_sha256msg2_epu32(w[at], latest);
}

FLEXKV_SHA_NI_INLINE void add(Lane& lane, const Lane& before) {
  lane.abef = _mm_add_epi32(lane.abef, before.abef);
  lane.cdgh = _mm_add_epi32(lane.cdgh, before.cdgh);
}

FLEXKV_SHA_NI_INLINE void compress(Lane& lane, Message message) {
  const Lane before = lane;
#pragma GCC unroll 16
  for (std::size_t step = 0; step < 16; ++step) {
    four_rounds(lane, message, step);
    schedule(message, step);
  }
  add(lane, before);
}

FLEXKV_SHA_NI_INLINE void compress_two(Lane& first, Message first_message, Lane& second, Message second_message) {
  const Lane first_before = first;
  const Lane second_before = second;
#pragma GCC unroll 16
  for (std::size_t step = 0; step < 16; ++step) {
    four_rounds(first, first_message, step);
    schedule(first_message, step);
    four_rounds(second, second_message, step);
    schedule(second_message, step);
  }
  add(first, first_before);
  add(second, second_before);
}

// The words A..D of the state, A lowest: the key as message words of the next block.
FLEXKV_SHA_NI_INLINE __m128i key_words(const Lane& lane) {
  return _mm_shuffle_epi32(_mm_unpackhi_epi64(lane.abef, lane.cdgh), 0xb1);
}

FLEXKV_SHA_NI_INLINE void store_key(__m128i words, BlockKey& key) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(&key), swap_bytes(words));
}

// Blocks of 8 tokens and less: tokens, parent and padding fill one part, which waits for the parent as a whole.
FLEXKV_SHA_NI void hash_small_blocks(const std::int64_t* tokens, std::size_t tokens_per_block, __m128i parent,
                                     std::span<BlockKey> keys) {
  alignas(16) std::array<std::uint32_t, 16> words{};
  words[tokens_per_block + 4] = 0x80000000u;
  words[15] = static_cast<std::uint32_t>((4 * tokens_per_block + sizeof(BlockKey)) * 8);
  for (BlockKey& key : keys) {
    for (std::size_t i = 0; i < tokens_per_block; ++i) {
      words[i] = __builtin_bswap32(static_cast<std::uint32_t>(tokens[i]));
    }
    _mm_storeu_si128(reinterpret_cast<__m128i*>(words.data() + tokens_per_block), parent);
    Lane lane = initial_lane();
    compress(lane, {{load(words.data()), load(&words[4]), load(&words[8]), load(&words[12])}});
    parent = key_words(lane);
    store_key(parent, key);
    tokens += tokens_per_block;
  }
}

FLEXKV_SHA_NI void hash_large_blocks(const std::int64_t* tokens, std::size_t tokens_per_block, __m128i parent,
                                     std::span<BlockKey> keys) {
  const std::size_t message_bytes = 4 * tokens_per_block + sizeof(BlockKey);
  const std::size_t last_part = tokens_per_block - part_tokens;  // of tokens
  Lane started[2];                                               // blocks j and j+1 without their last part of tokens
  Lane pending = initial_lane();                                 // block j-1 with all its tokens
  for (std::size_t block = 0; block < keys.size(); ++block) {
    const std::int64_t* const token = tokens + block * tokens_per_block;
    if (block % 2 == 0) {
      const std::int64_t* const next = block + 1 < keys.size() ? token + tokens_per_block : token;
      started[0] = started[1] = initial_lane();
      for (std::size_t at = 0; at < last_part; at += part_tokens) {
        compress_two(started[0], load_token_part(token + at), started[1], load_token_part(next + at));
      }
    }
    Lane& current = started[block % 2];
    const Message message = load_token_part(token + last_part);
    if (block == 0) {
      compress(current, message);
    } else {
      compress_two(pending, parent_part(parent, message_bytes), current, message);
      parent = key_words(pending);
      store_key(parent, keys[block - 1]);
    }
    pending = current;
  }
  compress(pending, parent_part(parent, message_bytes));
  store_key(key_words(pending), keys.back());
}

// The messages of `mix`: root and padding are the same in all of them, and so is the state after the root's four
// rounds.
struct MixTemplate {
  alignas(16) std::array<std::uint8_t, part_bytes> bytes{};
  std::size_t width;
  Message words;
  Lane after_root = initial_lane();

  FLEXKV_SHA_NI MixTemplate(const BlockKey& root, std::size_t hash_width) : width(hash_width) {
    std::memcpy(bytes.data(), &root, sizeof(root));
    bytes[sizeof(root) + width] = 0x80;
    const std::size_t bits = (sizeof(root) + width) * 8;
    bytes[62] = static_cast<std::uint8_t>(bits >> 8);
    bytes[63] = static_cast<std::uint8_t>(bits);
    words = message_of(bytes);
    four_rounds(after_root, words, 0);
  }

  FLEXKV_SHA_NI_INLINE static Message message_of(const std::array<std::uint8_t, part_bytes>& part) {
    const std::uint8_t* const in = part.data();
    return {{swap_bytes(load(in)), swap_bytes(load(in + 16)), swap_bytes(load(in + 32)), swap_bytes(load(in + 48))}};
  }

  FLEXKV_SHA_NI_INLINE Message message(const std::uint8_t* hash) const {
    if (width == 32) {  // the usual width: two whole registers
      return {{words.words[0], swap_bytes(load(hash)), swap_bytes(load(hash + 16)), words.words[3]}};
    }
    alignas(16) std::array<std::uint8_t, part_bytes> part = bytes;
    std::memcpy(part.data() + sizeof(BlockKey), hash, width);
    return message_of(part);
  }
};

// Keys of two engine hashes, in two lanes.
FLEXKV_SHA_NI_INLINE void mix_two(const MixTemplate& shared, const std::uint8_t* hash_a, const std::uint8_t* hash_b,
                                  BlockKey& key_a, BlockKey& key_b) {
  Message message_a = shared.message(hash_a);
  Message message_b = shared.message(hash_b);
  Lane a = shared.after_root;
  Lane b = shared.after_root;
  schedule(message_a, 0);
  schedule(message_b, 0);
#pragma GCC unroll 15
  for (std::size_t step = 1; step < 16; ++step) {
    four_rounds(a, message_a, step);
    schedule(message_a, step);
    four_rounds(b, message_b, step);
    schedule(message_b, step);
  }
  add(a, initial_lane());
  add(b, initial_lane());
  store_key(key_words(a), key_a);
  store_key(key_words(b), key_b);
}

}  // namespace

bool available() {
  static const bool has_instructions = [] {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return false;
    if ((ecx & bit_SSSE3) == 0 || (ecx & bit_SSE4_1) == 0) return false;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
    return (ebx & (1u << 29)) != 0;  // SHA
  }();
  return has_instructions;
}

// The SHA instructions have no VEX form: they keep the upper halves of the vector registers, and wait for them when an
// AVX instruction left something there (measured: 1.8 times slower on Zen 5).
namespace {
__attribute__((target("avx"))) void clean_upper_halves() { _mm256_zeroupper(); }
}  // namespace

FLEXKV_SHA_NI void hash_token_blocks(std::span<const std::int64_t> tokens, std::size_t tokens_per_block,
                                     const BlockKey& parent, std::span<BlockKey> keys) {
  if (keys.empty()) return;
  if (__builtin_cpu_supports("avx") != 0) clean_upper_halves();
  const __m128i words = swap_bytes(load(&parent));
  if (tokens_per_block < part_tokens) {
    hash_small_blocks(tokens.data(), tokens_per_block, words, keys);
  } else {
    hash_large_blocks(tokens.data(), tokens_per_block, words, keys);
  }
}

FLEXKV_SHA_NI void mix(std::span<const std::uint8_t* const> hashes, std::size_t width, const BlockKey& root,
                       std::span<BlockKey> keys) {
  if (__builtin_cpu_supports("avx") != 0) clean_upper_halves();
  const MixTemplate shared(root, width);
  const std::size_t num_paired = keys.size() - keys.size() % 2;
  for (std::size_t i = 0; i < num_paired; i += 2) mix_two(shared, hashes[i], hashes[i + 1], keys[i], keys[i + 1]);
  if (num_paired < keys.size()) {
    BlockKey twin;
    mix_two(shared, hashes.back(), hashes.back(), keys.back(), twin);
  }
}

}  // namespace flexkv::sha256_detail::sha_ni

#else

namespace flexkv::sha256_detail::sha_ni {
bool available() { return false; }
void hash_token_blocks(std::span<const std::int64_t>, std::size_t, const BlockKey&, std::span<BlockKey>) {}
void mix(std::span<const std::uint8_t* const>, std::size_t, const BlockKey&, std::span<BlockKey>) {}
}  // namespace flexkv::sha256_detail::sha_ni

#endif
