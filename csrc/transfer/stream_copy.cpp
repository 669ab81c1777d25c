#include "transfer/stream_copy.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace flexkv {
namespace {

void plain_copy(std::byte* dst, const std::byte* src, std::size_t bytes, const std::byte* /*next*/) {
  std::memcpy(dst, src, bytes);
}

#if defined(__x86_64__)

constexpr std::size_t min_stream_bytes = 256;  // below, two partial lines cost more than the caches gain
constexpr std::size_t line_bytes = 64;
constexpr std::size_t turn_bytes = 8 * line_bytes;
constexpr std::size_t prefetch_bytes = 8192;

// What is copied when the range is `at` bytes further: of this range, or of the next one.
class Prefetcher {
 public:
  Prefetcher(const std::byte* src, std::size_t bytes, const std::byte* next)
      : src_(reinterpret_cast<std::uintptr_t>(src)),
        bytes_(bytes),
        next_(reinterpret_cast<std::uintptr_t>(next)),
        distance_(std::min(bytes, prefetch_bytes)) {}

  // Prefetches a turn. Addresses may lie beyond either range: a prefetch never faults.
  [[gnu::always_inline]] inline void turn(std::size_t at) const {
    const std::size_t ahead = at + distance_;
    const std::uintptr_t address = ahead < bytes_ ? src_ + ahead : next_ + (ahead - bytes_);
    for (std::size_t line = 0; line < turn_bytes; line += line_bytes) {
      _mm_prefetch(reinterpret_cast<const char*>(address + line), _MM_HINT_T0);
    }
  }

 private:
  std::uintptr_t src_;
  std::size_t bytes_;
  std::uintptr_t next_;
  std::size_t distance_;
};

// Copies up to the first whole line of dst; a streamed store must be aligned and fill its line.
std::size_t copy_head(std::byte* dst, const std::byte* src) {
  const std::size_t head = (line_bytes - (reinterpret_cast<std::uintptr_t>(dst) & (line_bytes - 1))) & (line_bytes - 1);
  std::memcpy(dst, src, head);
  return head;
}

__attribute__((target("avx512f"))) void copy_avx512(std::byte* dst, const std::byte* src, std::size_t bytes,
                                                    const std::byte* next) {
  if (bytes < min_stream_bytes) return plain_copy(dst, src, bytes, next);
  const Prefetcher prefetch(src, bytes, next);
  std::size_t at = copy_head(dst, src);
  for (; at + turn_bytes <= bytes; at += turn_bytes) {
    prefetch.turn(at);
    for (std::size_t step = 0; step < turn_bytes; step += 2 * line_bytes) {
      const __m512i a = _mm512_loadu_si512(src + at + step);
      const __m512i b = _mm512_loadu_si512(src + at + step + line_bytes);
      _mm512_stream_si512(reinterpret_cast<__m512i*>(dst + at + step), a);
      _mm512_stream_si512(reinterpret_cast<__m512i*>(dst + at + step + line_bytes), b);
    }
  }
  for (; at + line_bytes <= bytes; at += line_bytes) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(dst + at), _mm512_loadu_si512(src + at));
  }
  std::memcpy(dst + at, src + at, bytes - at);
}

__attribute__((target("avx2"), always_inline)) inline void copy_line_avx2(std::byte* dst, const std::byte* src) {
  const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(src));
  const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(src) + 1);
  _mm256_stream_si256(reinterpret_cast<__m256i*>(dst), a);
  _mm256_stream_si256(reinterpret_cast<__m256i*>(dst) + 1, b);
}

__attribute__((target("avx2"))) void copy_avx2(std::byte* dst, const std::byte* src, std::size_t bytes,
                                               const std::byte* next) {
  if (bytes < min_stream_bytes) return plain_copy(dst, src, bytes, next);
  const Prefetcher prefetch(src, bytes, next);
  std::size_t at = copy_head(dst, src);
  for (; at + turn_bytes <= bytes; at += turn_bytes) {
    prefetch.turn(at);
    for (std::size_t line = 0; line < turn_bytes; line += line_bytes) {
      copy_line_avx2(dst + at + line, src + at + line);
    }
  }
  for (; at + line_bytes <= bytes; at += line_bytes) copy_line_avx2(dst + at, src + at);
  std::memcpy(dst + at, src + at, bytes - at);
}

[[gnu::always_inline]] inline void copy_line_sse2(std::byte* dst, const std::byte* src) {
  const __m128i* from = reinterpret_cast<const __m128i*>(src);
  __m128i* to = reinterpret_cast<__m128i*>(dst);
  const __m128i a = _mm_loadu_si128(from);
  const __m128i b = _mm_loadu_si128(from + 1);
  const __m128i c = _mm_loadu_si128(from + 2);
  const __m128i d = _mm_loadu_si128(from + 3);
  _mm_stream_si128(to, a);
  _mm_stream_si128(to + 1, b);
  _mm_stream_si128(to + 2, c);
  _mm_stream_si128(to + 3, d);
}

void copy_sse2(std::byte* dst, const std::byte* src, std::size_t bytes, const std::byte* next) {
  if (bytes < min_stream_bytes) return plain_copy(dst, src, bytes, next);
  const Prefetcher prefetch(src, bytes, next);
  std::size_t at = copy_head(dst, src);
  for (; at + turn_bytes <= bytes; at += turn_bytes) {
    prefetch.turn(at);
    for (std::size_t line = 0; line < turn_bytes; line += line_bytes) {
      copy_line_sse2(dst + at + line, src + at + line);
    }
  }
  for (; at + line_bytes <= bytes; at += line_bytes) copy_line_sse2(dst + at, src + at);
  std::memcpy(dst + at, src + at, bytes - at);
}

#endif

}  // namespace

std::size_t stream_copies(StreamCopy (&out)[4]) {
  std::size_t count = 0;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) out[count++] = copy_avx512;
  if (__builtin_cpu_supports("avx2")) out[count++] = copy_avx2;
  out[count++] = copy_sse2;
#endif
  out[count++] = plain_copy;
  return count;
}

StreamCopy stream_copy() {
  StreamCopy copies[4] = {};
  (void)stream_copies(copies);
  return copies[0];
}

void stream_fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

}  // namespace flexkv
