#include "transfer/stream_copy.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#ifdef __x86_64__
#include <emmintrin.h>
#endif

namespace flexkv {
namespace {

constexpr std::size_t turn_bytes = 8 * line_bytes;

#ifdef __x86_64__

constexpr std::size_t min_stream_bytes = 256;  // below, two partial lines cost more than the caches gain
constexpr std::size_t prefetch_bytes = 8192;

void copy_line(std::byte* dst, const std::byte* src) {
  const auto* from = reinterpret_cast<const __m128i*>(src);
  auto* to = reinterpret_cast<__m128i*>(dst);
  const __m128i a = _mm_loadu_si128(from);
  const __m128i b = _mm_loadu_si128(from + 1);
  const __m128i c = _mm_loadu_si128(from + 2);
  const __m128i d = _mm_loadu_si128(from + 3);
  _mm_stream_si128(to, a);
  _mm_stream_si128(to + 1, b);
  _mm_stream_si128(to + 2, c);
  _mm_stream_si128(to + 3, d);
}

void prefetch_turn(std::uintptr_t address) {
  for (std::size_t line = 0; line < turn_bytes; line += line_bytes) {
    _mm_prefetch(reinterpret_cast<const char*>(address + line), _MM_HINT_T0);
  }
}

#else

constexpr std::size_t min_stream_bytes = turn_bytes;
constexpr std::size_t prefetch_bytes = 0;

void copy_line(std::byte* dst, const std::byte* src) { std::memcpy(dst, src, line_bytes); }
void prefetch_turn(std::uintptr_t /*address*/) {}

#endif

// A piece on its way: its bytes up to the first whole line of dst are copied at once, since a streamed store must be
// aligned and fill its line; then turns; then what is left.
class Stream {
 public:
  explicit Stream(const StreamPiece& piece)
      : dst_(piece.dst),
        src_(piece.src),
        end_(piece.src + piece.bytes),
        next_(reinterpret_cast<std::uintptr_t>(piece.next)),
        distance_(std::min(piece.bytes, prefetch_bytes)) {
    const auto in_line = reinterpret_cast<std::uintptr_t>(dst_) % line_bytes;
    copy_plainly(piece.bytes < min_stream_bytes ? piece.bytes : (line_bytes - in_line) % line_bytes);
  }

  [[nodiscard]] std::size_t num_turns() const { return left() / turn_bytes; }

  void turn() {
    // Addresses may lie beyond the piece or the next one: a prefetch never faults.
    const std::size_t to_end = left();
    prefetch_turn(distance_ < to_end ? reinterpret_cast<std::uintptr_t>(src_) + distance_
                                     : next_ + (distance_ - to_end));
    for (std::size_t at = 0; at < turn_bytes; at += line_bytes) copy_line(dst_ + at, src_ + at);
    advance(turn_bytes);
  }

  void finish() {
    while (left() >= turn_bytes) turn();
    while (left() >= line_bytes) {
      copy_line(dst_, src_);
      advance(line_bytes);
    }
    copy_plainly(left());
  }

 private:
  [[nodiscard]] std::size_t left() const { return static_cast<std::size_t>(end_ - src_); }

  void advance(std::size_t bytes) {
    dst_ += bytes;
    src_ += bytes;
  }

  void copy_plainly(std::size_t bytes) {
    if (bytes == 0) return;
    std::memcpy(dst_, src_, bytes);
    advance(bytes);
  }

  std::byte* dst_;
  const std::byte* src_;
  const std::byte* end_;
  std::uintptr_t next_;
  std::size_t distance_;
};

}  // namespace

void stream_copy(const StreamPiece& piece) { Stream(piece).finish(); }

void stream_copy_two(const StreamPiece& a, const StreamPiece& b) {
  Stream first(a);
  Stream second(b);
  for (std::size_t turns = std::min(first.num_turns(), second.num_turns()); turns > 0; --turns) {
    first.turn();
    second.turn();
  }
  first.finish();
  second.finish();
}

void stream_fence() {
#ifdef __x86_64__
  _mm_sfence();
#endif
}

}  // namespace flexkv
