// The carry-less multiplication paths. Eight registers are folded side by side, each over what the other seven hold, so
// that the multiplier is always busy; at the end they are folded into one of 16 bytes, and the tables take that and the
// tail. Wide registers hold 16-byte lanes that fold over the same distance.
#include "storage/crc64_paths.h"

#ifdef __x86_64__
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // false, in GCC 12's own header: gcc.gnu.org/PR105593
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#define FLEXKV_CLMUL __attribute__((target("pclmul,sse4.1")))
#define FLEXKV_CLMUL_INLINE __attribute__((target("pclmul,sse4.1"), always_inline)) inline
#define FLEXKV_CLMUL_256 __attribute__((target("vpclmulqdq,avx2,pclmul")))
#define FLEXKV_CLMUL_256_INLINE __attribute__((target("vpclmulqdq,avx2,pclmul"), always_inline)) inline
#define FLEXKV_CLMUL_512 __attribute__((target("vpclmulqdq,avx512f,avx2,pclmul")))
#define FLEXKV_CLMUL_512_INLINE __attribute__((target("vpclmulqdq,avx512f,avx2,pclmul"), always_inline)) inline

namespace flexkv::crc64_detail {
namespace {

constexpr std::size_t num_registers = 8;
constexpr std::size_t prefetch_bytes = 2048;  // ahead of the hardware's own, measured

template <unsigned distance_bits>
constexpr FoldBy fold_constants = fold_by(distance_bits);

template <unsigned distance_bits>
FLEXKV_CLMUL_INLINE __m128i constants_128() {
  constexpr FoldBy by = fold_constants<distance_bits>;
  return _mm_set_epi64x(static_cast<long long>(by.high), static_cast<long long>(by.low));
}

FLEXKV_CLMUL_INLINE __m128i load_128(const std::byte* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}

FLEXKV_CLMUL_INLINE __m128i fold_128(__m128i a, __m128i by, __m128i next) {
  return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(a, by, 0x00), _mm_clmulepi64_si128(a, by, 0x11)), next);
}

// Folds the rest of `data` into `a`, 16 bytes at a time; the tables end it.
FLEXKV_CLMUL std::uint64_t finish(__m128i a, std::span<const std::byte> data) {
  const __m128i by = constants_128<128>();
  for (; data.size() >= 16; data = data.subspan(16)) a = fold_128(a, by, load_128(data.data()));
  std::array<std::byte, 16> folded;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(folded.data()), a);
  return update_portable(update_portable(0, folded), data);
}

FLEXKV_CLMUL_256_INLINE __m256i load_256(const std::byte* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}

FLEXKV_CLMUL_256_INLINE __m256i fold_256(__m256i a, __m256i by, __m256i next) {
  const __m256i low = _mm256_clmulepi64_epi128(a, by, 0x00);
  return _mm256_xor_si256(_mm256_xor_si256(low, _mm256_clmulepi64_epi128(a, by, 0x11)), next);
}

FLEXKV_CLMUL_512_INLINE __m512i load_512(const std::byte* from) { return _mm512_loadu_si512(from); }

FLEXKV_CLMUL_512_INLINE __m512i fold_512(__m512i a, __m512i by, __m512i next) {
  const __m512i low = _mm512_clmulepi64_epi128(a, by, 0x00);
  return _mm512_ternarylogic_epi64(low, _mm512_clmulepi64_epi128(a, by, 0x11), next, 0x96);  // XOR of all three
}

}  // namespace

FLEXKV_CLMUL std::uint64_t update_pclmul(std::uint64_t state, std::span<const std::byte> data) {
  constexpr std::size_t stride = num_registers * 16;
  if (data.size() < 16) return update_portable(state, data);
  const __m128i start = _mm_set_epi64x(0, static_cast<long long>(state));
  if (data.size() < stride) return finish(_mm_xor_si128(load_128(data.data()), start), data.subspan(16));
  __m128i a[num_registers];
  for (std::size_t i = 0; i < num_registers; ++i) a[i] = load_128(data.data() + i * 16);
  a[0] = _mm_xor_si128(a[0], start);
  data = data.subspan(stride);
  const __m128i by = constants_128<stride * 8>();
  for (; data.size() >= stride; data = data.subspan(stride)) {
    const std::byte* const from = data.data();
#pragma GCC unroll 8
    for (std::size_t i = 0; i < num_registers; ++i) a[i] = fold_128(a[i], by, load_128(from + i * 16));
  }
  const __m128i by_one = constants_128<128>();
  for (std::size_t i = 1; i < num_registers; ++i) a[i] = fold_128(a[i - 1], by_one, a[i]);
  return finish(a[num_registers - 1], data);
}

FLEXKV_CLMUL_256 std::uint64_t update_vpclmul_256(std::uint64_t state, std::span<const std::byte> data) {
  constexpr std::size_t stride = num_registers * 32;
  if (data.size() < stride) return update_pclmul(state, data);
  __m256i a[num_registers];
  for (std::size_t i = 0; i < num_registers; ++i) a[i] = load_256(data.data() + i * 32);
  a[0] = _mm256_xor_si256(a[0], _mm256_set_epi64x(0, 0, 0, static_cast<long long>(state)));
  data = data.subspan(stride);
  const __m256i by = _mm256_broadcastsi128_si256(constants_128<stride * 8>());
  for (; data.size() >= stride; data = data.subspan(stride)) {
    const std::byte* const from = data.data();
#pragma GCC unroll 8
    for (std::size_t i = 0; i < num_registers; ++i) {
      if (i % 2 == 0) _mm_prefetch(from + prefetch_bytes + i * 32, _MM_HINT_T0);
      a[i] = fold_256(a[i], by, load_256(from + i * 32));
    }
  }
  const __m256i by_one = _mm256_broadcastsi128_si256(constants_128<256>());
  for (std::size_t i = 1; i < num_registers; ++i) a[i] = fold_256(a[i - 1], by_one, a[i]);
  const __m256i last = a[num_registers - 1];
  const __m128i folded =
      fold_128(_mm256_castsi256_si128(last), constants_128<128>(), _mm256_extracti128_si256(last, 1));
  _mm256_zeroupper();
  return finish(folded, data);
}

FLEXKV_CLMUL_512 std::uint64_t update_vpclmul_512(std::uint64_t state, std::span<const std::byte> data) {
  constexpr std::size_t stride = num_registers * 64;
  if (data.size() < stride) return update_vpclmul_256(state, data);
  __m512i a[num_registers];
  for (std::size_t i = 0; i < num_registers; ++i) a[i] = load_512(data.data() + i * 64);
  a[0] = _mm512_xor_si512(a[0], _mm512_set_epi64(0, 0, 0, 0, 0, 0, 0, static_cast<long long>(state)));
  data = data.subspan(stride);
  const __m512i by = _mm512_broadcast_i32x4(constants_128<stride * 8>());
  for (; data.size() >= stride; data = data.subspan(stride)) {
    const std::byte* const from = data.data();
#pragma GCC unroll 8
    for (std::size_t i = 0; i < num_registers; ++i) {
      _mm_prefetch(from + prefetch_bytes + i * 64, _MM_HINT_T0);
      a[i] = fold_512(a[i], by, load_512(from + i * 64));
    }
  }
  const __m512i by_one = _mm512_broadcast_i32x4(constants_128<512>());
  for (std::size_t i = 1; i < num_registers; ++i) a[i] = fold_512(a[i - 1], by_one, a[i]);
  const __m512i last = a[num_registers - 1];
  const __m128i by_lane = constants_128<128>();
  __m128i folded = fold_128(_mm512_castsi512_si128(last), by_lane, _mm512_extracti32x4_epi32(last, 1));
  folded = fold_128(folded, by_lane, _mm512_extracti32x4_epi32(last, 2));
  folded = fold_128(folded, by_lane, _mm512_extracti32x4_epi32(last, 3));
  _mm256_zeroupper();
  return finish(folded, data);
}

ClmulSupport clmul_support() {
  ClmulSupport has;
  has.pclmul = __builtin_cpu_supports("pclmul") != 0 && __builtin_cpu_supports("sse4.1") != 0;
  has.vpclmul_256 = has.pclmul && __builtin_cpu_supports("vpclmulqdq") != 0 && __builtin_cpu_supports("avx2") != 0;
  has.vpclmul_512 = has.vpclmul_256 && __builtin_cpu_supports("avx512f") != 0;
  return has;
}

}  // namespace flexkv::crc64_detail

#else

namespace flexkv::crc64_detail {
ClmulSupport clmul_support() { return {}; }
std::uint64_t update_pclmul(std::uint64_t state, std::span<const std::byte> data) {
  return update_portable(state, data);
}
std::uint64_t update_vpclmul_256(std::uint64_t state, std::span<const std::byte> data) {
  return update_portable(state, data);
}
std::uint64_t update_vpclmul_512(std::uint64_t state, std::span<const std::byte> data) {
  return update_portable(state, data);
}
}  // namespace flexkv::crc64_detail

#endif
