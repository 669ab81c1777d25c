// The AVX-512 path of mix: sixteen messages at once, a 32-bit lane each. Where one message after the other is wanted
// the SHA instructions win; sixteen independent ones take half of the time this way.
#include "cache/sha256.h"

#ifdef __x86_64__
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // false, in GCC 12's own header: gcc.gnu.org/PR105593
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <bit>

#define FLEXKV_AVX512 __attribute__((target("avx512f")))
#define FLEXKV_AVX512_INLINE __attribute__((target("avx512f"), always_inline)) inline

namespace flexkv::sha256_detail::avx512 {
namespace {

constexpr std::size_t num_lanes = mix_batch;
constexpr std::size_t row_words = 8;       // of an engine hash
constexpr std::size_t first_row_word = 4;  // after the root

using Words = __m512i[16];  // message words t..t+15 of all lanes, word t in t % 16

FLEXKV_AVX512_INLINE __m512i broadcast(std::uint32_t word) { return _mm512_set1_epi32(std::bit_cast<int>(word)); }

FLEXKV_AVX512_INLINE __m512i swap_bytes(__m512i words) {
  const __m512i odd_bytes = broadcast(0xff00ff00u);
  return _mm512_ternarylogic_epi32(odd_bytes, _mm512_rol_epi32(words, 24), _mm512_rol_epi32(words, 8), 0xca);
}

// 16 rows of 8 words to 8 registers of 16 lanes: lane i of register w is word w of row i.
FLEXKV_AVX512_INLINE void transpose_in(const std::uint8_t* const* rows, __m512i* words) {
  __m512i r[8], pairs[8], quads[8];
#pragma GCC unroll 8
  for (std::size_t i = 0; i < 8; ++i) {  // rows i and i+8
    const __m512i low = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[i])));
    r[i] = _mm512_inserti64x4(low, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[i + 8])), 1);
  }
#pragma GCC unroll 4
  for (std::size_t i = 0; i < 8; i += 2) {
    pairs[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
#pragma GCC unroll 2
  for (std::size_t i = 0; i < 8; i += 4) {
    quads[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);  // words 0 and 4 of rows i..i+3
    quads[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
    quads[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
    quads[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
  }
  const __m512i low_words = _mm512_set_epi64(13, 12, 5, 4, 9, 8, 1, 0);
  const __m512i high_words = _mm512_set_epi64(15, 14, 7, 6, 11, 10, 3, 2);
#pragma GCC unroll 4
  for (std::size_t w = 0; w < 4; ++w) {
    words[w] = swap_bytes(_mm512_permutex2var_epi64(quads[w], low_words, quads[w + 4]));
    words[w + 4] = swap_bytes(_mm512_permutex2var_epi64(quads[w], high_words, quads[w + 4]));
  }
}

FLEXKV_AVX512_INLINE __m512i xor3(__m512i a, __m512i b, __m512i c) { return _mm512_ternarylogic_epi32(a, b, c, 0x96); }

FLEXKV_AVX512_INLINE __m512i add(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }

// Round `t` on the state whose letter a lies in s[-t % 8], b after it, and so on: letters move, registers stay.
FLEXKV_AVX512_INLINE void round(__m512i* s, std::size_t t, __m512i word) {
  const auto letter = [t](std::size_t i) { return (i + 64 - t) % 8; };
  const __m512i a = s[letter(0)], b = s[letter(1)], c = s[letter(2)];
  const __m512i e = s[letter(4)], f = s[letter(5)], g = s[letter(6)];
  const __m512i big_s1 = xor3(_mm512_ror_epi32(e, 6), _mm512_ror_epi32(e, 11), _mm512_ror_epi32(e, 25));
  const __m512i big_s0 = xor3(_mm512_ror_epi32(a, 2), _mm512_ror_epi32(a, 13), _mm512_ror_epi32(a, 22));
  const __m512i chosen = _mm512_ternarylogic_epi32(e, f, g, 0xca);
  const __m512i majority = _mm512_ternarylogic_epi32(a, b, c, 0xe8);
  const __m512i keyed = add(s[letter(7)], add(word, broadcast(round_constants[t])));
  // The next round waits for e and a: what comes late, the two sums of rotations, is added last.
  const __m512i t1 = add(add(keyed, chosen), big_s1);
  s[letter(3)] = add(add(add(keyed, s[letter(3)]), chosen), big_s1);
  s[letter(7)] = add(add(t1, majority), big_s0);
}

// Replaces word t by word t+16.
FLEXKV_AVX512_INLINE void schedule(__m512i* w, std::size_t t) {
  const __m512i x = w[(t + 1) % 16], y = w[(t + 14) % 16];
  const __m512i s0 = xor3(_mm512_ror_epi32(x, 7), _mm512_ror_epi32(x, 18), _mm512_srli_epi32(x, 3));
  const __m512i s1 = xor3(_mm512_ror_epi32(y, 17), _mm512_ror_epi32(y, 19), _mm512_srli_epi32(y, 10));
  w[t % 16] = add(add(w[t % 16], s0), add(w[(t + 9) % 16], s1));
}

// Words A..D of 16 lanes to 16 keys.
FLEXKV_AVX512_INLINE void transpose_out(const __m512i* state, BlockKey* keys) {
  const __m512i ab_low = _mm512_unpacklo_epi32(state[0], state[1]), ab_high = _mm512_unpackhi_epi32(state[0], state[1]);
  const __m512i cd_low = _mm512_unpacklo_epi32(state[2], state[3]), cd_high = _mm512_unpackhi_epi32(state[2], state[3]);
  const __m512i lanes[4] = {_mm512_unpacklo_epi64(ab_low, cd_low), _mm512_unpackhi_epi64(ab_low, cd_low),
                            _mm512_unpacklo_epi64(ab_high, cd_high), _mm512_unpackhi_epi64(ab_high, cd_high)};
#pragma GCC unroll 4
  for (std::size_t i = 0; i < 4; ++i) {  // lanes i, i+4, i+8, i+12
    const __m512i four = swap_bytes(lanes[i]);
    auto* const out = reinterpret_cast<__m128i*>(keys + i);
    _mm_storeu_si128(out, _mm512_extracti32x4_epi32(four, 0));
    _mm_storeu_si128(out + 4, _mm512_extracti32x4_epi32(four, 1));
    _mm_storeu_si128(out + 8, _mm512_extracti32x4_epi32(four, 2));
    _mm_storeu_si128(out + 12, _mm512_extracti32x4_epi32(four, 3));
  }
}

FLEXKV_AVX512 void mix_sixteen(const std::uint8_t* const* rows, const std::array<std::uint32_t, 4>& root,
                               BlockKey* keys) {
  Words w;
#pragma GCC unroll 4
  for (std::size_t i = 0; i < first_row_word; ++i) w[i] = broadcast(root[i]);
  transpose_in(rows, w + first_row_word);
  w[12] = broadcast(0x80000000u);
  w[13] = w[14] = _mm512_setzero_si512();
  w[15] = broadcast((sizeof(BlockKey) + 4 * row_words) * 8);
  __m512i state[8];
#pragma GCC unroll 8
  for (std::size_t i = 0; i < 8; ++i) state[i] = broadcast(initial_state[i]);
#pragma GCC unroll 64
  for (std::size_t t = 0; t < 64; ++t) {
    round(state, t, w[t % 16]);
    if (t < 48) schedule(w, t);
  }
#pragma GCC unroll 4
  for (std::size_t i = 0; i < 4; ++i) state[i] = add(state[i], broadcast(initial_state[i]));
  transpose_out(state, keys);
}

}  // namespace

bool available() {
  static const bool has_instructions = __builtin_cpu_supports("avx512f") != 0;  // and the kernel saves the registers
  return has_instructions;
}

FLEXKV_AVX512 void mix(std::span<const std::uint8_t* const> hashes, const BlockKey& root, std::span<BlockKey> keys) {
  auto root_words = std::bit_cast<std::array<std::uint32_t, 4>>(root);
  for (std::uint32_t& word : root_words) word = __builtin_bswap32(word);
  for (std::size_t i = 0; i < keys.size(); i += num_lanes) mix_sixteen(&hashes[i], root_words, &keys[i]);
  _mm256_zeroupper();  // the compiler does not, where it optimises for size
}

}  // namespace flexkv::sha256_detail::avx512

#else

namespace flexkv::sha256_detail::avx512 {
bool available() { return false; }
void mix(std::span<const std::uint8_t* const>, const BlockKey&, std::span<BlockKey>) {}
}  // namespace flexkv::sha256_detail::avx512

#endif
